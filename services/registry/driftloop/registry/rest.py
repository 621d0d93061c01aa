"""What the REST routes have in common: their context, pages, tags, 202."""

import hashlib
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Generic, TypeVar

from driftloop.contracts.base import NAME_PATTERN, Event, Meta
from driftloop.contracts.events import PackageRef, PipelineApplied
from driftloop.registry import tables
from driftloop.registry.ledger import Ledger
from driftloop.registry.requests import Requests, wait_for
from driftloop.registry.settings import RegistrySettings
from driftloop.registry.tables import RegistryVersion
from driftloop.runtime.identity.routing import GuardedRouter
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import PublishError
from fastapi import Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from sqlalchemy import Engine
from sqlmodel import Session

MAX_PAGE = 500
MAX_NUMBER = 2**31 - 1
"""Of a version, an entry or a place in a list: what every database can compare."""
Name = Annotated[str, Path(pattern=NAME_PATTERN, examples=["bike-demand"])]
Number = Annotated[int, Path(ge=1, le=MAX_NUMBER, examples=[3])]
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
    int | None,
    Query(ge=0, le=MAX_NUMBER, description="`next_cursor` of the page before"),
]
At = Annotated[
    str | None,
    Query(
        description="as it was then: a time with its zone, or just after the event at "
        "topic/partition/offset; default: now",
        examples=["2026-11-26T08:00:00Z", "model-deployed/0/17"],
    ),
]
POSITION = re.compile(r"([a-z][a-z-]*)/(\d{1,9})/(\d{1,18})")
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
    read_at : finds the event at topic, partition and offset; None: there is none.
    """

    engine: Engine
    settings: RegistrySettings
    requests: Requests
    pipelines: StateView[PipelineApplied]
    package_file: Callable[[PackageRef, str], bytes | None]
    read_at: Callable[[str, int, int], Meta | None]

    def session(self) -> Session:
        return Session(self.engine)

    def ledger(
        self, session: Session, pipeline: str, at: datetime | None = None
    ) -> Ledger:
        """Return a pipeline's ledger, or what it was at a moment.

        Raises
        ------
        HTTPException
            404 when there is neither a pipeline nor a version of that name.
        """
        book = tables.ledger_of(session, pipeline, at)
        if not book.standings and pipeline not in self.pipelines:
            raise no_pipeline(pipeline)
        return book

    def version(
        self,
        session: Session,
        pipeline: str,
        number: int,
        at: datetime | None = None,
    ) -> RegistryVersion:
        """Return a version's row, if it was there at a moment.

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
        if not tables.was_there(row, at):
            born = row.fact().at.isoformat()
            raise HTTPException(404, f"{pipeline} has version {number} since {born}")
        return row

    def moment(self, at: str | None) -> datetime | None:
        """Return the time that a request asks about; None: now.

        Raises
        ------
        HTTPException
            422 when it is neither a time nor a position in the log, 404 when the log
            holds nothing there.
        """
        if at is None:
            return None
        position = POSITION.fullmatch(at)
        if position is not None:
            topic, partition, offset = position.groups()
            found = self.read_at(topic, int(partition), int(offset))
            if found is None:
                raise HTTPException(404, f"at: the log holds no event at {at}")
            return found.time
        try:  # a plus sign that nobody escaped has become a space
            moment = datetime.fromisoformat(at.replace(" ", "+"))
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise HTTPException(
                422,
                f"at: {at!r} is neither a time with its zone (2026-11-26T08:00:00Z) "
                "nor a position in the log (model-deployed/0/17)",
            )
        return moment

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


def no_pipeline(name: str) -> HTTPException:
    """Return the error for a name that is none; names of others' are not told."""
    return HTTPException(
        404, f"no pipeline {name!r}; GET /api/v1/pipelines lists those you may read"
    )


class TaggedRoute(APIRoute):
    """A route whose answers to GET have an ETag; 304 when the caller has it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer_to = super().get_route_handler()

        async def answer(request: Request) -> Response:
            return tagged(request, await answer_to(request))

        return answer


def tagged(request: Request, response: Response) -> Response:
    """Return an answer with its ETag, or 304 when the caller has it.

    Source: RFC 9110, 13.1.2: weak comparison, a list of tags, or ``*``.
    """
    has_body = isinstance(getattr(response, "body", None), bytes)
    if request.method != "GET" or response.status_code != HTTPStatus.OK or not has_body:
        return response
    tag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = "private, no-cache"
    asked = request.headers.get("if-none-match", "").split(",")
    known = {each.strip().removeprefix("W/") for each in asked}
    if not known & {tag, "*"}:
        return response
    kept = {
        name: value
        for name, value in response.headers.items()
        if name in ("etag", "cache-control", "vary")
    }
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=kept)


ApiRouter = partial(GuardedRouter, route_class=TaggedRoute)
"""A router of the API: each route says which right it takes, each GET has an ETag."""


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
