"""The files of a trained model's package, and its manifest."""

from functools import cache
from importlib import metadata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.models.formats import MODEL_FILE
from driftloop.models.package import (
    InputColumn,
    Manifest,
    OutputColumn,
    TriedCandidate,
    canonical_json,
)
from driftloop.models.samples import SAMPLES_FILE, samples_json
from driftloop.trainer import judging, losses
from driftloop.trainer.bom import BOM_FILE, bom_of
from driftloop.trainer.card.content import card_of
from driftloop.trainer.card.page import to_html
from driftloop.trainer.choosing import MIN_JUDGING_ROWS
from driftloop.trainer.evaluation.subject import rounded
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.training import Trained

REFERENCE_ROWS = 2000
HOLDOUT_ROWS = 1000
SAMPLE_ROWS = 10
IMPORTANCE_ROWS = 2000
IMPORTANCE_REPEATS = 3
IMPORTANCE_PREDICTIONS = 60_000
"""With many features on fewer rows, so that it costs the same."""


def files_of(trained: Trained) -> dict[str, bytes]:
    """Return name to content; the same for the same training."""
    spec, measured = trained.request.spec, trained.measured
    importance = permutation_importance(trained)
    manifest = manifest_of(trained)
    told = card_of(
        manifest,
        spec.description,
        spec.owner,
        importance,
        measured.report,
        measured.explanation,
    )
    files = {
        MODEL_FILE: trained.chosen.model,
        "evaluation.json": canonical_json(measured.report),
        "explanation.json": canonical_json(
            {
                "method": "permutation importance on validation",
                "unit": f"increase of {spec.metric} when a column is shuffled",
                "importance": importance,
                "shapley": measured.explanation,
            }
        ),
        SAMPLES_FILE: samples(trained),
        "reference.arrow": reference(trained),
        "holdout.arrow": holdout(trained),
        "card.json": canonical_json(told),
        "card.html": to_html(told).encode(),
        **trained.state,
    }
    bom = bom_of(manifest, told, spec.owner, files)
    return {**files, BOM_FILE: canonical_json(bom)}


def permutation_importance(trained: Trained) -> dict[str, float]:
    """Return how much worse the model is without the order of one feature.

    Source: Breiman (2001), Random Forests, section 10, doi 10.1023/A:1010933404324.
    """
    spec, chosen = trained.request.spec, trained.chosen
    rows = trained.split.validation
    bound = IMPORTANCE_PREDICTIONS // (IMPORTANCE_REPEATS * len(chosen.inputs))
    most = min(IMPORTANCE_ROWS, max(MIN_JUDGING_ROWS, bound))
    rows = rows.slice(max(0, rows.num_rows - most))
    model = chosen.loaded()

    def loss(table: pa.Table) -> float:
        found = judging.row_losses(spec, table, model.predict(table), chosen.classes)
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
        result[column.name] = rounded(float(np.mean(worse)))
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
    request, rows = trained.request, trained.learned
    if rows.num_rows > REFERENCE_ROWS:
        draw = np.random.default_rng(request.spec.train.seed)
        chosen = draw.choice(rows.num_rows, REFERENCE_ROWS, replace=False)
        rows = rows.take(pa.array(np.sort(chosen)))
    return _answered(trained, trained.chosen, rows)


def holdout(trained: Trained) -> bytes:
    """Return the newest hold-out rows with the answers that judged: not learned from.

    The columns of :func:`reference`; the monitor's first estimates rest on them.
    """
    rows = trained.split.holdout
    rows = rows.slice(max(0, rows.num_rows - HOLDOUT_ROWS))
    return _answered(trained, trained.judged, rows)


def _answered(trained: Trained, model: Fitted, rows: pa.Table) -> bytes:
    features = [column.name for column in model.inputs]
    target = trained.request.spec.data.target
    kept = rows.select(["id", "event_time", *features, target])
    found = model.loaded().predict(rows)
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
        inputs=[_with_range(column, trained.learned) for column in chosen.inputs],
        outputs=_outputs(spec.task, chosen),
        preprocessing=list(chosen.preprocessing),
        classes=list(chosen.classes),
        algorithm=chosen.name,
        parameters=chosen.parameters,
        evaluation=trained.evaluation,
        tried=[
            TriedCandidate(
                name=result.name,
                validation_loss=result.validation_loss,
                detail=result.detail,
                fold_losses=result.fold_losses,
                trial=result.trial,
                parameters=result.parameters,
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
        continued_from=champion.version if champion and trained.is_continued else None,
        job_id=request.job_id,
        cause_event_id=request.trigger.event_id,
        cause_reason=request.trigger.reason,
        request=request.model_dump_json(exclude={"searched"}),
        rows_sha256=trained.rows_sha256,
        learned_span=trained.learned_span,
        left_out=trained.left_out,
    )


def _with_range(column: InputColumn, learned: pa.Table) -> InputColumn:
    """Add the least and the greatest value learned from, as the graph reads them."""
    if column.type not in {"number", "integer"}:
        return column
    values = learned.column(column.name).drop_null().cast(pa.float64(), safe=False)
    finite = values.filter(pc.is_finite(values))
    if not len(finite):
        return column
    found = pc.min_max(finite).as_py()
    return column.model_copy(
        update={
            "least": float(np.float32(found["min"])),
            "greatest": float(np.float32(found["max"])),
        }
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
