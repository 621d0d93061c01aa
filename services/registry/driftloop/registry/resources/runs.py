"""REST: trainings, what led to each, and what it gave."""

from datetime import datetime
from typing import Annotated, Literal

from driftloop.contracts.events import Trigger
from driftloop.registry.lineage.tables import RegistryTraining, trigger_of
from driftloop.registry.mlflow.registered.tables import ModelVersion
from driftloop.registry.resources.listing import (
    After,
    Id,
    Listed,
    OfPipeline,
    cut,
    newest,
    place_of,
    scope,
)
from driftloop.registry.rest import ApiRouter, Context, Limit
from driftloop.registry.tables import utc, version_of_job
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from fastapi import HTTPException, Query
from pydantic import BaseModel, Field
from sqlalchemy import true
from sqlmodel import Session, col, select

RunState = Literal["started", "trained", "failed", "cancelled"]
InState = Annotated[RunState | None, Query(description="default: all")]


class Run(BaseModel):
    """A training."""

    job_id: str
    pipeline: str = Field(examples=["bike-demand"])
    state: RunState
    started_at: datetime
    ended_at: datetime | None = Field(description="null: it runs, or that is not known")
    trigger: Trigger
    dataset: str | None = Field(
        description="version that it read; null: not told yet", examples=["730.365"]
    )
    start: datetime | None = Field(
        description="event time of the rows that it may read, hold-out included"
    )
    end: datetime | None
    version: int | None = Field(description="that its model became", examples=[3])
    mlflow_run_id: str | None = Field(
        description="of a model that was registered by a client of MLflow"
    )
    outcome: str = Field(
        description="why it failed or was cancelled; empty: it was not"
    )


def run_routes(context: Context) -> GuardedRouter:
    """Return the routes about trainings; they change nothing."""
    router = ApiRouter(prefix="/runs", tags=["runs"], dependencies=[needs("read")])

    @router.get("")
    def runs(
        who: AskedBy,
        pipeline: OfPipeline = None,
        state: InState = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> Listed[Run]:
        """List trainings, newest first."""
        table, after = RegistryTraining, place_of(cursor)
        with context.session() as session:
            names = scope(context, session, who, pipeline)
            in_state = col(table.state) == state if state else true()
            wanted = [col(table.pipeline).in_(names), in_state]
            found = newest(session, table, "job_id", wanted, after, limit + 1)
            return cut(found, limit, after, lambda row: _view(session, row))

    @router.get("/{job_id}")
    def run(who: AskedBy, job_id: Id) -> Run:
        """Show one training."""
        with context.session() as session:
            row = session.get(RegistryTraining, job_id)
            if row is None:
                raise HTTPException(
                    404, f"no training {job_id!r}; GET /api/v1/runs lists them"
                )
            who.check("read", row.pipeline)
            return _view(session, row)

    return router


def _view(session: Session, row: RegistryTraining) -> Run:
    has_dataset = row.observations is not None
    return Run(
        job_id=row.job_id,
        pipeline=row.pipeline,
        state=row.state,  # type: ignore[arg-type]  # a column's text, one of these
        started_at=utc(row.at),
        ended_at=utc(row.ended_at) if row.ended_at else None,
        trigger=trigger_of(row),
        dataset=f"{row.observations}.{row.labels}" if has_dataset else None,
        start=utc(row.start) if row.start else None,
        end=utc(row.end) if row.end else None,
        version=version_of_job(session, row.pipeline, row.job_id),
        mlflow_run_id=_mlflow_run(session, row),
        outcome=row.detail,
    )


def _mlflow_run(session: Session, row: RegistryTraining) -> str | None:
    table = ModelVersion
    query = select(table.run_id).where(
        table.name == row.pipeline, table.job_id == row.job_id
    )
    return session.exec(query).first() or None
