"""What lineage needs beside the registry's versions: batches, trainings, verdicts.

Each row follows from events that are kept for ever, whatever their order. A batch of
rows is known by the dataset version that it became: ``batch-ingested`` is long gone
from the log when somebody asks, its id is that event's cause.
"""

import json
from datetime import datetime
from typing import Any

from driftloop.contracts.base import derived_id
from driftloop.contracts.events import (
    BatchValidated,
    DatasetRef,
    DatasetVersioned,
    DriftDetected,
    ModelTrained,
    RolloutAdvanced,
    Span,
    TrainingCancelled,
    TrainingFailed,
    TrainingSkipped,
    TrainingStarted,
    Trigger,
)
from driftloop.registry.tables import RegistryDecision, RegistryServingChange
from driftloop.registry.tables import RegistryVersion as Version
from sqlalchemy import JSON, Index
from sqlmodel import Column, Field, Session, SQLModel, col, select


class RegistryDataset(SQLModel, table=True):
    """A dataset version, and the batch that it came of.

    Attributes
    ----------
    batch_id, validated_id : ids of ``batch-ingested`` and ``batch-validated``.
    labels : version of the table of labels; 0: there is none.
    """

    __tablename__ = "registry_dataset"
    __table_args__ = (
        Index("registry_dataset_at", "pipeline", "observations"),
        Index("registry_dataset_newest", "pipeline", "at", "event_id"),
    )
    event_id: str = Field(primary_key=True)
    pipeline: str
    kind: str
    observations: int
    labels: int
    batch_id: str = Field(index=True)
    validated_id: str
    at: datetime
    source: str | None
    added_count: int
    quarantined_count: int
    start: datetime
    end: datetime
    observation_count: int | None = None
    label_count: int | None = None


class RegistryTraining(SQLModel, table=True):
    """A training; its events come in any order.

    Attributes
    ----------
    state : ``started``, ``failed``, ``cancelled`` or ``trained``.
    start, end : event time of the rows that it may read, hold-out included.
    ended_at : when it failed, was cancelled, or gave a model.
    """

    __tablename__ = "registry_training"
    job_id: str = Field(primary_key=True)
    pipeline: str = Field(index=True)
    state: str
    at: datetime
    trigger: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    trigger_id: str = Field(index=True)
    observations: int | None = None
    labels: int | None = None
    start: datetime | None = None
    end: datetime | None = None
    detail: str = ""
    ended_at: datetime | None = None


class RegistrySkip(SQLModel, table=True):
    """A trigger that led to no training of its own."""

    __tablename__ = "registry_skip"
    event_id: str = Field(primary_key=True)
    pipeline: str = Field(index=True)
    at: datetime
    trigger: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    reason: str
    detail: str
    covered_by_job: str | None = None


class RegistryDrift(SQLModel, table=True):
    """A verdict of the monitor."""

    __tablename__ = "registry_drift"
    event_id: str = Field(primary_key=True)
    pipeline: str = Field(index=True)
    at: datetime
    cause: str
    retrain_advised: bool
    explanation: str
    model_version: int | None
    told: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))


class RegistryRollout(SQLModel, table=True):
    """A rollout whose start has been reported."""

    __tablename__ = "registry_rollout"
    rollout_id: str = Field(primary_key=True)
    pipeline: str
    version: int


class RegistryRolloutStep(SQLModel, table=True):
    """A step of a rollout, as it was judged."""

    __tablename__ = "registry_rollout_step"
    event_id: str = Field(primary_key=True)
    rollout_id: str = Field(index=True)
    pipeline: str = Field(index=True)
    version: int
    at: datetime
    environment: str
    step: str
    verdict: str
    detail: str


class RegistryForwarded(SQLModel, table=True):
    """How far a collector of OpenLineage has been told."""

    __tablename__ = "registry_forwarded"
    partition: int = Field(primary_key=True)
    next_offset: int


TABLES: list[type[SQLModel]] = [
    RegistryDataset,
    RegistryTraining,
    RegistrySkip,
    RegistryDrift,
    RegistryRollout,
    RegistryRolloutStep,
    RegistryForwarded,
]


def note_dataset(session: Session, event: DatasetVersioned) -> None:
    cause = event.meta.causation_id or event.meta.id
    labels = event.dataset.labels
    session.add(
        RegistryDataset(
            event_id=event.meta.id,
            pipeline=event.pipeline,
            kind=event.kind,
            observations=event.dataset.observations.version,
            labels=labels.version if labels else 0,
            batch_id=cause,
            validated_id=derived_id(cause, BatchValidated.topic(), 0),
            at=event.meta.time,
            source=event.source,
            added_count=event.added_count,
            quarantined_count=event.quarantined_count,
            start=event.span.start,
            end=event.span.end,
            observation_count=event.observation_count,
            label_count=event.label_count,
        )
    )


