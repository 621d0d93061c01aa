"""How a pipeline's sources are: one answer of ingest's HTTP interface."""

from typing import Annotated, Any, Literal

from driftloop.contracts.base import NAME_PATTERN
from driftloop.ingest.pull_tables import PulledObject, PulledTable
from driftloop.ingest.pulling import Puller, State
from driftloop.ingest.taking import NOT_APPLIED
from driftloop.runtime.identity.routing import GuardedRouter, needs
from driftloop.runtime.problems import refusals
from fastapi import HTTPException, Path
from pydantic import BaseModel, Field
from sqlmodel import Session, func, select

SHOWN_PROBLEMS = 20
Condition = Literal["read_here", "read_elsewhere", "failing"]


class SourceState(BaseModel):
    """How far one source is."""

    name: str
    state: Condition = Field(description="elsewhere: by another replica of ingest")
    problem: str = Field(description="why it does not go on; empty: it does")
    file_count: int = Field(description="files that are done")
    set_aside: dict[str, str] = Field(description="files that cannot be read, and why")
    mark: str | None = Field(description="of a table: value of the cursor, JSON")


def router(puller: Puller) -> GuardedRouter:
    """Return the route that shows the sources."""
    routes = GuardedRouter(
        prefix="/v1/pipelines/{name}",
        tags=["sources"],
        dependencies=[needs("read")],
        responses=refusals({404: NOT_APPLIED}),
    )
    Name = Annotated[str, Path(pattern=NAME_PATTERN)]  # noqa: N806 - a type

    @routes.get("/sources", response_model=list[SourceState])
    def sources(name: Name) -> Any:
        """List the sources that ingest fetches rows from by itself."""
        if name not in puller.pipelines:
            raise HTTPException(404, f"no pipeline {name!r} is applied")
        states = [s for s in [*puller.states.values()] if s.spec.name == name]
        with Session(puller.engine) as session:
            return [_told(session, state) for state in states]

    return routes


def _told(session: Session, state: State) -> SourceState:
    key = (state.spec.name, state.source.name)
    of_source = (PulledObject.pipeline == key[0], PulledObject.source == key[1])
    count = select(func.count()).where(*of_source, PulledObject.is_done)
    broken = select(PulledObject).where(*of_source, PulledObject.problem != "")
    table = session.get(PulledTable, key)
    now: Condition = "read_here" if state.is_ours else "read_elsewhere"
    if state.problem:
        now = "failing"
    return SourceState(
        name=state.source.name,
        state=now,
        problem=state.problem,
        file_count=session.exec(count).one(),
        set_aside={
            row.name: row.problem for row in session.exec(broken.limit(SHOWN_PROBLEMS))
        },
        mark=table.mark if table else None,
    )
