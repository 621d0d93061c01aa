"""REST: upstream and downstream of anything."""

from datetime import datetime
from itertools import islice
from typing import Annotated, Any

from driftloop.contracts.openlineage import FACETS, schema_of_facet
from driftloop.registry.lineage.graph import (
    MAX_NODES,
    Direction,
    Found,
    Kind,
    Node,
    walk,
)
from driftloop.registry.lineage.reading import UnknownThingError, find
from driftloop.registry.rest import ApiRouter, Context, Cursor, Limit, page_of
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from fastapi import HTTPException, Path, Query
from pydantic import BaseModel, Field

MAX_DEPTH = 100
Thing = Annotated[
    str,
    Query(
        alias="of",
        min_length=1,
        max_length=300,
        description="`bikes/3`, `bikes` (in service), `dataset/bikes/730.365`, the id "
        "of a node of an answer, or the id of an event or a training",
        examples=["bike-demand/3"],
    ),
]


class LineageNode(BaseModel):
    """A batch, dataset version, training, model, deployment, verdict or approval."""

    id: str = Field(examples=["model/bike-demand/3"])
    kind: Kind
    pipeline: str
    key: str
    at: datetime | None
    title: str
    depth: int = Field(ge=0, description="steps from the thing asked about")
    direction: str | None = Field(
        description="upstream or downstream of it; null: the thing itself"
    )
    detail: dict[str, Any]


class LineageEdge(BaseModel):
    """``source`` went into ``target``."""

    source: str
    target: str
    relation: str = Field(examples=["was read by"])


class Lineage(BaseModel):
    """A part of the graph, near nodes first; edges are those to nodes of this page."""

    of: str = Field(examples=["model/bike-demand/3"])
    direction: Direction
    depth: int
    nodes: list[LineageNode]
    edges: list[LineageEdge]
    node_count: int = Field(description="of all pages")
    is_cut: bool = Field(description=f"there are more than {MAX_NODES:,} nodes")
    next_cursor: int | None = None


def lineage_routes(context: Context) -> GuardedRouter:
    """Return the routes about lineage; they change nothing."""
    router = ApiRouter(
        prefix="/lineage", tags=["lineage"], dependencies=[needs("read")]
    )

    @router.get("")
    def lineage(
        who: AskedBy,
        of: Thing,
        direction: Direction = "both",
        depth: Annotated[int, Query(ge=1, le=MAX_DEPTH)] = 10,
        limit: Limit = 200,
        cursor: Cursor = None,
    ) -> Lineage:
        """Show what something came of, and what it went into."""
        with context.session() as session:
            try:
                graph, start = find(session, of)
            except UnknownThingError as error:
                raise HTTPException(404, str(error)) from error
            who.check("read", start.pipeline)
        found = list(islice(walk(graph, start, direction, depth), MAX_NODES + 1))
        page, following = page_of(found[:MAX_NODES], limit, cursor)
        return Lineage(
            of=start.id,
            direction=direction,
            depth=depth,
            nodes=[_node(one) for one in page],
            edges=[
                LineageEdge(
                    source=edge.source, target=edge.target, relation=edge.relation
                )
                for one in page
                for edge in one.edges
            ],
            node_count=min(len(found), MAX_NODES),
            is_cut=len(found) > MAX_NODES,
            next_cursor=following,
        )

    @router.get("/facets/{name}.v{major}.json")
    def facet(
        name: Annotated[str, Path(max_length=50, examples=["model"])],
        major: Annotated[int, Path(ge=1, examples=[1])],
    ) -> dict[str, Any]:
        """Show the JSON Schema that a facet's `_schemaURL` names."""
        for one in FACETS:
            if (one.short_name, one.major) == (name, major):
                return schema_of_facet(one)
        known = ", ".join(f"{one.short_name}.v{one.major}" for one in FACETS)
        raise HTTPException(404, f"no facet {name}.v{major}; there are {known}")

    return router


def _node(found: Found) -> LineageNode:
    node: Node = found.node
    ways = {True: "upstream", False: "downstream", None: None}
    return LineageNode(
        id=node.id,
        kind=node.kind,
        pipeline=node.pipeline,
        key=node.key,
        at=node.at,
        title=node.title,
        depth=found.depth,
        direction=ways[found.is_upstream],
        detail=dict(node.detail),
    )
