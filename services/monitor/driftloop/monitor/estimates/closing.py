"""A window closes: its performance is estimated, and told with what it rests on."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.base import Event
from driftloop.contracts.estimates import (
    AnswerHealth,
    Basis,
    BusinessMetric,
    LabelsAwaited,
    MetricEstimate,
    PerformanceEstimated,
    PredictionDrift,
)
from driftloop.contracts.events import AlertRaised, Span
from driftloop.models.columns import numbers
from driftloop.monitor import metrics, store
from driftloop.monitor.estimates import kept, troubles, windows
from driftloop.monitor.estimates.combining import (
    MAX_PAST,
    Combined,
    Past,
    combined,
)
from driftloop.monitor.estimates.experts import opinions
from driftloop.monitor.estimates.expressions import evaluated, needs_label
from driftloop.monitor.estimates.judging import (
    Judged,
    judge,
    limit_of,
    reason_not_to,
    reason_unlike,
)
from driftloop.monitor.estimates.windows import Note, Window
from driftloop.monitor.feature_drift import MIN_EFFECT, moved_category, moved_number
from driftloop.monitor.turn import Turn, kinds_of

KNOWN_ROWS = (1500, 3000)
"""Fewest and most labelled rows that an estimate rests on, by the window's size."""
KNOWN_WINDOWS = 8
DEGRADING_WINDOWS = 2
"""In a row, before people are told."""


def wanted_rows(window_rows: int) -> int:
    """Return on how many labelled rows an estimate rests; more would be older.

    >>> [wanted_rows(rows) for rows in (168, 300, 5000)]
    [1500, 2400, 3000]
    """
    fewest, most = KNOWN_ROWS
    return min(max(fewest, KNOWN_WINDOWS * window_rows), most)


@dataclass(frozen=True)
class Closed:
    """A window that is full.

    Attributes
    ----------
    rows : kept rows; None: their inputs are not known.
    unanswered : rows without a finite answer.
    seconds : that the scorer took.
    """

    number: int
    version: int
    span: Span
    row_count: int
    rows: pa.Table | None
    unanswered: int
    seconds: float


def estimated(
    turn: Turn, closed: Closed, labels: LabelsAwaited
) -> Generator[Event, None, Note]:
    """Tell what is thought of a window; return it for the day its labels land."""
    known = _known(turn, closed.version)
    found, judged, basis = _estimate(turn, closed, known)
    business = _business(turn, closed)
    yield PerformanceEstimated(
        pipeline=turn.watch.pipeline,
        version=closed.version,
        window=closed.number,
        span=closed.span,
        row_count=closed.row_count,
        verdict=judged.verdict,
        reason=judged.reason,
        estimates=[as_estimate(one) for one in found],
        basis=basis,
        labels=labels,
        prediction_drift=_drift(turn, closed),
        business=business,
        health=AnswerHealth(
            unanswered_count=closed.unanswered,
            seconds_a_row=closed.seconds / closed.row_count,
        ),
    )
    for one in found:
        metrics.ESTIMATE.labels(turn.spec.name, one.metric).set(one.value)
    yield from outside_limits(turn, business, closed.span)
    yield from _degrading(turn, closed, judged, found)
    return Note(verdict=judged.verdict, reason=judged.reason, estimates=found)


def as_estimate(one: Combined) -> MetricEstimate:
    """Return an estimate as it is told."""
    return MetricEstimate(
        metric=one.metric, value=one.value, low=one.low, high=one.high, level=one.level
    )


@dataclass(frozen=True)
class Known:
    """Labelled rows of a version.

    Attributes
    ----------
    tables : of one window each, newest first.
    numbers : of those windows.
    past : by metric, estimates that were settled, oldest first.
    """

    tables: Sequence[pa.Table]
    numbers: Sequence[int]
    past: dict[str, list[Past]]

    @property
    def count(self) -> int:
        return sum(table.num_rows for table in self.tables)


