"""What the monitor concludes about inputs and error; faults come first.

Pure: numbers in, the next :class:`Watch` and events out. A broken sensor raises the
error too and training on it would teach the fault, so an open fault
(:mod:`driftloop.monitor.faults`) silences the verdicts here. Why an error rose is
weighed in :mod:`driftloop.monitor.causes` and told by
:mod:`driftloop.monitor.verdicts`.
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from driftloop.contracts.events import (
    AlertRaised,
    Evaluation,
    Measurement,
    PerformanceMeasured,
    Span,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.losses import measured, paired
from driftloop.models.pairing import Labelled, as_time
from driftloop.monitor.error_drift import MAX_BLOCKS, Rise, error_rise
from driftloop.monitor.faults import Conclusion
from driftloop.monitor.feature_drift import Movement
from driftloop.monitor.state import Block, Reference, Verdict, Watch

MIN_NO_SKILL = 0.25
"""Of the hold-out's: a stretch easier than this counts as this easy, so that a
target which hardly changes for a while does not blow up the level."""
MAX_DOUBLINGS = 3
_NOTHING_TOLD: dict[str, tuple[str, ...]] = {
    "told_columns": (),
    "told_skew": (),
    "open_alerts": (),
    "troubles": (),
    "minute_versions": (),
}


def deployed(watch: Watch, version: int, evaluation: Evaluation) -> Watch:
    """Judge ``version`` from now on, by what it was worth on its hold-out."""
    level = 1.0
    if evaluation.baseline > 0:
        level = evaluation.candidate / evaluation.baseline
    reference = Reference(
        version=version, level=level, no_skill=max(evaluation.baseline, 0.0)
    )
    return watch.model_copy(update={"reference": reference, **_NOTHING_TOLD})


def withdrawn(watch: Watch) -> Watch:
    """Judge no version: none is in service."""
    return watch.model_copy(update={"reference": None, **_NOTHING_TOLD})


def performance(pipeline: str, metric: str, rows: Labelled) -> PerformanceMeasured:
    """Return the prequential performance over newly labelled rows."""
    measurements = [
        Measurement(
            version=rows.champion_version,
            role="champion",
            metric=metric,
            value=measured(metric, rows.champion),
        )
    ]
    comparison = None
    if rows.candidate is not None and rows.candidate_version is not None:
        comparison = paired(rows.candidate, rows.champion)
        measurements.append(
            Measurement(
                version=rows.candidate_version,
                role="candidate",
                metric=metric,
                value=measured(metric, rows.candidate),
            )
        )
    return PerformanceMeasured(
        pipeline=pipeline,
        span=Span(start=as_time(rows.times_us.min()), end=as_time(rows.times_us.max())),
        row_count=len(rows.times_us),
        measurements=measurements,
        comparison=comparison,
    )


# ── inputs ──────────────────────────────────────────────────────────────────


def judge_inputs(
    watch: Watch, found: Sequence[Movement], span: Span, spec: PipelineSpec
) -> Conclusion:
    """Tell once per version and column that inputs moved: no reason to train yet."""
    moved = [m for m in found if m.is_moved and m.column not in watch.told_columns]
    if not moved or watch.reference is None or watch.faults:
        return watch, []
    columns = {m.column for m in moved}
    told = tuple(sorted({*watch.told_columns, *columns}))
    version = watch.reference.version
    listed = ", ".join(f"{m.column} ({m.detector} {m.effect:.2f})" for m in moved)
    alert = AlertRaised(
        pipeline=watch.pipeline,
        condition=f"feature_drift:v{version}:{','.join(sorted(columns))}",
        severity="info",
        title=f"Inputs differ from what version {version} learned from",
        detail=f"{listed}, in rows from {span.start:%Y-%m-%d} to "
        f"{span.end:%Y-%m-%d}. The error decides whether to train.",
        owner=spec.owner,
        can_end=True,
    )
    return watch.model_copy(update={"told_columns": told}), [alert]


# ── error ───────────────────────────────────────────────────────────────────


def levels(watch: Watch, blocks: Sequence[Block]) -> list[float]:
    """Return the level of each block: its loss by that of a guess without skill."""
    floor = MIN_NO_SKILL * (watch.reference.no_skill if watch.reference else 0.0)
    return [
        block.loss / max(block.no_skill, floor, np.finfo(np.float64).tiny)
        for block in blocks
    ]


def judged_blocks(watch: Watch, blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks that count.

    Of the version in service, since its last verdict, without wrong inputs.
    """
    if watch.reference is None:
        return []
    version, verdict = watch.reference.version, watch.verdict
    after = verdict.block if verdict and verdict.version == version else -1
    return [
        block
        for block in blocks
        if block.version == version
        and block.number > after
        and not any(
            s.start <= block.end and block.start < s.end for s in watch.bad_spans
        )
    ][-MAX_BLOCKS:]


def error_verdict_due(
    watch: Watch, blocks: Sequence[Block], spec: PipelineSpec
) -> Rise | None:
    """Return the rise that a verdict is due for, or None.

    None while a fault is open, while a candidate is rolled out, while the inputs of
    these rows have not been looked at, and within the cooldown of the last verdict.
    """
    reference, verdict = watch.reference, watch.verdict
    if reference is None or not blocks or watch.faults or watch.is_rolling_out:
        return None
    end = blocks[-1].end
    if watch.seen_until is None or watch.seen_until < end:
        return None
    level = reference.level
    if verdict and verdict.version == reference.version:
        level = verdict.level
        if end < verdict.at + _pause(verdict, spec):
            return None
    how = spec.monitor
    return error_rise(
        levels(watch, blocks), level, how.error_sensitivity, how.error_detector
    )


def _pause(verdict: Verdict, spec: PipelineSpec) -> timedelta:
    """Event time until the same version may be spoken of again.

    A training may have been skipped, or its model refused; each repeat waits twice
    as long as the one before.
    """
    doublings = min(verdict.repeats, MAX_DOUBLINGS)
    return timedelta(days=spec.retrain.cooldown_days * (1 << doublings))
