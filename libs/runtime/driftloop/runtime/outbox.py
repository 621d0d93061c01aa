"""Events leave a service only through here: stored first, then published."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from driftloop.contracts.base import Chain, Event, Meta, numbered
from driftloop.contracts.topics import dead_letter_topic
from driftloop.runtime import database, metrics
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.database import Unsent
from driftloop.runtime.envelope import encode
from driftloop.runtime.recorded import Recorded
from driftloop.runtime.replicas import Replica
from driftloop.runtime.telemetry import continuing_traceparent, log, traceparent_of
from driftloop.runtime.transport import Message, Publisher, PublishError, Record
from opentelemetry import trace
from opentelemetry.trace import Tracer
from sqlalchemy import Engine
from sqlmodel import Session

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
MAX_REASON_CHARACTERS = 1000
SESSION_KEY = "driftloop.outbox"
logger = log(__name__)


class Stopping(Exception):  # noqa: N818 - a request, not an error
    """The process is to stop; nothing of the work in hand is committed."""


@dataclass(frozen=True, slots=True)
class Cause:
    """What derived ids are made from, and the chain that goes on.

    Attributes
    ----------
    is_event : whether the id is that of an event. What nothing in the log has caused, a
        sign of life for example, has no causation id.
    """

    id: str
    chain: Chain
    is_event: bool = True

    @classmethod
    def of(cls, meta: Meta) -> "Cause":
        return cls(meta.id, meta.chain)

    @classmethod
    def none(cls, name: str) -> "Cause":
        """Return the begin of a chain of its own, under a name that is unique."""
        return cls(name, Chain(name), is_event=False)


def source_of(service: str, part: str = "") -> str:
    """Return the CloudEvents source of a service, or of a part of it."""
    return f"/driftloop/{_of_part(service, part)}"


def _of_part(name: str, part: str) -> str:
    return f"{name}/{part}" if part else name


class OutboxRelay:
    """Stores events in the caller's transaction and publishes them after it.

    One per process; thread-safe. Events of one transaction go out in their order.
    An event that was published but not yet forgotten when the process died goes
    out again, with the same id and bytes. ``part`` is that of the settings. What is
    ``recorded`` of the service in the log is not said again.
    """

    def __init__(
        self,
        service: str,
        engine: Engine,
        publisher: Publisher,
        store: ArtifactStore,
        tracer: Tracer,
        replica: str = "0",
        is_stopping: Callable[[], bool] = lambda: False,
        part: str = "",
        recorded: Recorded | None = None,
    ) -> None:
        self._service = service
        self._part = part
        self._engine = engine
        self._publisher = publisher
        self._store = store
        self._tracer = tracer
        self._recorded = recorded or Recorded()
        self._replica = Replica(engine, service, replica)
        self._is_stopping = is_stopping
        self._lock = threading.RLock()
        self._unsent: list[Unsent] = []
        self._published: set[str] = set()

    def add(self, session: Session, cause: Cause, events: Iterable[Event]) -> None:
        """Store events as part of the caller's transaction."""
        trigger = trace.get_current_span()
        now = datetime.now(UTC)
        caused_by = cause.id if cause.is_event else None
        rows = []
        for event_id, event in numbered(events, self._own(cause.id)):
            if self._recorded.has(event_id):
                continue
            meta = Meta(
                id=event_id,
                time=now,
                source=source_of(self._service, self._part),
                chain=self._chain(event, cause, trigger),
                causation_id=event.follows.id if event.follows else caused_by,
            )
            record = encode(event, meta, self._store)
            rows.append(Unsent(record, event_id, self._replica.name))
        self._keep(session, rows)

    def _own(self, name: str) -> str:
        """Tell a part's events from those that another part makes of the same cause."""
        return _of_part(name, self._part)

    def _chain(self, event: Event, cause: Cause, trigger: trace.Span) -> Chain:
        if event.follows is None:
            return Chain(cause.chain.id, traceparent_of(trigger))
        traceparent = continuing_traceparent(
            self._tracer, event.topic(), event.follows, trigger.get_span_context()
        )
        return Chain(event.follows.chain.id, traceparent)

    def add_dead_letter(
        self,
        session: Session,
        message: Message,
        error: Exception,
        attempts: int = 1,
        row: int | None = None,
    ) -> None:
        """Store a message with its provenance for the service's dead letters.

        Parameters
        ----------
        row : number of the row that ``message`` holds alone; part of the id.
        """
        position = f"{message.topic}/{message.partition}/{message.offset}"
        letter_id = (
            f"{self._own(self._service)}/{position}{'' if row is None else f'/{row}'}"
        )
        provenance = {
            "id": letter_id,
            "topic": message.topic,
            "partition": message.partition,
            "offset": message.offset,
            "row": row,
            "field": getattr(error, "field", None),
            "error": type(error).__name__,
            "reason": str(error)[:MAX_REASON_CHARACTERS],
            "attempts": attempts,
            "time": datetime.now(UTC).isoformat(),
        }
        headers = tuple(
            (f"dead-letter-{name}", str(value).encode())
            for name, value in provenance.items()
            if value is not None
        )
        record = Record(
            dead_letter_topic(self._service),
            message.key,
            message.value,
            (*message.headers, *headers),
        )
        self._keep(session, [Unsent(record, letter_id, self._replica.name)])

    def _keep(self, session: Session, rows: list[Unsent]) -> None:
        if rows:
            database.store_unsent(session.connection(), rows)
            session.info.setdefault(SESSION_KEY, []).extend(rows)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: what is added in it goes out once it is committed.

        Nothing of it goes out, and nothing is stored, when the block raises.

        Raises
        ------
        Stopping
            When the process is to stop while the broker is away.
        """
        with Session(self._engine) as session:
            with self._lock:
                done = frozenset(self._published)
            yield session
            database.forget(session.connection(), done)
            session.commit()
            with self._lock:
                self._published -= done
                self._unsent += session.info.pop(SESSION_KEY, [])
        self.flush()

    @contextmanager
    def unit(self, cause: Cause) -> Iterator[tuple[Session, list[Event]]]:
        """One transaction outside a handler: fill the list, it goes out after.

        For work that ends in the background (a finished job). The caller makes
        sure that the same cause is not used twice for different events.
        """
        events: list[Event] = []
        with self.transaction() as session:
            yield session, events
            self.add(session, cause, events)

    def recover(self) -> None:
        """Publish what an earlier run stored and may not have published."""
        with self._lock:
            self._replica.hold()
            with Session(self._engine) as session:
                self._unsent = database.unsent(session, self._replica.name)
            self.flush()

    def take_over(self) -> None:
        """Publish what replicas that are gone have left, before their work goes on."""
        with self._lock:
            self._replica.hold()
            self._unsent = self._replica.take_over() + self._unsent
            self.flush()

    def close(self) -> None:
        """Say that this replica is gone; nothing may be added any more."""
        with self._lock:
            self._replica.release()

    def flush(self) -> None:
        """Publish what was committed; return when the broker has all of it.

        Raises
        ------
        Stopping
            When the process is to stop while the broker is away.
        """
        with self._lock:
            metrics.OUTBOX_UNSENT.labels(self._service).set(len(self._unsent))
            if self._unsent:
                self._publish([row.record for row in self._unsent])
                self._published |= {row.event_id for row in self._unsent}
                self._unsent = []
                metrics.OUTBOX_UNSENT.labels(self._service).set(0)

    def _publish(self, records: list[Record]) -> None:
        wait_s = FIRST_BACKOFF_S
        while True:
            try:
                self._publisher.publish(records)
            except PublishError as error:
                if self._is_stopping():
                    raise Stopping("broker away while stopping") from error
                logger.warning("publish failed, trying again", error=str(error))
                time.sleep(wait_s)
                wait_s = min(wait_s * 2, MAX_BACKOFF_S)
            else:
                break
        for record in records:
            metrics.EVENTS_PRODUCED.labels(self._service, record.topic).inc()

    def tidy(self) -> None:
        """Forget what is published; for a quiet moment and the end."""
        with self.transaction():
            pass
