"""REST: everything that was decided, by whom or by what, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from driftloop.contracts.events import Trigger
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.registry.lineage.tables import (
    RegistryDrift,
    RegistryRolloutStep,
    RegistrySkip,
    RegistryTraining,
    trigger_of,
)
from driftloop.registry.resources.listing import (
    After,
    Listed,
    OfPipeline,
    Place,
    cut,
    newest,
    place_of,
    scope,
)
from driftloop.registry.rest import ApiRouter, Context, Limit
from driftloop.registry.tables import (
    RegistryDecision,
    RegistryServingChange,
    RegistryVersion,
    utc,
)
from driftloop.registry.views import summary_of
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from fastapi import Query
from pydantic import BaseModel, Field
from sqlmodel import col

Kind = Literal["drift", "training", "skip", "gate", "approval", "rollout", "serving"]
OfKind = Annotated[
    list[Kind] | None,
    Query(alias="kind", description="default: all; may be given several times"),
]


class MadeDecision(BaseModel):
    """What was decided, by whom or by what, and why."""

    id: str = Field(description="of the event; of a training, of its job")
    pipeline: str = Field(examples=["bike-demand"])
    at: datetime
    kind: Kind = Field(
        description="drift: the monitor's verdict; training: one began; skip: none "
        "did; gate: what a candidate is worth; approval: a person; rollout: a step; "
        "serving: what answers"
    )
    outcome: str = Field(examples=["passed"])
    reason: str
    by: str | None = Field(description="a person; null: no person", examples=["ann"])
    version: int | None = Field(examples=[3])
    job_id: str | None = None
    rollout_id: str | None = None
    trigger: Trigger | None = None


def _drift(row: RegistryDrift) -> dict[str, Any]:
    advice = "retrain" if row.retrain_advised else "do not retrain"
    return {
        "outcome": advice,
        "reason": f"{row.cause}: {row.explanation}",
        "version": row.model_version,
    }


def _training(row: RegistryTraining) -> dict[str, Any]:
    trigger = trigger_of(row)
    return {
        "outcome": row.state,
        "reason": f"{trigger.reason}: {row.detail}" if row.detail else trigger.reason,
        "by": trigger.requested_by,
        "job_id": row.job_id,
        "trigger": trigger,
    }


def _skip(row: RegistrySkip) -> dict[str, Any]:
    trigger = Trigger.model_validate(row.trigger)
    return {
        "outcome": row.reason,
        "reason": row.detail,
        "by": trigger.requested_by,
        "job_id": row.covered_by_job,
        "trigger": trigger,
    }


def _gate(row: RegistryVersion) -> dict[str, Any]:
    failures = row.fact().failures
    return {
        "outcome": "refused" if failures else "passed",
        "reason": "; ".join(failures) or summary_of(row),
        "version": row.version,
        "job_id": row.job_id,
    }


def _approval(row: RegistryDecision) -> dict[str, Any]:
    return {
        "outcome": row.decision,
        "reason": row.reason,
        "by": row.by,
        "version": row.version,
    }


def _rollout(row: RegistryRolloutStep) -> dict[str, Any]:
    is_productions = row.environment == PRODUCTION
    step = row.step if is_productions else f"{row.environment}: {row.step}"
    return {
        "outcome": row.verdict,
        "reason": f"{step}: {row.detail}" if row.detail else step,
        "version": row.version,
        "rollout_id": row.rollout_id,
    }


def _serving(row: RegistryServingChange) -> dict[str, Any]:
    return {
        "outcome": row.kind,
        "reason": row.reason,
        "version": row.version,
        "rollout_id": row.rollout_id,
    }


@dataclass(frozen=True, slots=True)
class _Source:
    """A class of rows that are decisions, and how one reads."""

    kind: Kind
    table: Any
    id_column: str
    read: Callable[[Any], dict[str, Any]]


SOURCES = (
    _Source("drift", RegistryDrift, "event_id", _drift),
    _Source("training", RegistryTraining, "job_id", _training),
    _Source("skip", RegistrySkip, "event_id", _skip),
    _Source("gate", RegistryVersion, "event_id", _gate),
    _Source("approval", RegistryDecision, "event_id", _approval),
    _Source("rollout", RegistryRolloutStep, "event_id", _rollout),
    _Source("serving", RegistryServingChange, "event_id", _serving),
)


def decision_routes(context: Context) -> GuardedRouter:
    """Return the routes about decisions; they change nothing."""
    router = ApiRouter(tags=["decisions"], dependencies=[needs("read")])

    @router.get("/decisions")
    def decisions(
        who: AskedBy,
        pipeline: OfPipeline = None,
        kinds: OfKind = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> Listed[MadeDecision]:
        """List what was decided, newest first."""
        after, found = place_of(cursor), []
        with context.session() as session:
            names = scope(context, session, who, pipeline)
            for source in SOURCES:
                if source.kind not in (kinds or get_args(Kind)):
                    continue
                of_mine = col(source.table.pipeline).in_(names)
                rows = newest(
                    session, source.table, source.id_column, [of_mine], after, limit + 1
                )
                found += [(place, _view(source, place, row)) for place, row in rows]
        return cut(found, limit, after, lambda one: one)

    return router


def _view(source: _Source, place: Place, row: Any) -> MadeDecision:
    fields = {"by": None, "version": None, **source.read(row)}
    return MadeDecision(
        id=place.id,
        pipeline=row.pipeline,
        at=utc(place.at),
        kind=source.kind,
        **fields,
    )
