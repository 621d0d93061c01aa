"""The scorer's tables: figures not yet reported, what was told already, and jobs."""

from typing import Any

from driftloop.contracts.scoring import ScoringPlan, ScoringRequested
from driftloop.runtime.leases import LeasedJob
from driftloop.scorer.core import Tally
from sqlalchemy import JSON
from sqlmodel import Column, Field, Session, SQLModel, col


class ScorerTally(SQLModel, table=True):
    """Figures of stream scoring since the last report, as JSON."""

    __tablename__ = "scorer_tally"
    replica: str = Field(primary_key=True)
    pipeline: str = Field(primary_key=True)
    tally: str


class ScorerAnnounced(SQLModel, table=True):
    """The last loaded state that was reported: each is reported once."""

    __tablename__ = "scorer_announced"
    replica: str = Field(primary_key=True)
    pipeline: str = Field(primary_key=True)
    generation: int
    state: str


class ScorerTried(SQLModel, table=True):
    """Packages that passed their trial, so that a restart need not repeat it.

    Attributes
    ----------
    onnx_runtime : its version.
    machine : kind of machine it was tried on; see ``profiles.machine_name``.
    profile : a :class:`VersionProfile`, what it costs there.
    """

    __tablename__ = "scorer_tried"
    digest: str = Field(primary_key=True)
    onnx_runtime: str = Field(primary_key=True)
    machine: str = Field(primary_key=True)
    profile: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class ScorerReplayed(SQLModel, table=True):
    """The last ``serving-desired`` of a pipeline whose replay was told, by any replica.

    A replay is told once; see ``replay.py``.
    """

    __tablename__ = "scorer_replayed"
    pipeline: str = Field(primary_key=True)
    wish_id: str


class ScorerJob(LeasedJob, table=True):
    """A dataset version that is to be scored; see ``jobs``.

    Attributes
    ----------
    asked_at : time of the request, ISO 8601 in UTC.
    request : a ``scoring-requested``; None: only its cancellation has come yet.
    origin : its place in its chain; see ``contracts.base.chain_of``.
    plan : a :class:`ScoringPlan`, once it is fixed and told.
    cancelled_by, cancel_reason : a person's wish that it ends.
    duration_seconds : that all its tries took.
    """

    __tablename__ = "scorer_job"
    pipeline: str
    asked_at: str = ""
    request: str | None = None
    origin: dict[str, Any] = Field(
        default_factory=dict, sa_column=Column(JSON, nullable=False)
    )
    plan: str | None = None
    cancelled_by: str | None = None
    cancel_reason: str | None = None
    duration_seconds: float = 0

    def asked(self) -> ScoringRequested:
        return ScoringRequested.model_validate_json(self.request or "")

    def fixed(self) -> ScoringPlan | None:
        return ScoringPlan.model_validate_json(self.plan) if self.plan else None


JOB_ORDER = (col(ScorerJob.asked_at), col(ScorerJob.id))
"""In which jobs are taken."""


def load_tally(session: Session, replica: str, pipeline: str) -> Tally:
    """Return the figures that were not reported yet."""
    row = session.get(ScorerTally, (replica, pipeline), with_for_update=True)
    return Tally() if row is None else Tally.model_validate_json(row.tally)


def save_tally(session: Session, replica: str, pipeline: str, tally: Tally) -> None:
    """Store the figures as part of the caller's transaction."""
    session.merge(
        ScorerTally(replica=replica, pipeline=pipeline, tally=tally.model_dump_json())
    )
