"""Calls found by their whole path, before other routes are tried one by one."""

from driftloop.registry.mlflow.access import CallRoute
from driftloop.runtime.straight import Straight, StraightRoutes
from fastapi import APIRouter, FastAPI
from fastapi.routing import iter_route_contexts


class CallsByPath(StraightRoutes):
    """A router's calls whose paths have no parameter, in whatever it includes.

    There are some sixty patterns, and the framework tries them three times over.

    Raises
    ------
    ValueError
        When the router has no such call.
    """

    def __init__(self, router: APIRouter) -> None:
        routes = [found.original_route for found in iter_route_contexts(router.routes)]
        self.calls = {
            (method, route.path): Straight.to(route)
            for route in reversed(routes)  # of two with one path the first answers
            if isinstance(route, CallRoute) and "{" not in route.path
            for method in route.methods or ()
        }
        if not self.calls:
            raise ValueError(f"{router!r} has no call to be found by its path")

    def find(self, method: str, path: str) -> tuple[Straight, dict[str, str]] | None:
        found = self.calls.get((method, path))
        return None if found is None else (found, {})


def calls_first(app: FastAPI, router: APIRouter) -> None:
    """Let an application look for a router's calls before everything else."""
    CallsByPath(router).come_first_in(app)
