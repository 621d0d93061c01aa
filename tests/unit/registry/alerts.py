"""Alerts of one pipeline: a registry that can be killed, a clock, receivers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from driftloop.contracts.alerting import AlertsSection, Channel
from driftloop.contracts.alerts import AlertDelivered, AlertResolved, AlertsSilenced
from driftloop.contracts.events import AlertRaised, PipelineApplied
from driftloop.registry.alerting import tables
from driftloop.registry.alerting.channels import NotSentError
from driftloop.registry.alerting.content import Content
from driftloop.registry.alerting.delivery import Deliverer
from driftloop.registry.alerting.seeing import Sight
from driftloop.runtime.replicas import SessionLock

from tests.unit.registry import approvals, story
from tests.unit.registry.story import NAME

FAULT = "sensor_fault:temp:2012-01-01T00:00"
ONE = {"channels": {"team": {"kind": "slack", "url_secret": "team"}}}
TWO = {
    "channels": {
        "team": {"kind": "slack", "url_secret": "team"},
        "boss": {"kind": "email", "to": ["boss@example.org"]},
    },
    "escalation": [{"after_minutes": 30, "channels": ["boss"]}],
}


def raised(condition: str = FAULT, **more: Any) -> AlertRaised:
    fields: dict[str, Any] = {
        "pipeline": NAME,
        "condition": condition,
        "severity": "critical",
        "title": "Wrong values of temp (range)",
        "detail": "temp: 168 of 168 rows are out of range",
        "owner": "ada@example.org",
        "can_end": True,
    }
    return AlertRaised(**{**fields, **more})


class Inline(Executor):
    """Does the work at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **more))
        return done

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


class World(approvals.Installation):
    """The registry with its deliverer; ``took`` outlives a kill, as receivers do."""

    def __init__(self, folder: Path, **alerts: Any) -> None:
        self.took: list[tuple[str, Content]] = []
        self.refusing: dict[str, NotSentError] = {}
        self.is_killed_after_call = False
        super().__init__(folder, None)  # type: ignore[arg-type]  # trains nothing
        self.change(**alerts)

    def change(self, **alerts: Any) -> None:
        """Apply another file."""
        self._alerts = AlertsSection.model_validate(alerts)
        spec = story.spec(alerts=alerts)
        self.applied = PipelineApplied(pipeline=NAME, spec=spec, applied_by="ada")

    def start(self) -> None:
        super().start()
        self.deliverer = Deliverer(
            self.engine,
            self.outbox,
            SessionLock(self.engine, "alerts"),
            Sight(self.engine, lambda: [self.applied.spec], AlertsSection()),
            self,  # type: ignore[arg-type]  # sends
            lambda: True,
            "https://loop.example.org",
            86_400,
            self.alert_ends,
            lambda: self.now,
            lambda: self.now.timestamp(),  # noqa: PLW0108 - of the time it is then
            Inline(),
        )

    def alert_ends(self) -> dict[tuple[str, int], int]:
        log = self.log
        return {(name, 0): len(log[name]) for name in tables.TOPICS if name in log}

    def send(self, channel: Channel, content: Content, project: str) -> None:
        """Take the place of the real sender."""
        name = next(n for n, c in self._alerts.channels.items() if c == channel)
        if name in self.refusing:
            raise self.refusing[name]
        self.took.append((name, content))
        if self.is_killed_after_call:
            self.is_killed_after_call = False
            raise approvals.Killed

    # what happens

    def raise_(self, event_id: str = "a1", condition: str = FAULT, **more: Any) -> None:
        self.say(raised(condition, **more), event_id)
        self.deliver()

    def resolve(self, condition: str = FAULT) -> None:
        over = AlertResolved(
            pipeline=NAME, condition=condition, at=self.now, why="It is right again."
        )
        self.say(over, f"over-{condition}-{self.now}")
        self.deliver()

    def silence(self, until: datetime, **more: Any) -> None:
        fields: dict[str, Any] = {
            "pipeline": NAME, "change": "begun", "until": until, "by": "ann",
            "reason": "exchanged",
        }  # fmt: skip
        said = AlertsSilenced(**{**fields, **more})
        self.say(said, f"silence-{self.now}-{said.change}")
        self.deliver()

    def look(self, minutes: float = 0) -> list[str]:
        """Let time pass; return what receivers took: channel and reason."""
        self.now += timedelta(minutes=minutes)
        before = len(self.took)
        for _ in range(3):  # what is called in a round is said in the next one
            self.deliverer.round()
            self.deliver()
        return [f"{name} {content.reason}" for name, content in self.took[before:]]

    def outcomes(self) -> list[tuple[str, str]]:
        once = {event.meta.id: event for event in self.told(AlertDelivered)}
        return [(event.channel, event.outcome) for event in once.values()]
