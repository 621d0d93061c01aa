"""What REST answers: plain models, filled from the stored facts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from driftloop.contracts.base import Meta, origin_from
from driftloop.contracts.describe import compared
from driftloop.contracts.events import (
    CandidateResult,
    DatasetRef,
    Evaluation,
    GateCheck,
    ModelTrained,
    PackageRef,
    PipelineApplied,
    Span,
    Trigger,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.registry import ledger, tables
from driftloop.registry.ledger import Ledger, State
from driftloop.registry.tables import RegistryTrial, RegistryVersion
from pydantic import BaseModel, Field
from sqlmodel import Session


class Pipeline(BaseModel):
    """A pipeline as last applied."""

    name: str = Field(examples=["bike-demand"])
    task: str = Field(examples=["regression"])
    owner: str | None
    automation: str = Field(examples=["full"])
    applied_by: str
    applied_at: datetime
    spec: PipelineSpec


class Model(BaseModel):
    """A pipeline's model: its versions and which one answers."""

    pipeline: str = Field(examples=["bike-demand"])
    version_count: int
    aliases: dict[str, int] = Field(examples=[{"champion": 3, "previous": 2}])


class Version(BaseModel):
    """A version in a list."""

    pipeline: str = Field(examples=["bike-demand"])
    version: int = Field(examples=[3])
    state: State
    aliases: list[str] = Field(examples=[["champion"]])
    algorithm: str = Field(examples=["gradient_boosting"])
    trigger_reason: str = Field(examples=["concept_drift"])
    summary: str = Field(
        examples=["mae 31.2 against champion v2 58.9 on 420 hold-out rows"]
    )
    registered_at: datetime
    package: PackageRef


class Approval(BaseModel):
    """A decision and whether it counted."""

    event_id: str
    at: datetime
    decision: str
    by: str
    reason: str
    counted: bool
    objection: str | None = Field(description="why it did not count")


class HistoryEntry(BaseModel):
    """One line of the history."""

    at: datetime
    event_id: str
    version: int | None
    subject: str = Field(
        description="state, decision or alias:<name>", examples=["alias:champion"]
    )
    before: str | None
    after: str | None
    detail: str


class Deployment(BaseModel):
    """A change of what is served."""

    event_id: str
    at: datetime
    kind: str = Field(examples=["deployed", "rolled_back"])
    rollout_id: str
    generation: int
    restored: int | None
    reason: str


class Origin(BaseModel):
    """Where the version's chain comes from."""

    chain_id: str
    model_trained_event_id: str
    trigger_event_id: str
    traceparent: str | None


class Trial(BaseModel):
    """What a version costs on the registry's machine, in processor time."""

    p50_ms: float = Field(description="one row")
    p99_ms: float = Field(description="one row")
    hundred_rows_ms: float = Field(description="a call with a hundred rows, median")
    memory_mib: float = Field(description="to load it, and for these calls")


class VersionDetail(Version):
    """A version with its whole lineage."""

    job_id: str
    trigger: Trigger
    author: str | None = Field(description="who asked for it; may not approve it")
    dataset: DatasetRef
    train_span: Span
    tried: list[CandidateResult]
    evaluation: Evaluation
    gate: list[GateCheck]
    latency_p99_ms: float | None = Field(description="of one row, measured here")
    trial: Trial | None
    approval_rule: dict[str, Any] | None
    approvals: list[Approval]
    deployments: list[Deployment]
    history: list[HistoryEntry]
    origin: Origin


def pipeline_view(applied: PipelineApplied) -> Pipeline:
    spec = applied.spec
    return Pipeline(
        name=spec.name,
        task=spec.task,
        owner=spec.owner,
        automation=spec.automation,
        applied_by=applied.applied_by,
        applied_at=applied.meta.time,
        spec=spec,
    )


def model_view(pipeline: str, book: Ledger) -> Model:
    return Model(
        pipeline=pipeline, version_count=len(book.standings), aliases=book.aliases
    )


def version_view(row: RegistryVersion, book: Ledger) -> Version:
    trained = ModelTrained.model_validate(row.trained)
    return Version(
        pipeline=row.pipeline,
        version=row.version,
        state=book.standings[row.version].state,
        aliases=[name for name, v in book.aliases.items() if v == row.version],
        algorithm=trained.algorithm,
        trigger_reason=trained.trigger.reason,
        summary=compared(trained.evaluation),
        registered_at=row.fact().at,
        package=trained.package,
    )


def history_view(entries: Sequence[ledger.Entry]) -> list[HistoryEntry]:
    return [
        HistoryEntry(
            at=entry.at,
            event_id=entry.event_id,
            version=entry.version,
            subject=entry.subject,
            before=entry.before,
            after=entry.after,
            detail=entry.detail,
        )
        for entry in entries
    ]


def _trial_view(row: RegistryTrial | None) -> Trial | None:
    if row is None:
        return None
    return Trial.model_validate(row.model_dump(exclude={"pipeline", "version"}))


def detail_view(session: Session, row: RegistryVersion, book: Ledger) -> VersionDetail:
    """Return a version with everything that is known about it."""
    trained = ModelTrained.model_validate(row.trained)
    standing = book.standings[row.version]
    origin: Meta = origin_from(row.origin)
    return VersionDetail(
        **version_view(row, book).model_dump(),
        job_id=row.job_id,
        trigger=trained.trigger,
        author=row.author,
        dataset=trained.dataset,
        train_span=trained.train_span,
        tried=trained.tried,
        evaluation=trained.evaluation,
        gate=[GateCheck.model_validate(check) for check in row.gate],
        latency_p99_ms=row.latency_p99_ms,
        trial=_trial_view(session.get(RegistryTrial, (row.pipeline, row.version))),
        approval_rule=row.rule,
        approvals=[
            Approval(
                event_id=decision.event_id,
                at=decision.fact().at,
                decision=decision.decision,
                by=decision.by,
                reason=decision.reason,
                counted=decision.event_id not in standing.ignored,
                objection=standing.ignored.get(decision.event_id),
            )
            for decision in tables.decisions_of(session, row.pipeline)
            if decision.version == row.version
        ],
        deployments=[
            Deployment(
                event_id=change.event_id,
                at=change.fact().at,
                kind=change.kind,
                rollout_id=change.rollout_id,
                generation=change.generation,
                restored=change.restored,
                reason=change.reason,
            )
            for change in tables.changes_of(session, row.pipeline)
            if row.version in (change.version, change.restored)
        ],
        history=history_view([e for e in book.history if e.version == row.version]),
        origin=Origin(
            chain_id=origin.chain.id,
            model_trained_event_id=row.event_id,
            trigger_event_id=trained.trigger.event_id,
            traceparent=origin.chain.traceparent,
        ),
    )
