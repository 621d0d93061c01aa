"""Where labels stand: landed, awaited, late; that none are there is never fine.

Pure, in event time. How long labels usually take is learned from the pipeline itself:
each time labels land, the wait that they end is remembered, so a pipeline with weekly
labels is late after weeks and one with labels in every row after a few batches.
"""

from datetime import datetime, timedelta

from driftloop.contracts.estimates import LabelsAwaited
from driftloop.contracts.events import Span
from driftloop.monitor.state import Windows

MAX_WAITING = 16
"""Batches whose rows wait that are told apart; the last one stands for the rest."""
MAX_WAITS = 30
MIN_WAITS = 5
"""Before so many waits were seen, only the pipeline's horizon is late."""
LATE_FACTOR = 2.0
"""Times the longest of the last waits: labels that come unevenly are not late."""
DAY_S = 86_400.0


def scored(state: Windows, start: datetime, end: datetime) -> Windows:
    """Note that rows were answered, which from now on wait for labels."""
    until, known = max(state.scored_until or end, end), state.labelled_until
    waiting = state.waiting
    if known is None or end > known:
        waiting = (*waiting, Span(start=start, end=end))
        if len(waiting) > MAX_WAITING:
            *older, last = waiting[:MAX_WAITING]
            longest = max(last.end, end)
            waiting = (*older, last.model_copy(update={"end": longest}))
    return state.model_copy(update={"scored_until": until, "waiting": waiting})


def landed(state: Windows, newest: datetime, watermark: datetime) -> Windows:
    """Note that labels of rows up to ``newest`` have landed.

    Parameters
    ----------
    watermark : newest event time that the pipeline has seen.
    """
    before = state.labelled_until
    if before is not None and newest <= before:
        return state
    since = oldest_waiting(state) or newest
    wait = max((watermark - since).total_seconds(), 0.0) / DAY_S
    return state.model_copy(
        update={
            "labelled_until": newest,
            "waiting": tuple(span for span in state.waiting if span.end > newest),
            "waits": (*state.waits, wait)[-MAX_WAITS:],
            "is_late": False,
        }
    )


def oldest_waiting(state: Windows) -> datetime | None:
    """Return the oldest row without a label, as far as batches tell; None: none."""
    if not state.waiting:
        return None
    first = min(span.start for span in state.waiting)
    return max(first, state.labelled_until or first)


def allowed_days(state: Windows, horizon: timedelta) -> float:
    """Return the wait beyond which labels are late."""
    most = horizon.total_seconds() / DAY_S
    if len(state.waits) < MIN_WAITS:
        return most
    return min(LATE_FACTOR * max(state.waits), most)


def waiting_days(state: Windows, watermark: datetime) -> float:
    """Return how long the oldest rows without a label have waited; 0: none wait."""
    since = oldest_waiting(state)
    if since is None:
        return 0.0
    return max((watermark - since).total_seconds(), 0.0) / DAY_S


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
        awaited_since=oldest_waiting(state),
        usual_days=max(state.waits) if len(state.waits) >= MIN_WAITS else None,
        labelled_ratio=state.labelled_ratio,
    )
