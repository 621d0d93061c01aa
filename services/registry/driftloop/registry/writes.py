"""REST: what people ask for; published as events, answered when applied."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from driftloop.contracts.approval import Approval
from driftloop.contracts.base import origin_from
from driftloop.contracts.events import (
    ApprovalGiven,
    ApprovalRenewed,
    PipelineApplied,
    RetrainRequested,
    RollbackRequested,
    RolloutSteered,
    SteeringAction,
)
from driftloop.contracts.pipeline import (
    DEFAULT_PROJECT,
    PRODUCTION,
    EnvironmentName,
    PipelineFileError,
    PipelineSpec,
    parse_pipeline,
)
from driftloop.contracts.roles import Action
from driftloop.registry import tables, views
from driftloop.registry.core import asked_at, loosens
from driftloop.registry.ledger import (
    ApprovalRule,
    Decision,
    Standing,
    objection,
    renewal_objection,
    rollback_objection,
    steering_objection,
)
from driftloop.registry.requests import id_of
from driftloop.registry.rest import (
    MAX_NUMBER,
    Accepted,
    ApiRouter,
    Context,
    Key,
    Name,
    Number,
    later,
)
from driftloop.registry.tables import RegistryVersion
from driftloop.runtime.identity.callers import Caller
from driftloop.runtime.identity.routing import (
    AskedBy,
    Asking,
    GuardedRouter,
    Who,
    name_in,
    needs,
)
from driftloop.runtime.problems import refusals
from fastapi import HTTPException
from pydantic import BaseModel, Field, StringConstraints

MAX_FILE_CHARACTERS = 200_000
BY_ALIAS = "asked for as champion by a client of MLflow"
Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)
]
APPROVER = Approval().role
PLACED = "in which it is meant; others are listed in `rollout.environments`"
SPOKEN_FOR = "only the installation's own token, which is nobody's, may name somebody"
LATER: dict[int | str, dict[str, Any]] = {
    202: {"model": Accepted, "description": "published, and not applied in time"},
    **refusals({409: "not possible now; says why", 503: "the broker is away"}),
}


class DecisionBody(BaseModel):
    """Why; who decides, the credential says."""

    by: Text | None = Field(default=None, description=SPOKEN_FOR, examples=["ann"])
    reason: Text = Field(examples=["better on the newest weeks"])
    package_digest: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="what was looked at; refused when the version is another package",
    )


class RequestBody(BaseModel):
    """Why; who asks, the credential says."""

    requested_by: Text | None = Field(
        default=None, description=SPOKEN_FOR, examples=["ann"]
    )
    reason: Text = Field(examples=["orders look wrong since Monday"])


class RollbackBody(RequestBody):
    """Which earlier version, and why."""

    environment: EnvironmentName = Field(default=PRODUCTION, description=PLACED)
    to_version: int | None = Field(
        default=None,
        ge=1,
        le=MAX_NUMBER,
        description="default: the version before",
        examples=[2],
    )


class SteeringBody(RequestBody):
    """What is asked of the version on its way."""

    environment: EnvironmentName = Field(default=PRODUCTION, description=PLACED)
    action: SteeringAction
    version: int = Field(
        ge=1, le=MAX_NUMBER, description="the one that is meant", examples=[3]
    )


class PipelineBody(BaseModel):
    """A pipeline file's text."""

    applied_by: Text | None = Field(
        default=None, description=SPOKEN_FOR, examples=["ann"]
    )
    file: str = Field(
        max_length=MAX_FILE_CHARACTERS,
        examples=["{name: churn, task: binary, data: {target: left}}"],
    )


def write_routes(context: Context) -> GuardedRouter:
    """Return the routes that publish an event."""
    router = ApiRouter(tags=["write"])
    _decision_routes(router, context)
    _request_routes(router, context)
    _pipeline_routes(router, context)
    return router


