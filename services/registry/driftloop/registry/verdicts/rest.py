"""REST: verdicts, and what a person says against one."""

from typing import Any

from driftloop.contracts.events import (
    FAULTS,
    Cause,
    DriftDetected,
    VerdictOverruled,
)
from driftloop.registry.lineage.tables import drifts_of
from driftloop.registry.requests import id_of
from driftloop.registry.resources.listing import Id
from driftloop.registry.rest import ApiRouter, Context, Key, Limit, Name, later
from driftloop.registry.verdicts import tables
from driftloop.registry.verdicts.report import (
    ShownVerdict,
    VerdictReport,
    report,
    shown,
)
from driftloop.registry.writes import LATER, SPOKEN_FOR, Text
from driftloop.runtime.identity.routing import Asking, GuardedRouter, name_in, needs
from fastapi import HTTPException
from pydantic import BaseModel, Field


class OverrulingBody(BaseModel):
    """Which cause it is, and why; who says so, the credential says."""

    cause: Cause = Field(examples=["label_fault"])
    reason: Text = Field(examples=["the labelling tool was updated that day"])
    overruled_by: Text | None = Field(
        default=None, description=SPOKEN_FOR, examples=["ann"]
    )
    mended: bool = Field(
        default=False,
        description="it is this fault, and what was wrong is right in the dataset now: "
        "trainings read it again once the fault is over",
    )


def verdict_routes(context: Context) -> GuardedRouter:
    """Return the routes about verdicts."""
    router = ApiRouter(prefix="/pipelines/{pipeline}/verdicts", tags=["verdicts"])

    @router.get("", dependencies=[needs("read")])
    def verdicts(pipeline: Name, limit: Limit = 100) -> VerdictReport:
        """List the verdicts, what people said of them, and how often they held."""
        with context.session() as session:
            context.ledger(session, pipeline)
            said = tables.overrulings_of(session, pipeline)
            return report(pipeline, drifts_of(session, pipeline), said, limit)

    @router.post(
        "/{verdict_id}/overrule",
        response_model=ShownVerdict,
        responses=LATER,
        dependencies=[needs("train")],
    )
    def overrule(
        pipeline: Name,
        verdict_id: Id,
        body: OverrulingBody,
        caller: Asking,
        key: Key = None,
    ) -> Any:
        """Say that a verdict's cause is another one, or confirm a fault."""
        with context.session() as session:
            context.ledger(session, pipeline)
            row = tables.verdict(session, pipeline, verdict_id)
            if row is None:
                raise HTTPException(
                    404,
                    f"{pipeline} has no verdict {verdict_id!r}; GET "
                    f"/api/v1/pipelines/{pipeline}/verdicts lists them",
                )
            told = DriftDetected.model_validate(row.told)
            said = tables.overrulings_of(session, pipeline)
        mine = [one.cause for one in said if one.verdict_id == verdict_id]
        holds = mine[-1] if mine else told.cause
        if body.mended and body.cause not in FAULTS:
            raise HTTPException(
                422,
                f"mended: {body.cause} is no fault, so nothing of it can be mended; "
                f"causes that are faults: {', '.join(sorted(FAULTS))}",
            )
        confirms = not mine and told.cause in FAULTS and told.faulty is None
        if holds == body.cause and key is None and not (body.mended or confirms):
            raise HTTPException(409, f"that it is {holds} holds already")
        event = VerdictOverruled(
            pipeline=pipeline,
            verdict_id=verdict_id,
            verdict_cause=told.cause,
            cause=body.cause,
            overruled_by=name_in(caller, body.overruled_by),
            reason=body.reason,
            since=told.since,
            detected_at=told.detected_at,
            model_version=told.model_version,
            mended=body.mended,
        )
        meta = context.publish(event, id_of(event, key))

        def applied() -> ShownVerdict | None:
            with context.session() as session:
                if not tables.is_noted(session, meta.id):
                    return None
                found = tables.verdict(session, pipeline, verdict_id)
                rows = tables.overrulings_of(session, pipeline)
                of_it = [one for one in rows if one.verdict_id == verdict_id]
                return shown(found, of_it) if found is not None else None

        location = f"/api/v1/pipelines/{pipeline}/verdicts"
        return context.wait(applied) or later(meta, location)

    return router
