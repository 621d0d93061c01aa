"""Calls found by their whole path, before other routes are tried one by one."""

from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send


class _Calls(BaseRoute):
    """The routes of a router whose paths have no parameter.

    The framework compares a request with the pattern of each route, some sixty here,
    which takes longer than most calls. These routes stay in its own list as well: for
    its document, and for requests with another method.
    """

    def __init__(self, router: APIRouter) -> None:
        routes = [route for route in router.routes if isinstance(route, APIRoute)]
        self._calls = {
            (method, route.path): (route, route.get_route_handler())
            for route in routes
            for method in route.methods or ()
            if "{" not in route.path
        }

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http":
            found = self._calls.get((scope["method"], scope["path"]))
            if found is not None:
                route, _ = found
                known = {"endpoint": route.endpoint, "route": route, "path_params": {}}
                return Match.FULL, known
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, answer_to = self._calls[scope["method"], scope["path"]]
        answer = await answer_to(Request(scope, receive, send))
        await answer(scope, receive, send)


def calls_first(app: FastAPI, router: APIRouter) -> None:
    """Let an application look for a router's calls before everything else."""
    app.router.routes.insert(0, _Calls(router))
