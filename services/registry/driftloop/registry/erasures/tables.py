"""Erasures, and what people decided about the models that they affect."""

from datetime import datetime
from typing import Any

from driftloop.contracts.base import chain_of
from driftloop.contracts.events import ErasureSettled, ErasureTraced, ModelTrained
from driftloop.registry import tables
from driftloop.registry.erasures.settling import (
    Decision,
    Registered,
    Standing,
    standing_of,
)
from driftloop.registry.lineage.tables import RegistryTraining
from driftloop.registry.tables import RegistryVersion
from sqlalchemy import JSON
from sqlmodel import Column, Field, Session, SQLModel, col, select


class RegistryErasure(SQLModel, table=True):
    """A subject was erased.

    Attributes
    ----------
    traced : the whole ``erasure-traced`` event; None: a decision came before it.
    asked : versions that people were asked about.
    completed : the proof; None: not yet.
    """

    __tablename__ = "registry_erasure"
    erasure_id: str = Field(primary_key=True)
    pipeline: str = Field(index=True)
    at: datetime
    traced: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    origin: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    asked: list[int] = Field(sa_column=Column(JSON, nullable=False))
    completed: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))

    def event(self) -> ErasureTraced:
        return ErasureTraced.model_validate(self.traced)


class RegistrySettlement(SQLModel, table=True):
    """A person's decision about affected models."""

    __tablename__ = "registry_settlement"
    position: int | None = Field(default=None, primary_key=True)
    event_id: str = Field(unique=True)
    erasure_id: str = Field(index=True)
    pipeline: str
    at: datetime
    versions: list[int] = Field(sa_column=Column(JSON, nullable=False))
    decision: str
    by: str
    reason: str

    def fact(self) -> Decision:
        return Decision(
            self.event_id,
            tuple(self.versions),
            "retrain" if self.decision == "retrain" else "waive",
            self.by,
            self.reason,
        )


TABLES: list[type[SQLModel]] = [RegistryErasure, RegistrySettlement]


def note_traced(session: Session, event: ErasureTraced) -> RegistryErasure:
    row = RegistryErasure(
        erasure_id=event.erasure_id,
        pipeline=event.pipeline,
        at=event.meta.time,
        traced=event.model_dump(mode="json"),
        origin=chain_of(event.meta),
        asked=[],
    )
    session.add(row)
    return row


def note_settled(session: Session, event: ErasureSettled) -> None:
    session.add(
        RegistrySettlement(
            event_id=event.meta.id,
            erasure_id=event.erasure_id,
            pipeline=event.pipeline,
            at=event.meta.time,
            versions=event.versions,
            decision=event.decision,
            by=event.by,
            reason=event.reason,
        )
    )


def erasures_of(session: Session, pipeline: str | None = None) -> list[RegistryErasure]:
    """Return erasures, oldest first; None: of every pipeline."""
    query = select(RegistryErasure)
    if pipeline is not None:
        query = query.where(RegistryErasure.pipeline == pipeline)
    ordered = query.order_by(col(RegistryErasure.at), col(RegistryErasure.erasure_id))
    return list(session.exec(ordered))


def is_settled_by(session: Session, event_id: str) -> bool:
    """Whether a decision has been read from the log."""
    table = RegistrySettlement
    return (
        session.exec(select(table).where(table.event_id == event_id)).first()
        is not None
    )


def standing(session: Session, row: RegistryErasure) -> Standing:
    """Return where an erasure stands by the stored facts."""
    pipeline = row.pipeline
    states = tables.ledger_of(session, pipeline).standings
    versions: list[RegistryVersion] = tables.versions_of(session, pipeline)
    registered = {
        found.job_id: Registered(
            found.version, states[found.version].state == "rejected"
        )
        for found in versions
    }
    ended = session.exec(
        select(RegistryTraining.job_id).where(
            RegistryTraining.pipeline == pipeline,
            col(RegistryTraining.state).in_(("failed", "cancelled")),
        )
    )
    decisions = session.exec(
        select(RegistrySettlement)
        .where(RegistrySettlement.erasure_id == row.erasure_id)
        .order_by(col(RegistrySettlement.position))
    )
    trained = {
        ModelTrained.model_validate(found.trained).trigger.event_id: found.version
        for found in versions
    }
    return standing_of(
        [job.job_id for job in row.event().jobs],
        registered,
        frozenset(ended),
        [decision.fact() for decision in decisions],
        trained,
    )
