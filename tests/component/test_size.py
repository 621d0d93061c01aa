"""A real scorer measures, keeps and tells what the command sizes replicas by."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from driftloop.contracts.events import ScorerReported
from driftloop.contracts.profile import VersionProfile
from driftloop.local.kafka import KafkaNode
from driftloop.models.trial import PROFILE_CALLS

from tests.component.cli import run_cli
from tests.component.support import ServiceProcess, open_events, wait_until
from tests.component.town import HEADERS, Town
from tests.unit.scorer import packages
from tests.unit.scorer.packages import Factory

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(300)]
REQUESTS = 150


@contextmanager
def registry(version: int) -> Iterator[str]:
    """Serve what the registry says of the champion; the value is the address."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps({"version": version, "trial": None}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def profiles(town: Town) -> list[VersionProfile]:
    """Return what was told of the version, oldest first."""
    return [
        said.profile
        for event in town.of(ScorerReported)
        for said in event.versions
        if said.profile is not None
    ]


def signs_of_life(town: Town) -> int:
    return sum(event.memory_bytes is not None for event in town.of(ScorerReported))


def ask(town: Town, *sizes: float) -> list[int]:
    url = f"{town.scorer.url}/pipelines/{town.name}/invocations"
    with httpx.Client(headers=HEADERS, timeout=60) as client:
        rows = ({"size": size, "colour": "red"} for size in sizes)
        return [
            client.post(url, json={"dataframe_records": [row]}).status_code
            for row in rows
        ]


def test_what_a_scorer_measures_is_kept_told_and_reckoned_with(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with KafkaNode(tmp_path / "kafka") as node:
        address = node.bootstrap
        scorer = ServiceProcess("scorer", address, home, scorer_heartbeat_seconds="1")
        with (
            open_events(address, home) as events,
            ServiceProcess("deployer", address, home) as deployer,
            scorer,
        ):
            town = Town("sized", events, Factory(home), deployer, scorer)
            town.apply()
            town.approve(1, town.package(extra=packages.RAISES_ABOVE_100))
            town.wait_for(1, None, 0.0)
            wait_until(lambda: bool(signs_of_life(town)), "no sign of life")
            wait_until(lambda: bool(profiles(town)), "no profile was told")
            first = profiles(town)[0]
            assert [cost.rows for cost in first.batches] == list(PROFILE_CALLS)

            sized = size(home, address)
            assert sized["door"] is None
            assert "no scorer has told yet" in " ".join(sized["assumptions"])

            # errors are told at once, and what was answered before with them
            assert ask(town, *[1.0] * REQUESTS, 500.0) == [200] * REQUESTS + [500]
            wait_until(lambda: door_count(town) >= REQUESTS, "no door was told")
            sized = size(home, address)
            assert sized["door"]["requests"] >= REQUESTS
            assert sized["door"]["rows"] == 1
            assert 0 < sized["door"]["seconds"] < 1
            assert sized["measured_by"] == "replica 0"
            needed = 500 * sized["size"]["spent"]["door"] / 0.6
            assert sized["kubernetes"]["replicas"] >= needed

            scorer.kill()
            before = signs_of_life(town)
            scorer.start()
            wait_until(lambda: signs_of_life(town) > before + 1, "it is silent")
            assert {p.model_dump_json() for p in profiles(town)} == {
                first.model_dump_json()
            }


def door_count(town: Town) -> int:
    return sum(
        said.door.requests
        for event in town.of(ScorerReported)
        for said in event.versions
        if said.door is not None
    )


def size(home: Path, address: str) -> dict[str, Any]:
    with registry(1) as url:
        output = run_cli(
            home, address, "size", "sized", "--rate", "500", "--json",
            REGISTRY_URL=url,
        )  # fmt: skip
    found: dict[str, Any] = json.loads(output)
    return found
