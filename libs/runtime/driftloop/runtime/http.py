"""The HTTP side that every process has: health, metrics, errors, who may ask."""

from collections.abc import Callable
from typing import Any

from driftloop.runtime.identity.guard import Guard
from driftloop.runtime.identity.trail import NotedAnswers
from driftloop.runtime.limiting import Allowances, LimitedCallers
from driftloop.runtime.metrics import REGISTRY
from driftloop.runtime.problems import problem
from driftloop.runtime.settings import Settings
from driftloop.runtime.timed import OF_THE_PROCESS, TimedAnswers
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.telemetry import TelemetryConfig
from prometheus_client.exposition import choose_encoder
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

Health = Callable[[], dict[str, Any]]
"""Returns ``{"live": bool, "ready": bool, ...details}``."""


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


def http_app(
    service: str, settings: Settings, health: Health, guard: Guard | None = None
) -> FastAPI:
    """Return an application with health routes; errors are problem+json (RFC 9457).

    Parameters
    ----------
    guard : says who may do what; None: the installation's own token may, and those
        whom the identity provider names.
    """
    # The chain's spans and the metrics are the project's own; to look for others at
    # each request takes time.
    none: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
    app = FastAPI(
        title=f"driftloop {service}", docs_url="/docs", redoc_url=None, telemetry=none
    )
    app.state.guard = guard or Guard(settings)
    if app.state.guard.trail is not None:
        app.add_middleware(NotedAnswers, trail=app.state.guard.trail)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*settings.allowed_hosts])
    if settings.requests_per_second is not None:
        rate, burst = settings.requests_per_second, settings.requests_at_once
        allowances = Allowances(rate, burst)
        app.add_middleware(LimitedCallers, allowances=allowances, free=OF_THE_PROCESS)
    app.add_middleware(TimedAnswers, service=service)  # the outermost
    app.add_exception_handler(StarletteHTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _validation_problem)
    health_routes(app, health)
    return app