def _decision_routes(router: GuardedRouter, context: Context) -> None:
    path = "/models/{pipeline}/versions/{version}"
    declared: dict[str, Any] = {
        "response_model": views.VersionDetail,
        "responses": LATER,
        "dependencies": [needs("approve")],
    }

    @router.post(f"{path}/approve", **declared)
    def approve(
        pipeline: Name,
        version: Number,
        body: DecisionBody,
        who: AskedBy,
        key: Key = None,
    ) -> Any:
        """Say yes to a version that waits for it."""
        return _decide(context, who, "approve", (pipeline, version), body, key)

    @router.post(f"{path}/reject", **declared)
    def reject(
        pipeline: Name,
        version: Number,
        body: DecisionBody,
        who: AskedBy,
        key: Key = None,
    ) -> Any:
        """Say no to a version that waits for a decision; one no is enough."""
        return _decide(context, who, "reject", (pipeline, version), body, key)

    @router.post(
        f"{path}/request-approval",
        response_model=views.VersionDetail,
        responses=LATER,
        dependencies=[needs("promote")],
    )
    def request_approval(
        pipeline: Name,
        version: Number,
        body: RequestBody,
        caller: Asking,
        key: Key = None,
    ) -> Any:
        """Ask people again about a version whose request for approval has expired."""
        by = name_in(caller, body.requested_by)
        return _ask_again(context, (pipeline, version), by, body.reason, key)


def _ask_again(
    context: Context, about: tuple[str, int], by: str, reason: str, key: str | None
) -> Any:
    name, number = about
    applied = context.pipelines.get(name)
    if applied is None:
        raise HTTPException(
            409, f"pipeline {name!r} is not applied; run: driftloop apply FILE"
        )
    with context.session() as session:
        row = context.version(session, name, number)
        book = context.ledger(session, name)
        event = ApprovalRenewed(
            pipeline=name,
            version=number,
            package_digest=row.digest,
            request=book.standings[number].request + 1,
            requested_by=by,
            reason=reason,
            **asdict(asked_at(applied.spec.rollout.approval, datetime.now(UTC))),
        )
        event_id = id_of(_without_moments(event), key)
        if tables.is_renewed(session, event_id):  # it is a repeat
            return views.detail_view(session, row, book)
    problem = renewal_objection(row.fact(), book.standings[number])
    if problem:
        raise HTTPException(409, problem)
    meta = context.publish(event, event_id, origin_from(row.origin))

    def applied_now() -> views.VersionDetail | None:
        with context.session() as session:
            book = context.ledger(session, name)
            if book.standings[number].request < event.request:
                return None
            row = context.version(session, name, number)
            return views.detail_view(session, row, book)

    location = f"/api/v1/models/{name}/versions/{number}"
    return context.wait(applied_now) or later(meta, location)


def _without_moments(event: ApprovalRenewed) -> ApprovalRenewed:
    """Return what is the same when a person sends the same again."""
    unmoved: dict[str, Any] = {"request": 2, "expires_at": None, "remind_at": []}
    return event.model_copy(update=unmoved)


def _decide(
    context: Context,
    who: Who,
    decision: Literal["approve", "reject"],
    about: tuple[str, int],
    body: DecisionBody,
    key: str | None,
) -> Any:
    name, number = about
    by = who.named(body.by)
    with context.session() as session:
        row = context.version(session, name, number)
        standing = context.ledger(session, name).standings[number]
        roles = roles_of(context, who, name, standing.rule, by)
        if not roles:
            raise HTTPException(403, lacks(by, standing.rule))
        event = ApprovalGiven(
            pipeline=name,
            version=number,
            decision=decision,
            by=by,
            reason=body.reason,
            package_digest=body.package_digest or row.digest,
            request=standing.request,
            roles=roles,
        )
        event_id = id_of(event, key)
        if not tables.is_decided(session, event_id):  # else it is a repeat
            _check_decision(row, standing, event)
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


