"""What people said of verdicts: one row an event, in the order of the log."""

from datetime import datetime

from driftloop.contracts.events import VerdictOverruled
from driftloop.registry.lineage.tables import RegistryDrift
from sqlmodel import Field, Session, SQLModel, col, select


class RegistryOverruling(SQLModel, table=True):
    """A person said that a verdict's cause is another one."""

    __tablename__ = "registry_overruling"
    position: int | None = Field(default=None, primary_key=True)
    event_id: str = Field(unique=True)
    pipeline: str = Field(index=True)
    verdict_id: str
    at: datetime
    verdict_cause: str
    cause: str
    by: str
    reason: str


TABLES: list[type[SQLModel]] = [RegistryOverruling]


def note(session: Session, event: VerdictOverruled) -> None:
    session.add(
        RegistryOverruling(
            event_id=event.meta.id,
            pipeline=event.pipeline,
            verdict_id=event.verdict_id,
            at=event.meta.time,
            verdict_cause=event.verdict_cause,
            cause=event.cause,
            by=event.overruled_by,
            reason=event.reason,
        )
    )


def is_noted(session: Session, event_id: str) -> bool:
    """Whether an overruling has been read from the log."""
    query = select(RegistryOverruling.event_id)
    found = session.exec(query.where(RegistryOverruling.event_id == event_id)).first()
    return found is not None


def overrulings_of(session: Session, pipeline: str) -> list[RegistryOverruling]:
    """Return what people said of a pipeline's verdicts, oldest first."""
    table = RegistryOverruling
    query = select(table).where(table.pipeline == pipeline)
    return list(session.exec(query.order_by(col(table.position))))


def verdict(session: Session, pipeline: str, verdict_id: str) -> RegistryDrift | None:
    """Return a verdict of a pipeline; None: it has no such one."""
    found = session.get(RegistryDrift, verdict_id)
    return found if found is not None and found.pipeline == pipeline else None
