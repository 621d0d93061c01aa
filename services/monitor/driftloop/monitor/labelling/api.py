"""The queue over HTTP: which rows wait for people's labels, the best first."""

from datetime import datetime, timedelta
from typing import Annotated

from driftloop.contracts.base import PipelineName
from driftloop.contracts.events import PipelineApplied
from driftloop.monitor.labelling import queue
from driftloop.monitor.state import Watch
from driftloop.runtime.identity.routing import GuardedRouter, needs
from driftloop.runtime.state import StateView
from fastapi import HTTPException, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import Engine
from sqlmodel import Session

MAX_PAGE = 1000


class WantedRow(BaseModel):
    """A row without a label; its values are in none of this."""

    row_id: str = Field(examples=["2012-03-29T14"])
    event_time: datetime
    score: float = Field(
        description="how much its label would help, beside others of its window"
    )
    reasons: list[str]
    window: int = Field(description="in which it was asked for")
    model_version: int | None = Field(description="in service then")


class LabelsQueue(BaseModel):
    """A page of the queue; ``next_cursor`` asks for the page after it."""

    pipeline: str
    waiting_count: int = Field(description="rows in the whole queue")
    items: list[WantedRow]
    next_cursor: int | None = None


def labels_router(
    engine: Engine, pipelines: StateView[PipelineApplied]
) -> GuardedRouter:
    """Return the routes, which read."""
    routes = GuardedRouter(
        prefix="/v1",
        dependencies=[needs("read")],
        tags=["labels"],
        responses={
            401: {"description": "the token is missing or wrong"},
            403: {"description": "the role is missing; title says which"},
            404: {"description": "there is no such pipeline"},
        },
    )

    @routes.get("/pipelines/{name}/labels-wanted")
    def labels_wanted(
        name: Annotated[PipelineName, Path()],
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
        cursor: Annotated[
            int | None, Query(ge=1, description="`next_cursor` of the page before")
        ] = None,
    ) -> LabelsQueue:
        """Rows whose labels would help most: newest window first, best row first.

        A row leaves when its label comes, or is too old for one.
        """
        applied = pipelines.get(name)
        if applied is None:
            raise HTTPException(
                404, f"there is no pipeline {name!r}; driftloop apply FILE makes one"
            )
        horizon = timedelta(days=applied.spec.data.label_horizon_days)
        with Session(engine) as session:
            return queue_page(session, name, horizon, limit, cursor)

    return routes


def queue_page(
    session: Session, name: str, horizon: timedelta, limit: int, cursor: int | None
) -> LabelsQueue:
    """Return ``limit`` rows of a pipeline's queue, behind ``cursor``."""
    state = queue.state_of(session, name)
    seen = Watch.model_validate_json(state).seen_until if state else None
    since = None if seen is None else seen - horizon
    found = queue.waiting(session, name, since, limit + 1, cursor or 0)
    items = found[:limit]
    return LabelsQueue(
        pipeline=name,
        waiting_count=queue.count(session, name, since),
        items=[
            WantedRow(
                **row.label.model_dump(),
                window=row.window,
                model_version=row.model_version,
            )
            for row in items
        ],
        next_cursor=items[-1].place if len(found) > limit else None,
    )
