"""What the REST routes have in common: their context, pages, tags, 202."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from driftloop.contracts.base import NAME_PATTERN, Event, Meta
from driftloop.contracts.events import PackageRef, PipelineApplied
from driftloop.registry import tables
from driftloop.registry.ledger import Ledger
from driftloop.registry.requests import Requests, wait_for
from driftloop.registry.settings import RegistrySettings
from driftloop.registry.tables import RegistryVersion
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import PublishError
from fastapi import Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy import Engine
from sqlmodel import Session

MAX_PAGE = 500
Name = Annotated[str, Path(pattern=NAME_PATTERN, examples=["bike-demand"])]
Number = Annotated[int, Path(ge=1, examples=[3])]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        description="the same key and content: one effect, however often it is sent",
    ),
]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Cursor = Annotated[
    int | None, Query(ge=0, description="`next_cursor` of the page before")
]
T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """A part of a list; ``next_cursor`` asks for the part after it."""

    items: list[T]
    next_cursor: int | None = None


class Accepted(BaseModel):
    """What was published; the chain goes on from it."""

    event_id: str
    chain_id: str
    status: str = Field(default="accepted", examples=["accepted"])


@dataclass(frozen=True)
class Context:
    """What the routes work with.

    Attributes
    ----------
    package_file : reads a verified file of a package; see ``Inspection.file``.
    """

    engine: Engine
    settings: RegistrySettings
    requests: Requests
    pipelines: StateView[PipelineApplied]
    package_file: Callable[[PackageRef, str], bytes | None]

    def session(self) -> Session:
        return Session(self.engine)

    def ledger(self, session: Session, pipeline: str) -> Ledger:
        """Return a pipeline's ledger.

        Raises
        ------
        HTTPException
            404 when there is neither a pipeline nor a version of that name.
        """
        book = tables.ledger_of(session, pipeline)
        if not book.standings and pipeline not in self.pipelines:
            known = ", ".join(sorted(self.pipelines)) or "none"
            raise HTTPException(404, f"no pipeline {pipeline!r}; applied: {known}")
        return book

    def version(self, session: Session, pipeline: str, number: int) -> RegistryVersion:
        """Return a version's row.

        Raises
        ------
        HTTPException
            404, naming the newest one there is.
        """
        row = session.get(RegistryVersion, (pipeline, number))
        if row is None:
            newest = tables.last_version(session, pipeline)
            there_is = f"the newest is {newest}" if newest else "it has none yet"
            raise HTTPException(404, f"{pipeline} has no version {number}; {there_is}")
        return row

    def publish(self, event: Event, event_id: str, origin: Meta | None = None) -> Meta:
        """Publish what a person asks for.

        Raises
        ------
        HTTPException
            503 when the broker does not take it in time.
        """
        try:
            return self.requests.publish(event, event_id, origin)
        except PublishError as error:
            raise HTTPException(
                503,
                "the broker did not take it in time; send it again with the same "
                "Idempotency-Key",
                headers={"Retry-After": "5"},
            ) from error

    def wait(self, look: Callable[[], T | None]) -> T | None:
        return wait_for(look, self.settings.answer_timeout_seconds)


def tagged(request: Request, response: Response, answer: BaseModel) -> Any:
    """Return the answer with its ETag, or 304 when the caller has it."""
    digest = hashlib.sha256(answer.model_dump_json().encode()).hexdigest()
    tag = f'"{digest[:32]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    response.headers["ETag"] = tag
    return answer


def later(meta: Meta, location: str) -> JSONResponse:
    """Return 202: published, not yet seen to be applied."""
    accepted = Accepted(event_id=meta.id, chain_id=meta.chain.id)
    return JSONResponse(accepted.model_dump(), 202, headers={"Location": location})


def page_of(
    items: list[T], limit: int, cursor: int | None
) -> tuple[list[T], int | None]:
    """Return the page that begins at position ``cursor``, and the next position."""
    start = cursor or 0
    following = start + limit
    return items[start:following], following if following < len(items) else None
