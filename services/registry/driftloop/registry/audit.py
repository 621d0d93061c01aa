"""The audit trail: its rows, its anchors in the log, and whether it is whole."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from driftloop.contracts.audit import (
    Anchor,
    Break,
    Entry,
    breaks_in,
    canonical,
    following,
)
from driftloop.contracts.base import derived_id
from driftloop.contracts.identity import AuditAnchored, AuditNoted
from driftloop.runtime import database
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.outbox import Cause, OutboxRelay
from driftloop.runtime.transport import Message
from sqlalchemy import Engine
from sqlmodel import Field, Session, SQLModel, col, func, select

ANCHOR_EVERY_S = 60.0
READ_TIMEOUT_S = 60.0
CATCH_UP_S = 20.0
"""For which a check waits until the trail has what the log has."""
POLL_S = 0.1
MAX_LOOKED_AT = 10_000
ANCHORS = "/driftloop/registry/anchors"
"""In place of a source, for anchors that were published."""


class RegistryAudit(SQLModel, table=True):
    """One entry of the trail; rows are added and never changed.

    Attributes
    ----------
    content : canonical JSON, as it was hashed.
    """

    __tablename__ = "registry_audit"
    position: int = Field(primary_key=True)
    content: str
    previous: str
    hash: str

    def entry(self) -> Entry:
        """Return the entry; content that is no JSON any more is kept as it is."""
        try:
            content = json.loads(self.content)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            content = {"unreadable": self.content}
        return Entry(self.position, content, self.previous, self.hash)


def last_entry(session: Session) -> Entry | None:
    """Return the newest entry; None: there is none."""
    query = select(RegistryAudit).order_by(col(RegistryAudit.position).desc())
    row = session.exec(query.limit(1)).first()
    return row.entry() if row else None


def append(session: Session, event: AuditNoted) -> Entry:
    """Add a note to the trail."""
    entry = following(last_entry(session), event.as_entry())
    session.add(
        RegistryAudit(
            position=entry.position,
            content=canonical(entry.content).decode(),
            previous=entry.previous,
            hash=entry.hash,
        )
    )
    session.flush()
    return entry


def anchor_of(entry: Entry) -> AuditAnchored:
    return AuditAnchored(position=entry.position, hash=entry.hash)


def entries_of(session: Session, after: int, limit: int) -> list[Entry]:
    """Return entries by position."""
    query = select(RegistryAudit).where(col(RegistryAudit.position) > after)
    rows = session.exec(query.order_by(col(RegistryAudit.position)).limit(limit))
    return [row.entry() for row in rows]


def search(
    session: Session, after: int, limit: int, is_wanted: Callable[[Entry], bool]
) -> tuple[list[Entry], int | None]:
    """Return entries that are wanted, by position, and where to go on; None: the end.

    One call looks at :data:`MAX_LOOKED_AT` entries at most, so it may find fewer, or
    none, although there are more.
    """
    found: list[Entry] = []
    looked_at = entries_of(session, after, MAX_LOOKED_AT + 1)
    for entry in looked_at[:MAX_LOOKED_AT]:
        if is_wanted(entry):
            if len(found) == limit:
                return found, found[-1].position
            found.append(entry)
    is_end = len(looked_at) <= MAX_LOOKED_AT
    return found, None if is_end else looked_at[MAX_LOOKED_AT - 1].position


def count_of(session: Session) -> int:
    """Return how many entries there are."""
    return session.exec(select(func.count()).select_from(RegistryAudit)).one()


def all_entries(session: Session) -> Iterator[Entry]:
    """Return every entry by position."""
    query = select(RegistryAudit).order_by(col(RegistryAudit.position))
    for row in session.exec(query):
        yield row.entry()


class Anchoring:
    """Publishes the trail's head each minute, where there are new entries."""

    def __init__(
        self, engine: Engine, outbox: OutboxRelay, every_s: float = ANCHOR_EVERY_S
    ) -> None:
        self._engine = engine
        self._outbox = outbox
        self._every_s = every_s
        self._anchored = 0

    def run(self, stopping: threading.Event) -> None:
        """Anchor until ``stopping`` is set."""
        while not stopping.wait(self._every_s):
            self.anchor()

    def anchor(self) -> None:
        """Publish position and hash of the newest entry, unless that was done."""
        with Session(self._engine) as session:
            head = last_entry(session)
        if head is None or head.position == self._anchored:
            return
        name = f"audit/{head.position}/{head.hash}"
        cause_id = derived_id(name, AuditAnchored.topic(), 0)
        with self._outbox.unit(Cause.none(cause_id)) as (session, events):
            # Said once, also after a restart or beside a replica: a second time would
            # be the same event with another time in it.
            if database.remember(session.connection(), ANCHORS, cause_id):
                events.append(anchor_of(head))
        self._anchored = head.position


