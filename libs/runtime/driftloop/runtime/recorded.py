"""What a service said before it lost its database: none of it is said otherwise.

Topics have no order in common. A service that reads its inputs anew, another one first,
would come to other decisions under the ids of the old ones, on which others have acted.
So it first reads what it once said. An event whose id is in the log is not published
again, and handlers ask here what was decided.
"""

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, TypeVar, cast

from driftloop.contracts.base import Event, derived_id
from driftloop.runtime import database, telemetry
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import attributes_of, decode, meta_of
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.follower import LogFollower, LogSilentError, Partition, bounds_of
from driftloop.runtime.transport import Message
from sqlalchemy import Engine

E = TypeVar("E", bound=Event)
Ends = Mapping[Partition, int]
PAUSE_S = 1.0
logger = telemetry.log(__name__)


class Log(NamedTuple):
    """Where the log is, and the store of what is too large for it."""

    bootstrap: str
    config: Mapping[str, str]
    store: ArtifactStore


class Recorded:
    """Events of some topics, each id once, for a service that reads its inputs anew.

    Empty with a database that has read all that was there when it was begun.

    Parameters
    ----------
    source : CloudEvents source of the service itself; with no kinds nothing is read.
    kinds : what is read: topics of its own, and what it decides by.

    Attributes
    ----------
    complete : set once all of it is read, or none is needed; nothing may be said
        before.
    """

    def __init__(self, source: str = "", kinds: Sequence[type[Event]] = ()) -> None:
        self.complete = threading.Event()
        self._source = source
        self._said: set[str] = set()
        self._events: dict[tuple[type[Event], str], dict[str, Event]] = {}
        self._by_topic = {kind.topic(): kind for kind in kinds}
        if not kinds:
            self.complete.set()

    @property
    def topics(self) -> Collection[str]:
        return self._by_topic.keys()

    def add(self, message: Message, store: ArtifactStore) -> None:
        """Take one record of the topics; one that nobody can read says nothing."""
        kind = self._by_topic[message.topic]
        try:
            meta = meta_of(attributes_of(message), message)
            if not kind.has_rows:  # of those the ids alone
                event = decode(message, store)
                known = self._events.setdefault((kind, event.pipeline), {})
                known.setdefault(meta.id, event)
        except (Reject, Retry):
            return
        if meta.source == self._source:
            self._said.add(meta.id)

    def has(self, event_id: str) -> bool:
        """Whether the service has said an event."""
        return event_id in self._said

    def has_answered(self, cause_id: str) -> bool:
        """Whether the service has said anything about an event, or a cause of its own.

        By the ids, which derive from the cause; see ``contracts.base.numbered``.
        """
        ids = (derived_id(cause_id, name, 0) for name in self._by_topic)
        return bool(self._said) and any(map(self.has, ids))

    def by_id(self, kind: type[E], pipeline: str) -> dict[str, E]:
        """Return a pipeline's events of a kind, oldest first: a key has one order."""
        return cast("dict[str, E]", self._events.get((kind, pipeline), {}))

    def of(self, kind: type[E], pipeline: str) -> list[E]:
        """Return the events of :meth:`by_id`."""
        return list(self.by_id(kind, pipeline).values())


def is_reading_anew(engine: Engine, ends: Callable[[], Ends]) -> bool:
    """Whether a database has not read yet all that there was when it was begun.

    Parameters
    ----------
    ends : returns where the handled partitions end; asked with an empty database.
    """
    with engine.begin() as connection:
        is_empty = database.is_empty(connection)
    found = ends() if is_empty else {}  # outside of the transaction: it may take long
    with engine.begin() as connection:
        database.begin(connection, found)
        return database.is_rereading(connection)


def read_recorded(
    recorded: Recorded,
    engine: Engine,
    handled: Sequence[str],
    log: Log,
    stopping: threading.Event,
) -> None:
    """Fill ``recorded`` from the broker if that is needed; block until it is done.

    Parameters
    ----------
    handled : topics that the service handles.
    """
    if recorded.complete.is_set():
        return

    def ends() -> Ends:
        while not stopping.is_set():
            try:
                found = bounds_of(log.bootstrap, handled, log.config)
            except LogSilentError as error:
                logger.warning("waiting for the broker", error=str(error))
                stopping.wait(PAUSE_S)
            else:
                return {p: end for p, (start, end) in found.items() if start < end}
        return {}

    def take(message: Message) -> None:
        recorded.add(message, log.store)

    if is_reading_anew(engine, ends):
        logger.info("reading what was said before", topics=sorted(recorded.topics))
        follower = LogFollower(log.bootstrap, list(recorded.topics), take, log.config)
        if not follower.read_to_end(is_stopping=stopping.is_set):
            return
    if not stopping.is_set():
        recorded.complete.set()
