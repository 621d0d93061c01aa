"""Calls found by their whole path, before other routes are tried one by one."""

from driftloop.registry.mlflow.access import CallRoute
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send


class CallsByPath(BaseRoute):
    """A router's calls whose paths have no parameter, in whatever it includes.

    The framework compares a request with the pattern of each route, some sixty here and
    that three times over, which takes longer than most calls. These routes stay in its
    own list as well: for its document, and for requests with another method.

    Raises
    ------
    ValueError
        When the router has no such call.
    """

    def __init__(self, router: APIRouter) -> None:
        routes = [found.original_route for found in iter_route_contexts(router.routes)]
        self.calls = {
            (method, route.path): (route, route.get_route_handler())
            for route in reversed(routes)  # of two with one path the first answers
            if isinstance(route, CallRoute) and "{" not in route.path
            for method in route.methods or ()
        }
        if not self.calls:
            raise ValueError(f"{router!r} has no call to be found by its path")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http":
            found = self.calls.get((scope["method"], scope["path"]))
            if found is not None:
                route, _ = found
                known = {"endpoint": route.endpoint, "route": route, "path_params": {}}
                return Match.FULL, known
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, answer_to = self.calls[scope["method"], scope["path"]]
        answer = await answer_to(Request(scope, receive, send))
        await answer(scope, receive, send)


def calls_first(app: FastAPI, router: APIRouter) -> None:
    """Let an application look for a router's calls before everything else."""
    app.router.routes.insert(0, CallsByPath(router))
