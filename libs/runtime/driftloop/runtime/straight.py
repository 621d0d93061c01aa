"""Routes that a request finds, and enters, before the framework looks through all.

The framework compares a request with the pattern of each route in turn, and then solves
dependencies; where answers are quick, that takes longer than they do. These routes stay
in its own list as well: for its document, and for requests with another method.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

ANSWER = "driftloop.answer"
"""In a request's scope: what answers it."""


class Straight(NamedTuple):
    """A route, and what answers its requests."""

    route: APIRoute
    answer: Callable[[Request], Coroutine[Any, Any, Response]]

    @classmethod
    def to(cls, route: APIRoute) -> "Straight":
        return cls(route, route.get_route_handler())


class StraightRoutes(BaseRoute, ABC):
    """Some of an application's routes; how they are found, each kind says itself."""

    @abstractmethod
    def find(self, method: str, path: str) -> tuple[Straight, dict[str, str]] | None:
        """Return a request's route and the texts in its path; None: it is not here."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        found = None
        if scope["type"] == "http":
            found = self.find(scope["method"], scope["path"])
        if found is None:
            return Match.NONE, {}
        (route, answer), texts = found
        return Match.FULL, {
            "endpoint": route.endpoint,
            "route": route,
            "path_params": texts,
            ANSWER: answer,
        }

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await scope[ANSWER](Request(scope, receive, send))
        await answer(scope, receive, send)

    def come_first_in(self, app: FastAPI) -> None:
        """Let an application look for these before everything else."""
        app.router.routes.insert(0, self)