def roles_of(
    context: Context, who: Who, pipeline: str, rule: ApprovalRule | None, by: str
) -> list[str]:
    """Return which of the roles that the pipeline file names somebody has.

    The route has asked for the right to approve. Whom the operator names has the roles
    of the settings, if these name anybody.
    """
    wanted = list(rule.seats) if rule else [APPROVER]
    caller, people = who.caller, context.settings.people
    if caller.is_operator:
        has_all = not people or rule is None
        return [role for role in wanted if has_all or role in people.get(by, [])]
    project, _ = who.guard.project_of(pipeline) or (DEFAULT_PROJECT, [])
    return [
        role for role in wanted if role == APPROVER or caller.rights.has(role, project)
    ]


def lacks(by: str, rule: ApprovalRule | None) -> str:
    """Say that somebody has none of the roles that are asked for."""
    wanted = " or ".join(map(repr, rule.seats)) if rule else repr(APPROVER)
    return f"{by} has not the role {wanted} here"


def _check_decision(
    row: RegistryVersion, standing: Standing, event: ApprovalGiven
) -> None:
    """Refuse what would not count, before it is published."""
    problem = objection(
        row.fact(),
        standing,
        Decision(
            version=row.version,
            event_id="",
            at=datetime.now(UTC),
            decision=event.decision,
            by=event.by,
            reason=event.reason,
            digest=event.package_digest,
            request=event.request,
            roles=frozenset(event.roles),
        ),
    )
    if problem:
        raise HTTPException(409, problem)


def _request_routes(router: GuardedRouter, context: Context) -> None:
    @router.post(
        "/models/{pipeline}/rollback",
        response_model=views.Model,
        responses=LATER,
        dependencies=[needs("operate")],
    )
    def rollback(
        pipeline: Name, body: RollbackBody, caller: Asking, key: Key = None
    ) -> Any:
        """Bring an earlier version back into service, or end a rollout."""
        with context.session() as session:
            book = context.ledger(session, pipeline)
            before = len(tables.changes_of(session, pipeline))
        problem = (
            _unknown(context, pipeline, body.environment)
            if body.environment != PRODUCTION
            else rollback_objection(book, body.to_version)
        )
        if problem:
            raise HTTPException(409, f"{pipeline}: {problem}")
        event = RollbackRequested(
            pipeline=pipeline,
            environment=body.environment,
            requested_by=name_in(caller, body.requested_by),
            reason=body.reason,
            to_version=body.to_version,
        )
        meta = context.publish(event, id_of(event, key))

        def applied() -> views.Model | None:
            with context.session() as session:
                if len(tables.changes_of(session, pipeline)) == before:
                    return None
                return views.model_view(pipeline, context.ledger(session, pipeline))

        location = f"/api/v1/models/{pipeline}/history"
        return context.wait(applied) or later(meta, location)

    @router.post(
        "/models/{pipeline}/rollout",
        status_code=202,
        responses=LATER,
        dependencies=[needs("operate")],
    )
    def steer(
        pipeline: Name, body: SteeringBody, caller: Asking, key: Key = None
    ) -> Accepted:
        """Hold a version's rollout, let it go on, or put the version in front now.

        The deployer's answer is a `rollout-advanced` event, or an alert that says why
        not.
        """
        with context.session() as session:
            book = context.ledger(session, pipeline)
            context.version(session, pipeline, body.version)
        problem = _unknown(context, pipeline, body.environment) or steering_objection(
            book, body.action, body.version
        )
        if problem:
            raise HTTPException(409, f"{pipeline}: {problem}")
        event = RolloutSteered(
            pipeline=pipeline,
            environment=body.environment,
            action=body.action,
            version=body.version,
            requested_by=name_in(caller, body.requested_by),
            reason=body.reason,
        )
        meta = context.publish(event, id_of(event, key))
        return Accepted(event_id=meta.id, chain_id=meta.chain.id)

    @router.post(
        "/models/{pipeline}/retrain", status_code=202, dependencies=[needs("train")]
    )
    def retrain(
        pipeline: Name, body: RequestBody, caller: Asking, key: Key = None
    ) -> Accepted:
        """Ask for a training; whether and when is the trainer's decision."""
        with context.session() as session:
            context.ledger(session, pipeline)
        event = RetrainRequested(
            pipeline=pipeline,
            requested_by=name_in(caller, body.requested_by),
            reason=body.reason,
        )
        meta = context.publish(event, id_of(event, key))
        return Accepted(event_id=meta.id, chain_id=meta.chain.id)


