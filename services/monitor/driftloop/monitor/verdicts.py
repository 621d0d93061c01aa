"""What is told of a verdict: its cause, what speaks for it, and what follows.

Pure. A fault raises an alert to the owner and silences the verdicts on the error until
it is over; only a concept drift and a population shift may lead to a training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from driftloop.contracts.events import (
    FAULTS,
    AlertRaised,
    Cause,
    DriftDetected,
    DriftEnded,
    Evidence,
    Faulty,
    Span,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.monitor.causes.moved import FULL_DISTANCE, Moved
from driftloop.monitor.causes.weighing import (
    MAX_CARRIERS,
    MIN_MOVED,
    Signals,
    Weighed,
)
from driftloop.monitor.error_drift import BLOCKS_PER_WINDOW, Rise
from driftloop.monitor.faults import Conclusion, fault_over
from driftloop.monitor.feature_drift import Movement
from driftloop.monitor.state import Block, Fault, Settled, Verdict, Watch

SURE_FAULT = 0.6
"""Confidence from which a fault is told by the inputs alone, without any label."""
MIN_FAULT_WEIGHT = 0.4
"""What has to speak for it, however little speaks for anything else."""
MISSING, MISSING_RATIO = "labels missing", 0.3
"""Labels stay away when so small a part of those that used to come comes."""
MIN_LABELLED = 0.1
"""Share of rows that used to get a label; where fewer do, none is missed."""
MAX_FAULT_WINDOWS = 4
"""For which a weighed fault silences the verdicts on the error."""
SETTLED_WINDOWS = 26
"""For which nothing is inferred of a column: half a year of weeks."""
OVER_RATIO = 1.15
"""Labels are right again when the error is at most so many times its usual level."""
NAMES: Mapping[Cause, str] = {
    "concept_drift": "a concept drift",
    "population_shift": "a population shift",
    "sensor_fault": "a sensor fault",
    "schema_change": "a change of the schema",
    "label_fault": "a fault of the labels",
    "seasonality": "a season",
    "traffic_mix": "another mix of the traffic",
    "not_enough_data": "not told by the data so far",
}
ENDINGS: Mapping[Cause, str] = {
    "concept_drift": "Training on newer rows is the cure.",
    "population_shift": "Training on newer rows is the cure.",
    "sensor_fault": "Training would learn the fault; {owner} has to mend the source.",
    "schema_change": "Training would learn the fault; {owner} has to settle what the "
    "columns are.",
    "label_fault": "Training would learn wrong labels; {owner} has to mend them.",
    "seasonality": "The version has learned this season: no reason to train.",
    "traffic_mix": "Within each slice the version is as good as before: no reason to "
    "train.",
    "not_enough_data": "No training is advised before more labelled rows tell.",
}


def error_verdict(
    watch: Watch,
    blocks: Sequence[Block],
    rise: Rise,
    weighed: Weighed,
    signals: Signals,
    predictions: Movement | None,
    spec: PipelineSpec,
) -> Conclusion:
    """Say why the error rose, and what is to be done about it."""
    if watch.reference is None:
        raise ValueError("there is no version in service to judge")
    version, last = watch.reference.version, blocks[-1]
    since = blocks[rise.since].start
    cause = weighed.cause
    evidence = [
        Evidence(
            signal="error",
            detector=rise.detector,
            statistic=rise.statistic,
            threshold=rise.threshold,
            row_count=sum(block.row_count for block in blocks[rise.since :]),
            detail=f"{spec.metric} by that of a guess without skill: {rise.before:.3g} "
            f"before, {rise.recent:.3g} now",
        ),
        *evidence_of(signals),
    ]
    if predictions is not None and predictions.is_moved:
        evidence.append(_prediction(predictions))
    told = _detected(watch, weighed, spec, evidence, since, last.end)
    grown = (
        f"The error of version {version} is {rise.recent / rise.before:.1f} times what "
        f"it was, since about {since:%Y-%m-%d}"
    )
    told = told.model_copy(
        update={
            "explanation": f"{grown}: {_why(weighed, spec)}",
            "retrain_advised": weighed.is_cured_by_training,
        }
    )
    if cause == "not_enough_data":  # looked at again with the next block
        pause, asked = timedelta(days=spec.retrain.cooldown_days), watch.doubted_at
        if asked is not None and last.end < asked + pause:
            return watch, []
        return watch.model_copy(update={"doubted_at": last.end}), [told]
    before = watch.verdict
    is_repeat = before is not None and before.version == version
    verdict = Verdict(
        version=version,
        at=last.end,
        block=last.number,
        level=rise.before,
        repeats=before.repeats + 1 if before and is_repeat else 0,
        cause=cause,
        features=tuple(told.features),
        since=since if before is None or not is_repeat else before.since or since,
    )
    watch = watch.model_copy(update={"verdict": verdict, "doubted_at": None})
    if cause not in FAULTS:
        return watch, [told]
    return _with_fault(watch, told, spec, is_inferred=weighed.speaking.is_inferred)


def input_fault(
    watch: Watch, weighed: Weighed, signals: Signals, span: Span, spec: PipelineSpec
) -> Conclusion:
    """Tell a fault that a whole window of inputs shows without any label."""
    known = {fault.column for fault in watch.faults}
    is_sure = (
        weighed.cause in FAULTS
        and weighed.confidence >= SURE_FAULT
        and weighed.speaking.weight >= MIN_FAULT_WEIGHT
    )
    if not is_sure or known & set(weighed.speaking.carriers):
        return watch, []
    evidence = evidence_of(signals) or [_weight(weighed, signals)]
    told = _detected(watch, weighed, spec, evidence, span.start, span.end)
    explanation = f"Inputs are others since about {span.start:%Y-%m-%d}: "
    told = told.model_copy(update={"explanation": explanation + _why(weighed, spec)})
    return _with_fault(watch, told, spec, is_inferred=weighed.speaking.is_inferred)


def faults_over(
    watch: Watch, found: Sequence[Moved], window: Span, spec: PipelineSpec
) -> Conclusion:
    """Close weighed faults whose columns are as they were before them.

    One that does not end ends after :data:`MAX_FAULT_WINDOWS` all the same: what is
    seen for so long is looked at anew, and told again if it is still a fault. One that
    was only inferred, and that nobody has confirmed in that time, is not: nothing is
    inferred of its column for :data:`SETTLED_WINDOWS`.
    """
    wrong = {
        m.column
        for m in found
        if m.strength >= MIN_MOVED or m.nulls > 0.04 or m.one_value or m.unseen > 0.1
    }
    over = [
        f
        for f in watch.faults
        if f.is_weighed and f.kind == "observations" and f.column not in wrong
    ]
    watch, events = _closed(watch, over, window.start, spec)
    longest = MAX_FAULT_WINDOWS * (window.end - window.start)
    old = [
        f
        for f in watch.faults
        if f.is_weighed and f.check != MISSING and window.end - f.since > longest
    ]
    until = window.end + SETTLED_WINDOWS * (window.end - window.start)
    new = [Settled(column=f.column, until=until) for f in old if f.is_inferred]
    known = [each for each in watch.settled if each.until > window.end]
    watch = watch.model_copy(update={"settled": (*known, *new)})
    watch, ends = _closed(watch, old, window.end, spec)
    return watch, [*events, *(e for e in ends if isinstance(e, DriftEnded))]


def labels_over(
    watch: Watch,
    blocks: Sequence[Block],
    levels: Sequence[float],
    spec: PipelineSpec,
) -> Conclusion:
    """Close a fault of labels once the error is what it usually is."""
    mine = [
        f
        for f in watch.faults
        if f.is_weighed and f.kind == "labels" and f.check != MISSING
    ]
    verdict = watch.verdict
    if not mine or verdict is None or len(blocks) < BLOCKS_PER_WINDOW:
        return watch, []
    recent = levels[-BLOCKS_PER_WINDOW:]
    if sum(recent) / len(recent) > OVER_RATIO * verdict.level:
        return watch, []
    return _closed(watch, mine, blocks[-BLOCKS_PER_WINDOW].start, spec)


def _closed(
    watch: Watch, over: Sequence[Fault], until: datetime, spec: PipelineSpec
) -> Conclusion:
    if not over:
        return watch, []
    events = [e for fault in over for e in fault_over(watch, fault, until, spec)]
    spans = [Span(start=f.since, end=max(f.since, until)) for f in over]
    kept = tuple(fault for fault in watch.faults if fault not in over)
    return (
        watch.model_copy(
            update={"faults": kept, "bad_spans": (*watch.bad_spans, *spans)}
        ),
        events,
    )


def _with_fault(
    watch: Watch,
    told: DriftDetected,
    spec: PipelineSpec,
    *,
    is_inferred: bool = False,
) -> Conclusion:
    """Open a fault of each column that carries the verdict; alert the owner."""
    is_label = told.cause == "label_fault"
    columns = [spec.data.target] if is_label else told.features
    faults = [
        Fault(
            column=column,
            kind="labels" if is_label else "observations",
            check="weighed",
            is_jump=False,
            is_weighed=True,
            is_inferred=is_inferred,
            since=told.since,
            detected_at=told.detected_at,
            cause=told.cause,
        )
        for column in columns
    ]
    whose = f" of {', '.join(told.sources)}" if told.sources else ""
    what = NAMES[told.cause].removeprefix("a ").capitalize()
    alerts = [
        AlertRaised(
            pipeline=watch.pipeline,
            condition=fault.condition,
            severity="critical",
            title=f"{what}: {fault.column}{whose}",
            detail=told.explanation,
            owner=spec.owner,
            can_end=True,
        )
        for fault in faults
    ]
    watch = watch.model_copy(update={"faults": (*watch.faults, *faults)})
    return watch, [told, *alerts]


def _detected(
    watch: Watch,
    weighed: Weighed,
    spec: PipelineSpec,
    evidence: list[Evidence],
    since: datetime,
    at: datetime,
) -> DriftDetected:
    speaking = weighed.speaking
    carriers = dict(speaking.carriers)
    if weighed.cause == "label_fault":
        carriers = {spec.data.target: 1.0}
    return DriftDetected(
        pipeline=watch.pipeline,
        model_version=watch.reference.version if watch.reference else None,
        cause=weighed.cause,
        retrain_advised=False,
        since=since,
        detected_at=at,
        features=list(carriers),
        evidence=evidence,
        explanation="-",
        confidence=round(weighed.confidence, 3),
        alternatives={c: round(w, 3) for c, w in weighed.alternatives.items()},
        shares={column: round(share, 3) for column, share in carriers.items()},
        sources={s: round(share, 3) for s, share in speaking.sources.items()},
        faulty=None if speaking.is_inferred else faulty_of(weighed.cause),
    )


def faulty_of(cause: Cause) -> Faulty | None:
    """Return what a fault of this cause spoils; None: it is no fault."""
    if cause not in FAULTS:
        return None
    return "labels" if cause == "label_fault" else "rows"


def _why(weighed: Weighed, spec: PipelineSpec) -> str:
    rest = [
        f"{cause.replace('_', ' ')} {share:.0%}"
        for cause, share in list(weighed.alternatives.items())[:2]
    ]
    beside = f" Else: {', '.join(rest)}." if rest else ""
    owner = spec.owner or "the owner of the data"
    ending = ENDINGS[weighed.cause].format(owner=owner)
    if weighed.speaking.is_inferred and weighed.cause in FAULTS:
        ending += " Its rows are left out of trainings once a person confirms it."
    return (
        f"{NAMES[weighed.cause]}, confidence {weighed.confidence:.0%}. "
        f"{weighed.speaking.why}{beside} {ending}"
    )


def evidence_of(signals: Signals) -> list[Evidence]:
    """Return the measurements behind a verdict."""
    moved = [m for m in signals.moved if not m.source and m.strength >= MIN_MOVED]
    found = [
        Evidence(
            signal=f"feature:{m.column}",
            detector="KS" if m.is_amount else "total variation",
            statistic=m.distance,
            threshold=m.usual + MIN_MOVED * FULL_DISTANCE,
            row_count=m.row_count,
            detail=f"beside the rows just before; usual: {m.usual:.2f}",
        )
        for m in sorted(moved, key=lambda m: -m.strength)[:MAX_CARRIERS]
    ]
    split, can = signals.split, signals.learnable
    if split is not None:
        found.append(
            Evidence(
                signal="error:relation",
                detector="shared inputs",
                statistic=split.relation,
                row_count=signals.row_count,
                detail=f"of a rise of {split.total:.4g} in the mean loss, "
                f"{split.inputs:.4g} by other inputs; {split.overlap:.0%} in common",
            )
        )
    if can is not None:
        found.append(
            Evidence(
                signal="labels:learnable",
                detector="ridge, each row left out",
                statistic=can.now,
                threshold=can.before,
                row_count=signals.row_count,
                detail="share of the variance of labels that inputs tell, now; before",
            )
        )
    if signals.season is not None:
        found.append(
            Evidence(
                signal="error:season",
                detector="same season",
                statistic=signals.season.grown,
                threshold=signals.grown,
                row_count=signals.row_count,
                detail=f"rise in {signals.season.reference}; now",
            )
        )
    return found


def _weight(weighed: Weighed, signals: Signals) -> Evidence:
    return Evidence(
        signal="inputs",
        detector="weighed",
        statistic=weighed.speaking.weight,
        row_count=signals.row_count,
        detail=weighed.speaking.why,
    )


def _prediction(movement: Movement) -> Evidence:
    return Evidence(
        signal="prediction",
        detector=movement.detector,
        statistic=movement.effect,
        threshold=movement.least_effect,
        p_value=movement.p_value,
        row_count=movement.row_count,
    )


# ── labels that stay away ───────────────────────────────────────────────────


@dataclass(frozen=True)
class LabelledShares:
    """Shares of rows whose label has come; ``before`` None: none was due then.

    Attributes
    ----------
    row_count : rows of now, whose labels should be there.
    """

    before: float | None
    now: float
    row_count: int
    span: Span


def with_label_lag(watch: Watch, labelled_until: datetime) -> Watch:
    """Remember the longest that labels came behind their rows."""
    if watch.seen_until is None:
        return watch
    lag = max(0.0, (watch.seen_until - labelled_until).total_seconds())
    return watch.model_copy(update={"label_lag_s": max(lag, watch.label_lag_s or 0.0)})


def labels_missing(
    watch: Watch, shares: LabelledShares, spec: PipelineSpec
) -> Conclusion:
    """Say that labels stay away, that they come again, or that none has come yet."""
    mine = [f for f in watch.faults if f.check == MISSING]
    version = watch.reference.version if watch.reference else None
    if shares.before is None or watch.label_lag_s is None:
        if shares.now > 0 or watch.told_unlabelled == version:
            return watch, []
        why = f"None of the newest {shares.row_count} rows has its label yet."
        watch = watch.model_copy(update={"told_unlabelled": version})
        return watch, [_about_labels(watch, "not_enough_data", why, shares, spec)]
    is_missing = shares.now < MISSING_RATIO * shares.before
    if mine:
        return (
            (watch, []) if is_missing else _closed(watch, mine, shares.span.end, spec)
        )
    if not is_missing or watch.faults or shares.before < MIN_LABELLED:
        return watch, []
    why = f"Labels came for {shares.before:.0%} of rows, and now for {shares.now:.0%}."
    told = _about_labels(watch, "label_fault", why, shares, spec)
    watch, events = _with_fault(watch, told, spec)
    if watch.windows.is_late:  # people know of it already
        events = [told]
    faults = tuple(
        f.model_copy(update={"check": MISSING}) if f.since == told.since else f
        for f in watch.faults
    )
    return watch.model_copy(update={"faults": faults}), events


def _about_labels(
    watch: Watch,
    cause: Cause,
    why: str,
    shares: LabelledShares,
    spec: PipelineSpec,
) -> DriftDetected:
    owner = spec.owner or "the owner of the data"
    return DriftDetected(
        pipeline=watch.pipeline,
        model_version=watch.reference.version if watch.reference else None,
        cause=cause,
        retrain_advised=False,
        since=shares.span.start,
        detected_at=shares.span.end,
        features=[spec.data.target] if cause == "label_fault" else [],
        evidence=[
            Evidence(
                signal="labels:share",
                detector="share with a label",
                statistic=shares.now,
                threshold=MISSING_RATIO * (shares.before or 0.0),
                row_count=shares.row_count,
                detail=why,
            )
        ],
        explanation=f"{why} {ENDINGS[cause].format(owner=owner)}",
        confidence=1.0,
    )
