"""What is counted of HTTP requests, and what leads from there to a trace."""

from __future__ import annotations

import re

import pytest
from driftloop.runtime.http import http_app
from driftloop.runtime.metrics import exemplar_of
from driftloop.runtime.settings import Settings
from fastapi import FastAPI
from starlette.testclient import TestClient

TRACE = "0af7651916cd43dd8448eb211c80319c"
OPENMETRICS = {"accept": "application/openmetrics-text; version=1.0.0"}


@pytest.fixture
def client(request: pytest.FixtureRequest) -> TestClient:
    name = request.node.name  # counted apart from other tests' requests
    app: FastAPI = http_app(name, Settings(), lambda: {"live": True, "ready": True})

    @app.get("/rows/{row}")
    def row(row: str) -> str:
        if row == "broken":
            raise RuntimeError(row)
        return row

    return TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)


def counted(client: TestClient, service: str) -> dict[tuple[str, ...], int]:
    """Requests by route, method and status."""
    text = client.get("/metrics", headers=OPENMETRICS).text
    found = re.findall(
        r"^driftloop_http_request_duration_seconds_count\{(.*)\} (\S+)$",
        text,
        re.MULTILINE,
    )
    result = {}
    for labels, number in found:
        of = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if of["service"] == service:
            result[of["route"], of["method"], of["status"]] = int(float(number))
    return result


def test_requests_are_counted_by_pattern_and_status(
    client: TestClient, request: pytest.FixtureRequest
) -> None:
    for row in ("a", "b", "broken"):
        client.get(f"/rows/{row}")
    client.post("/rows/a")
    client.request("BREW", "/nowhere/that/is")
    assert counted(client, request.node.name) == {
        ("/rows/{row}", "GET", "200"): 2,
        ("/rows/{row}", "GET", "500"): 1,
        ("/rows/{row}", "POST", "405"): 1,
        ("unmatched", "other", "404"): 1,
    }


def test_a_request_that_names_its_trace_is_an_example_of_it(client: TestClient) -> None:
    client.get("/rows/a", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    text = client.get("/metrics", headers=OPENMETRICS).text
    assert f'trace_id="{TRACE}"' in text
    assert TRACE not in client.get("/metrics").text, "the older format has none"


def test_what_is_no_trace_is_none() -> None:
    assert exemplar_of(None) is None
    assert exemplar_of('00-"} 1\n-01') is None
    assert exemplar_of(f"00-{TRACE.upper()}-b7ad6b7169203331-01") is None


def test_looks_at_the_process_itself_are_not_counted(
    client: TestClient, request: pytest.FixtureRequest
) -> None:
    client.get("/livez")
    client.get("/readyz")
    assert counted(client, request.node.name) == {}
