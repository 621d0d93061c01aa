"""The scorer's tables: figures not yet reported, and what was told already."""

from driftloop.scorer.core import Tally
from sqlmodel import Field, Session, SQLModel


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
    """Packages that passed their trial, so that a restart need not repeat it."""

    __tablename__ = "scorer_tried"
    digest: str = Field(primary_key=True)
    onnx_runtime: str = Field(primary_key=True, description="its version")


class ScorerReplayed(SQLModel, table=True):
    """The last ``serving-desired`` of a pipeline whose replay was told, by any replica.

    A replay is told once; see ``replay.py``.
    """

    __tablename__ = "scorer_replayed"
    pipeline: str = Field(primary_key=True)
    wish_id: str


def load_tally(session: Session, replica: str, pipeline: str) -> Tally:
    """Return the figures that were not reported yet."""
    row = session.get(ScorerTally, (replica, pipeline), with_for_update=True)
    return Tally() if row is None else Tally.model_validate_json(row.tally)


def save_tally(session: Session, replica: str, pipeline: str, tally: Tally) -> None:
    """Store the figures as part of the caller's transaction."""
    session.merge(
        ScorerTally(replica=replica, pipeline=pipeline, tally=tally.model_dump_json())
    )
