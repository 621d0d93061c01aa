"""What is to be told now, from the tables and the pipeline files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from driftloop.contracts.alerting import AlertsSection
from driftloop.contracts.alerts import Outcome
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.registry.alerting import tables
from driftloop.registry.alerting.due import Notice, first_at, look
from driftloop.registry.alerting.life import Alert, Fact, alerts_of, silences_of
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
class Sight:
    """Looks at all pipelines; what has not changed is not read again.

    Attributes
    ----------
    specs : the applied pipeline files.
    standard : of pipelines whose file names no channel.
    """

    engine: Engine
    specs: Callable[[], list[PipelineSpec]]
    standard: AlertsSection
    _key: tuple[int, tuple[str, ...]] | None = field(default=None, init=False)
    _facts: dict[str, list[Fact]] = field(default_factory=dict, init=False)

    def rules_of(self, spec: PipelineSpec) -> Rules:
        own = spec.alerts
        return Rules(spec.project, own if own.channels else self.standard)

    def look(self, now: datetime) -> Seen:
        rules = {spec.name: self.rules_of(spec) for spec in self.specs()}
        due: list[Notice] = []
        waiting: list[Result] = []
        open_count = 0
        for name, facts in self._read(rules, now).items():
            mine = rules[name].alerts
            calm = timedelta(minutes=mine.calm_minutes)
            silences = silences_of(facts)
            for alert in alerts_of(facts, calm):
                open_count += alert.state(now, calm) == "open"
                seen = look(alert, mine, silences, now)
                due += seen.due
                waiting += [
                    Result(notice, "silenced", 0, why)
                    for notice, why in seen.held
                    if not alert.has(notice.id, "silenced")
                ]
                waiting += _repeats(alert, mine)
        return Seen(rules, tuple(due), tuple(waiting), open_count)

    def _read(self, rules: Mapping[str, Rules], now: datetime) -> dict[str, list[Fact]]:
        wanted = tuple(name for name, each in rules.items() if each.alerts.channels)
        with Session(self.engine) as session:
            key = (tables.count(session), wanted)
            if key != self._key:
                self._facts = tables.facts(session, wanted, now - HORIZON)
                self._key = key
        return self._facts


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
