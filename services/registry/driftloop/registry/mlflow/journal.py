"""Writes: one transaction of rows and event, published in the order of revisions.

A write is answered once the broker has its event. While the broker is away it is
answered once the database has it, on disk: the event goes out when the broker is back,
or, if the process dies meanwhile, after the next start, with the same id and bytes.
"""

import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from driftloop.contracts.base import Chain, Meta
from driftloop.contracts.events import TrackingChanged
from driftloop.contracts.tracking import Change
from driftloop.registry.mlflow.apply import apply, revision_of, set_revision
from driftloop.registry.mlflow.direct import Direct
from driftloop.registry.mlflow.errors import Refusal
from driftloop.runtime import database
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.database import Unsent
from driftloop.runtime.envelope import encode
from driftloop.runtime.replicas import Replica
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Publisher, PublishError
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

SOURCE = "/driftloop/registry/mlflow"
ANSWER_TIMEOUT_S = 5.0
"""How long an answer waits for the broker before it is given without."""
PUBLISH_TIMEOUT_S = 10.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0
TIDY_AFTER_S = 1.0
"""Of quiet: then the database forgets what is published."""
MAX_GROUP = 500
"""Writes stored, and events published, at once."""
_SAVEPOINT, _RELEASE, _BACK = (
    text(f"{what} wish") for what in ("SAVEPOINT", "RELEASE", "ROLLBACK TO")
)
logger = log(__name__)


Decide = Callable[[Connection], Change | None]
Then = Callable[[Connection], Any]


@dataclass(slots=True)
class Waiting:
    """A stored event on its way to the broker."""

    row: Unsent
    sent: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class _Wish:
    """A write that is asked for, and what became of it.

    Attributes
    ----------
    then : reads what is answered, with the change made.
    waiting : its event; None: it was refused, or changes nothing.
    error : why it was not done.
    """

    by: str
    decide: Decide
    then: Then | None = None
    found: Any = None
    is_done: bool = False
    waiting: Waiting | None = None
    error: Exception | None = None


