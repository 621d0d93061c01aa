"""Broken sensors: rows that fail validation, and values that jump.

A fault is told once when it begins and once when it is over.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    AlertRaised,
    DriftDetected,
    DriftEnded,
    Evidence,
    RejectReason,
    RowKind,
    Span,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.monitor.sensors import Jump
from driftloop.monitor.state import ColumnSpan, Fault, Watch

Conclusion = tuple[Watch, list[Event]]
LimitOf = Callable[[str], float]
MAX_FAULTY_SPANS = 100

CLOSING_RATIO = 0.5
"""Of ``fault_ratio``: below it a fault is over. The gap keeps it from flickering."""
CHANGES = {
    "scale": "its values changed by a factor from one row to the next",
    "shift": "its values moved by a constant from one row to the next",
    "stuck": "it gives one value only",
}
SCHEMA_CHECKS = frozenset({"missing", "type", "values"})
"""What rows fail on where not a value is wrong but its column, type or name."""


@dataclass(frozen=True)
class Checked:
    """One batch as the validator left it.

    Attributes
    ----------
    row_count : of the whole batch, good and bad.
    reasons : what bad rows failed on.
    source : who sent it; None: from before that was kept.
    """

    start: datetime
    end: datetime
    row_count: int
    reasons: Sequence[RejectReason]
    source: str | None = None


def judge_quality(
    watch: Watch,
    window: Sequence[Checked],
    spec: PipelineSpec,
    kind: RowKind,
    limit_of: LimitOf | None = None,
) -> Conclusion:
    """Open and close faults by the share of quarantined rows.

    Parameters
    ----------
    window : newest batches of one ``kind``, oldest first. Below ``window_rows`` rows
        nothing is said.
    limit_of : share that is a fault, by column; None: ``fault_ratio``.
    """
    total = sum(batch.row_count for batch in window)
    if total < spec.monitor.window_rows:
        return watch, []
    worst = _worst_checks(window)
    limit_of = limit_of or (lambda _: spec.monitor.fault_ratio)
    mine = [
        f for f in watch.faults if f.kind == kind and not (f.is_jump or f.is_weighed)
    ]
    over = {
        fault: _last_bad(window, fault)
        for fault in mine
        if _share(worst, fault, total) < limit_of(fault.column) * CLOSING_RATIO
    }
    watch = _with_spans(watch, kind, over)
    known = {fault.column for fault in watch.faults}
    new, evidence = [], []
    for column, found in worst.items():
        share = found.row_count / total
        if column in known:
            continue
        limit = limit_of(column)
        if share < limit:
            continue
        since = min(
            b.start for b in window if any(r.field == column for r in b.reasons)
        )
        new.append(
            Fault(
                column=column,
                kind=kind,
                check=found.check,
                is_jump=False,
                since=since,
                detected_at=window[-1].end,
                cause="schema_change"
                if found.check in SCHEMA_CHECKS
                else "sensor_fault",
            )
        )
        evidence.append(
            Evidence(
                signal="quality",
                detector=found.check,
                statistic=share,
                threshold=limit,
                row_count=total,
                detail=f"{column}: {found.detail}"
                + (f", for example {found.example}" if found.example else ""),
            )
        )
    sources = _carrying(window, [fault.column for fault in new])
    return _with_faults(watch, new, over, evidence, window[-1].end, spec, sources)


def _carrying(window: Sequence[Checked], columns: Sequence[str]) -> Mapping[str, float]:
    """Return the share of bad rows that each source sent; empty: all sources did.

    One that is much better than the whole window has none of the fault.
    """
    rows, bad = Counter[str | None](), Counter[str | None]()
    for batch in window:
        rows[batch.source] += batch.row_count
        bad[batch.source] += max(
            (r.row_count for r in batch.reasons if r.field in columns), default=0
        )
    total = sum(bad.values())
    least = CLOSING_RATIO * total / max(sum(rows.values()), 1)
    found = {s: bad[s] / total for s in rows if total and bad[s] / rows[s] >= least}
    known = {s: share for s, share in sorted(found.items(), key=str) if s is not None}
    return known if len(known) == len(found) < len(rows) else {}


def shares_of(
    windows: Sequence[Sequence[Checked]],
    column: str,
    left_out: Sequence[ColumnSpan] = (),
) -> list[float]:
    """Return the share of bad rows of a column in each window, without faulty times."""
    spans = [each.span for each in left_out if each.column == column]
    found = []
    for window in windows:
        start, end = window[0].start, window[-1].end
        if any(span.start <= end and start <= span.end for span in spans):
            continue
        worst = _worst_checks(window).get(column)
        total = sum(batch.row_count for batch in window)
        found.append(worst.row_count / total if worst else 0.0)
    return found


def _with_spans(watch: Watch, kind: RowKind, over: Mapping[Fault, datetime]) -> Watch:
    """Remember when columns were wrong: what was then is not what is usual."""
    new = [
        ColumnSpan(
            column=fault.column, kind=kind, span=Span(start=fault.since, end=until)
        )
        for fault, until in over.items()
    ]
    if not new:
        return watch
    spans = (*watch.faulty_spans, *new)[-MAX_FAULTY_SPANS:]
    return watch.model_copy(update={"faulty_spans": spans})


def _worst_checks(window: Sequence[Checked]) -> dict[str, RejectReason]:
    """Return, by column, the check that most rows failed on."""
    counts: dict[tuple[str, str], RejectReason] = {}
    for batch in window:
        for reason in batch.reasons:
            key = reason.field, reason.check
            so_far = counts[key].row_count if key in counts else 0
            counts[key] = reason.model_copy(
                update={"row_count": so_far + reason.row_count}
            )
    worst: dict[str, RejectReason] = {}
    for (column, _), reason in counts.items():
        if column not in worst or reason.row_count > worst[column].row_count:
            worst[column] = reason
    return worst


def _share(worst: Mapping[str, RejectReason], fault: Fault, total: int) -> float:
    found = worst.get(fault.column)
    return found.row_count / total if found else 0.0


def _last_bad(window: Sequence[Checked], fault: Fault) -> datetime:
    """End of the newest batch with rows that the fault spoilt."""
    ends = [b.end for b in window if any(r.field == fault.column for r in b.reasons)]
    return max(ends, default=window[0].start)


def judge_jumps(
    watch: Watch, found: Sequence[Jump], block: Span, spec: PipelineSpec
) -> Conclusion:
    """Open and close faults of values that passed validation and yet jumped."""
    now = {jump.column: jump for jump in found}
    mine = [fault for fault in watch.faults if fault.is_jump]
    over = {fault: block.start for fault in mine if fault.column not in now}
    known = {fault.column for fault in watch.faults}
    new = [
        Fault(
            column=jump.column,
            kind="observations",
            check=jump.kind,
            is_jump=True,
            since=block.start,
            detected_at=block.end,
        )
        for jump in found
        if jump.column not in known
    ]
    evidence = [
        Evidence(
            signal=f"feature:{jump.column}",
            detector=jump.kind,
            statistic=jump.amount,
            row_count=jump.row_count,
            detail=f"{jump.column}: usual value {jump.before:.4g} before, "
            f"{jump.now:.4g} now",
        )
        for jump in found
        if jump.column not in known
    ]
    spans = [Span(start=fault.since, end=block.start) for fault in over]
    watch = watch.model_copy(update={"bad_spans": (*watch.bad_spans, *spans)})
    return _with_faults(watch, new, over, evidence, block.end, spec)


def _with_faults(
    watch: Watch,
    new: Sequence[Fault],
    over: Mapping[Fault, datetime],
    evidence: list[Evidence],
    at: datetime,
    spec: PipelineSpec,
    sources: Mapping[str, float] = MappingProxyType({}),
) -> Conclusion:
    faults = tuple(fault for fault in watch.faults if fault not in over)
    watch = watch.model_copy(update={"faults": (*faults, *new)})
    events: list[Event] = []
    for fault, until in over.items():
        events += fault_over(watch, fault, until, spec)
    for cause in dict.fromkeys(fault.cause for fault in new):
        found = [(f, e) for f, e in zip(new, evidence, strict=True) if f.cause == cause]
        events += _fault_begun(watch, found, at, spec, sources)
    return watch, events


def _fault_begun(
    watch: Watch,
    found: Sequence[tuple[Fault, Evidence]],
    at: datetime,
    spec: PipelineSpec,
    sources: Mapping[str, float],
) -> Iterable[Event]:
    new = [fault for fault, _ in found]
    columns = [fault.column for fault in new]
    since = min(fault.since for fault in new)
    listed = ", ".join(columns)
    what = "; ".join(
        f"{fault.column}: {CHANGES[fault.check]}"
        if fault.is_jump
        else f"{fault.column}: too many rows fail the check {fault.check!r}"
        for fault in new
    )
    explanation = (
        f"Values of {listed} are wrong since {since:%Y-%m-%d %H:%M}, the world is not. "
        f"{what}. Training would learn the fault, so none is advised; "
        f"{spec.owner or 'the owner of the data'} has to mend the source."
    )
    return [
        DriftDetected(
            pipeline=watch.pipeline,
            model_version=watch.reference.version if watch.reference else None,
            cause=new[0].cause,
            retrain_advised=False,
            since=since,
            detected_at=at,
            features=columns,
            evidence=[told for _, told in found],
            explanation=explanation,
            sources={source: round(share, 3) for source, share in sources.items()},
            faulty="rows" if new[0].kind == "observations" else "labels",
        ),
        *(
            AlertRaised(
                pipeline=watch.pipeline,
                condition=fault.condition,
                severity="critical",
                title=f"Wrong values of {fault.column} ({fault.check})",
                detail=f"{told.detail}. {explanation}",
                owner=spec.owner,
                can_end=True,
            )
            for fault, told in found
        ),
    ]


def fault_over(
    watch: Watch, fault: Fault, until: datetime, spec: PipelineSpec
) -> list[Event]:
    """Say that a fault is over."""
    return [
        DriftEnded(
            pipeline=watch.pipeline,
            cause=fault.cause,
            features=[fault.column],
            since=fault.since,
            until=until,
            detected_at=fault.detected_at,
        ),
        AlertResolved(
            pipeline=watch.pipeline,
            condition=fault.condition,
            at=until,
            why=f"Values of {fault.column} are right again. The fault ({fault.check}) "
            f"lasted from {fault.since:%Y-%m-%d %H:%M} to about "
            f"{until:%Y-%m-%d %H:%M}.",
            owner=spec.owner,
        ),
    ]
