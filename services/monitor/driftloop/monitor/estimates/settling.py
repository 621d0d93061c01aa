"""A window's labels have landed: what was measured, beside what had been thought."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from driftloop.contracts.base import Event
from driftloop.contracts.estimates import (
    EstimatorScore,
    PerformanceSettled,
    SettledMetric,
    SliceMeasured,
)
from driftloop.contracts.events import AlertRaised, Span
from driftloop.monitor import metrics
from driftloop.monitor.estimates import kept, troubles, windows
from driftloop.monitor.estimates.arrays import Rows, row_losses
from driftloop.monitor.estimates.closing import (
    about_estimate,
    as_estimate,
    known_rows,
    outside_limits,
    past_of,
)
from driftloop.monitor.estimates.combining import Past, scored
from driftloop.monitor.estimates.experts import metrics_of
from driftloop.monitor.estimates.expressions import evaluated, needs_label
from driftloop.monitor.estimates.judging import limit_of
from driftloop.monitor.estimates.measuring import calibration, metric_of
from driftloop.monitor.estimates.slicing import (
    MAX_TOLD,
    MIN_RISE,
    Side,
    gaps,
    is_worse_alone,
    measured_slices,
)
from driftloop.monitor.estimates.windows import Realised, Window
from driftloop.monitor.turn import Turn, kinds_of

FORGET_EVERY = 8
"""Windows between two looks at which rows are no longer needed."""


def settled(turn: Turn, window: Window) -> Generator[Event, None, Window]:
    """Tell how good the version was on a window; return the window as it is stored."""
    spec, pipeline = turn.spec, turn.watch.pipeline
    table = kept.of_version(window.rows, window.version)
    if table is None:
        raise ValueError(f"window {window.number} has no labelled rows")
    rows = _rows(table)
    span = Span(start=window.start, end=window.end)
    told, realised = _metrics(window, rows, spec.metric)
    note = window.note.model_copy(update={"realised": realised})
    done = replace(window, is_settled=True, note=note)
    before, of = known_rows(turn, window.version)
    parts = _slices(turn, before, table, rows)
    rules = [rule for rule in spec.monitor.metrics if needs_label(rule)]
    business = evaluated(rules, table, window.row_count)
    past = past_of(turn, window.version)
    yield PerformanceSettled(
        pipeline=pipeline,
        version=window.version,
        window=window.number,
        span=span,
        row_count=window.row_count,
        labelled_count=table.num_rows,
        kept_count=window.kept_count,
        metrics=told,
        calibration=calibration(rows),
        slices=parts[:MAX_TOLD],
        slice_count=len(parts),
        fairness=gaps(
            table, rows, kinds_of(spec, table), spec.gate.fairness.columns, spec.metric
        ),
        business=business,
        score=_score(turn, past.get(spec.metric, []), note.estimates, realised),
    )
    if spec.metric in realised:
        loss = realised[spec.metric].value
        yield from about_estimate(turn, window.version, window.number, loss, span)
    yield from _worse(turn, window, parts, span)
    yield from outside_limits(turn, business, span)
    turn.known.clear()  # this window is one of them from now on
    numbers = [one.number for one in of if one.number > 0]
    if numbers and window.number % FORGET_EVERY == 0:
        windows.forget(turn.deps.session, pipeline, numbers[-1], window.number)
    return done


def _rows(table: pa.Table) -> Rows:
    classes = kept.classes_of(table)
    said = kept.shares_of(table, classes)
    truth = kept.truth_of(table, classes)
    return Rows(np.zeros((len(said), 0)), said, truth)  # type: ignore[arg-type]  # floats or class numbers


def _metrics(
    window: Window, rows: Rows, metric: str
) -> tuple[list[SettledMetric], dict[str, Realised]]:
    thought = {one.metric: one for one in window.note.estimates}
    told: list[SettledMetric] = []
    realised: dict[str, Realised] = {}
    for name in metrics_of(metric, rows.class_count):
        found = metric_of(name, rows)
        if found is None:
            continue
        figure, chance = found
        one = thought.get(name)
        told.append(
            SettledMetric(
                metric=name, value=figure.value, low=figure.low, high=figure.high,
                estimate=as_estimate(one) if one else None,
            )
        )  # fmt: skip
        realised[name] = Realised(value=figure.value, chance=chance)
    return told, realised


def _score(
    turn: Turn,
    past: Sequence[Past],
    estimates: Sequence[object],
    realised: dict[str, Realised],
) -> EstimatorScore:
    """Return the running score of the pipeline's metric, with this window."""
    metric = turn.spec.metric
    own = [
        Past(one, realised[metric].value, realised[metric].chance)  # type: ignore[arg-type]
        for one in estimates
        if getattr(one, "metric", None) == metric and metric in realised
    ]
    score = scored([*past, *own])
    name = turn.spec.name
    if score.mean_absolute_error is not None and score.coverage is not None:
        metrics.ESTIMATE_ERROR.labels(name, metric).set(score.mean_absolute_error)
        metrics.ESTIMATE_COVERAGE.labels(name).set(score.coverage)
    return EstimatorScore(
        window_count=score.window_count,
        mean_absolute_error=score.mean_absolute_error,
        level_error=score.level_error,
        coverage=score.coverage,
    )


def _slices(
    turn: Turn, before: Sequence[pa.Table], table: pa.Table, rows: Rows
) -> list[SliceMeasured]:
    spec = turn.spec
    now = Side(table, row_losses(spec.metric, rows))
    side = None
    if before:
        whole = pa.concat_tables(
            [one.replace_schema_metadata(None) for one in before],
            promote_options="permissive",
        ).combine_chunks()
        losses = [row_losses(spec.metric, _rows(one)) for one in before]
        side = Side(whole, np.concatenate(losses))
    wanted = spec.gate.slices
    if wanted is not None:
        wanted = [*wanted, *spec.gate.fairness.columns]
    return measured_slices(side, now, kinds_of(spec, table), wanted, spec.metric)


def _worse(
    turn: Turn, window: Window, parts: Sequence[SliceMeasured], span: Span
) -> Iterator[Event]:
    """Tell once that a slice of the version in service became worse than the others.

    It is over when it is no longer so much above what it was before that.
    """
    version, reference = window.version, turn.watch.reference
    if reference is None or reference.version != version:
        return
    for part in parts:
        name = f"slice:v{version}:{part.column}={part.group}"
        known = troubles.open_of(turn, name)
        if known is not None and known.limit is not None:
            yield from troubles.look(
                turn, known, window.number, part.value, known.limit, span.end
            )
            continue
        if not is_worse_alone(part, turn.spec.monitor.feature_alpha):
            continue
        alert = AlertRaised(
            pipeline=turn.spec.name,
            condition=name,
            severity="warning",
            title=f"Version {version} has become worse where {part.column} is "
            f"{part.group}",
            detail=f"{turn.spec.metric} {part.value:.4g} ({part.low:.4g} to "
            f"{part.high:.4g}) on {part.row_count} rows from {span.start:%Y-%m-%d} to "
            f"{span.end:%Y-%m-%d}, {part.before:.4g} before; the other rows did not "
            f"become worse as much (p {part.p_value:.2g}).",
            owner=turn.spec.owner,
            can_end=True,
        )
        limit = limit_of(part.before or 0.0, MIN_RISE)
        run = range(window.number, window.number + 1)
        yield from troubles.begin(turn, alert, run, limit)
