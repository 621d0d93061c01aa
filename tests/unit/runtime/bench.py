"""A runner with one handler, and a publisher that can be told to fail."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import AlertRaised, PipelineApplied, RetrainRequested
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.envelope import decode, encode
from driftloop.runtime.handlers import Deps, handler_table
from driftloop.runtime.outbox import OutboxRelay
from driftloop.runtime.runner import Runner
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message, PublishError, Record
from opentelemetry.sdk.trace import TracerProvider
from sqlmodel import Field, Session, SQLModel, select


class Effect(SQLModel, table=True):
    __tablename__ = "test_runner_effect"
    number: int | None = Field(default=None, primary_key=True)
    what: str


@dataclass
class RecordingPublisher:
    sent: list[Record] = field(default_factory=list)
    failures: int = 0

    def publish(self, records: Sequence[Record], timeout_s: float = 30) -> None:
        if self.failures:
            self.failures -= 1
            raise PublishError("broker away")
        self.sent += records

    def close(self) -> None: ...


@dataclass
class Bench:
    """A runner with one handler, rebuilt at will as after a kill."""

    tmp_path: Path
    handlers: list
    publisher: RecordingPublisher = field(default_factory=RecordingPublisher)
    url: str | None = None
    """Of the database; None: SQLite."""
    replica: str = "0"
    retry_limit_s: float = 0.5

    def __post_init__(self) -> None:
        self.store = FolderStore(self.tmp_path / "artifacts")
        self.start()

    def restart(self) -> None:
        self.end()
        self.start()

    def end(self) -> None:
        """End as by a kill: connections are gone, nothing is published."""
        self.outbox.close()
        self.engine.dispose()

    def start(self) -> None:
        url = self.url or f"sqlite:///{self.tmp_path}/service.db"
        self.engine = open_database(url, [Effect])
        tracer = TracerProvider().get_tracer("test")
        self.outbox = OutboxRelay(
            "trainer", self.engine, self.publisher, self.store, tracer, self.replica
        )
        deps = Deps(Session(self.engine), StateView(PipelineApplied))
        self.runner = Runner(
            "trainer",
            handler_table(self.handlers),
            deps,
            self.engine,
            self.outbox,
            self.store,
            tracer,
            retry_limit_s=self.retry_limit_s,
        )

    def message(self, offset: int = 0, event_id: str = "cause") -> Message:
        event = RetrainRequested(pipeline="p", requested_by="ann", reason="r")
        meta = Meta(event_id, datetime.now(UTC), "/people", Chain("chain"))
        record = encode(event, meta, self.store)
        return Message(record.topic, 0, offset, b"p", record.value, record.headers)

    def effects(self) -> list[str]:
        with Session(self.engine) as session:
            return [row.what for row in session.exec(select(Effect))]

    def published(self) -> list[Event]:
        return [
            decode(Message(r.topic, 0, 0, r.key, r.value, r.headers), self.store)
            for r in self.publisher.sent
            if not r.topic.endswith("dead-letter")
        ]

    def dead_letters(self) -> list[dict[str, str]]:
        return [
            {name: value.decode() for name, value in r.headers}
            for r in self.publisher.sent
            if r.topic.endswith("dead-letter")
        ]


def alert() -> AlertRaised:
    return AlertRaised(
        pipeline="p", condition="c", severity="info", title="t", detail="d"
    )


def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
    deps.session.add(Effect(what=event.meta.id))
    yield alert()
