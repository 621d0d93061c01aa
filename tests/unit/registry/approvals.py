"""A registry with a log in memory and a clock that tests set; it can be killed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import ApprovalGiven, ApprovalRenewed, PipelineApplied
from driftloop.registry import tables
from driftloop.registry.app import SERVICE
from driftloop.registry.deadlines import TOPICS, Deadlines, RegistryDue
from driftloop.registry.gate import Cost, PackageFinding
from driftloop.registry.handlers import HANDLERS, Deps
from driftloop.registry.ledger import Standing
from driftloop.registry.lineage.openlineage import Reporter
from driftloop.registry.recorded import TOPICS as VERDICTS
from driftloop.registry.recorded import RecordedVerdicts
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.envelope import decode, encode
from driftloop.runtime.handlers import handler_table
from driftloop.runtime.outbox import OutboxRelay
from driftloop.runtime.runner import Runner
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message, Record
from opentelemetry.sdk.trace import TracerProvider
from sqlmodel import Session, select

from tests.unit.registry import story
from tests.unit.registry.story import NAME, START
from tests.unit.scorer.packages import Factory

HOUR = timedelta(hours=1)
TABLE = handler_table(HANDLERS)


class Killed(BaseException):
    """The process is gone; nothing after it ran."""


class Installation:
    """One pipeline's registry: a database file, and what outlives a kill."""

    def __init__(self, folder: Path, factory: Factory, **approval: Any) -> None:
        self.folder, self.factory = folder, factory
        self.now = START
        self.log: dict[str, list[Record]] = {}
        self.kill_at: str | None = None
        """``before`` or ``after`` the next event reaches the log."""
        spec = story.spec("approve", rollout={"approval": approval})
        self.applied = PipelineApplied(pipeline=NAME, spec=spec, applied_by="ada")
        self.store = FolderStore(folder / "artifacts")
        self.database = folder / "registry.db"
        self.start()

    def start(self) -> None:
        self.engine = open_database(f"sqlite:///{self.database}", SERVICE.tables)
        tracer = TracerProvider().get_tracer("test")
        self.outbox = OutboxRelay("registry", self.engine, self, self.store, tracer)
        self.runner = Runner(
            "registry", TABLE, self._deps(), self.engine, self.outbox, self.store,
            tracer, 1.0,
        )  # fmt: skip
        self.deadlines = Deadlines(
            self.engine, self.outbox, self.ends, lambda: self.now
        )
        self.outbox.recover()

    def _deps(self) -> Deps:
        recorded = RecordedVerdicts()
        for topic in VERDICTS:
            for message in self._messages(topic):
                recorded.add(decode(message, self.store))
        recorded.complete.set()
        return Deps(
            Session(self.engine),
            StateView(PipelineApplied, {NAME: self.applied}),
            lambda _: PackageFinding(cost=Cost(0.5, 1.0, 3.0, 5.0)),
            recorded,
            self.store,
            Reporter("here", "127.0.0.1:9092"),
            lambda _: False,
            lambda: self.now,
        )

    def kill(self) -> None:
        self.outbox.close()
        self.engine.dispose()

    def restart(self) -> None:
        self.kill()
        self.start()

    def kill_after_what_is_said(self, step: Callable[[], Any], moment: str) -> None:
        """Kill the registry at the first event of its own; start it again."""
        self.kill_at = moment
        try:
            step()
        except Killed:
            self.kill_at = None
            self.restart()
            self.deliver()
        else:
            raise AssertionError("the registry said nothing")

    # the broker's side

    def publish(self, records: Sequence[Record], timeout_s: float = 30) -> None:
        if self.kill_at == "before":
            raise Killed
        for record in records:
            self.log.setdefault(record.topic, []).append(record)
        if self.kill_at == "after":
            raise Killed

    def close(self) -> None: ...

    def ends(self) -> dict[tuple[str, int], int]:
        return {(name, 0): len(self.log[name]) for name in TOPICS if name in self.log}

    def _messages(self, topic: str) -> list[Message]:
        return [
            Message(topic, 0, offset, record.key, record.value, record.headers)
            for offset, record in enumerate(self.log.get(topic, ()))
        ]

    def deliver(self, *topics: str) -> None:
        """Let the registry read what it has not read."""
        for topic in topics or TABLE.by_topic:
            start = self.runner.start_offset(topic, 0) or 0
            for message in self._messages(topic)[start:]:
                self.runner.process([message])

    def say(self, event: Event, event_id: str, at: datetime | None = None) -> None:
        """Publish what somebody else says, now or at another time."""
        meta = Meta(event_id, at or self.now, "/test", Chain(event_id))
        record = encode(event, meta, self.store)
        self.log.setdefault(record.topic, []).append(record)

    # people and programs

    def train(self, job: str = "job", requested_by: str | None = None) -> None:
        event = story.trained(self.factory, job, requested_by=requested_by)
        self.digest = event.package.digest
        self.say(event, f"trained-{job}")
        self.deliver()

    def answer(
        self, by: str, what: str = "approve", request: int = 1, **more: Any
    ) -> None:
        given = ApprovalGiven.model_validate(
            {
                "pipeline": NAME,
                "version": 1,
                "decision": what,
                "by": by,
                "reason": "because",
                "package_digest": self.digest,
                "request": request,
            }
        )
        self.say(given, f"{what}-{by}-{request}", **more)

    def ask_again(self, by: str, request: int = 2) -> None:
        renewed = ApprovalRenewed(
            pipeline=NAME,
            version=1,
            package_digest=self.digest,
            request=request,
            requested_by=by,
            reason="everybody was away",
            role="approver",
            people=1,
            expires_at=self.now + 72 * HOUR,
        )
        self.say(renewed, f"renewed-{by}-{request}")
        self.deliver()

    def wait(self, hours: float) -> int:
        """Let time pass; return how many events came due."""
        self.now += hours * HOUR
        count = self.deadlines.look()
        self.deliver()
        return count

    # what came of it

    def told(self, kind: type[Event]) -> list[Any]:
        return [decode(found, self.store) for found in self._messages(kind.topic())]

    def standing(self) -> Standing:
        with Session(self.engine) as session:
            return tables.ledger_of(session, NAME).standings[1]

    def due(self) -> list[int]:
        with Session(self.engine) as session:
            return sorted(row.number for row in session.exec(select(RegistryDue)))
