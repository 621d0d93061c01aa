"""The log as people read it: every event of the chain, with its cause."""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from driftloop.contracts.base import Event, Meta
from driftloop.contracts.topics import BESIDE_THE_CHAIN, DOOR_TOPICS, TOPICS
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message

CHAIN_TOPICS = tuple(
    t.name for t in TOPICS if t.name not in DOOR_TOPICS | BESIDE_THE_CHAIN
)
ROW_TOPICS = frozenset(t.name for t in TOPICS if t.event.has_rows)
DECISION_TOPICS = tuple(t for t in CHAIN_TOPICS if t not in ROW_TOPICS)


class LogTimeoutError(Exception):
    """The broker did not deliver the log in time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the log."""

    event: Event
    meta: Meta

    @property
    def topic(self) -> str:
        return self.event.topic()

    @property
    def trace_id(self) -> str | None:
        parent = self.meta.chain.traceparent
        return parent.split("-")[1] if parent else None


def entry_of(message: Message, store: ArtifactStore) -> Entry | None:
    """Return the entry of a record; None for one that is not an event of ours."""
    try:
        event = decode(message, store)
    except (Reject, Retry):
        return None
    return Entry(event, event.meta)


def read_log(
    bootstrap: str,
    topics: Sequence[str],
    store: ArtifactStore,
    timeout_s: float = 60,
    config: Mapping[str, str] | None = None,
) -> list[Entry]:
    """Return everything that is in the topics now, by time.

    Parameters
    ----------
    config : more settings of the Kafka client.

    Raises
    ------
    LogTimeoutError
        When the broker does not deliver it in time.
    """
    entries: list[Entry] = []

    def take(message: Message) -> None:
        entry = entry_of(message, store)
        if entry is not None:
            entries.append(entry)

    follower = LogFollower(bootstrap, topics, take, config)
    if not follower.read_to_end(timeout_s):
        raise LogTimeoutError(
            f"the broker at {bootstrap} did not answer within {timeout_s:g} s; "
            "is the stack up? (driftloop status)"
        )
    return sorted(entries, key=lambda entry: entry.meta.time)


def follow_log(
    bootstrap: str,
    topics: Sequence[str],
    store: ArtifactStore,
    on_entry: Callable[[Entry], None],
    config: Mapping[str, str] | None = None,
) -> LogFollower:
    """Start following the topics from their beginning in a thread of its own.

    Parameters
    ----------
    config : more settings of the Kafka client.
    """

    def take(message: Message) -> None:
        entry = entry_of(message, store)
        if entry is not None:
            on_entry(entry)

    follower = LogFollower(bootstrap, topics, take, config)
    threading.Thread(target=follower.run, daemon=True).start()
    return follower


def by_id(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Index entries by event id; a repeat has the same id and the same bytes."""
    return {entry.meta.id: entry for entry in entries}
