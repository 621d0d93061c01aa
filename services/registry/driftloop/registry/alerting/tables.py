"""What the log says about alerts: one row an event; see ``life.py`` for the rest."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from driftloop.contracts.alerts import (
    AlertAcknowledged,
    AlertDelivered,
    AlertResolved,
    AlertsSilenced,
)
from driftloop.contracts.base import Event, chain_of
from driftloop.contracts.events import AlertRaised
from driftloop.registry.alerting.life import Fact
from driftloop.registry.tables import utc
from sqlalchemy import JSON
from sqlmodel import Column, Field, Session, SQLModel, col, func, select

EVENTS: dict[str, type[Event]] = {
    event.topic(): event
    for event in (
        AlertRaised,
        AlertResolved,
        AlertAcknowledged,
        AlertsSilenced,
        AlertDelivered,
    )
}
TOPICS = tuple(EVENTS)


class RegistryAlertFact(SQLModel, table=True):
    """An event about alerts, whole.

    Attributes
    ----------
    alert_id : that it is about; of an ``alert-raised``, its own id. Of what ends or
        silences alerts, empty: conditions say which.
    at : when it was said, by the clock.
    """

    __tablename__ = "registry_alert_fact"
    event_id: str = Field(primary_key=True)
    topic: str
    pipeline: str = Field(index=True)
    alert_id: str = Field(default="", index=True)
    at: datetime = Field(index=True)
    content: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    origin: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))

    def fact(self) -> Fact:
        event = EVENTS[self.topic].model_validate(self.content)
        return Fact(self.event_id, utc(self.at), event, self.origin)


TABLES: list[type[SQLModel]] = [RegistryAlertFact]


def note(session: Session, event: Event) -> None:
    """Store an event about alerts."""
    meta = event.meta
    own = meta.id if isinstance(event, AlertRaised) else ""
    session.add(
        RegistryAlertFact(
            event_id=meta.id,
            topic=event.topic(),
            pipeline=event.pipeline,
            alert_id=getattr(event, "alert_id", own),
            at=meta.time,
            content=event.model_dump(mode="json"),
            origin=chain_of(meta),
        )
    )


def is_noted(session: Session, event_id: str) -> bool:
    """Whether an event has been read from the log."""
    return session.get(RegistryAlertFact, event_id) is not None


def count(session: Session) -> int:
    """Return how many facts there are: when it grows, something happened."""
    return session.exec(select(func.count()).select_from(RegistryAlertFact)).one()


def facts(
    session: Session, pipelines: Iterable[str], since: datetime | None = None
) -> dict[str, list[Fact]]:
    """Return facts by pipeline.

    Parameters
    ----------
    since : older ones are left out; None: none are.
    """
    table = RegistryAlertFact
    query = select(table).where(col(table.pipeline).in_(list(pipelines)))
    if since is not None:
        query = query.where(table.at >= since)
    found: dict[str, list[Fact]] = defaultdict(list)
    for row in session.exec(query):
        found[row.pipeline].append(row.fact())
    return dict(found)
