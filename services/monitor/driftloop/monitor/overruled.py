"""What becomes of a verdict that a person overrules. Pure."""

from driftloop.contracts.events import (
    FAULTS,
    AlertRaised,
    DriftEnded,
    VerdictOverruled,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.monitor.faults import Conclusion
from driftloop.monitor.state import Fault, Watch

MAX_OVERRULINGS = 200


def overruled(watch: Watch, event: VerdictOverruled, spec: PipelineSpec) -> Conclusion:
    """Take a person's word: faults of the verdict end, or an owner is alerted.

    A fault that was none silences the verdicts on the error no longer, and its rows
    count again. One that nobody saw is told to the owner; its rows are not judged.
    """
    pairs = (*watch.overrulings, (event.verdict_cause, event.cause))
    update = {"overrulings": pairs[-MAX_OVERRULINGS:]}
    watch = watch.model_copy(update=update)
    if event.mended:  # the verdict holds: nothing is told, and nothing learned of it
        return watch, []
    if event.cause in FAULTS:
        confirmed = [_confirmed(fault, event) for fault in watch.faults]
        watch = watch.model_copy(update={"faults": tuple(confirmed)})
        alert = AlertRaised(
            pipeline=watch.pipeline,
            condition=f"{event.cause}:overruled:{event.verdict_id}",
            severity="critical",
            title=f"{event.overruled_by} says: {event.cause.replace('_', ' ')}",
            detail=f"{event.reason}. The verdict of {event.detected_at:%Y-%m-%d %H:%M} "
            f"said {event.verdict_cause.replace('_', ' ')}.",
            owner=spec.owner,
        )
        return watch, [alert]
    over = [fault for fault in watch.faults if _is_of(fault, event)]
    kept = tuple(fault for fault in watch.faults if fault not in over)
    watch = watch.model_copy(update={"faults": kept})
    return watch, [
        DriftEnded(
            pipeline=watch.pipeline,
            cause=fault.cause,
            features=[fault.column],
            since=fault.since,
            until=max(fault.since, event.detected_at),
            detected_at=fault.detected_at,
        )
        for fault in over
    ]


def _is_of(fault: Fault, event: VerdictOverruled) -> bool:
    """Whether a fault is the one that a verdict told."""
    return fault.cause == event.verdict_cause and (
        fault.since == event.since or fault.detected_at == event.detected_at
    )


def _confirmed(fault: Fault, event: VerdictOverruled) -> Fault:
    """Return a fault as a person knows it: no longer inferred, if it is this one."""
    is_same = _is_of(fault, event) and fault.cause == event.cause
    return fault.model_copy(update={"is_inferred": False}) if is_same else fault
