"""REST: runners of exported versions, and what they told."""

from datetime import datetime
from typing import Any

from driftloop.registry import tables
from driftloop.registry.edges.tables import SUMMED, RegistryEdge, answering, runners_of
from driftloop.registry.edges.warning import problem_with
from driftloop.registry.ledger import State
from driftloop.registry.resources.listing import (
    After,
    Listed,
    OfPipeline,
    Place,
    cut,
    place_of,
    scope,
)
from driftloop.registry.rest import ApiRouter, Context, Limit
from driftloop.registry.tables import RegistryVersion, utc
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from pydantic import BaseModel, Field
from sqlmodel import Session


class Edge(BaseModel):
    """A runner, and all that it told of the version with which it answers."""

    pipeline: str = Field(examples=["bike-demand"])
    edge: str = Field(examples=["line-4"])
    version: int = Field(description="with which it answers", examples=[3])
    package_digest: str
    state: State | None = Field(description="of the version here; null: not known here")
    problem: str | None = Field(
        description="why the version should not answer; null: it may",
        examples=["was taken back"],
    )
    first_at: datetime = Field(description="by the runner's clock, as all times here")
    last_at: datetime
    report_count: int
    request_count: int
    refused_count: int
    row_count: int
    error_count: int
    unfamiliar_row_count: int
    sampled_row_count: int
    lost_report_count: int
    lost_row_count: int
    last: dict[str, Any] = Field(description="the last report: edge-reported")


def edge_routes(context: Context) -> GuardedRouter:
    """Return the routes about runners; they change nothing."""
    router = ApiRouter(prefix="/edges", tags=["edges"], dependencies=[needs("read")])

    @router.get("")
    def edges(
        who: AskedBy,
        pipeline: OfPipeline = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> Listed[Edge]:
        """List runners at the edge; the one that told something last comes first."""
        after = place_of(cursor)
        with context.session() as session:
            names = scope(context, session, who, pipeline)
            rows = answering(runners_of(session, names))
            found = [
                (Place(utc(row.last_at), f"{row.pipeline}/{row.edge}"), row)
                for row in rows
            ]
            return cut(found, limit, after, lambda row: view_of(session, row))

    return router


def view_of(session: Session, row: RegistryEdge) -> Edge:
    """Return what is told of a runner."""
    standing = tables.ledger_of(session, row.pipeline).standings.get(row.version)
    registered = session.get(RegistryVersion, (row.pipeline, row.version))
    state = standing.state if standing else None
    return Edge(
        pipeline=row.pipeline,
        edge=row.edge,
        version=row.version,
        package_digest=row.package_digest,
        state=state,
        problem=problem_with(
            state, registered.digest if registered else None, row.package_digest
        ),
        first_at=utc(row.first_at),
        last_at=utc(row.last_at),
        report_count=row.report_count,
        last=row.last,
        **{name: getattr(row, name) for name in SUMMED},
    )