class Journal:
    """The only writer of the tracking tables beside the reader of the log.

    Any thread may write; :meth:`run` publishes, in a thread of its own. Writes that are
    asked for while another one is stored share the next transaction.

    Parameters
    ----------
    replica : the service's; the events are kept under a name of their own beside it.
    is_current : whether the tables hold what the log held at the start. Until then
        nothing is written: it could contradict what comes.
    """

    def __init__(
        self,
        engine: Engine,
        publisher: Publisher,
        store: ArtifactStore,
        replica: str,
        is_current: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._artifacts = store
        self._is_current = is_current
        self._replica = Replica(engine, "registry", f"{replica}/mlflow")
        self._direct = Direct(engine) if engine.dialect.name == "sqlite" else None
        self._lock = threading.Lock()
        self._wishes: deque[_Wish] = deque()
        self._queue: deque[Waiting] = deque()
        self._news = threading.Event()
        self._published: set[str] = set()
        self._is_away = False
        self._revision = 0

    @property
    def is_local(self) -> bool:
        """Whether a read is a matter of this process and the disk, not of a server."""
        return self._direct is not None

    def reading(self) -> AbstractContextManager[Connection]:
        """Return one view of the tables; it waits for no writer."""
        return self._direct.reading() if self._direct else self._engine.connect()

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._direct.writing() if self._direct else self._engine.begin()

    def has(self, revision: int) -> bool:
        """Whether the tables have a revision, as far as this process knows."""
        return revision <= self._revision

    def write(self, by: str, decide: Decide, then: Then | None = None) -> Any:
        """Store and publish what ``decide`` returns; nothing for None.

        ``decide`` sees the state that its change will follow, and raises ``Refusal``.
        What ``then`` reads of the state after it is returned: of the same transaction,
        so that the caller needs none of its own.

        Raises
        ------
        Refusal
            TEMPORARILY_UNAVAILABLE while the log is still being read.
        """
        if not self._is_current():
            raise Refusal(
                "TEMPORARILY_UNAVAILABLE", "the log is still being read; try again"
            )
        wish = _Wish(by, decide, then)
        self._wishes.append(wish)
        with self._lock:  # commits and the queue have one order
            while not wish.is_done:  # else an earlier holder of the lock has done it
                self._grant()
        if wish.error is not None:
            raise wish.error
        if wish.waiting is not None and not self._is_away:
            wish.waiting.sent.wait(ANSWER_TIMEOUT_S)
        return wish.found

    def _grant(self) -> None:
        """Store what is asked for now, as one transaction, and queue its events."""
        count = min(len(self._wishes), MAX_GROUP)
        wishes = [self._wishes.popleft() for _ in range(count)]
        try:
            self._commit(wishes)
        except Exception as error:  # noqa: BLE001 - raised where it was asked for
            for wish in wishes:
                wish.waiting, wish.error = None, wish.error or error
        for wish in wishes:
            wish.is_done = True
            if wish.waiting is not None:
                self._queue.append(wish.waiting)
        self._news.set()

    def _commit(self, wishes: Sequence[_Wish]) -> None:
        done = frozenset(self._published)
        with self._writing() as connection:
            start = revision = revision_of(connection)
            for wish in wishes:
                revision += self._store(connection, wish, revision + 1)
            if revision > start:
                set_revision(connection, revision)
                rows = [wish.waiting.row for wish in wishes if wish.waiting]
                database.store_unsent(connection, rows)
            database.forget(connection, done)
        self._revision = revision
        self._published -= done

    def _store(self, connection: Connection, wish: _Wish, revision: int) -> bool:
        """Make one change in the tables; False: there is none, or it failed."""
        connection.execute(_SAVEPOINT)
        try:
            change = wish.decide(connection)
            if change is None:
                wish.found = wish.then(connection) if wish.then else None
                return False
            now = datetime.now(UTC)
            happened = TrackingChanged(
                revision=revision,
                at_ms=int(now.timestamp() * 1000),
                by=wish.by,
                change=change,
            )
            apply(connection, happened)
            wish.found = wish.then(connection) if wish.then else None
            wish.waiting = Waiting(self._row(happened, now))
        except DBAPIError as error:
            if database.is_passing(error):
                raise  # it concerns them all
            wish.error = error
        except Exception as error:  # noqa: BLE001 - raised where it was asked for
            wish.error = error
        else:
            connection.execute(_RELEASE)
            return True
        connection.execute(_BACK)
        return False

    def _row(self, happened: TrackingChanged, now: datetime) -> Unsent:
        """Return the event for the outbox; it belongs to no trace."""
        event_id = str(uuid.uuid4())  # kept with the event, so a repeat has it too
        meta = Meta(event_id, now, SOURCE, Chain(event_id))
        record = encode(happened, meta, self._artifacts)
        return Unsent(record, event_id, self._replica.name)

    def recover(self) -> None:
        """Queue what an earlier run stored and may not have published."""
        self._replica.hold()
        with self._lock, Session(self._engine) as session:
            rows = database.unsent(session, self._replica.name)
            self._queue.extendleft(Waiting(row) for row in reversed(rows))
            self._news.set()

    def run(self, stopping: threading.Event) -> None:
        """Publish until ``stopping`` is set and nothing is left, or the broker away."""
        pause_s = FIRST_PAUSE_S
        while not (stopping.is_set() and (self._is_away or not self._queue)):
            if not self._queue and not self._news.wait(TIDY_AFTER_S):
                self._tidy()
                continue
            self._news.clear()
            group = list(self._queue)[:MAX_GROUP] if self._queue else []
            if not group:
                continue
            try:
                records = [each.row.record for each in group]
                self._publisher.publish(records, PUBLISH_TIMEOUT_S)
            except PublishError as error:
                self._is_away = True
                logger.warning("publish failed, trying again", error=str(error))
                stopping.wait(pause_s)
                pause_s = min(pause_s * 2, MAX_PAUSE_S)
                continue
            self._is_away, pause_s = False, FIRST_PAUSE_S
            self._sent(group)
        self._tidy()

    def _sent(self, group: Sequence[Waiting]) -> None:
        with self._lock:
            for each in group:
                self._queue.popleft()
                self._published.add(each.row.event_id)
        for each in group:
            each.sent.set()

    def _tidy(self) -> None:
        if not self._published:
            return
        with self._lock, self._writing() as connection:
            done = frozenset(self._published)
            database.forget(connection, done)
            self._published -= done

    def close(self) -> None:
        self._replica.release()
        if self._direct:
            self._direct.close()
