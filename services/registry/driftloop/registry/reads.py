"""REST: what there is."""

from typing import Annotated, Any

from driftloop.contracts.events import ModelTrained
from driftloop.models.package import PackageRefused
from driftloop.registry import tables, views
from driftloop.registry.ledger import ALIASES
from driftloop.registry.rest import (
    Context,
    Cursor,
    Limit,
    Name,
    Number,
    Page,
    page_of,
    tagged,
)
from driftloop.runtime.errors import Retry
from driftloop.runtime.pages import CONTENT_POLICY
from fastapi import APIRouter, HTTPException, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

BOM_TYPE = "application/vnd.cyclonedx+json"
NOT_READ: dict[int | str, dict[str, Any]] = {
    409: {"description": "the package is not what it claims to be"},
    503: {"description": "the artifact store is away"},
}
CARD_FORMS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}}, "description": "the model card"},
    **NOT_READ,
}
BOM_FORMS: dict[int | str, dict[str, Any]] = {
    200: {"content": {BOM_TYPE: {}}, "description": "CycloneDX 1.6"},
    **NOT_READ,
}


def read_routes(context: Context) -> APIRouter:
    """Return the routes that change nothing."""
    router = APIRouter(tags=["read"])

    @router.get("/pipelines")
    def pipelines() -> Page[views.Pipeline]:
        """List the pipelines as last applied."""
        applied = sorted(context.pipelines.values(), key=lambda event: event.pipeline)
        return Page(items=[views.pipeline_view(event) for event in applied])

    @router.get("/models")
    def models() -> Page[views.Model]:
        """List the pipelines' models: how many versions, which one answers."""
        with context.session() as session:
            ledgers = {
                name: tables.ledger_of(session, name)
                for name in sorted({*context.pipelines, *tables.pipelines_of(session)})
            }
        return Page(items=[views.model_view(n, book) for n, book in ledgers.items()])

    _version_routes(router, context)
    return router


def _version_routes(router: APIRouter, context: Context) -> None:
    @router.get("/models/{pipeline}/versions")
    def versions(
        pipeline: Name, limit: Limit = 100, cursor: Cursor = None
    ) -> Page[views.Version]:
        """List a model's versions, newest first."""
        with context.session() as session:
            book = context.ledger(session, pipeline)
            rows = tables.versions_of(session, pipeline)[::-1]
        wanted = [row for row in rows if cursor is None or row.version < cursor]
        items = [views.version_view(row, book) for row in wanted[:limit]]
        has_more = len(wanted) > limit
        return Page(items=items, next_cursor=items[-1].version if has_more else None)

    @router.get(
        "/models/{pipeline}/versions/{version}", response_model=views.VersionDetail
    )
    def version(
        request: Request, response: Response, pipeline: Name, version: Number
    ) -> Any:
        """Show a version with its lineage, gate, decisions and deployments."""
        with context.session() as session:
            row = context.version(session, pipeline, version)
            book = context.ledger(session, pipeline)
            answer = views.detail_view(session, row, book)
        return tagged(request, response, answer)

    _card_routes(router, context)

    @router.get(
        "/models/{pipeline}/aliases/{alias}", response_model=views.VersionDetail
    )
    def alias(
        request: Request,
        response: Response,
        pipeline: Name,
        alias: Annotated[str, Path(examples=["champion"])],
    ) -> Any:
        """Show the version that an alias (champion, previous, candidate) means."""
        if alias not in ALIASES:
            raise HTTPException(404, f"aliases are {', '.join(ALIASES)}")
        with context.session() as session:
            book = context.ledger(session, pipeline)
            number = book.aliases.get(alias)
            if number is None:
                raise HTTPException(404, f"{pipeline} has no {alias} now")
            row = context.version(session, pipeline, number)
            answer = views.detail_view(session, row, book)
        return tagged(request, response, answer)

    @router.get("/models/{pipeline}/history")
    def history(
        pipeline: Name, limit: Limit = 100, cursor: Cursor = None
    ) -> Page[views.HistoryEntry]:
        """List each move of a version or an alias with its event, oldest first."""
        with context.session() as session:
            entries = views.history_view(context.ledger(session, pipeline).history)
        items, following = page_of(entries, limit, cursor)
        return Page(items=items, next_cursor=following)


def _card_routes(router: APIRouter, context: Context) -> None:
    path = "/models/{pipeline}/versions/{version}/card"

    @router.get(f"{path}.html", response_class=HTMLResponse, responses=CARD_FORMS)
    def card_page(pipeline: Name, version: Number) -> Response:
        """Show the model card as one page."""
        return _card(context, pipeline, version, "card.html")

    @router.get(f"{path}.json", response_class=JSONResponse, responses=CARD_FORMS)
    def card_json(pipeline: Name, version: Number) -> Response:
        """Show the model card for programs."""
        return _card(context, pipeline, version, "card.json")

    @router.get(path, response_class=JSONResponse, responses=CARD_FORMS)
    def card(request: Request, pipeline: Name, version: Number) -> Response:
        """Show the model card, as a page to those who ask for HTML."""
        wants_page = "text/html" in request.headers.get("accept", "")
        name = "card.html" if wants_page else "card.json"
        answer = _card(context, pipeline, version, name)
        answer.headers["Vary"] = "Accept"
        return answer

    @router.get(
        "/models/{pipeline}/versions/{version}/bom",
        response_class=Response,
        responses=BOM_FORMS,
    )
    def bom(pipeline: Name, version: Number) -> Response:
        """Show the bill of materials: data, libraries, files, earlier model."""
        content = _package_file(context, pipeline, version, "bom.json")
        return Response(content, media_type=f"{BOM_TYPE}; version=1.6")


def _card(context: Context, pipeline: str, number: int, name: str) -> Response:
    content = _package_file(context, pipeline, number, name)
    if name == "card.json":
        return Response(content, media_type="application/json")
    return HTMLResponse(content, headers={"Content-Security-Policy": CONTENT_POLICY})


def _package_file(context: Context, pipeline: str, number: int, name: str) -> bytes:
    """Return a file of the version's package, verified against its signature."""
    with context.session() as session:
        row = context.version(session, pipeline, number)
        package = ModelTrained.model_validate(row.trained).package
    try:
        content = context.package_file(package, name)
    except PackageRefused as error:
        raise HTTPException(409, f"its package may not be read: {error}") from error
    except Retry as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from error
    if content is None:
        raise HTTPException(404, f"{pipeline} version {number} has no {name}")
    return content
