"""The life of an alert, from the facts of the log; pure.

An alert begins with an ``alert-raised`` of a condition. What is raised again while it
goes on, or comes back before it was calm for long enough, is the same alert. It is over
by ``alert-resolved``; one that cannot end is over after :data:`EPISODE`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Literal

from driftloop.contracts.alerting import Severity
from driftloop.contracts.alerts import (
    AlertAcknowledged,
    AlertDelivered,
    AlertResolved,
    AlertsSilenced,
)
from driftloop.contracts.base import Event
from driftloop.contracts.events import AlertRaised

EPISODE = timedelta(days=7)
"""So long what was raised again is the same alert, where nothing says that it is over:
a week is how long people remember that they were told."""
RANKS: dict[type[Event], int] = {
    AlertRaised: 0,
    AlertResolved: 1,
    AlertAcknowledged: 2,
    AlertDelivered: 3,
}
"""Order of facts that have one time: handlers give the events of one cause one."""
State = Literal["open", "acknowledged", "over"]


@dataclass(frozen=True, slots=True)
class Fact:
    """An event of the log, with what the log says of it."""

    event_id: str
    at: datetime
    event: Event
    origin: dict[str, Any]

    @property
    def order(self) -> tuple[datetime, int, str]:
        return self.at, RANKS.get(type(self.event), len(RANKS)), self.event_id


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a notice, at a time."""

    at: datetime
    event: AlertDelivered


@dataclass(frozen=True)
class Alert:
    """One alert as it is now.

    Attributes
    ----------
    id : of the event it began with.
    repeats : ids of events that raised it again.
    returns : how often it came back before it was calm for long enough.
    over_at : None: it goes on, or nobody can say.
    acknowledged : by whom, when, and what they said.
    told : what became of its notices, in order.
    origin : where it came from in its chain.
    """

    id: str
    raised: AlertRaised
    raised_at: datetime
    last_at: datetime
    origin: dict[str, Any]
    repeats: tuple[str, ...] = ()
    returns: int = 0
    over_at: datetime | None = None
    over_why: str = ""
    acknowledged: tuple[str, datetime, str] | None = None
    told: tuple[Told, ...] = ()

    @property
    def pipeline(self) -> str:
        return self.raised.pipeline

    @property
    def condition(self) -> str:
        return self.raised.condition

    @property
    def severity(self) -> Severity:
        return self.raised.severity

    def ended(self, notice_id: str) -> Told | None:
        """Return how a notice ended; None: it has not."""
        for told in self.told:
            same = told.event.notice_id == notice_id
            if same and told.event.outcome in ("delivered", "given_up"):
                return told
        return None

    def has(self, notice_id: str, outcome: str) -> bool:
        return any(
            (told.event.notice_id, told.event.outcome) == (notice_id, outcome)
            for told in self.told
        )

    def state(self, now: datetime, calm: timedelta) -> State:
        """Return where it is; one that came back before it was calm goes on."""
        if self.is_over(now, calm):
            return "over"
        return "acknowledged" if self.acknowledged else "open"

    def is_over(self, now: datetime, calm: timedelta) -> bool:
        if self.over_at is not None:
            return now >= self.over_at + calm
        return not self.raised.can_end and now >= self.last_at + EPISODE


def alerts_of(facts: Iterable[Fact], calm: timedelta) -> list[Alert]:
    """Return the alerts of one pipeline, in the order in which they began.

    Parameters
    ----------
    calm : how long a condition stays away before it can be another alert.
    """
    found: dict[str, Alert] = {}
    current: dict[str, str] = {}
    for fact in sorted(facts, key=lambda each: each.order):
        event = fact.event
        if isinstance(event, AlertRaised):
            known = found.get(current.get(event.condition, ""))
            if known is None or _is_another(known, fact.at, calm):
                current[event.condition] = fact.event_id
                found[fact.event_id] = Alert(
                    fact.event_id, event, fact.at, fact.at, fact.origin
                )
            else:
                found[known.id] = _again(known, fact)
        elif isinstance(event, AlertResolved):
            known = found.get(current.get(event.condition, ""))
            if known is not None and known.over_at is None:
                over = replace(known, over_at=fact.at, over_why=event.why)
                found[known.id] = over
        elif isinstance(event, AlertAcknowledged):
            known = found.get(event.alert_id)
            if known is not None and known.acknowledged is None:
                said = (event.by, fact.at, event.note)
                found[known.id] = replace(known, acknowledged=said)
        elif isinstance(event, AlertDelivered):
            known = found.get(event.alert_id)
            if known is not None:
                told = (*known.told, Told(fact.at, event))
                found[known.id] = replace(known, told=told)
    return list(found.values())


def _is_another(known: Alert, at: datetime, calm: timedelta) -> bool:
    if known.over_at is not None:
        return at > known.over_at + calm
    return not known.raised.can_end and at > known.last_at + EPISODE


def _again(known: Alert, fact: Fact) -> Alert:
    return replace(
        known,
        last_at=fact.at,
        repeats=(*known.repeats, fact.event_id),
        returns=known.returns + (known.over_at is not None),
        over_at=None,
        over_why="",
    )


@dataclass(frozen=True, slots=True)
class Silence:
    """Notices that wait until a time; ``ended_at``: or until somebody said so."""

    id: str
    pipeline: str
    condition: str
    severities: tuple[Severity, ...]
    begun_at: datetime
    until: datetime
    by: str
    reason: str
    ended_at: datetime | None = None

    @property
    def end(self) -> datetime:
        return self.until if self.ended_at is None else min(self.until, self.ended_at)

    def covers(self, alert: Alert, at: datetime) -> bool:
        """Whether a notice of an alert waits at a moment."""
        return (
            self.begun_at <= at < self.end
            and alert.pipeline == self.pipeline
            and fnmatchcase(alert.condition, self.condition)
            and (not self.severities or alert.severity in self.severities)
        )


def silences_of(facts: Iterable[Fact]) -> list[Silence]:
    """Return the silences of one pipeline, oldest first."""
    found: dict[str, Silence] = {}
    said: Sequence[Fact] = sorted(
        (each for each in facts if isinstance(each.event, AlertsSilenced)),
        key=lambda each: (each.at, each.event_id),
    )
    for fact in said:
        event = fact.event
        assert isinstance(event, AlertsSilenced)  # noqa: S101 - chosen above
        if event.change == "begun":
            name = event.silence_id or fact.event_id
            found[name] = Silence(
                name,
                event.pipeline,
                event.condition,
                tuple(event.severities),
                fact.at,
                event.until,
                event.by,
                event.reason,
            )
        elif (known := found.get(event.silence_id)) and known.ended_at is None:
            found[known.id] = replace(known, ended_at=fact.at)
    return list(found.values())
