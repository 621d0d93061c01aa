"""The trainer's tables: what it knows about pipelines, and its jobs."""

from datetime import datetime
from typing import Literal

from driftloop.contracts.base import UtcTime
from driftloop.contracts.events import (
    DatasetRef,
    ServedModel,
    Span,
    Trigger,
)
from driftloop.trainer.core import Data, LastJob, Pending, State
from driftloop.trainer.request import JobRequest
from pydantic import BaseModel, TypeAdapter
from sqlmodel import Field, Session, SQLModel, col, select

JobState = Literal["waiting", "running", "done", "failed"]
OPEN_STATES = ("waiting", "running")


class Origin(BaseModel):
    """Chain of the event that set a job off; see ``contracts.base.chain_of``."""

    id: str
    time: UtcTime
    source: str
    chain_id: str
    traceparent: str | None = None


class KeptTrigger(BaseModel):
    """A trigger that waits (:class:`core.Pending`), with its chain."""

    trigger: Trigger
    since: UtcTime | None
    origin: Origin

    def pending(self) -> Pending:
        return Pending(self.trigger, self.since)


class TrainerPipeline(SQLModel, table=True):
    """Read model of one pipeline; JSON columns hold contract values.

    Attributes
    ----------
    generation : of the serving state that ``champion`` comes from.
    """

    __tablename__ = "trainer_pipeline"
    name: str = Field(primary_key=True)
    champion: str | None = None
    generation: int = 0
    dataset: str | None = None
    observation_count: int = 0
    label_count: int = 0
    labelled_span: str | None = None
    pending: str | None = None

    def kept(self) -> KeptTrigger | None:
        return KeptTrigger.model_validate_json(self.pending) if self.pending else None

    def served(self) -> ServedModel | None:
        return ServedModel.model_validate_json(self.champion) if self.champion else None

    def data(self) -> Data | None:
        if self.dataset is None:
            return None
        span = self.labelled_span
        return Data(
            DatasetRef.model_validate_json(self.dataset),
            self.observation_count,
            self.label_count,
            Span.model_validate_json(span) if span else None,
        )

    def set_data(self, data: Data) -> None:
        self.dataset = data.dataset.model_dump_json()
        self.observation_count = data.observation_count
        self.label_count = data.label_count
        self.labelled_span = data.labelled.model_dump_json() if data.labelled else None


class TrainerJob(SQLModel, table=True):
    """One training.

    Attributes
    ----------
    number : counts a pipeline's jobs.
    lease_epoch : grows with each owner; a result of an older one is refused.
    lease_expires_at : wall clock, seconds since 1970; of a waiting job: not before.
    take_count : how often an owner took it.
    failure_count : how often the training itself went wrong.
    fault_count : how often a store or a table was away.
    """

    __tablename__ = "trainer_job"
    id: str = Field(primary_key=True)
    pipeline: str = Field(index=True)
    number: int
    state: str = "waiting"
    request: str
    origin: str
    data_end: str
    label_count: int
    champion_version: int | None = None
    lease_owner: str | None = None
    lease_epoch: int = 0
    lease_expires_at: float = 0
    take_count: int = 0
    failure_count: int = 0
    fault_count: int = 0
    error: str | None = None

    def asked(self) -> JobRequest:
        return JobRequest.model_validate_json(self.request)

    def came_from(self) -> Origin:
        return Origin.model_validate_json(self.origin)


TABLES = (TrainerPipeline, TrainerJob)
_time = TypeAdapter(UtcTime)


def pipeline_row(session: Session, name: str) -> TrainerPipeline:
    """Return a pipeline's row, locked until the transaction ends."""
    row = session.get(TrainerPipeline, name, with_for_update=True)
    if row is None:
        row = TrainerPipeline(name=name)
        session.add(row)
        session.flush()
    return row


def last_job(session: Session, pipeline: str) -> TrainerJob | None:
    """Return a pipeline's newest job."""
    query = (
        select(TrainerJob)
        .where(TrainerJob.pipeline == pipeline)
        .order_by(col(TrainerJob.number).desc())
        .limit(1)
    )
    return session.exec(query).first()


def state_of(row: TrainerPipeline, job: TrainerJob | None) -> State:
    """Return the policy's view of a pipeline."""
    kept, served = row.kept(), row.served()
    return State(
        row.data(),
        served.version if served else None,
        _last(job) if job else None,
        kept.pending() if kept else None,
    )


def _last(job: TrainerJob) -> LastJob:
    data_end: datetime = _time.validate_python(datetime.fromisoformat(job.data_end))
    return LastJob(
        job.id,
        job.state in OPEN_STATES,
        job.state == "failed",
        data_end,
        job.label_count,
        job.champion_version,
    )
