"""Alerts on how the version in service does: when they begin, and when they are over.

Hysteresis: one is over when the newest :data:`CALM_WINDOWS` windows that something is
known of are all well, each by its labels where they have landed, else by its estimate.
"""

from collections.abc import Iterator
from datetime import datetime

from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.base import Event
from driftloop.contracts.events import AlertRaised
from driftloop.monitor.state import Trouble
from driftloop.monitor.turn import Turn

CALM_WINDOWS = 3
"""In a row, before an alert is over: one more than it takes to begin."""
MAX_TROUBLES = 50
"""Alerts of one version at once; people who were told of so many know enough."""


def noted(trouble: Trouble, window: int, *, is_well: bool) -> Trouble:
    """Return an alert that knows of one more window, or knows better of one.

    >>> one = Trouble(condition="estimate:v1", since=7, calm=((7, False),))
    >>> noted(noted(one, 8, is_well=True), 6, is_well=True).calm
    ((7, False), (8, True))
    >>> noted(one, 7, is_well=True).calm
    ((7, True),)
    """
    if window < trouble.since:
        return trouble
    known = dict(trouble.calm) | {window: is_well}
    newest = tuple(sorted(known.items()))[-CALM_WINDOWS:]
    return trouble.model_copy(update={"calm": newest})


def is_over(trouble: Trouble) -> bool:
    """Whether so many windows in a row, up to the newest, were well.

    >>> is_over(Trouble(condition="c", since=7, calm=((8, True), (9, True))))
    False
    >>> is_over(Trouble(condition="c", since=7, calm=((7, True), (8, True), (9, True))))
    True
    """
    wells = [is_well for _, is_well in trouble.calm]
    return len(wells) == CALM_WINDOWS and all(wells)


def open_of(turn: Turn, condition: str) -> Trouble | None:
    """Return what was raised of the version in service and goes on."""
    found = (each for each in turn.watch.troubles if each.condition == condition)
    return next(found, None)


def begin(
    turn: Turn, alert: AlertRaised, run: range, limit: float | None = None
) -> Iterator[Event]:
    """Raise an alert of a run of windows, unless it goes on."""
    troubles = turn.watch.troubles
    if open_of(turn, alert.condition) or len(troubles) >= MAX_TROUBLES:
        return
    new = Trouble(
        condition=alert.condition,
        limit=limit,
        since=run.start,
        calm=tuple((window, False) for window in run)[-CALM_WINDOWS:],
    )
    turn.watch = turn.watch.model_copy(update={"troubles": (*troubles, new)})
    yield alert


def look(
    turn: Turn, trouble: Trouble, window: int, value: float, limit: float, at: datetime
) -> Iterator[Event]:
    """Take in what is known of a window, and say when the alert is over.

    Parameters
    ----------
    value : the window's loss, measured or estimated.
    at : end of the window, in event time.
    """
    now = noted(trouble, window, is_well=value <= limit)
    others = tuple(each for each in turn.watch.troubles if each != trouble)
    left = others if is_over(now) else (*others, now)
    turn.watch = turn.watch.model_copy(update={"troubles": left})
    if is_over(now):
        yield AlertResolved(
            pipeline=turn.spec.name,
            condition=now.condition,
            at=at,
            why=f"{turn.spec.metric} is at most {limit:.4g} again, in {CALM_WINDOWS} "
            f"windows in a row up to {at:%Y-%m-%d %H:%M}: measured where labels have "
            "landed, else estimated.",
            owner=turn.spec.owner,
        )