def known_rows(turn: Turn, version: int) -> tuple[list[pa.Table], list[Window]]:
    """Return the newest labelled rows of a version, by window, newest first."""
    if version in turn.known:
        found: tuple[list[pa.Table], list[Window]] = turn.known[version]
        return found
    tables, of = [], []
    most = wanted_rows(turn.spec.monitor.window_rows)
    for window in windows.known(turn.deps.session, turn.watch.pipeline, most):
        table = kept.of_version(window.rows, version)
        if table is not None and table.num_rows:
            tables.append(table)
            of.append(window)
    if sum(table.num_rows for table in tables) < most:
        judged = windows.holdout(turn.deps.session, turn.watch.pipeline, version)
        if judged is not None:
            tables.append(judged.rows)
            of.append(judged)
    turn.known[version] = tables, of
    return tables, of


def past_of(turn: Turn, version: int) -> dict[str, list[Past]]:
    """Return a version's settled estimates by metric, oldest first."""
    found: dict[str, list[Past]] = {}
    pipeline = turn.watch.pipeline
    for window in windows.settled(turn.deps.session, pipeline, version, MAX_PAST):
        for one in window.note.estimates:
            real = window.note.realised.get(one.metric)
            if real is not None:
                past = Past(one, real.value, real.chance)
                found.setdefault(one.metric, []).append(past)
    return found


def _known(turn: Turn, version: int) -> Known:
    if not turn.spec.monitor.estimate:
        return Known([], [], {})
    tables, of = known_rows(turn, version)
    return Known(tables, [w.number for w in of], past_of(turn, version))


def _estimate(
    turn: Turn, closed: Closed, known: Known
) -> tuple[list[Combined], Judged, Basis]:
    spec, rows = turn.spec, closed.rows
    expected = expected_of(turn, closed.version)
    basis = Basis(row_count=known.count, until=_until(known), expected=expected)
    fault = next((f.column for f in turn.watch.faults if f.is_jump), None)
    if not spec.monitor.estimate:
        why: str | None = "monitor.estimate is off"
    else:
        why = reason_not_to(known.count, 0 if rows is None else rows.num_rows, fault)
    if why is not None or rows is None:
        return [], Judged("cannot_tell", why or "the inputs are not known"), basis
    ages = _ages(known.numbers)
    mine, theirs = kept.arrays(known.tables, ages, rows, kinds_of(spec, rows))
    found = opinions(mine, theirs, spec.metric)
    basis = basis.model_copy(update={"alike_count": round(found.alike_count, 1)})
    why = reason_unlike(known.count, found.alike_count)
    if why is not None:
        return [], Judged("cannot_tell", why), basis
    told = combined(found, theirs.count, known.past)
    return told, judge(told[0], expected, spec.monitor.tolerated_rise), basis


def _ages(numbers: Sequence[int]) -> list[float]:
    """Return how many windows before the newest each is; the hold-out is the oldest.

    >>> _ages([9, 8, 5, -2])
    [0.0, 1.0, 4.0, 5.0]
    """
    own = [number for number in numbers if number > 0]
    oldest = own[0] - own[-1] + 1 if own else 0
    return [float(own[0] - n if n > 0 else oldest) for n in numbers]


def expected_of(turn: Turn, version: int) -> float | None:
    """Return the hold-out's loss of the version in service; None: it is another."""
    reference = turn.watch.reference
    if reference is None or reference.version != version or not reference.no_skill:
        return None
    return reference.level * reference.no_skill


def _until(known: Known) -> datetime | None:
    if not known.tables:
        return None
    newest: datetime = max(pc.max(table[kept.TIME]).as_py() for table in known.tables)
    return newest


def _drift(turn: Turn, closed: Closed) -> PredictionDrift | None:
    """Compare the answers with those on what the version learned from."""
    rows = closed.rows
    sample = store.load_sample(turn.deps.session, turn.watch.pipeline)
    if rows is None or sample is None or "prediction" not in sample.schema.names:
        return None
    classes = kept.classes_of(rows)
    said = kept.shares_of(rows, classes)
    if classes:
        if len(classes) == 2 and "score" in sample.schema.names:
            found = moved_number("prediction", numbers(sample["score"]), said[:, 1])
        else:
            answered = pa.array([classes[n] for n in said.argmax(axis=1)])
            found = moved_category("prediction", sample["prediction"], answered)
    else:
        found = moved_number("prediction", numbers(sample["prediction"]), said)
    if found is None:
        return None
    moved = (
        found.p_value < turn.spec.monitor.feature_alpha and found.effect >= MIN_EFFECT
    )
    return PredictionDrift(
        detector=found.detector, effect=found.effect, p_value=found.p_value,
        is_moved=moved,
    )  # fmt: skip


