"""The registry's tables: facts as they were read, one row an event.

Where a version is, its aliases and its history follow from them; see ``ledger.py``.
"""

from datetime import UTC, datetime
from typing import Any, get_args

from driftloop.registry.ledger import (
    ApprovalRule,
    Decision,
    Expiry,
    Ledger,
    Registration,
    Renewal,
    ServingChange,
    ServingKind,
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
    rule : who has to approve, by when; of the first request. None: nobody.
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
            at=utc(self.at),
            digest=self.digest,
            failures=tuple(
                f"{check['name']}: {check['detail']}"
                for check in self.gate
                if not check["passed"] and check.get("severity") != "warn"
            ),
            rule=rule_from(self.rule) if self.rule else None,
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
    request: int = 1
    roles: list[str] = Field(
        default_factory=list, sa_column=Column(JSON, nullable=False)
    )

    def fact(self) -> Decision:
        return Decision(
            version=self.version,
            event_id=self.event_id,
            at=utc(self.at),
            decision="approve" if self.decision == "approve" else "reject",
            by=self.by,
            reason=self.reason,
            digest=self.package_digest,
            request=self.request,
            roles=frozenset(self.roles),
        )


class RegistryExpiry(SQLModel, table=True):
    """A request for approval was not decided in time."""

    __tablename__ = "registry_expiry"
    pipeline: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    request: int = Field(primary_key=True)
    event_id: str
    at: datetime

    def fact(self) -> Expiry:
        return Expiry(self.version, self.event_id, utc(self.at), self.request)


class RegistryRenewal(SQLModel, table=True):
    """A person asked again about a version; ``rule`` is that of the new request."""

    __tablename__ = "registry_renewal"
    pipeline: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    request: int = Field(primary_key=True)
    event_id: str
    at: datetime
    by: str
    reason: str
    package_digest: str
    rule: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))

    def fact(self) -> Renewal:
        return Renewal(
            version=self.version,
            event_id=self.event_id,
            at=utc(self.at),
            request=self.request,
            by=self.by,
            reason=self.reason,
            digest=self.package_digest,
            rule=rule_from(self.rule),
        )


class RegistryReminder(SQLModel, table=True):
    """People were reminded of a request."""

    __tablename__ = "registry_reminder"
    pipeline: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    request: int = Field(primary_key=True)
    number: int = Field(primary_key=True)


KINDS: dict[str, ServingKind] = {kind: kind for kind in get_args(ServingKind)}


class RegistryServingChange(SQLModel, table=True):
    """A version went into service or out of it, or will not go into it."""

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
            at=utc(self.at),
            generation=self.generation,
            kind=KINDS[self.kind],
            restored=self.restored,
            reason=self.reason,
        )


AnyFact = (
    RegistryVersion
    | RegistryDecision
    | RegistryExpiry
    | RegistryRenewal
    | RegistryServingChange
)
TABLES: list[type[SQLModel]] = [
    RegistryVersion,
    RegistryTrial,
    RegistryDecision,
    RegistryExpiry,
    RegistryRenewal,
    RegistryReminder,
    RegistryServingChange,
]


def rule_from(stored: dict[str, Any]) -> ApprovalRule:
    """Return the rule that :func:`rule_of` wrote down."""
    end = stored.get("expires_at")
    return ApprovalRule(
        stored["role"],
        stored["people"],
        datetime.fromisoformat(end) if end else None,
        tuple(map(datetime.fromisoformat, stored.get("remind_at", ()))),
        stored.get("also", {}),
    )


def rule_of(rule: ApprovalRule) -> dict[str, Any]:
    """Return a rule as plain values, for a JSON column."""
    return {
        "role": rule.role,
        "people": rule.people,
        "also": dict(rule.also),
        "expires_at": rule.expires_at.isoformat() if rule.expires_at else None,
        "remind_at": [moment.isoformat() for moment in rule.remind_at],
    }


def utc(value: datetime) -> datetime:
    """Return a stored time with its zone, which SQLite drops."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def versions_of(
    session: Session, pipeline: str, at: datetime | None = None
) -> list[RegistryVersion]:
    """Return a pipeline's versions, or those there were at a moment, oldest first."""
    query = select(RegistryVersion).where(RegistryVersion.pipeline == pipeline)
    rows = session.exec(query.order_by(col(RegistryVersion.version)))
    return [row for row in rows if was_there(row, at)]


def decisions_of(
    session: Session, pipeline: str, at: datetime | None = None
) -> list[RegistryDecision]:
    """Return a pipeline's decisions in the order of their topic."""
    query = select(RegistryDecision).where(RegistryDecision.pipeline == pipeline)
    rows = session.exec(query.order_by(col(RegistryDecision.position)))
    return [row for row in rows if was_there(row, at)]


def changes_of(
    session: Session, pipeline: str, at: datetime | None = None
) -> list[RegistryServingChange]:
    """Return a pipeline's changes of serving."""
    query = select(RegistryServingChange)
    rows = session.exec(query.where(RegistryServingChange.pipeline == pipeline))
    return [row for row in rows if was_there(row, at)]


def ends_of(
    session: Session, pipeline: str, at: datetime | None = None
) -> list[RegistryExpiry]:
    """Return a pipeline's requests that were not decided in time."""
    query = select(RegistryExpiry).where(RegistryExpiry.pipeline == pipeline)
    return [row for row in session.exec(query) if was_there(row, at)]


def renewals_of(
    session: Session, pipeline: str, at: datetime | None = None
) -> list[RegistryRenewal]:
    """Return a pipeline's later requests."""
    query = select(RegistryRenewal).where(RegistryRenewal.pipeline == pipeline)
    return [row for row in session.exec(query) if was_there(row, at)]


def was_there(row: AnyFact, at: datetime | None) -> bool:
    """Whether a fact had happened at a moment; None: now."""
    return at is None or utc(row.at) <= at


def ledger_of(session: Session, pipeline: str, at: datetime | None = None) -> Ledger:
    """Return what follows from a pipeline's facts, or from those up to a moment."""
    return open_ledger(
        [row.fact() for row in versions_of(session, pipeline, at)],
        [row.fact() for row in decisions_of(session, pipeline, at)],
        [row.fact() for row in changes_of(session, pipeline, at)],
        [row.fact() for row in ends_of(session, pipeline, at)],
        [row.fact() for row in renewals_of(session, pipeline, at)],
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


def is_renewed(session: Session, event_id: str) -> bool:
    """Whether a request to ask people again has been read from the log."""
    query = select(RegistryRenewal).where(RegistryRenewal.event_id == event_id)
    return session.exec(query).first() is not None
