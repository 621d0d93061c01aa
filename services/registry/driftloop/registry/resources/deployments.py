"""REST: rollouts, step by step, and what became of each."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

from driftloop.contracts.pipeline import PRODUCTION
from driftloop.registry.lineage.tables import RegistryRolloutStep
from driftloop.registry.resources.listing import (
    After,
    Id,
    Listed,
    OfPipeline,
    Place,
    cut,
    place_of,
    scope,
)
from driftloop.registry.rest import MAX_NUMBER, ApiRouter, Context, Limit, Name
from driftloop.registry.tables import RegistryServingChange, utc
from driftloop.registry.views import Deployment, deployment_view
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from fastapi import HTTPException, Query
from pydantic import BaseModel, Field
from sqlmodel import Session, col, select

State = Literal["running", "failed", "deployed", "rolled_back"]


STATES: dict[str, State] = {
    "deployed": "deployed",
    "rolled_back": "rolled_back",
    "stopped": "failed",
}
"""By the last change of what is served."""


class Step(BaseModel):
    """A step, as it was judged."""

    event_id: str
    at: datetime
    environment: str = Field(examples=[PRODUCTION])
    step: str = Field(examples=["canary 10 %"])
    verdict: str = Field(examples=["passed"])
    detail: str


class Rollout(BaseModel):
    """A version on its way into service, or out of it."""

    rollout_id: str
    pipeline: str = Field(examples=["bike-demand"])
    version: int = Field(examples=[3])
    state: State
    began_at: datetime
    steps: list[Step]
    changes: list[Deployment] = Field(description="of what is served")


@dataclass
class _Found:
    """What the tables hold of one rollout."""

    steps: list[RegistryRolloutStep] = field(default_factory=list)
    changes: list[RegistryServingChange] = field(default_factory=list)

    @property
    def began_at(self) -> datetime:
        times = [*(s.at for s in self.steps), *(c.at for c in self.changes)]
        return utc(min(times))


def deployment_routes(context: Context) -> GuardedRouter:
    """Return the routes about rollouts; they change nothing."""
    router = ApiRouter(
        prefix="/deployments", tags=["deployments"], dependencies=[needs("read")]
    )

    @router.get("")
    def deployments(
        who: AskedBy,
        pipeline: OfPipeline = None,
        version: Annotated[int | None, Query(ge=1, le=MAX_NUMBER)] = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> Listed[Rollout]:
        """List rollouts, newest first."""
        after = place_of(cursor)
        with context.session() as session:
            names = scope(context, session, who, pipeline)
            views = [_view(name, one) for name, one in rollouts_of(session, names)]
        wanted = [one for one in views if version in (None, one.version)]
        found = [(Place(one.began_at, one.rollout_id), one) for one in wanted]
        return cut(found, limit, after, lambda one: one)

    @router.get("/{pipeline}/{rollout_id}")
    def deployment(pipeline: Name, rollout_id: Id) -> Rollout:
        """Show one rollout with its steps."""
        with context.session() as session:
            context.ledger(session, pipeline)
            found = dict(rollouts_of(session, [pipeline])).get(rollout_id)
        if found is None:
            raise HTTPException(
                404,
                f"{pipeline} has no rollout {rollout_id!r}; GET "
                f"/api/v1/deployments?pipeline={pipeline} lists them",
            )
        return _view(rollout_id, found)

    return router


def rollouts_of(
    session: Session, pipelines: Iterable[str]
) -> Iterable[tuple[str, _Found]]:
    """Return what is known of each rollout of some pipelines, by its id."""
    found: dict[str, _Found] = {}
    names = list(pipelines)
    steps, changes = RegistryRolloutStep, RegistryServingChange
    for step in session.exec(select(steps).where(col(steps.pipeline).in_(names))):
        found.setdefault(step.rollout_id, _Found()).steps.append(step)
    for change in session.exec(select(changes).where(col(changes.pipeline).in_(names))):
        found.setdefault(change.rollout_id, _Found()).changes.append(change)
    return found.items()


def _view(rollout_id: str, found: _Found) -> Rollout:
    steps = sorted(found.steps, key=lambda each: (each.at, each.event_id))
    changes = sorted(found.changes, key=lambda each: each.fact().order)
    first = (steps or changes)[0]
    state: State = "running"
    if changes:
        state = STATES[changes[-1].kind]
    elif steps[-1].verdict == "failed":
        state = "failed"
    return Rollout(
        rollout_id=rollout_id,
        pipeline=first.pipeline,
        version=first.version,
        state=state,
        began_at=found.began_at,
        steps=[
            Step(
                event_id=each.event_id,
                at=utc(each.at),
                environment=each.environment,
                step=each.step,
                verdict=each.verdict,
                detail=each.detail,
            )
            for each in steps
        ],
        changes=[deployment_view(each) for each in changes],
    )