def _business(turn: Turn, closed: Closed) -> list[BusinessMetric]:
    rules = [rule for rule in turn.spec.monitor.metrics if not needs_label(rule)]
    if closed.rows is None or not closed.rows.num_rows:
        return []
    return evaluated(rules, closed.rows, closed.row_count)


def outside_limits(
    turn: Turn, business: Sequence[BusinessMetric], span: Span
) -> Sequence[Event]:
    """Return an alert for each metric that has left its limits, and its end."""
    told = set(turn.watch.windows.told_metrics)
    alerts: list[Event] = []
    for one in business:
        metrics.BUSINESS.labels(turn.spec.name, one.name).set(
            float("nan") if one.value is None else one.value
        )
        is_bad = not one.is_within or one.value is None
        if is_bad and one.name not in told:
            said = one.detail if one.value is None else f"{one.value:.4g}, {one.detail}"
            alerts.append(
                AlertRaised(
                    pipeline=turn.spec.name,
                    condition=f"metric:{one.name}",
                    severity="warning",
                    title=f"{one.name} is outside of its limits"
                    if one.value is not None
                    else f"{one.name} cannot be computed",
                    detail=f"{said}, in rows from {span.start:%Y-%m-%d} to "
                    f"{span.end:%Y-%m-%d}.",
                    owner=turn.spec.owner,
                    can_end=True,
                )
            )
        elif not is_bad and one.name in told:
            alerts.append(
                AlertResolved(
                    pipeline=turn.spec.name,
                    condition=f"metric:{one.name}",
                    at=span.end,
                    why=f"{one.name} is {one.value:.4g}, within its limits.",
                    owner=turn.spec.owner,
                )
            )
        told = told | {one.name} if is_bad else told - {one.name}
    state = turn.watch.windows.model_copy(update={"told_metrics": tuple(sorted(told))})
    turn.watch = turn.watch.model_copy(update={"windows": state})
    return alerts


def _degrading(
    turn: Turn, closed: Closed, judged: Judged, found: Sequence[Combined]
) -> Generator[Event, None, None]:
    """Tell when windows in a row are estimated to be too bad, and when that is over."""
    state = turn.watch.windows
    count = state.degrading + 1 if judged.verdict == "degrading" else 0
    turn.watch = turn.watch.model_copy(
        update={"windows": state.model_copy(update={"degrading": count})}
    )
    if count >= DEGRADING_WINDOWS:
        alert = AlertRaised(
            pipeline=turn.spec.name,
            condition=estimate_condition(closed.version),
            severity="warning",
            title=f"Version {closed.version} seems to do worse; its labels are awaited",
            detail=f"{judged.reason}, estimated for {count} windows in a row up to "
            f"{closed.span.end:%Y-%m-%d %H:%M}.",
            owner=turn.spec.owner,
            can_end=True,
        )
        run = range(closed.number - count + 1, closed.number + 1)
        yield from troubles.begin(turn, alert, run)
    if found:
        yield from about_estimate(
            turn, closed.version, closed.number, found[0].value, closed.span
        )


def estimate_condition(version: int) -> str:
    """Return the condition of the alert that a version seems to do worse."""
    return f"estimate:v{version}"


def about_estimate(
    turn: Turn, version: int, window: int, value: float, span: Span
) -> Iterator[Event]:
    """Hold a window's loss, estimated or measured, against an open alert."""
    trouble = troubles.open_of(turn, estimate_condition(version))
    expected = expected_of(turn, version)
    if trouble is not None and expected:
        limit = limit_of(expected, turn.spec.monitor.tolerated_rise)
        yield from troubles.look(turn, trouble, window, value, limit, span.end)
