"""The data door on HTTP: its routes, and what OpenAPI says of them."""

from typing import Annotated, Any

from driftloop.contracts.base import NAME_PATTERN
from driftloop.contracts.rows import CONTENT_TYPE as ARROW_TYPE
from driftloop.ingest.encodings import ENCODINGS, PLAIN
from driftloop.ingest.formats import CSV_TYPE, JSON_TYPE, NDJSON_TYPE, PARQUET_TYPE
from driftloop.ingest.taking import NOT_APPLIED, Accepted, Door, take
from driftloop.runtime.identity.routing import GuardedRouter, needs
from driftloop.runtime.problems import refusals
from fastapi import Path, Query, Request

__all__ = ["Door", "router"]

SOURCE_PATTERN = r"^[\w.:-]{1,200}$"
_ROW = {"type": "object", "description": "id, time and the pipeline's columns"}
_TEXT = {"type": "string"}
_BYTES = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "rows; each with the pipeline's id and time columns",
        "content": {
            JSON_TYPE: {
                "schema": {"anyOf": [_ROW, {"type": "array", "items": _ROW}]},
            },
            NDJSON_TYPE: {"schema": _TEXT},
            CSV_TYPE: {"schema": _TEXT},
            PARQUET_TYPE: {"schema": _BYTES},
            ARROW_TYPE: {"schema": _BYTES},
            "application/cloudevents+json": {"schema": {"type": "object"}},
        },
    },
    "parameters": [
        {
            "name": "Content-Encoding",
            "in": "header",
            "schema": {"type": "string", "enum": [*ENCODINGS, PLAIN]},
            "description": "how the body is compressed",
        }
    ],
}


def router(door: Door) -> GuardedRouter:
    """Return the routes that take rows."""
    routes = GuardedRouter(
        prefix="/v1/pipelines/{name}",
        tags=["rows"],
        dependencies=[needs("send")],
        responses=refusals(
            {
                404: NOT_APPLIED,
                408: "the body took too long to arrive",
                413: "the body, or a row, is too large",
                415: "the content type or content encoding is not known",
                422: "rows cannot be taken; nothing of the request was published",
                429: "no room at the moment; come again after Retry-After",
                503: "Kafka does not take rows at the moment; come again after "
                "Retry-After",
            }
        ),
    )
    Name = Annotated[str, Path(pattern=NAME_PATTERN, examples=["bike-demand"])]  # noqa: N806 - a type
    Source = Annotated[  # noqa: N806 - a type
        str,
        Query(
            pattern=SOURCE_PATTERN,
            description="the upstream system; rows of one source stay in order",
        ),
    ]

    @routes.post(
        "/observations", status_code=202, response_model=Accepted, openapi_extra=_BODY
    )
    async def observations(
        request: Request, name: Name, source: Source = "http"
    ) -> Any:
        """Take rows of features, with or without their target."""
        return await take(door, request, name, "observations", source)

    @routes.post(
        "/labels", status_code=202, response_model=Accepted, openapi_extra=_BODY
    )
    async def labels(request: Request, name: Name, source: Source = "http") -> Any:
        """Take targets of rows known by id."""
        return await take(door, request, name, "labels", source)

    return routes
