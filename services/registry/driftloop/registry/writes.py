"""REST: what people ask for; published as events, answered when applied."""

from typing import Annotated, Any, Literal

from driftloop.contracts.base import origin_from
from driftloop.contracts.events import (
    ApprovalGiven,
    PipelineApplied,
    RetrainRequested,
    RollbackRequested,
)
from driftloop.contracts.pipeline import PipelineFileError, parse_pipeline
from driftloop.registry import tables, views
from driftloop.registry.ledger import Decision, Ledger, objection, rollback_objection
from driftloop.registry.requests import id_of
from driftloop.registry.rest import Accepted, Context, Key, Name, Number, later
from driftloop.registry.tables import RegistryVersion
from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, Field, StringConstraints

MAX_FILE_CHARACTERS = 200_000
Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)
]
LATER: dict[int | str, dict[str, Any]] = {
    202: {"model": Accepted, "description": "published, and not applied in time"},
    409: {"description": "not possible now; says why"},
    503: {"description": "the broker is away"},
}


class DecisionBody(BaseModel):
    """Who decides, and why."""

    by: Text = Field(examples=["ann"])
    reason: Text = Field(examples=["better on the newest weeks"])
    package_digest: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="what was looked at; refused when the version is another package",
    )


class RequestBody(BaseModel):
    """Who asks, and why."""

    requested_by: Text = Field(examples=["ann"])
    reason: Text = Field(examples=["orders look wrong since Monday"])


class RollbackBody(RequestBody):
    """Who asks for an earlier version, and why."""

    to_version: int | None = Field(
        default=None, ge=1, description="default: the version before"
    )


class PipelineBody(BaseModel):
    """A pipeline file's text."""

    applied_by: Text = Field(examples=["ann"])
    file: str = Field(
        max_length=MAX_FILE_CHARACTERS,
        examples=["{name: churn, task: binary, data: {target: left}}"],
    )


def write_routes(context: Context) -> APIRouter:
    """Return the routes that publish an event."""
    router = APIRouter(tags=["write"])
    _decision_routes(router, context)
    _request_routes(router, context)
    _pipeline_routes(router, context)
    return router


def _decision_routes(router: APIRouter, context: Context) -> None:
    path = "/models/{pipeline}/versions/{version}"

    @router.post(f"{path}/approve", response_model=views.VersionDetail, responses=LATER)
    def approve(
        pipeline: Name, version: Number, body: DecisionBody, key: Key = None
    ) -> Any:
        """Say yes to a version that waits for it."""
        return _decide(context, "approve", pipeline, version, body, key)

    @router.post(f"{path}/reject", response_model=views.VersionDetail, responses=LATER)
    def reject(
        pipeline: Name, version: Number, body: DecisionBody, key: Key = None
    ) -> Any:
        """Say no to a version that waits for a decision; one no is enough."""
        return _decide(context, "reject", pipeline, version, body, key)


def _decide(
    context: Context,
    decision: Literal["approve", "reject"],
    name: str,
    number: int,
    body: DecisionBody,
    key: str | None,
) -> Any:
    with context.session() as session:
        row = context.version(session, name, number)
        event = ApprovalGiven(
            pipeline=name,
            version=number,
            decision=decision,
            by=body.by,
            reason=body.reason,
            package_digest=body.package_digest or row.digest,
        )
        event_id = id_of(event, key)
        if not tables.is_decided(session, event_id):  # else it is a repeat
            _check_decision(context, row, context.ledger(session, name), event)
    origin = origin_from(row.origin)
    meta = context.publish(event, event_id, origin)

    def applied() -> views.VersionDetail | None:
        with context.session() as session:
            if not tables.is_decided(session, meta.id):
                return None
            row = context.version(session, name, number)
            return views.detail_view(session, row, context.ledger(session, name))

    answer = context.wait(applied)
    if answer is None:
        return later(meta, f"/api/v1/models/{name}/versions/{number}")
    mine = next(a for a in answer.approvals if a.event_id == meta.id)
    if not mine.counted:  # another decision was quicker
        raise HTTPException(409, mine.objection)
    return answer


def _check_decision(
    context: Context, row: RegistryVersion, book: Ledger, event: ApprovalGiven
) -> None:
    """Refuse what would not count, before it is published."""
    standing = book.standings[row.version]
    people = context.settings.people
    if people and standing.rule and standing.rule.role not in people.get(event.by, []):
        raise HTTPException(
            403, f"{event.by} has not the role {standing.rule.role!r} here"
        )
    fact = row.fact()
    problem = objection(
        fact,
        standing,
        Decision(
            version=row.version,
            event_id="",
            at=fact.at,
            decision=event.decision,
            by=event.by,
            reason=event.reason,
            digest=event.package_digest,
        ),
    )
    if problem:
        raise HTTPException(409, problem)


def _request_routes(router: APIRouter, context: Context) -> None:
    @router.post(
        "/models/{pipeline}/rollback",
        response_model=views.Model,
        responses=LATER,
    )
    def rollback(pipeline: Name, body: RollbackBody, key: Key = None) -> Any:
        """Bring an earlier version back into service, or end a rollout."""
        with context.session() as session:
            book = context.ledger(session, pipeline)
            before = len(tables.changes_of(session, pipeline))
        problem = rollback_objection(book, body.to_version)
        if problem:
            raise HTTPException(409, f"{pipeline}: {problem}")
        event = RollbackRequested(pipeline=pipeline, **body.model_dump())
        meta = context.publish(event, id_of(event, key))

        def applied() -> views.Model | None:
            with context.session() as session:
                if len(tables.changes_of(session, pipeline)) == before:
                    return None
                return views.model_view(pipeline, context.ledger(session, pipeline))

        location = f"/api/v1/models/{pipeline}/history"
        return context.wait(applied) or later(meta, location)

    @router.post("/models/{pipeline}/retrain", status_code=202)
    def retrain(pipeline: Name, body: RequestBody, key: Key = None) -> Accepted:
        """Ask for a training; whether and when is the trainer's decision."""
        with context.session() as session:
            context.ledger(session, pipeline)
        event = RetrainRequested(pipeline=pipeline, **body.model_dump())
        meta = context.publish(event, id_of(event, key))
        return Accepted(event_id=meta.id, chain_id=meta.chain.id)


def _pipeline_routes(router: APIRouter, context: Context) -> None:
    @router.post("/pipelines", response_model=views.Pipeline, responses=LATER)
    def apply(body: PipelineBody, key: Key = None) -> Any:
        """Apply a pipeline file; the last one of a name holds."""
        try:
            spec = parse_pipeline(body.file)
        except PipelineFileError as error:
            raise HTTPException(422, str(error)) from error
        event = PipelineApplied(
            pipeline=spec.name, spec=spec, applied_by=body.applied_by
        )
        meta = context.publish(event, id_of(event, key))

        def applied() -> views.Pipeline | None:
            found = context.pipelines.get(spec.name)
            is_mine = found is not None and found.meta.id == meta.id
            return views.pipeline_view(found) if found and is_mine else None

        return context.wait(applied) or later(meta, "/api/v1/pipelines")
