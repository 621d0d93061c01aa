"""The trainer's tables: what it knows about pipelines, and its jobs."""

from datetime import datetime
from typing import Literal

from driftloop.contracts.base import UtcTime
from driftloop.contracts.events import (
    DatasetRef,
    FaultyStretch,
    ServedModel,
    Span,
    Trigger,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.retraining import BudgetSection
from driftloop.runtime.leases import LeasedJob
from driftloop.trainer.core import OPEN_STATES, Data, LastJob, Pending, Spent, State
from driftloop.trainer.faults import Faults
from driftloop.trainer.federated.tables import Federation, FederationUpdate
from driftloop.trainer.floor import FloorCount
from driftloop.trainer.request import JobRequest
from driftloop.trainer.submitted.tables import Submission
from driftloop.trainer.worth import LossMemory
from pydantic import BaseModel, TypeAdapter
from sqlmodel import Field, Session, SQLModel, col, select

JobState = Literal["waiting", "running", "done", "failed", "cancelled"]
_floor = TypeAdapter(FloorCount)
_losses = TypeAdapter(LossMemory)


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
    pending, asked : triggers that wait, see :class:`core.State`.
    floor : a :class:`floor.FloorCount`.
    losses : a :class:`worth.LossMemory`.
    faults : what was told of them, a :class:`faults.Faults`.
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
    asked: str | None = None
    floor: str | None = None
    losses: str | None = None
    faults: str | None = None

    def kept(self) -> KeptTrigger | None:
        return KeptTrigger.model_validate_json(self.pending) if self.pending else None

    def kept_for_person(self) -> KeptTrigger | None:
        return KeptTrigger.model_validate_json(self.asked) if self.asked else None

    def keep(self, pending: Pending, origin: Origin) -> None:
        """Let a trigger wait; it takes the place of an older one of its kind."""
        kept = KeptTrigger(
            trigger=pending.trigger, since=pending.since, origin=origin
        ).model_dump_json()
        if pending.since is None:
            self.asked = kept
        else:
            self.pending = kept

    def floor_count(self) -> FloorCount | None:
        return _floor.validate_json(self.floor) if self.floor else None

    def set_floor_count(self, count: FloorCount | None) -> None:
        self.floor = _floor.dump_json(count).decode() if count else None

    def loss_memory(self) -> LossMemory | None:
        return _losses.validate_json(self.losses) if self.losses else None

    def set_losses(self, memory: LossMemory | None) -> None:
        self.losses = _losses.dump_json(memory).decode() if memory else None

    def told_faults(self) -> Faults:
        return Faults.model_validate_json(self.faults) if self.faults else Faults()

    def set_told_faults(self, faults: Faults) -> None:
        self.faults = faults.model_dump_json() if faults != Faults() else None

    def left_out(self, spec: PipelineSpec) -> tuple[FaultyStretch, ...]:
        """Return the faults whose rows no training of the pipeline reads."""
        return self.told_faults().stretches() if spec.train.leave_out_faults else ()

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


class TrainerJob(LeasedJob, table=True):
    """One training.

    Attributes
    ----------
    number : counts a pipeline's jobs.
    """

    __tablename__ = "trainer_job"
    pipeline: str = Field(index=True)
    number: int
    request: str
    origin: str
    data_end: str
    label_count: int
    champion_version: int | None = None

    def asked(self) -> JobRequest:
        return JobRequest.model_validate_json(self.request)

    def came_from(self) -> Origin:
        return Origin.model_validate_json(self.origin)


ORDER = (col(TrainerJob.number), col(TrainerJob.id))
"""In which jobs are taken."""
TABLES = (TrainerPipeline, TrainerJob, Federation, FederationUpdate, Submission)
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


def open_jobs(session: Session, pipeline: str) -> list[TrainerJob]:
    """Return a pipeline's jobs that wait or run, locked."""
    query = select(TrainerJob).where(
        TrainerJob.pipeline == pipeline, col(TrainerJob.state).in_(OPEN_STATES)
    )
    return list(session.exec(query.with_for_update()))


def state_of(session: Session, row: TrainerPipeline, spec: PipelineSpec) -> State:
    """Return the policy's view of a pipeline."""
    job = last_job(session, row.name)
    kept, asked, served = row.kept(), row.kept_for_person(), row.served()
    has_budget = spec.retrain.budget != BudgetSection(days=spec.retrain.budget.days)
    return State(
        row.data(),
        served.version if served else None,
        _last(job) if job else None,
        kept.pending() if kept else None,
        asked.pending() if asked else None,
        _spent(session, row.name) if has_budget else (),
        row.loss_memory(),
        row.left_out(spec),
    )


def _spent(session: Session, pipeline: str) -> tuple[Spent, ...]:
    query = select(TrainerJob.data_end, TrainerJob.cpu_seconds).where(
        TrainerJob.pipeline == pipeline
    )
    return tuple(Spent(_time_of(end), seconds) for end, seconds in session.exec(query))


def _time_of(text: str) -> datetime:
    time: datetime = _time.validate_python(datetime.fromisoformat(text))
    return time


def _last(job: TrainerJob) -> LastJob:
    data_end = _time_of(job.data_end)
    return LastJob(
        job.id,
        job.state in OPEN_STATES,
        job.state in ("failed", "cancelled"),
        data_end,
        job.label_count,
        job.champion_version,
        min(data_end, job.asked().holdout_span.end),
    )
