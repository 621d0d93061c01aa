"""Where labels stand: landed, awaited, late; that none are there is never fine.

Pure, in event time. How long labels usually take is learned from the pipeline itself:
each time labels land, the wait that they end is remembered, so a pipeline with weekly
labels is late after weeks and one with labels in every row after a few batches.
"""

from datetime import datetime, timedelta

from driftloop.contracts.estimates import LabelsAwaited
from driftloop.monitor.state import Windows

MAX_WAITS = 30
MIN_WAITS = 5
"""Before so many waits were seen, only the pipeline's horizon is late."""
LATE_FACTOR = 2.0
"""Times the longest of the last waits: labels that come unevenly are not late."""
DAY_S = 86_400.0


def scored(state: Windows, start: datetime, end: datetime) -> Windows:
    """Note that rows were answered, which from now on wait for labels."""
    until, known = max(state.scored_until or end, end), state.labelled_until
    oldest = state.oldest_waiting
    if known is None or end > known:
        first = start if known is None else max(start, known)
        oldest = first if oldest is None else min(oldest, first)
    return state.model_copy(update={"scored_until": until, "oldest_waiting": oldest})


def landed(state: Windows, newest: datetime, watermark: datetime) -> Windows:
    """Note that labels of rows up to ``newest`` have landed.

    Parameters
    ----------
    watermark : newest event time that the pipeline has seen.
    """
    before = state.labelled_until
    if before is not None and newest <= before:
        return state
    since = state.oldest_waiting or newest
    wait = max((watermark - since).total_seconds(), 0.0) / DAY_S
    has_more = state.scored_until is not None and state.scored_until > newest
    return state.model_copy(
        update={
            "labelled_until": newest,
            "oldest_waiting": newest if has_more else None,
            "waits": (*state.waits, wait)[-MAX_WAITS:],
            "is_late": False,
        }
    )


def allowed_days(state: Windows, horizon: timedelta) -> float:
    """Return the wait beyond which labels are late."""
    most = horizon.total_seconds() / DAY_S
    if len(state.waits) < MIN_WAITS:
        return most
    return min(LATE_FACTOR * max(state.waits), most)


def waiting_days(state: Windows, watermark: datetime) -> float:
    """Return how long the oldest rows without a label have waited; 0: none wait."""
    if state.oldest_waiting is None:
        return 0.0
    return max((watermark - state.oldest_waiting).total_seconds(), 0.0) / DAY_S


def is_late(state: Windows, watermark: datetime, horizon: timedelta) -> bool:
    """Whether labels have stopped coming for longer than is usual."""
    return waiting_days(state, watermark) > allowed_days(state, horizon)


def awaited(
    state: Windows, watermark: datetime | None, horizon: timedelta
) -> LabelsAwaited:
    """Return it as it is told."""
    late = watermark is not None and is_late(state, watermark, horizon)
    kind = "late" if late else "awaited" if state.labelled_until else "none_yet"
    return LabelsAwaited(
        state=kind,  # type: ignore[arg-type]  # one of its three words
        watermark=watermark,
        labelled_until=state.labelled_until,
        awaited_since=state.oldest_waiting,
        usual_days=max(state.waits) if len(state.waits) >= MIN_WAITS else None,
        labelled_ratio=state.labelled_ratio,
    )
