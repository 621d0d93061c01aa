"""REST: people let a version go to the next environment, or not.

Which version waits where, the deployer knows; its answer is an event.
"""

from datetime import UTC, datetime
from typing import Any

from driftloop.contracts.events import PromotionAction, PromotionSteered
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.quorum import is_same_person
from driftloop.registry.core import asked_at
from driftloop.registry.requests import id_of
from driftloop.registry.rest import Accepted, ApiRouter, Context, Key, Name, Number
from driftloop.registry.tables import RegistryVersion
from driftloop.registry.writes import (
    LATER,
    DecisionBody,
    RequestBody,
    lacks,
    roles_of,
)
from driftloop.runtime.identity.routing import (
    AskedBy,
    Asking,
    GuardedRouter,
    Who,
    name_in,
    needs,
)
from fastapi import HTTPException


def promotion_routes(context: Context) -> GuardedRouter:
    """Return the routes about versions that wait between two environments."""
    router = ApiRouter(tags=["write"])
    path = "/models/{pipeline}/versions/{version}"
    declared: dict[str, Any] = {"status_code": 202, "responses": LATER}
    decided = declared | {"dependencies": [needs("approve")]}

    @router.post(f"{path}/promote", **decided)
    def promote(
        pipeline: Name,
        version: Number,
        body: DecisionBody,
        who: AskedBy,
        key: Key = None,
    ) -> Accepted:
        """Say yes: a version may go from its environment to the next one.

        The deployer's answer is a `rollout-advanced` event, or an alert that says why
        not.
        """
        return _decide(context, who, "approve", (pipeline, version), body, key)

    @router.post(f"{path}/refuse-promotion", **decided)
    def refuse_promotion(
        pipeline: Name,
        version: Number,
        body: DecisionBody,
        who: AskedBy,
        key: Key = None,
    ) -> Accepted:
        """Say no: a version does not go on, and is taken back where it is."""
        return _decide(context, who, "reject", (pipeline, version), body, key)

    @router.post(
        f"{path}/request-promotion", **declared, dependencies=[needs("promote")]
    )
    def request_promotion(
        pipeline: Name,
        version: Number,
        body: RequestBody,
        caller: Asking,
        key: Key = None,
    ) -> Accepted:
        """Ask people again about a version whose request has expired."""
        row, _ = _waiting(context, pipeline, version)
        by = name_in(caller, body.requested_by)
        event = _event(row, "ask", by, body.reason)
        meta = context.publish(event, id_of(event, key))
        return Accepted(event_id=meta.id, chain_id=meta.chain.id)

    return router


def _decide(
    context: Context,
    who: Who,
    action: PromotionAction,
    about: tuple[str, int],
    body: DecisionBody,
    key: str | None,
) -> Accepted:
    name, number = about
    by = who.named(body.by)
    row, spec = _waiting(context, name, number)
    rule = asked_at(spec.rollout.approval, datetime.now(UTC))
    roles = roles_of(context, who, name, rule, by)
    if not roles:
        raise HTTPException(403, lacks(by, rule))
    if action == "approve" and row.author and is_same_person(by, row.author):
        raise HTTPException(
            409,
            f"{by} asked for the training of version {number}; another must say yes",
        )
    event = _event(row, action, by, body.reason, roles, body.package_digest)
    meta = context.publish(event, id_of(event, key))
    return Accepted(event_id=meta.id, chain_id=meta.chain.id)


def _event(
    row: RegistryVersion,
    action: PromotionAction,
    by: str,
    reason: str,
    roles: list[str] | None = None,
    digest: str | None = None,
) -> PromotionSteered:
    return PromotionSteered(
        pipeline=row.pipeline,
        action=action,
        version=row.version,
        by=by,
        reason=reason,
        package_digest=digest or row.digest,
        roles=roles or [],
    )


def _waiting(
    context: Context, name: str, number: int
) -> tuple[RegistryVersion, PipelineSpec]:
    """Return a version that may wait to go on, and the pipeline's rules.

    Raises
    ------
    HTTPException
        409: it cannot wait, and why.
    """
    with context.session() as session:
        row = context.version(session, name, number)
        standing = context.ledger(session, name).standings[number]
    applied = context.pipelines.get(name)
    listed = applied.spec.rollout.environments if applied else []
    if applied is None or all(each.promote != "approval" for each in listed):
        raise HTTPException(
            409,
            f"{name} has no environment whose versions people let go on; see "
            "rollout.environments with promote: approval",
        )
    if standing.state != "approved":
        raise HTTPException(
            409, f"version {number} is {standing.state}: it waits for no promotion"
        )
    return row, applied.spec
