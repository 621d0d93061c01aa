"""What REST answers: plain models, filled from the stored facts."""

from collections.abc import Sequence
from datetime import datetime
from itertools import zip_longest
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
from driftloop.registry.core import GATE
from driftloop.registry.ledger import Ledger, State
from driftloop.registry.tables import (
    RegistryServingChange,
    RegistryTrial,
    RegistryVersion,
)
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


class OpenRequest(BaseModel):
    """How far people are with the newest request for approval."""

    request: int = Field(description="counts those about the version")
    role: str = Field(examples=["approver"])
    people: int = Field(description="how many of it have to say yes", examples=[2])
    also: dict[str, int] = Field(
        description="further roles, and how many of each", examples=[{"compliance": 1}]
    )
    said_yes: list[str] = Field(examples=[["ann"]])
    missing: dict[str, int] = Field(
        description="how many of which role still have to, while it is open",
        examples=[{"approver": 1, "compliance": 1}],
    )
    is_open: bool
    expires_at: datetime | None
    progress: str = Field(examples=["1 of 3"])


class HistoryEntry(BaseModel):
    """One line of the history."""

    at: datetime
    event_id: str
    version: int | None
    subject: str = Field(
        description="state, decision, alias:<name> or comment",
        examples=["alias:champion"],
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


class Term(BaseModel):
    """A time in which one version answered, or none did."""

    version: int | None = Field(examples=[3])
    since: datetime
    until: datetime | None = Field(description="none: it still answers")
    event_id: str = Field(description="of the event that began it")
    kind: str = Field(examples=["deployed", "rolled_back"])
    rollout_id: str
    generation: int
    approved_by: list[str] = Field(examples=[["ann"]], description="gate: nobody asked")
    why: str = Field(examples=["concept_drift: mae 31.2 against champion v2 58.9"])


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
    approval_rule: dict[str, Any] | None = Field(description="of the first request")
    approval_request: OpenRequest | None = Field(description="null: nobody was asked")
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
        summary=summary_of(row),
        registered_at=row.fact().at,
        package=trained.package,
    )


def summary_of(row: RegistryVersion) -> str:
    return compared(ModelTrained.model_validate(row.trained).evaluation)


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


def terms_view(
    book: Ledger,
    changes: Sequence[RegistryServingChange],
    versions: Sequence[RegistryVersion],
) -> list[Term]:
    """Return who answered when, oldest first, and by which event."""
    moves = [entry for entry in book.history if entry.subject == "alias:champion"]
    by_event = {change.event_id: change for change in changes}
    by_number = {row.version: row for row in versions}
    terms = []
    for entry, following in zip_longest(moves, moves[1:]):
        change, row = by_event[entry.event_id], by_number.get(entry.version or 0)
        standing = book.standings.get(entry.version or 0)
        asked = standing is not None and standing.rule is not None
        people = [*standing.decided_by] if standing and asked else [GATE]
        terms.append(
            Term(
                version=entry.version,
                since=entry.at,
                until=following.at if following else None,
                event_id=entry.event_id,
                kind=change.kind,
                rollout_id=change.rollout_id,
                generation=change.generation,
                approved_by=people if standing else [],
                why=change.reason if change.reason or not row else _why(row),
            )
        )
    return terms


def _why(row: RegistryVersion) -> str:
    trained = ModelTrained.model_validate(row.trained)
    return f"{trained.trigger.reason}: {compared(trained.evaluation)}"


def trial_view(row: RegistryTrial | None) -> Trial | None:
    if row is None:
        return None
    return Trial.model_validate(row.model_dump(exclude={"pipeline", "version"}))


def approvals_view(
    session: Session,
    row: RegistryVersion,
    standing: ledger.Standing,
    at: datetime | None = None,
) -> list[Approval]:
    """Return what people said about a version, and whether it counted."""
    return [
        Approval(
            event_id=decision.event_id,
            at=decision.fact().at,
            decision=decision.decision,
            by=decision.by,
            reason=decision.reason,
            counted=decision.event_id not in standing.ignored,
            objection=standing.ignored.get(decision.event_id),
        )
        for decision in tables.decisions_of(session, row.pipeline, at)
        if decision.version == row.version
    ]


def deployment_view(change: RegistryServingChange) -> Deployment:
    return Deployment(
        event_id=change.event_id,
        at=change.fact().at,
        kind=change.kind,
        rollout_id=change.rollout_id,
        generation=change.generation,
        restored=change.restored,
        reason=change.reason,
    )


def _request_view(standing: ledger.Standing) -> OpenRequest | None:
    rule = standing.rule
    if rule is None:
        return None
    rejected = standing.state == "rejected"
    said_yes = standing.decided_by[:-1] if rejected else standing.decided_by
    return OpenRequest(
        request=standing.request,
        role=rule.role,
        people=rule.people,
        also=dict(rule.also),
        said_yes=list(said_yes),
        missing=standing.missing,
        is_open=standing.state == "awaiting_approval",
        expires_at=rule.expires_at,
        progress=f"{len(said_yes)} of {rule.everybody}",
    )


def detail_view(
    session: Session, row: RegistryVersion, book: Ledger, at: datetime | None = None
) -> VersionDetail:
    """Return a version with everything that is known about it, or was at a moment."""
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
        trial=trial_view(session.get(RegistryTrial, (row.pipeline, row.version))),
        approval_rule=row.rule,
        approvals=approvals_view(session, row, standing, at),
        approval_request=_request_view(standing),
        deployments=[
            deployment_view(change)
            for change in tables.changes_of(session, row.pipeline, at)
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
