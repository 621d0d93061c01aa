"""Requests of MLflow's clients to fields, and answers and refusals to responses."""

import json
from collections.abc import Awaitable, Callable

from driftloop.registry.mlflow.call import Json
from driftloop.registry.mlflow.errors import Refusal, invalid
from driftloop.runtime import database
from driftloop.runtime.telemetry import log
from fastapi import Request, Response
from sqlalchemy.exc import DBAPIError

MAX_BODY_BYTES = 1_500_000
"""Its event, with headers, has to go into one message of the broker."""
LISTS = frozenset({"order_by", "experiment_ids", "stages"})
"""Fields of a query string that may be there more than once."""
Endpoint = Callable[[Request], Awaitable[Response]]
logger = log(__name__)


async def fields_of(request: Request) -> tuple[Json, int]:
    """Return the fields of a request, and how large its body was."""
    if request.method == "GET":
        query = request.query_params
        return {
            name: query.getlist(name) if name in LISTS else query[name]
            for name in query
        }, 0
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise invalid(f"a body of more than {MAX_BODY_BYTES} bytes")
    if not body:
        return {}, 0
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page elsewhere cannot send it unasked
        raise invalid(f"content-type: {kind!r} where 'application/json' should be")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid("the body is not JSON") from error
    if not isinstance(fields, dict):
        raise invalid("the body is not an object")
    return fields, len(body)


def answering(work: Endpoint) -> Endpoint:
    """Return an endpoint that tells refusals as MLflow's server does."""

    async def endpoint(request: Request) -> Response:
        try:
            return await work(request)
        except Refusal as refusal:
            return refused(refusal)
        except DBAPIError as error:
            if not database.is_passing(error):
                raise
            logger.warning("the database is away", error=str(error))
            return refused(
                Refusal("TEMPORARILY_UNAVAILABLE", "the database is away; try again")
            )

    endpoint.__doc__ = work.__doc__ or "MLflow's call; see docs/mlflow.md."
    return endpoint


def answer(content: Json) -> Response:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Response(body, media_type="application/json")


def refused(refusal: Refusal) -> Response:
    content = {"error_code": refusal.code, "message": refusal.message}
    body = json.dumps(content, ensure_ascii=True)
    return Response(body, refusal.status, media_type="application/json")
