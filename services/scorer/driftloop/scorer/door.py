"""What both doors share: reading a body within limits, answers, errors."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar

import orjson
from driftloop.runtime.http import bearer
from driftloop.scorer.answering import ModelFailed, NotServed
from driftloop.scorer.feeds import BadRequest
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.routing import APIRoute

VERSION_HEADER = "x-driftloop-model-version"
REQUEST_ID_HEADER = "x-request-id"
TOO_LARGE = 413


Check = Callable[..., Awaitable[None]]
"""The token's dependency, as ``require_token`` returns it."""


class DoorRoute(APIRoute):
    """A route for the hot path; its errors have the shape of its protocol.

    Between request and endpoint stands the token and nothing else: an endpoint
    takes the request and its path's texts, and reads the body itself. FastAPI's
    own solving of dependencies would cost more than a small model's answer.
    """

    check: ClassVar[Check]

    @classmethod
    def guarded(cls, check: Check) -> type["DoorRoute"]:
        """Return this class with the token that its routes ask for."""
        return type(cls.__name__, (cls,), {"check": staticmethod(check)})

    def problem(self, status: int, text: str) -> Response:
        """Return an error in the protocol's own form."""
        raise NotImplementedError

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint, check = self.endpoint, self.check

        async def handle(request: Request) -> Response:
            try:
                await check(await bearer(request))
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


def door_router(route: type[DoorRoute], check: Check, **fields: Any) -> APIRouter:
    """Return a router whose every route asks for the token."""
    # The dependency is there for the OpenAPI document; the route itself asks.
    return APIRouter(
        route_class=route.guarded(check), dependencies=[Depends(check)], **fields
    )


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
    """Return the body.

    Raises
    ------
    HTTPException
        413 when it is longer than ``max_bytes``; the rest is not read.
    """
    too_large = HTTPException(TOO_LARGE, f"at most {max_bytes} bytes; send fewer rows")
    length = request.headers.get("content-length")
    if length is not None:
        if not length.isdecimal() or int(length) > max_bytes:
            raise too_large
        return await request.body()
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def read_json(request: Request, max_bytes: int) -> dict[str, Any]:
    """Return the body as an object.

    Raises
    ------
    BadRequest
        When it is not one.
    """
    return json_object(await read_body(request, max_bytes))


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
