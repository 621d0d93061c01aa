"""What is to be told now, from the tables and the pipeline files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from driftloop.contracts.alerting import AlertsSection
from driftloop.contracts.alerts import Outcome
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.registry.alerting import tables
from driftloop.registry.alerting.due import Look, Notice, first_at, look
from driftloop.registry.alerting.life import Alert, Silence, alerts_of, silences_of
from sqlalchemy import Engine
from sqlmodel import Session

HORIZON = timedelta(days=90)
"""Alerts that began before are looked at no more."""
FINAL: tuple[Outcome, ...] = ("delivered", "given_up")


class Result(NamedTuple):
    """What became of a notice, to be said in the log."""

    notice: Notice
    outcome: Outcome
    attempts: int
    detail: str


@dataclass(frozen=True)
class Rules:
    """What holds for a pipeline's alerts now."""

    project: str
    alerts: AlertsSection


@dataclass(frozen=True)
class Seen:
    """One look.

    Attributes
    ----------
    due : notices whose moment has come.
    waiting : what is to be said without a call: notices that wait, alerts that came
        again.
    open_count : alerts that nobody has acknowledged.
    """

    rules: Mapping[str, Rules]
    due: tuple[Notice, ...]
    waiting: tuple[Result, ...]
    open_count: int


@dataclass
class _Pipeline:
    """What is known of a pipeline: alerts with which something may still be to do."""

    rules: Rules
    silences: list[Silence]
    alerts: list[Alert]


@dataclass
class Sight:
    """Looks at all pipelines; nothing is read again that has not changed.

    Attributes
    ----------
    specs : the applied pipeline files.
    standard : of pipelines whose file names no channel.
    """

    engine: Engine
    specs: Callable[[], list[PipelineSpec]]
    standard: AlertsSection
    _key: tuple[int, Mapping[str, Rules]] | None = field(default=None, init=False)
    _known: dict[str, _Pipeline] = field(default_factory=dict, init=False)

    def rules_of(self, spec: PipelineSpec) -> Rules:
        own = spec.alerts
        return Rules(spec.project, own if own.channels else self.standard)

    def look(self, now: datetime) -> Seen:
        rules = {spec.name: self.rules_of(spec) for spec in self.specs()}
        self._read(rules, now)
        due: list[Notice] = []
        waiting: list[Result] = []
        open_count = 0
        for known in self._known.values():
            mine, left = known.rules.alerts, []
            calm = timedelta(minutes=mine.calm_minutes)
            for alert in known.alerts:
                state = alert.state(now, calm)
                open_count += state == "open"
                seen = look(alert, mine, known.silences, now)
                due += seen.due
                to_say = [*_held(alert, seen), *_repeats(alert, mine)]
                waiting += to_say
                if state != "over" or seen.due or seen.held or to_say:
                    left.append(alert)
            known.alerts = left  # of the others nothing comes before the next fact
        return Seen(rules, tuple(due), tuple(waiting), open_count)

    def _read(self, rules: Mapping[str, Rules], now: datetime) -> None:
        """Read what the log says, if it, or a pipeline file, says something new."""
        wanted = {name: each for name, each in rules.items() if each.alerts.channels}
        with Session(self.engine) as session:
            key = (tables.count(session), wanted)
            if key == self._key:
                return
            found = tables.facts(session, wanted, now - HORIZON)
        self._known = {
            name: _Pipeline(
                wanted[name],
                silences_of(facts),
                alerts_of(facts, timedelta(minutes=wanted[name].alerts.calm_minutes)),
            )
            for name, facts in found.items()
        }
        self._key = key


def _held(alert: Alert, seen: Look) -> list[Result]:
    """Return what is to be said of notices that wait, once each."""
    return [
        Result(notice, "silenced", 0, why)
        for notice, why in seen.held
        if not alert.has(notice.id, "silenced")
    ]


def _repeats(alert: Alert, rules: AlertsSection) -> list[Result]:
    """Return what is to be said of an alert that was raised again."""
    told = sum(each.event.outcome == "deduplicated" for each in alert.told)
    at = first_at(alert, rules)
    return [
        Result(
            Notice(alert, "", "repeated", number, at),
            "deduplicated",
            0,
            f"raised again by {event_id}",
        )
        for number, event_id in enumerate(alert.repeats, 1)
        if number > told
    ]
