"""The files of a trained model's package, and its manifest."""

from functools import cache
from importlib import metadata

import numpy as np
import pyarrow as pa
from driftloop.models.formats import MODEL_FILE
from driftloop.models.package import (
    Manifest,
    OutputColumn,
    TriedCandidate,
    canonical_json,
)
from driftloop.models.samples import SAMPLES_FILE, samples_json
from driftloop.trainer import losses, training
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.training import Trained

REFERENCE_ROWS = 2000
SAMPLE_ROWS = 10
IMPORTANCE_ROWS = 2000
IMPORTANCE_REPEATS = 3
DIGITS = 6
"""Significant digits of figures for people."""


def files_of(trained: Trained) -> dict[str, bytes]:
    """Return name to content; the same for the same training."""
    request = trained.request
    importance = permutation_importance(trained)
    return {
        MODEL_FILE: trained.chosen.model,
        "explanation.json": canonical_json(
            {
                "method": "permutation importance on validation",
                "unit": f"increase of {request.spec.metric} when a column is shuffled",
                "importance": importance,
            }
        ),
        SAMPLES_FILE: samples(trained),
        "reference.arrow": reference(trained),
        "card.md": card(trained, importance).encode(),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def permutation_importance(trained: Trained) -> dict[str, float]:
    """Return how much worse the model is without the order of one feature.

    Source: Breiman (2001), Random Forests, section 10, doi 10.1023/A:1010933404324.
    """
    spec, chosen = trained.request.spec, trained.chosen
    rows = trained.split.validation
    rows = rows.slice(max(0, rows.num_rows - IMPORTANCE_ROWS))
    model = chosen.loaded()

    def loss(table: pa.Table) -> float:
        found = training.row_losses(spec, table, model.predict(table), chosen.classes)
        return losses.metric_value(spec.metric, found)

    before, draw = loss(rows), np.random.default_rng(spec.train.seed)
    result = {}
    for column in chosen.inputs:
        position = rows.schema.get_field_index(column.name)
        worse = []
        for _ in range(IMPORTANCE_REPEATS):
            shuffled = rows.column(position).take(
                pa.array(draw.permutation(rows.num_rows))
            )
            field = rows.schema.field(position)
            worse.append(loss(rows.set_column(position, field, shuffled)) - before)
        result[column.name] = _rounded(float(np.mean(worse)))
    return dict(sorted(result.items(), key=lambda item: -item[1]))


def samples(trained: Trained) -> bytes:
    """Return a few hold-out rows with the answers that the model must give."""
    rows = trained.split.holdout.slice(0, SAMPLE_ROWS).combine_chunks().to_batches()[0]
    said = trained.chosen.loaded().predict(rows)
    return samples_json(rows, list(trained.chosen.inputs), said)


def reference(trained: Trained) -> bytes:
    """Return training rows with predictions: what the monitor compares with.

    Columns: ``id``, ``event_time``, the features, the target, ``prediction`` and,
    for classification, ``score`` (of the second class, or a list of all).
    """
    request, rows = trained.request, trained.split.training
    if rows.num_rows > REFERENCE_ROWS:
        draw = np.random.default_rng(request.spec.train.seed)
        chosen = draw.choice(rows.num_rows, REFERENCE_ROWS, replace=False)
        rows = rows.take(pa.array(np.sort(chosen)))
    features = [column.name for column in trained.chosen.inputs]
    kept = rows.select(["id", "event_time", *features, request.spec.data.target])
    found = trained.chosen.loaded().predict(rows)
    kept = kept.append_column("prediction", pa.array(found.prediction))
    if found.score is not None:
        kept = kept.append_column("score", pa.array(found.score.tolist()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, kept.schema) as writer:
        writer.write_table(kept.combine_chunks())
    data: bytes = sink.getvalue().to_pybytes()
    return data


def manifest_of(trained: Trained) -> Manifest:
    """Return the manifest; :func:`models.package.write_package` adds the files."""
    request, chosen = trained.request, trained.chosen
    spec, champion = request.spec, request.champion
    return Manifest(
        pipeline=spec.name,
        task=spec.task,
        target=spec.data.target,
        inputs=list(chosen.inputs),
        outputs=_outputs(spec.task, chosen),
        classes=list(chosen.classes),
        algorithm=chosen.name,
        parameters=chosen.parameters,
        evaluation=trained.evaluation,
        tried=[
            TriedCandidate(
                name=result.name,
                validation_loss=result.validation_loss,
                detail=result.detail,
            )
            for result in trained.tried
        ],
        dataset=request.dataset,
        train_span=request.train_span,
        holdout_span=request.holdout_span,
        train_row_count=chosen.row_count,
        seed=spec.train.seed,
        code_version=metadata.version("driftloop-trainer"),
        environment=list(environment_lock()),
        parent_digest=champion.package.digest if champion else None,
        job_id=request.job_id,
        cause_event_id=request.trigger.event_id,
        cause_reason=request.trigger.reason,
    )


def _outputs(task: str, chosen: Fitted) -> list[OutputColumn]:
    if task == "regression":
        return [
            OutputColumn(
                name="prediction", type="number", description="expected target"
            )
        ]
    meaning = (
        f"probability of {chosen.classes[1]!r}"
        if len(chosen.classes) == 2
        else "probability of each class"
    )
    return [
        OutputColumn(name="prediction", type="category", description="likeliest class"),
        OutputColumn(name="score", type="number", description=meaning),
    ]


@cache
def environment_lock() -> tuple[str, ...]:
    """Return ``name==version`` of everything installed, in order.

    Read once a process, before its job: it takes longer than a small training.
    """
    found = {
        f"{distribution.name.lower()}=={distribution.version}"
        for distribution in metadata.distributions()
    }
    return tuple(sorted(found))


def card(trained: Trained, importance: dict[str, float]) -> str:
    """Return the model card: what it is for, from what, how good, what to mind."""
    request, found, chosen = trained.request, trained.evaluation, trained.chosen
    spec = request.spec
    compared = found.champion_version
    other = (
        f"champion (version {compared})" if found.champion is not None else "baseline"
    )
    rows = [
        f"| candidate ({chosen.name}) | {found.candidate:.4g} |",
        f"| no-skill baseline | {found.baseline:.4g} |",
    ]
    if found.champion is not None:
        rows.insert(1, f"| champion (version {compared}) | {found.champion:.4g} |")
    difference = found.comparison
    lines = [
        f"# {spec.name}: {chosen.name}",
        "",
        f"Predicts `{spec.data.target}` ({spec.task}). {spec.description}".rstrip(),
        "",
        f"Trained because of: {request.trigger.reason} "
        f"(`{request.trigger.event_type}`).",
        "",
        "## Data",
        "",
        f"{chosen.row_count} rows from {request.train_span.start:%Y-%m-%d %H:%M} to "
        f"{request.train_span.end:%Y-%m-%d %H:%M} UTC, from dataset version "
        f"{request.dataset.observations.version}. Judged on the "
        f"{found.holdout_row_count} rows after that, until "
        f"{request.holdout_span.end:%Y-%m-%d %H:%M}, which training never saw.",
        "",
        f"## Worth ({found.metric}, lower is better)",
        "",
        "| model | loss |",
        "| --- | --- |",
        *rows,
        "",
        f"Mean loss difference to the {other}: {difference.mean_difference:.4g} "
        f"± {difference.standard_error:.4g} (standard error, for rows that resemble "
        "those before them).",
        "",
        "## Features by importance",
        "",
        *(f"- `{name}`: {value:.4g}" for name, value in importance.items()),
        "",
        "## Mind",
        "",
        "Values outside of what training saw are extrapolated without a warning; the "
        "monitor reports when inputs or errors change.",
        "",
    ]
    return "\n".join(lines)
