"""Which notices of an alert are due, and which wait; pure.

The same alert, rules and moment give the same notices with the same ids, so whoever
asks again after a crash comes to the same ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from driftloop.contracts.alerting import AlertsSection, QuietHours
from driftloop.contracts.alerts import Reason
from driftloop.contracts.base import derived_id
from driftloop.registry.alerting.life import Alert, Silence


@dataclass(frozen=True)
class Notice:
    """One call of one channel about one alert.

    Attributes
    ----------
    number : of the step of escalation, or of the repeat, from 1; of the end, how often
        it had come back; else 0.
    at : when it was due.
    """

    alert: Alert
    channel: str
    reason: Reason
    number: int
    at: datetime

    @property
    def id(self) -> str:
        """What a receiver can tell repeats by: of alert, channel, reason and number."""
        about = f"{self.alert.id}/{self.channel}/{self.reason}/{self.number}"
        return derived_id(about, "alert-notice", 0)


@dataclass(frozen=True, slots=True)
class Look:
    """What is to be done about an alert's notices at a moment.

    Attributes
    ----------
    due : to be sent now.
    held : that wait, with what for.
    """

    due: tuple[Notice, ...]
    held: tuple[tuple[Notice, str], ...]


def look(
    alert: Alert, rules: AlertsSection, silences: Sequence[Silence], now: datetime
) -> Look:
    """Return the notices of an alert that have not ended, due or held."""
    due: list[Notice] = []
    held: list[tuple[Notice, str]] = []
    for notice in _come(alert, rules, now):
        if alert.ended(notice.id) is not None:
            continue
        why = waits_for(alert, rules, silences, now)
        if why is not None:
            held.append((notice, why))
        elif not _passed_unheard(notice, rules, silences):
            due.append(notice)
    return Look(tuple(due), tuple(held))


def first_at(alert: Alert, rules: AlertsSection) -> datetime:
    """Return when people are told first, if it lasts that long."""
    if not alert.raised.can_end:
        return alert.raised_at
    return alert.raised_at + timedelta(minutes=rules.hold_minutes)


def _come(alert: Alert, rules: AlertsSection, now: datetime) -> Iterator[Notice]:
    """Notices whose moment has come and that still have a point."""
    begin = first_at(alert, rules)
    if now < begin or (alert.over_at is not None and alert.over_at < begin):
        return
    at_once = rules.ways(alert.severity, alert.condition, alert.raised.owner)
    for channel in at_once:
        yield Notice(alert, channel, "raised", 0, begin)
    calm = timedelta(minutes=rules.calm_minutes)
    is_over = alert.is_over(now, calm)
    if not is_over and alert.over_at is None and alert.acknowledged is None:
        yield from _escalated(alert, rules, at_once, begin, now)
        yield from _repeated(alert, rules, begin, now)
    if is_over and alert.over_at is not None and rules.resolved:
        for channel in _heard(alert):
            if channel in rules.channels:
                at = alert.over_at + calm
                yield Notice(alert, channel, "resolved", alert.returns, at)


def _escalated(
    alert: Alert,
    rules: AlertsSection,
    at_once: Sequence[str],
    begin: datetime,
    now: datetime,
) -> Iterator[Notice]:
    reached = set(at_once)
    for number, step in enumerate(rules.escalation, 1):
        at = begin + timedelta(minutes=step.after_minutes)
        if alert.severity not in step.severities or at > now:
            continue
        for channel in dict.fromkeys(step.channels):
            if channel not in reached:
                reached.add(channel)
                yield Notice(alert, channel, "escalated", number, at)


def _repeated(
    alert: Alert, rules: AlertsSection, begin: datetime, now: datetime
) -> Iterator[Notice]:
    """Return the newest repeat: those that were missed are not made up for."""
    if rules.repeat_hours is None:
        return
    every = timedelta(hours=rules.repeat_hours)
    number = (now - begin) // every
    if number:
        for channel in _heard(alert):
            if channel in rules.channels:
                yield Notice(alert, channel, "repeated", number, begin + number * every)


def _heard(alert: Alert) -> tuple[str, ...]:
    """Return the channels that have told people of it."""
    return tuple(
        dict.fromkeys(
            told.event.channel
            for told in alert.told
            if told.event.outcome == "delivered" and told.event.channel
        )
    )


# ── waiting ─────────────────────────────────────────────────────────────────


def waits_for(
    alert: Alert, rules: AlertsSection, silences: Sequence[Silence], at: datetime
) -> str | None:
    """Say what notices of an alert wait for at a moment; None: for nothing."""
    for silence in silences:
        if silence.covers(alert, at):
            until = f"{silence.end:%Y-%m-%d %H:%M} UTC"
            return f"silenced by {silence.by} until {until}: {silence.reason}"
    quiet = rules.quiet_hours
    if quiet and alert.severity not in quiet.except_severities and is_quiet(quiet, at):
        return f"quiet hours until {quiet.end} ({quiet.timezone})"
    return None


def is_quiet(quiet: QuietHours, at: datetime) -> bool:
    """Whether a moment is in the quiet hours of its place.

    >>> from datetime import UTC
    >>> night = QuietHours(start="22:00", end="07:00", timezone="Europe/Berlin")
    >>> [is_quiet(night, datetime(2026, 1, 1, h, tzinfo=UTC)) for h in (5, 6, 20, 21)]
    [True, False, False, True]
    """
    here = at.astimezone(ZoneInfo(quiet.timezone)).time()
    start, end = time.fromisoformat(quiet.start), time.fromisoformat(quiet.end)
    return start <= here < end if start < end else here >= start or here < end


def _passed_unheard(
    notice: Notice, rules: AlertsSection, silences: Sequence[Silence]
) -> bool:
    """Whether an alert came and went while its notices had to wait."""
    alert = notice.alert
    if notice.reason == "resolved" or alert.over_at is None:
        return False
    return (
        waits_for(alert, rules, silences, notice.at) is not None
        and waits_for(alert, rules, silences, alert.over_at) is not None
    )
