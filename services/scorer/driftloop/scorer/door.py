"""What both doors share: finding a route, reading a body within limits, errors."""

import zlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import orjson
from driftloop.runtime.identity.routing import GuardedRouter, admit, needs
from driftloop.runtime.straight import Straight, StraightRoutes
from driftloop.scorer.answering import ModelFailed, NotServed
from driftloop.scorer.feeds import BadRequest
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.routing import APIRoute, APIRouter

VERSION_HEADER = "x-driftloop-model-version"
REQUEST_ID_HEADER = "x-request-id"
TOO_LARGE = 413
UNSUPPORTED = 415
ENCODINGS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""Names of ``Content-Encoding`` (RFC 9110) and zlib's window bits for each."""


class DoorRoute(APIRoute):
    """A route for the hot path; its errors have the shape of its protocol.

    Between request and endpoint stands the check of rights and nothing else: an
    endpoint takes the request and its path's texts, and reads the body itself.
    FastAPI's own solving of dependencies would cost more than a small model's answer.
    """

    def problem(self, status: int, text: str) -> Response:
        """Return an error in the protocol's own form."""
        raise NotImplementedError

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            try:
                await admit(request, "score")
                response: Response = await endpoint(request, **request.path_params)
            except BadRequest as error:
                return self.problem(400, str(error))
            except NotServed as error:
                return self.problem(404, str(error))
            except ModelFailed as error:
                return self.problem(500, str(error))
            except HTTPException as error:
                response = self.problem(error.status_code, str(error.detail))
                response.headers.update(error.headers or {})
            return response

        return handle


class DoorRoutes(StraightRoutes):
    """The doors' routes, found by their few patterns."""

    def __init__(self, routers: Iterable[APIRouter]) -> None:
        routes = [route for router in routers for route in router.routes]
        self._doors = [
            (route.methods or set(), route.path_regex, Straight.to(route))
            for route in routes
            if isinstance(route, DoorRoute)
        ]

    def find(self, method: str, path: str) -> tuple[Straight, dict[str, str]] | None:
        for methods, pattern, door in self._doors:
            found = pattern.match(path) if method in methods else None
            if found is not None:
                return door, found.groupdict()
        return None


def doors_first(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Let an application look for the doors' routes before everything else."""
    DoorRoutes(routers).come_first_in(app)


def door_router(route: type[DoorRoute], **fields: Any) -> GuardedRouter:
    """Return a router whose every route asks for the right to predictions."""
    # The declaration is there for the OpenAPI document; the route itself asks.
    return GuardedRouter(route_class=route, dependencies=[needs("score")], **fields)


def json_answer(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return JSON, written by orjson."""
    return Response(
        orjson.dumps(content), status, headers, media_type="application/json"
    )


def request_id_of(request: Request) -> str | None:
    """Return the caller's id of the request, where it sends one."""
    return request.headers.get(REQUEST_ID_HEADER)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body, without its encoding.

    Raises
    ------
    HTTPException
        413 when it is longer than ``max_bytes``, decoded or not; the rest is not read.
        415 when its encoding is not known here.
    BadRequest
        When it is not in the encoding that it says.
    """
    too_large = HTTPException(TOO_LARGE, f"at most {max_bytes} bytes; send fewer rows")
    length = request.headers.get("content-length")
    if length is not None:
        if not length.isdecimal() or int(length) > max_bytes:
            raise too_large
        data = await request.body()
    else:
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > max_bytes:
                raise too_large
            parts.append(part)
        data = b"".join(parts)
    encoding = request.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return data
    if encoding not in ENCODINGS:
        known = ", ".join(ENCODINGS)
        raise HTTPException(UNSUPPORTED, f"content-encoding: {known}, or none")
    decoder = zlib.decompressobj(ENCODINGS[encoding])
    try:
        decoded = decoder.decompress(data, max_bytes)
    except zlib.error as error:
        raise BadRequest(f"the body is not {encoding}: {error}") from error
    if decoder.unconsumed_tail:
        raise too_large
    if not decoder.eof or decoder.unused_data:
        raise BadRequest(f"the body is not {encoding}: it ends too early, or too late")
    return decoded


def json_object(data: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    BadRequest
        When the bytes are something else.
    """
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(content, dict):
        kind = {list: "a list", type(None): "null"}.get(type(content), "a plain value")
        raise BadRequest(f"the body must be a JSON object, not {kind}")
    return content
