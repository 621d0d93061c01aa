"""The registry's REST interface, ``/api/v1``."""

from driftloop.registry.reads import read_routes
from driftloop.registry.rest import Context
from driftloop.registry.writes import write_routes
from driftloop.runtime.http import require_token
from fastapi import APIRouter, Depends


def api_router(context: Context) -> APIRouter:
    """Return every route; each asks for the token, being below this router."""
    router = APIRouter(
        prefix="/api/v1",
        dependencies=[Depends(require_token(context.settings))],
        responses={
            401: {"description": "the token is missing or wrong"},
            404: {"description": "there is no such thing; says what there is"},
        },
    )
    router.include_router(read_routes(context))
    router.include_router(write_routes(context))
    return router
