"""Uploading payloads: one route of ingest's HTTP interface."""

from typing import Annotated, Any

from driftloop.contracts.base import NAME_PATTERN
from driftloop.contracts.payloads import SUFFIXES
from driftloop.ingest.payload_door import ANY_TYPE, Uploaded, upload
from driftloop.ingest.taking import NOT_APPLIED, Door
from driftloop.runtime.identity.routing import GuardedRouter, needs
from driftloop.runtime.payloads import PayloadStore
from driftloop.runtime.problems import refusals
from fastapi import Path, Query, Request

MAX_COLUMN_CHARS = 200
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "the payload as it is; its bytes say what it is, and another "
        "content type than that is refused",
        "content": dict.fromkeys((ANY_TYPE, *SUFFIXES), _BYTES),
    },
    "parameters": [
        {
            "name": "Content-Digest",
            "in": "header",
            "schema": {"type": "string"},
            "description": "`sha-256=:…:` (RFC 9530); other bytes are refused",
        }
    ],
}


def router(door: Door, store: PayloadStore) -> GuardedRouter:
    """Return the route that takes payloads."""
    routes = GuardedRouter(
        prefix="/v1/pipelines/{name}",
        tags=["payloads"],
        dependencies=[needs("send")],
        responses=refusals(
            {
                404: NOT_APPLIED,
                408: "the payload took too long to arrive",
                413: "the payload is too large",
                415: "its bytes are of no media type that the pipeline takes, or of "
                "another one than its content type says",
                422: "the pipeline has no such attachment, the payload is empty, or "
                "its content digest differs",
                429: "no room at the moment; come again after Retry-After",
                503: "the store does not take it at the moment; come again after "
                "Retry-After",
            }
        ),
    )
    Name = Annotated[str, Path(pattern=NAME_PATTERN, examples=["bike-demand"])]  # noqa: N806 - a type
    Column = Annotated[  # noqa: N806 - a type
        str | None,
        Query(
            min_length=1,
            max_length=MAX_COLUMN_CHARS,
            description="the attachment that it is for; without: any of them",
        ),
    ]

    @routes.post(
        "/payloads", status_code=201, response_model=Uploaded, openapi_extra=_BODY
    )
    async def payloads(request: Request, name: Name, column: Column = None) -> Any:
        """Store an image, a text or a sound; the same bytes are stored once."""
        return await upload(door, store, request, name, column)

    return routes
