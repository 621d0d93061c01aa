"""REST: what there is."""

from typing import Annotated, Any

from driftloop.contracts.events import ModelTrained
from driftloop.models.package import PackageRefused
from driftloop.registry import tables, views
from driftloop.registry.comments import tables as comments
from driftloop.registry.ledger import ALIASES
from driftloop.registry.mlflow.registered.moves import moves_of
from driftloop.registry.rest import (
    MAX_PAGE,
    ApiRouter,
    At,
    Context,
    Cursor,
    Limit,
    Name,
    Number,
    Page,
    no_pipeline,
    page_of,
)
from driftloop.runtime.errors import Retry
from driftloop.runtime.identity.routing import AskedBy, GuardedRouter, needs
from driftloop.runtime.pages import CONTENT_POLICY
from driftloop.runtime.problems import refusals
from fastapi import HTTPException, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

BOM_TYPE = "application/vnd.cyclonedx+json"
NOT_READ = refusals(
    {
        409: "the package is not what it claims to be",
        503: "the artifact store is away",
    }
)
CARD_FORMS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}}, "description": "the model card"},
    **NOT_READ,
}
BOM_FORMS: dict[int | str, dict[str, Any]] = {
    200: {"content": {BOM_TYPE: {}}, "description": "CycloneDX 1.6"},
    **NOT_READ,
}


def read_routes(context: Context) -> GuardedRouter:
    """Return the routes that change nothing."""
    router = ApiRouter(tags=["read"], dependencies=[needs("read")])

    @router.get("/pipelines")
    def pipelines(
        who: AskedBy, limit: Limit = MAX_PAGE, cursor: Cursor = None
    ) -> Page[views.Pipeline]:
        """List the pipelines as last applied, of the projects that one may read."""
        names, following = page_of(who.readable(context.pipelines), limit, cursor)
        items = [views.pipeline_view(context.pipelines[name]) for name in names]
        return Page(items=items, next_cursor=following)

    @router.get("/pipelines/{pipeline}")
    def pipeline(pipeline: Name) -> views.Pipeline:
        """Show a pipeline as last applied."""
        applied = context.pipelines.get(pipeline)
        if applied is None:
            raise no_pipeline(pipeline)
        return views.pipeline_view(applied)

    @router.get("/models")
    def models(
        who: AskedBy, at: At = None, limit: Limit = MAX_PAGE, cursor: Cursor = None
    ) -> Page[views.Model]:
        """List the pipelines' models: how many versions, which one answers."""
        moment = context.moment(at)
        with context.session() as session:
            names = {*context.pipelines, *tables.pipelines_of(session)}
            page, following = page_of(who.readable(names), limit, cursor)
            items = [
                views.model_view(name, tables.ledger_of(session, name, moment))
                for name in page
            ]
        return Page(items=items, next_cursor=following)

    _version_routes(router, context)
    return router


def _version_routes(router: GuardedRouter, context: Context) -> None:
    @router.get("/models/{pipeline}/versions")
    def versions(
        pipeline: Name, limit: Limit = 100, cursor: Cursor = None, at: At = None
    ) -> Page[views.Version]:
        """List a model's versions, newest first."""
        moment = context.moment(at)
        with context.session() as session:
            book = context.ledger(session, pipeline, moment)
            rows = tables.versions_of(session, pipeline, moment)[::-1]
        wanted = [row for row in rows if cursor is None or row.version < cursor]
        items = [views.version_view(row, book) for row in wanted[:limit]]
        has_more = len(wanted) > limit
        return Page(items=items, next_cursor=items[-1].version if has_more else None)

    @router.get("/models/{pipeline}/versions/{version}")
    def version(pipeline: Name, version: Number, at: At = None) -> views.VersionDetail:
        """Show a version with its lineage, gate, decisions and deployments."""
        moment = context.moment(at)
        with context.session() as session:
            row = context.version(session, pipeline, version, moment)
            book = context.ledger(session, pipeline, moment)
            return views.detail_view(session, row, book, moment)

    _card_routes(router, context)

    @router.get("/models/{pipeline}/aliases/{alias}")
    def alias(
        pipeline: Name,
        alias: Annotated[str, Path(examples=["champion"])],
        at: At = None,
    ) -> views.VersionDetail:
        """Show the version that an alias (champion, previous, candidate) means."""
        if alias not in ALIASES:
            raise HTTPException(404, f"aliases are {', '.join(ALIASES)}")
        moment = context.moment(at)
        with context.session() as session:
            book = context.ledger(session, pipeline, moment)
            number = book.aliases.get(alias)
            if number is None:
                when = "now" if moment is None else f"at {moment.isoformat()}"
                raise HTTPException(404, f"{pipeline} has no {alias} {when}")
            row = context.version(session, pipeline, number, moment)
            return views.detail_view(session, row, book, moment)

    @router.get("/models/{pipeline}/history")
    def history(
        pipeline: Name, limit: Limit = 100, cursor: Cursor = None, at: At = None
    ) -> Page[views.HistoryEntry]:
        """List moves of versions and aliases, and comments, oldest first."""
        moment = context.moment(at)
        with context.session() as session:
            found = [
                *context.ledger(session, pipeline, moment).history,
                *moves_of(session.connection(), pipeline, moment),
                *comments.entries_of(session, pipeline, moment),
            ]
        entries = views.history_view(sorted(found, key=lambda entry: entry.at))
        items, following = page_of(entries, limit, cursor)
        return Page(items=items, next_cursor=following)

    @router.get("/registered-models/{name}/history")
    def moves(
        name: Annotated[str, Path(max_length=256, examples=["churn-notebook"])],
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Page[views.HistoryEntry]:
        """List each move of an alias or a stage by a client of MLflow, oldest first."""
        with context.session() as session:
            entries = views.history_view(moves_of(session.connection(), name))
        items, following = page_of(entries, limit, cursor)
        return Page(items=items, next_cursor=following)

    @router.get("/models/{pipeline}/service")
    def service(
        pipeline: Name, limit: Limit = 100, cursor: Cursor = None, at: At = None
    ) -> Page[views.Term]:
        """List which version answered when, who let it, why, and by which event."""
        moment = context.moment(at)
        with context.session() as session:
            terms = views.terms_view(
                context.ledger(session, pipeline, moment),
                tables.changes_of(session, pipeline, moment),
                tables.versions_of(session, pipeline, moment),
            )
        items, following = page_of(terms, limit, cursor)
        return Page(items=items, next_cursor=following)


def _card_routes(router: GuardedRouter, context: Context) -> None:
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
