"""Calls of MLflow's clients are found by their path, and answered as by the pattern."""

import pytest
from driftloop.registry.mlflow.access import CallRoute
from driftloop.registry.mlflow.paths import CallsByPath, calls_first
from driftloop.registry.mlflow.routes import CALLS, PREFIX
from driftloop.runtime.http import http_app
from driftloop.runtime.identity.routing import GuardedRouter
from driftloop.runtime.settings import Settings
from fastapi import Request, Response
from starlette.routing import Match

from tests.unit.support import HttpClient

TOKEN = "token-of-the-tests"


@pytest.fixture
def router() -> GuardedRouter:
    """A router that includes the calls, as the registry's does."""
    whole = GuardedRouter()
    inner = GuardedRouter(prefix=PREFIX, route_class=CallRoute)
    for method, path, _ in CALLS:

        async def said(request: Request) -> Response:
            return Response(f"{request.method} {request.url.path}")

        inner.add_api_route(f"/{path}", said, methods=[method])
    whole.include_router(inner)
    return whole


def scope_of(method: str, path: str) -> dict[str, str]:
    return {"type": "http", "method": method, "path": f"{PREFIX}/{path}"}


def test_each_call_without_a_parameter_is_found_at_once(router: GuardedRouter) -> None:
    by_path = CallsByPath(router)
    for method, path, _ in CALLS:
        match, _ = by_path.matches(scope_of(method, path))
        assert match is (Match.NONE if "{" in path else Match.FULL), path
    for method, path in (("PUT", "runs/get"), ("GET", "runs/get/"), ("GET", "other")):
        assert by_path.matches(scope_of(method, path)) == (Match.NONE, {})


def test_a_router_without_such_calls_is_refused() -> None:
    """Else the calls would be answered all the same, only slowly."""
    with pytest.raises(ValueError, match="no call"):
        CallsByPath(GuardedRouter())


def test_of_two_calls_with_one_path_the_first_answers() -> None:
    """As in the router itself, where packages come before clients' files."""
    router = GuardedRouter(prefix=PREFIX, route_class=CallRoute)
    for text in ("first", "second"):

        async def said(_: Request, text: str = text) -> Response:
            return Response(text)

        router.add_api_route("/files", said, methods=["GET"], name=text)
    route, _ = CallsByPath(router).calls["GET", f"{PREFIX}/files"]
    assert route.name == "first"


def test_answers_and_refusals_are_those_of_the_patterns(router: GuardedRouter) -> None:
    health = lambda: {"live": True, "ready": True}  # noqa: E731 - as a service gives one
    answers = []
    for is_first in (True, False):
        settings = Settings.model_validate({"api_token": TOKEN})
        app = http_app("registry", settings, health)
        app.include_router(router)
        if is_first:
            calls_first(app, router)
        known = HttpClient(app, {"Authorization": f"Bearer {TOKEN}"})
        asked = [("GET", "runs/get"), ("POST", "runs/get"), ("GET", "none")]
        asked += [("POST", "runs/create"), ("GET", "logged-models/m-1")]
        answers.append(
            [
                (response.status_code, response.text)
                for client in (known, HttpClient(app))
                for response in (client.request(m, f"{PREFIX}/{p}") for m, p in asked)
            ]
        )
    assert answers[0] == answers[1]
    statuses = [status for status, _ in answers[0]]
    assert statuses == [200, 405, 404, 200, 200, 401, 405, 404, 401, 401]