def note_skip(session: Session, event: TrainingSkipped) -> None:
    session.add(
        RegistrySkip(
            event_id=event.meta.id,
            pipeline=event.pipeline,
            at=event.meta.time,
            trigger=event.trigger.model_dump(mode="json"),
            reason=event.reason,
            detail=event.detail,
            covered_by_job=event.covered_by_job,
        )
    )


def note_step(session: Session, event: RolloutAdvanced) -> None:
    session.add(
        RegistryRolloutStep(
            event_id=event.meta.id,
            rollout_id=event.rollout_id,
            pipeline=event.pipeline,
            version=event.version,
            at=event.meta.time,
            environment=event.environment,
            step=event.step,
            verdict=event.verdict,
            detail=event.detail,
        )
    )


def note_training(
    session: Session,
    event: TrainingStarted | TrainingFailed | TrainingCancelled | ModelTrained,
) -> None:
    """Store what an event says of a training; a model is the last word."""
    row = session.get(RegistryTraining, event.job_id)
    if row is None:
        row = RegistryTraining(
            job_id=event.job_id,
            pipeline=event.pipeline,
            state="started",
            at=event.meta.time,
            trigger=event.trigger.model_dump(mode="json"),
            trigger_id=event.trigger.event_id,
        )
    if isinstance(event, TrainingStarted):
        row.at = event.meta.time
        _note_rows(row, event.dataset, event.train_span, event.holdout_span)
    elif isinstance(event, ModelTrained):
        holdout = event.evaluation.holdout_span
        _note_rows(row, event.dataset, event.train_span, holdout)
        row.state, row.detail, row.ended_at = "trained", "", event.meta.time
    elif row.state == "trained":
        pass
    elif isinstance(event, TrainingCancelled):
        row.state, row.detail = "cancelled", event.reason
        row.ended_at = event.meta.time
    else:
        row.state, row.detail = "failed", event.error
        row.ended_at = event.meta.time
    session.add(row)


def _note_rows(
    row: RegistryTraining, dataset: DatasetRef, train: Span, holdout: Span
) -> None:
    row.observations = dataset.observations.version
    row.labels = dataset.labels.version if dataset.labels else 0
    row.start, row.end = train.start, max(train.end, holdout.end)


def note_drift(session: Session, event: DriftDetected) -> None:
    session.add(
        RegistryDrift(
            event_id=event.meta.id,
            pipeline=event.pipeline,
            at=event.meta.time,
            cause=event.cause,
            retrain_advised=event.retrain_advised,
            explanation=event.explanation,
            model_version=event.model_version,
            told=json.loads(event.model_dump_json()),
        )
    )


def is_new_rollout(session: Session, event: RolloutAdvanced) -> bool:
    """Whether a rollout is told of for the first time; the next time it is not."""
    if session.get(RegistryRollout, event.rollout_id) is not None:
        return False
    session.add(
        RegistryRollout(
            rollout_id=event.rollout_id, pipeline=event.pipeline, version=event.version
        )
    )
    return True


def trigger_of(row: RegistryTraining) -> Trigger:
    return Trigger.model_validate(row.trigger)


def trainings_of(session: Session, pipeline: str) -> list[RegistryTraining]:
    table = RegistryTraining
    return list(session.exec(select(table).where(table.pipeline == pipeline)))


def drifts_of(session: Session, pipeline: str) -> list[RegistryDrift]:
    table = RegistryDrift
    return list(session.exec(select(table).where(table.pipeline == pipeline)))


def pipeline_of(session: Session, key: str) -> tuple[str, str] | None:
    """Return kind and pipeline of what an event's or job's id belongs to."""
    looks: list[tuple[str, Any, Any]] = [
        ("training", RegistryTraining, RegistryTraining.job_id),
        ("dataset", RegistryDataset, RegistryDataset.event_id),
        ("batch", RegistryDataset, RegistryDataset.batch_id),
        ("validated", RegistryDataset, RegistryDataset.validated_id),
        ("drift", RegistryDrift, RegistryDrift.event_id),
        ("model", Version, Version.event_id),
        ("model", Version, Version.job_id),
        ("approval", RegistryDecision, RegistryDecision.event_id),
        ("deployment", RegistryServingChange, RegistryServingChange.event_id),
        ("request", RegistryTraining, RegistryTraining.trigger_id),
    ]
    for kind, table, column in looks:
        row = session.exec(select(table).where(col(column) == key).limit(1)).first()
        if row is not None:
            return kind, row.pipeline
    return None
