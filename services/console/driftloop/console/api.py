"""The page, the board as JSON, and the stream of its changes."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from driftloop.console.access import Access, closed_page
from driftloop.console.reading import Reader
from driftloop.console.reports import (
    LATEST,
    NoReportError,
    rendered,
    report_of_batch,
    sizes,
    version_report,
)
from driftloop.console.settings import ConsoleSettings
from driftloop.console.story import Pipeline
from driftloop.contracts.topics import TOPICS
from driftloop.runtime.data.reading import DatasetError
from driftloop.runtime.data.report import Report
from driftloop.runtime.identity.routing import GuardedRouter, openly
from driftloop.runtime.pages import CONTENT_POLICY
from fastapi import Depends, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

STATIC = Path(__file__).with_name("static")
LOOK_S = 0.25
HEARTBEAT_S = 15.0
Form = Annotated[Literal["html", "json"], Query()]


def page_router(
    access: Access,
    reader: Reader,
    settings: ConsoleSettings,
    stopping: threading.Event,
) -> GuardedRouter:
    """Return the routes; all but the door ask for a right or the cookie."""
    router = GuardedRouter()
    guarded = [Depends(access)]

    @router.get(
        "/",
        include_in_schema=False,
        dependencies=[openly("it checks itself, and shows where the link is")],
    )
    async def page(
        request: Request, token: Annotated[str | None, Query()] = None
    ) -> Response:
        """Show the page, or where its link is to be found."""
        if token is not None:
            return await access.sign_in(request, token)
        if not await access.is_allowed(request):
            return closed_page()
        return FileResponse(STATIC / "index.html")

    @router.get("/api/about", dependencies=guarded)
    def about() -> dict[str, Any]:
        """Return what does not change: the chain's topics and links."""
        topics = [
            {"name": t.name, "from": t.producers, "to": t.consumers} for t in TOPICS
        ]
        links = {
            "registry": settings.registry_url and f"{settings.registry_url}/docs",
            "scorer": settings.scorer_url and f"{settings.scorer_url}/docs",
        }
        return {"topics": topics, "links": {k: v for k, v in links.items() if v}}

    @router.get("/api/state", dependencies=guarded)
    def state(since: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
        """Return everything that the page shows, or what is new in it."""
        return _state(reader, since)

    @router.get("/api/stream", dependencies=guarded)
    def stream() -> StreamingResponse:
        """Follow the board: one server-sent event for each change."""
        return StreamingResponse(
            _changes(reader, stopping), media_type="text/event-stream"
        )

    _add_reports(router, access, reader, settings)
    return router


def _add_reports(
    router: GuardedRouter, access: Access, reader: Reader, settings: ConsoleSettings
) -> None:
    """Add the reports of versions and batches, and the sizes of versions."""
    guarded = [Depends(access)]
    known: dict[str, dict[str, int]] = {}

    def found(name: str) -> Pipeline | None:
        with reader.lock:
            return reader.board.pipelines.get(name)

    @router.get("/reports/{pipeline}", dependencies=guarded)
    def of_version(
        pipeline: str, version: Annotated[str, Query()] = LATEST, form: Form = "html"
    ) -> Response:
        """Show the report of a dataset version, by default of the newest."""
        return _report(
            lambda: version_report(found(pipeline), settings, pipeline, version), form
        )

    @router.get("/reports/{pipeline}/batches/{batch}", dependencies=guarded)
    def of_batch(pipeline: str, batch: str, form: Form = "html") -> Response:
        """Show the report of one of the batches that the page shows."""
        return _report(
            lambda: report_of_batch(found(pipeline), pipeline, batch, reader.read_at),
            form,
        )

    @router.get("/api/sizes/{pipeline}", dependencies=guarded)
    def sizes_of(pipeline: str) -> dict[str, int]:
        """Return the bytes of the dataset versions that the page shows."""
        before = known.get(pipeline, {})
        known[pipeline] = sizes(found(pipeline), settings, before)
        return known[pipeline]


def _report(make: Callable[[], Report], form: str) -> Response:
    try:
        text, media_type = rendered(make(), form)
    except NoReportError as error:
        raise HTTPException(404, str(error)) from error
    except DatasetError as error:
        raise HTTPException(503, str(error)) from error
    headers = {"Content-Security-Policy": CONTENT_POLICY}
    return Response(text, media_type=media_type, headers=headers)


def _state(reader: Reader, revision: int) -> dict[str, Any]:
    complete = reader.is_complete  # before the state: a true answer holds for it
    return reader.since(revision) | {"complete": complete}


async def _changes(reader: Reader, stopping: threading.Event) -> AsyncIterator[str]:
    """Yield the whole state first, then what is new, four times a second at most."""
    sent, was_complete, idle_s = -1, False, 0.0
    while not stopping.is_set():
        complete = reader.is_complete
        is_first = complete and not was_complete
        if complete and (is_first or reader.board.revision > sent):
            state = await asyncio.to_thread(_state, reader, 0 if is_first else sent)
            state["first"] = is_first
            yield f"data: {json.dumps(state, separators=(',', ':'))}\n\n"
            sent, was_complete, idle_s = state["revision"], True, 0.0
        elif idle_s >= HEARTBEAT_S or sent < 0:
            count = reader.board.revision
            yield f'event: waiting\ndata: {{"read":{count}}}\n\n'
            sent, idle_s = max(sent, 0), 0.0
        await asyncio.sleep(LOOK_S)
        idle_s += LOOK_S
