"""How long HTTP requests take until their answer begins, by route and status."""

import time
from functools import lru_cache

from driftloop.runtime.metrics import HTTP_DURATION, exemplar_of
from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OF_THE_PROCESS = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that machines ask all the time; they are not counted."""
TRACEPARENT = b"traceparent"


class TimedAnswers:
    """Middleware: observes each request when its answer begins, or fails.

    A path as the client wrote it is never a label: what fits no route is ``unmatched``.
    The trace that the client named is kept as an exemplar.
    """

    def __init__(self, app: ASGIApp, service: str) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OF_THE_PROCESS:
            await self._app(scope, receive, send)
            return
        began, has_begun = time.perf_counter(), False

        def note(status: int) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                seconds = time.perf_counter() - began
                found = _of(self._service, _route(scope), _method(scope), str(status))
                found.observe(seconds, exemplar_of(_traceparent(scope)))

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                note(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except BaseException:
            note(500)
            raise


def _route(scope: Scope) -> str:
    path: str = getattr(scope.get("route"), "path", "unmatched")
    return path


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else "other"


def _traceparent(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == TRACEPARENT:
            given: bytes = value
            return given.decode("latin-1")
    return None


@lru_cache(1024)
def _of(service: str, route: str, method: str, status: str) -> Histogram:
    """Return what counts such answers: to look it up takes a while each time."""
    return HTTP_DURATION.labels(service, route, method, status)
