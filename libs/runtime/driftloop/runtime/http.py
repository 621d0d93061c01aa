"""The HTTP side that every process has: health, metrics, errors, tokens."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from driftloop.runtime.metrics import REGISTRY
from driftloop.runtime.settings import Settings
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

Health = Callable[[], dict[str, Any]]
"""Returns ``{"live": bool, "ready": bool, ...details}``."""

bearer = HTTPBearer(auto_error=False, description="the token of this installation")


def health_routes(app: FastAPI, health: Health) -> None:
    """Add ``/livez``, ``/readyz`` and ``/metrics``."""

    def answer(name: str) -> JSONResponse:
        state = health()
        return JSONResponse(state, status_code=200 if state[name] else 503)

    @app.get("/livez", include_in_schema=False)
    def livez() -> JSONResponse:
        return answer("live")

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> JSONResponse:
        return answer("ready")

    @app.get("/metrics", include_in_schema=False)
    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(REGISTRY), media_type=content_type)


def require_token(settings: Settings) -> Callable[..., Awaitable[None]]:
    """Return a dependency that lets only holders of the token pass.

    Raises
    ------
    RuntimeError
        When no token is set: there is no open door by default.
    """
    token = settings.api_token
    if token is None or not token.get_secret_value():
        raise RuntimeError(
            "this service has an HTTP interface and no token: set "
            "DRIFTLOOP_API_TOKEN to a long random text"
        )
    wanted = token.get_secret_value().encode()

    async def check(  # a coroutine: a plain function would cost a thread's hop
        given: HTTPAuthorizationCredentials | None = Depends(bearer),  # noqa: B008 - FastAPI's way
    ) -> None:
        if given is None or not hmac.compare_digest(given.credentials.encode(), wanted):
            raise HTTPException(
                401,
                "send 'Authorization: Bearer TOKEN'; driftloop status shows where "
                "the token is",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


def problem(status: int, title: str, **more: Any) -> JSONResponse:
    """Return an error answer as problem+json (RFC 9457)."""
    return JSONResponse(
        {"type": "about:blank", "status": status, "title": title, **more},
        status_code=status,
        media_type="application/problem+json",
    )


def _http_problem(_: Request, error: Any) -> JSONResponse:
    response = problem(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


def _validation_problem(_: Request, error: Any) -> JSONResponse:
    problems = [
        {"field": ".".join(map(str, p["loc"])), "problem": p["msg"]}
        for p in error.errors()
    ]
    return problem(422, "the request is not right", errors=problems)


def http_app(title: str, settings: Settings, health: Health) -> FastAPI:
    """Return an application with health routes; errors are problem+json (RFC 9457)."""
    app = FastAPI(title=title, docs_url="/docs", redoc_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*settings.allowed_hosts])
    app.add_exception_handler(StarletteHTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    health_routes(app, health)
    return app
