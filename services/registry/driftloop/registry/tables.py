"""The registry's tables: facts as they were read, one row an event.

Where a version is, its aliases and its history follow from them; see ``ledger.py``.
"""

from datetime import UTC, datetime
from typing import Any

from driftloop.registry.ledger import (
    ApprovalRule,
    Decision,
    Ledger,
    Registration,
    ServingChange,
    open_ledger,
)
from sqlalchemy import JSON, UniqueConstraint
from sqlmodel import Column, Field, Session, SQLModel, col, func, select


class RegistryVersion(SQLModel, table=True):
    """A registered version.

    Attributes
    ----------
    trained : the whole ``model-trained`` event.
    gate : its checks.
    rule : role and people that have to approve; None: nobody.
    origin : the event's place in its chain.
    latency_p99_ms : of one row when it was tried here; for display.
    """

    __tablename__ = "registry_version"
    __table_args__ = (UniqueConstraint("pipeline", "job_id"),)
    pipeline: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    job_id: str
    event_id: str
    at: datetime
    trained: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    gate: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    rule: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    origin: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    latency_p99_ms: float | None = None

    @property
    def digest(self) -> str:
        digest: str = self.trained["package"]["digest"]
        return digest

    @property
    def author(self) -> str | None:
        author: str | None = self.trained["trigger"].get("requested_by")
        return author

    def fact(self) -> Registration:
        return Registration(
            version=self.version,
            event_id=self.event_id,
            at=_utc(self.at),
            digest=self.digest,
            failures=tuple(
                f"{check['name']}: {check['detail']}"
                for check in self.gate
                if not check["passed"] and check.get("severity") != "warn"
            ),
            rule=ApprovalRule(**self.rule) if self.rule else None,
            author=self.author,
        )


class RegistryTrial(SQLModel, table=True):
    """What a version cost when it was tried here; for display."""

    __tablename__ = "registry_trial"
    pipeline: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    p50_ms: float
    p99_ms: float
    hundred_rows_ms: float
    memory_mib: float


class RegistryDecision(SQLModel, table=True):
    """A person's decision, whether it counted or not."""

    __tablename__ = "registry_decision"
    position: int | None = Field(default=None, primary_key=True)
    event_id: str = Field(unique=True)
    pipeline: str = Field(index=True)
    version: int
    at: datetime
    decision: str
    by: str
    reason: str
    package_digest: str

    def fact(self) -> Decision:
        return Decision(
            version=self.version,
            event_id=self.event_id,
            at=_utc(self.at),
            decision="approve" if self.decision == "approve" else "reject",
            by=self.by,
            reason=self.reason,
            digest=self.package_digest,
        )


class RegistryServingChange(SQLModel, table=True):
    """A version went into service or out of it."""

    __tablename__ = "registry_serving_change"
    event_id: str = Field(primary_key=True)
    pipeline: str = Field(index=True)
    version: int
    at: datetime
    generation: int
    kind: str
    rollout_id: str
    restored: int | None = None
    reason: str = ""

    def fact(self) -> ServingChange:
        return ServingChange(
            version=self.version,
            event_id=self.event_id,
            at=_utc(self.at),
            generation=self.generation,
            kind="deployed" if self.kind == "deployed" else "rolled_back",
            restored=self.restored,
            reason=self.reason,
        )


TABLES: list[type[SQLModel]] = [
    RegistryVersion,
    RegistryTrial,
    RegistryDecision,
    RegistryServingChange,
]


def _utc(value: datetime) -> datetime:
    """Return a stored time with its zone, which SQLite drops."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def versions_of(session: Session, pipeline: str) -> list[RegistryVersion]:
    """Return a pipeline's versions, oldest first."""
    query = select(RegistryVersion).where(RegistryVersion.pipeline == pipeline)
    return list(session.exec(query.order_by(col(RegistryVersion.version))))


def decisions_of(session: Session, pipeline: str) -> list[RegistryDecision]:
    """Return a pipeline's decisions in the order of their topic."""
    query = select(RegistryDecision).where(RegistryDecision.pipeline == pipeline)
    return list(session.exec(query.order_by(col(RegistryDecision.position))))


def changes_of(session: Session, pipeline: str) -> list[RegistryServingChange]:
    """Return a pipeline's changes of serving."""
    query = select(RegistryServingChange)
    return list(session.exec(query.where(RegistryServingChange.pipeline == pipeline)))


def ledger_of(session: Session, pipeline: str) -> Ledger:
    """Return what follows from the stored facts of a pipeline."""
    return open_ledger(
        [row.fact() for row in versions_of(session, pipeline)],
        [row.fact() for row in decisions_of(session, pipeline)],
        [row.fact() for row in changes_of(session, pipeline)],
    )


def last_version(session: Session, pipeline: str) -> int:
    """Return the highest version of a pipeline; 0: it has none."""
    query = select(func.max(RegistryVersion.version))
    found = session.exec(query.where(RegistryVersion.pipeline == pipeline)).one()
    return int(found or 0)


def version_of_job(session: Session, pipeline: str, job_id: str) -> int | None:
    """Return the version that a job became; None: not registered yet."""
    query = select(RegistryVersion.version).where(
        RegistryVersion.pipeline == pipeline, RegistryVersion.job_id == job_id
    )
    return session.exec(query).first()


def pipelines_of(session: Session) -> list[str]:
    """Return the pipelines that have versions."""
    query = select(RegistryVersion.pipeline).distinct()
    return list(session.exec(query.order_by(col(RegistryVersion.pipeline))))


def is_decided(session: Session, event_id: str) -> bool:
    """Whether a decision has been read from the log."""
    query = select(RegistryDecision).where(RegistryDecision.event_id == event_id)
    return session.exec(query).first() is not None
