"""When requests for approval end, and when people are reminded of them.

What is due follows from the facts and is stored with them, so it survives a restart. A
due moment becomes an event, and only the event, read back from the log, changes where a
version is: a registry that is built anew comes to the same.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from driftloop.contracts.base import Chain, Event, derived_id, origin_from
from driftloop.contracts.events import (
    ApprovalExpired,
    ApprovalGiven,
    ApprovalReminded,
    ApprovalRenewed,
    ModelTrained,
)
from driftloop.registry import tables
from driftloop.registry.ledger import Standing
from driftloop.registry.requests import PUBLISH_TIMEOUT_S
from driftloop.registry.tables import RegistryReminder, RegistryVersion
from driftloop.runtime import database
from driftloop.runtime.database import Outbox, next_offset
from driftloop.runtime.follower import LogSilentError, Partition
from driftloop.runtime.outbox import Cause, OutboxRelay
from driftloop.runtime.telemetry import log
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlmodel import Field, Session, SQLModel, col, func, select

POLL_S = 1.0
EXPIRY = 0
"""Number of a request's end among its due moments; reminders count from 1."""
LATEST_ANSWER = timedelta(seconds=PUBLISH_TIMEOUT_S)
"""An answer that was given in time is in the log so long after it, or not at all."""
TOPICS = tuple(
    event.topic()
    for event in (ApprovalGiven, ApprovalReminded, ApprovalExpired, ApprovalRenewed)
)
logger = log(__name__)


class RegistryDue(SQLModel, table=True):
    """Something is to be said about an open request, once a moment has come."""

    __tablename__ = "registry_due"
    pipeline: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    request: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    at: datetime = Field(index=True)

    @property
    def cause_id(self) -> str:
        """What the event's id is made from: said again, it has the same."""
        about = f"{self.pipeline}/{self.version}/{self.request}/{self.number}"
        return derived_id(about, "approval-due", 0)


def schedule(session: Session, pipeline: str, standing: Standing) -> None:
    """Store what is due for a version, in place of what was."""
    query = select(RegistryDue).where(
        RegistryDue.pipeline == pipeline, RegistryDue.version == standing.version
    )
    for row in session.exec(query):
        session.delete(row)
    session.flush()
    rule = standing.rule
    if rule is None or standing.state != "awaiting_approval":
        return
    told = session.exec(
        select(func.max(RegistryReminder.number)).where(
            RegistryReminder.pipeline == pipeline,
            RegistryReminder.version == standing.version,
            RegistryReminder.request == standing.request,
        )
    ).one()
    moments = {
        number: at
        for number, at in enumerate(rule.remind_at, EXPIRY + 1)
        if number > (told or 0)
    }
    if rule.expires_at is not None:
        moments[EXPIRY] = rule.expires_at
    for number, at in moments.items():
        session.add(
            RegistryDue(
                pipeline=pipeline,
                version=standing.version,
                request=standing.request,
                number=number,
                at=at,
            )
        )


@dataclass(frozen=True)
class Deadlines:
    """Says what is due; runs in a thread of its own.

    Of several replicas more than one may say the same: with the same id, which every
    reader takes once.

    Attributes
    ----------
    ends : next offset of each partition of :data:`TOPICS`.
    """

    engine: Engine
    outbox: OutboxRelay
    ends: Callable[[], dict[Partition, int]]
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self, stopping: threading.Event) -> None:
        """Look once a second, until ``stopping`` is set."""
        while not stopping.wait(POLL_S):
            try:
                self.look()
            except LogSilentError as error:
                logger.warning("deadlines wait", error=str(error))
            except DBAPIError as error:
                if not database.is_passing(error):
                    raise
                logger.warning("deadlines wait", error="the database is away")

    def look(self) -> int:
        """Say what is due now; return how many events that were.

        Nothing is said while the log holds anything about approvals that is not stored
        yet: it may be the answer, or this very event, said before a kill.

        Raises
        ------
        LogSilentError
            When the broker is away.
        """
        now = self.now()
        with Session(self.engine) as session:
            if not _due(session, now):
                return 0
        ends = self.ends()
        with self.outbox.transaction() as session:
            if not _has_read(session, ends):
                return 0
            rows = [row for row in _due(session, now) if not _is_stored(session, row)]
            for row in rows:
                cause = Cause(row.cause_id, Chain(row.cause_id))
                self.outbox.add(session, cause, [_event(session, row)])
        return len(rows)


def _due(session: Session, now: datetime) -> list[RegistryDue]:
    """Return what is due: of each request its end, or else its newest reminder."""
    query = select(RegistryDue).where(col(RegistryDue.at) <= now)
    newest: dict[tuple[str, int], RegistryDue] = {}
    for row in session.exec(query.order_by(col(RegistryDue.at))):
        if row.number != EXPIRY or tables.utc(row.at) + LATEST_ANSWER <= now:
            newest[row.pipeline, row.version] = row
    return list(newest.values())


def _has_read(session: Session, ends: dict[Partition, int]) -> bool:
    connection = session.connection()
    return all(
        (next_offset(connection, topic, partition) or 0) >= end
        for (topic, partition), end in ends.items()
    )


def _event_id(row: RegistryDue) -> str:
    kind = ApprovalExpired if row.number == EXPIRY else ApprovalReminded
    return derived_id(row.cause_id, kind.topic(), 0)


def _is_stored(session: Session, row: RegistryDue) -> bool:
    """Whether it is on its way to the log already."""
    query = select(Outbox.position).where(Outbox.event_id == _event_id(row))
    return session.exec(query).first() is not None


def _event(session: Session, row: RegistryDue) -> Event:
    version = session.get_one(RegistryVersion, (row.pipeline, row.version))
    standing = tables.ledger_of(session, row.pipeline).standings[row.version]
    rule = standing.rule
    assert rule is not None  # noqa: S101 - a request is open, so there is one
    about: dict[str, Any] = {
        "pipeline": row.pipeline,
        "version": row.version,
        "package": ModelTrained.model_validate(version.trained).package,
        "role": rule.role,
        "people": rule.people,
        "also": dict(rule.also),
        "request": row.request,
        "said_yes": list(standing.decided_by),
        "expires_at": rule.expires_at,
    }
    if row.number == EXPIRY:
        event: Event = ApprovalExpired(**about)
    else:
        event = ApprovalReminded(number=row.number, **about)
    return event.following(origin_from(version.origin))