def _unknown(context: Context, pipeline: str, environment: str) -> str | None:
    """Return what is said of an environment that a pipeline has not; None: it has."""
    applied = context.pipelines.get(pipeline)
    listed = applied.spec.rollout.environments if applied else []
    names = [*(each.name for each in listed), PRODUCTION]
    if environment in names:
        return None
    return f"there is no environment {environment!r}; there are {', '.join(names)}"


def _pipeline_routes(router: GuardedRouter, context: Context) -> None:
    @router.post(
        "/pipelines",
        response_model=views.Pipeline,
        responses=LATER,
        dependencies=[needs("apply")],
    )
    def apply(body: PipelineBody, caller: Asking, key: Key = None) -> Any:
        """Apply a pipeline file; the last one of a name holds."""
        try:
            spec = parse_pipeline(body.file)
        except PipelineFileError as error:
            raise HTTPException(422, str(error)) from error
        _check_apply(caller, context.pipelines.get(spec.name), spec)
        event = PipelineApplied(
            pipeline=spec.name, spec=spec, applied_by=name_in(caller, body.applied_by)
        )
        meta = context.publish(event, id_of(event, key))

        def applied() -> views.Pipeline | None:
            found = context.pipelines.get(spec.name)
            is_mine = found is not None and found.meta.id == meta.id
            return views.pipeline_view(found) if found and is_mine else None

        return context.wait(applied) or later(meta, "/api/v1/pipelines")


def _check_apply(
    caller: Caller, before: PipelineApplied | None, spec: PipelineSpec
) -> None:
    """Refuse a pipeline file that the caller may not apply.

    Raises
    ------
    HTTPException
        403 with the role that is missing, in the project of the file or of the one
        before it.
    """
    known = before.spec if before else None
    action: Action = "govern" if loosens(known, spec) else "apply"
    for project in {spec.project, known.project if known else spec.project}:
        if not caller.may(action, project):
            raise HTTPException(403, str(caller.refusal(action, project)))


def promote(context: Context, who: Who, about: tuple[str, int], by: str) -> None:
    """Ask that a version goes into service, as its state allows it.

    One that waits is approved, by the rules of every approval; one that was in service
    is asked back. Either takes the right that it takes elsewhere. Whether and when it
    answers is the rollout's decision.

    Parameters
    ----------
    about : pipeline and version.
    by : the name that the request says; a credential of one's own has to prove it.

    Raises
    ------
    HTTPException
        When it cannot be asked for; says why.
    """
    pipeline, number = about
    with context.session() as session:
        context.version(session, pipeline, number)
        book = context.ledger(session, pipeline)
    standing = book.standings[number]
    if standing.state in {"deployed", "approved"}:
        return  # it answers, or is on its way
    if standing.state == "awaiting_approval":
        who.check("approve", pipeline)
        body = DecisionBody(by=by, reason=BY_ALIAS)
        _decide(context, who, "approve", about, body, None)
        return
    who.check("operate", pipeline)
    problem = rollback_objection(book, number)
    if problem:
        reasons = "; ".join(standing.reasons) or problem
        raise HTTPException(409, f"version {number} is {standing.state}: {reasons}")
    event = RollbackRequested(
        pipeline=pipeline,
        requested_by=who.named(by),
        reason=BY_ALIAS,
        to_version=number,
    )
    context.publish(event, id_of(event, None))