class LogUnreadError(Exception):
    """The topics of the trail were not read in time: here, or by the trail's writer."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What the log holds of the trail.

    Attributes
    ----------
    notes : in their order, without repeats.
    ends : next offset of each partition of the notes.
    """

    notes: list[dict[str, Any]]
    anchors: list[Anchor]
    ends: dict[tuple[str, int], int]


def read_log(bootstrap: str, config: Mapping[str, str], store: ArtifactStore) -> Logged:
    """Return what the log holds of the trail.

    Raises
    ------
    LogUnreadError
        When the broker does not deliver it in time.
    """
    notes: dict[str, dict[str, Any]] = {}
    anchors: list[Anchor] = []
    ends: dict[tuple[str, int], int] = {}

    def take(message: Message) -> None:
        if message.topic == AuditNoted.topic():
            ends[message.topic, message.partition] = message.offset + 1
        try:
            event = decode(message, store)
        except (Reject, Retry):
            return  # not an event of ours
        if isinstance(event, AuditNoted):
            notes.setdefault(event.meta.id, event.as_entry())
        elif isinstance(event, AuditAnchored):
            anchors.append(Anchor(event.position, event.hash, event.meta.id))

    topics = (AuditNoted.topic(), AuditAnchored.topic())
    follower = LogFollower(bootstrap, topics, take, config)
    if not follower.read_to_end(READ_TIMEOUT_S):
        raise LogUnreadError("the broker did not deliver the audit topics in time")
    return Logged(list(notes.values()), anchors, ends)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check of the trail found."""

    entry_count: int
    anchor_count: int
    breaks: list[Break]


def verify(
    engine: Engine, bootstrap: str, config: Mapping[str, str], store: ArtifactStore
) -> Finding:
    """Compare the trail with itself and with the log.

    The log is written to meanwhile: what it has beyond the trail is waited for; what
    the trail got after the log was read is left for the next time.

    Raises
    ------
    LogUnreadError
        When the broker does not deliver it in time, or the trail's writer is behind.
    """
    with Session(engine) as session:
        before = count_of(session)
    logged = read_log(bootstrap, config, store)
    until = time.monotonic() + CATCH_UP_S
    while not _is_written(engine, logged.ends):
        if time.monotonic() > until:
            raise LogUnreadError(
                f"the trail is still being written; after {CATCH_UP_S:g} s it has not "
                "all that the log holds: ask again"
            )
        time.sleep(POLL_S)
    with Session(engine) as session:
        entries = list(all_entries(session))
    entries = entries[: max(before, len(logged.notes))]
    breaks = breaks_in(entries, logged.anchors, logged.notes)
    return Finding(len(entries), len(logged.anchors), breaks)


def _is_written(engine: Engine, ends: Mapping[tuple[str, int], int]) -> bool:
    """Whether the notes of the log were handled, whatever became of their rows."""
    with engine.connect() as connection:
        return all(
            (database.next_offset(connection, *place) or 0) >= end
            for place, end in ends.items()
        )
