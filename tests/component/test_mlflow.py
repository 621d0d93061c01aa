"""MLflow's own client against the registry, on a real broker."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from driftloop.contracts.events import TrackingChanged
from driftloop.local.kafka import KafkaNode
from driftloop.registry.mlflow.apply import state_hash, take
from driftloop.registry.mlflow.tables import TABLES
from driftloop.runtime.admin import create_topics
from driftloop.runtime.database import open_database

from tests.component.mlflow_client import (
    ANSWERS,
    CLIENT,
    QUIET,
    differences,
    tell,
)
from tests.component.processes import TOKEN, Log, ServiceProcess
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]
API = "/api/2.0/mlflow"
POINTS = 100_000
READ = """
import json, sys
from mlflow import MlflowClient
found = MlflowClient().get_metric_history(sys.argv[1], "p")
points = [(point.step, point.value, point.timestamp) for point in found]
print(json.dumps([len(points), points == [(n, n / 8, n) for n in range(len(points))]]))
"""


class Place:
    """A registry, its log, and the story as MLflow's client told it there."""

    def __init__(self, node: KafkaNode, folder: Path) -> None:
        create_topics(node.bootstrap)
        self.home = folder / "home"
        self.log = Log(node.bootstrap, self.home)
        self.registry = ServiceProcess("registry", self.home, node.bootstrap)

    def post(self, call: str, **fields: Any) -> httpx.Response:
        return self.registry.client.post(f"{API}/{call}", json=fields)

    def get(self, call: str, **fields: Any) -> Any:
        return self.registry.client.get(f"{API}/{call}", params=fields).json()

    def events(self) -> list[TrackingChanged]:
        found = self.log.read(TrackingChanged)
        changes = [event for event in found if isinstance(event, TrackingChanged)]
        return sorted(changes, key=lambda event: event.revision)

    def new_run(self) -> str:
        run = self.post("runs/create", experiment_id="0").json()
        name: str = run["run"]["info"]["run_id"]
        return name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("mlflow")
    with KafkaNode(folder / "kafka") as node:
        found = Place(node, folder)
        with found.registry:
            yield found
        found.log.close()


def hash_of(home: Path) -> str:
    """Return the state hash of a registry's database."""
    engine = open_database(f"sqlite:///{home}/databases/registry-0.db")
    with engine.begin() as connection:
        found = state_hash(connection)
    engine.dispose()
    return found


def hash_of_log(events: list[TrackingChanged], file: Path) -> str:
    """Return the state hash that follows from the log alone."""
    engine = open_database(f"sqlite:///{file}", TABLES)
    with engine.begin() as connection:
        take(connection, events)
        found = state_hash(connection)
    engine.dispose()
    return found


@pytest.fixture(scope="module")
def told(place: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not CLIENT.exists():
        pytest.skip("MLflow's client is not installed: make setup-mlflow")
    file = tmp_path_factory.mktemp("told") / "told.json"
    return tell(place.registry.url, file, MLFLOW_TRACKING_TOKEN=TOKEN)


@pytest.fixture(autouse=True)
def _story_comes_first(told: dict[str, Any]) -> None:
    """The story names ids and lists everything: nobody may write before it."""


def test_answers_are_those_of_mlflow(told: dict[str, Any]) -> None:
    """Every step, field by field, against what MLflow's server answered."""
    theirs = json.loads(ANSWERS.read_text("utf-8"))
    assert told["mlflow"] == theirs["mlflow"]
    assert sum(map(len, told["sections"].values())) > 150
    assert list(differences(theirs["sections"], told["sections"])) == []


def test_a_difference_is_found() -> None:
    """Negative control: another value, a field too many, a list of other length."""
    theirs = {"a": [1, {"b": None}], "c": "x"}
    assert list(differences(theirs, {"a": [1, {"b": 2}], "c": "x"}))
    assert list(differences(theirs, {**theirs, "d": 1}))
    assert list(differences(theirs, {"a": [1], "c": "x"}))
    assert list(differences(theirs, theirs)) == []


def test_the_user_of_basic_is_who_writes(place: Place) -> None:
    """The password is the token; without it, or with another, nothing is done."""
    url = f"{place.registry.url}{API}/experiments/create"
    for secret, status in ((TOKEN, 200), ("wrong", 401), ("", 401)):
        name = f"basic {secret == TOKEN} {status}"
        answer = httpx.post(url, json={"name": name}, auth=("ann", secret))
        assert answer.status_code == status
        if status == 401:
            assert answer.json()["error_code"] == "UNAUTHENTICATED"
            assert answer.headers["www-authenticate"] == "Bearer"
    cut = base64.b64encode(f"ann{TOKEN}".encode()).decode()
    broken = httpx.post(url, json={}, headers={"Authorization": f"Basic {cut}"})
    assert broken.status_code == 401
    assert place.events()[-1].by == "ann"


def test_bodies_are_read_with_care(place: Place) -> None:
    """Too large, no JSON, another content type, nothing there: each is refused."""
    client = place.registry.client
    url = f"{API}/runs/log-batch"
    large = client.post(url, content=b" " * 1_500_001)
    assert "more than 1500000 bytes" in large.json()["message"]
    for content, kind in ((b"{", "application/json"), (b"{}", "text/plain")):
        answer = client.post(url, content=content, headers={"content-type": kind})
        assert answer.status_code == 400
        assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    unknown = client.post(f"{API}/prompts/none", json={})
    assert unknown.json()["error_code"] == "ENDPOINT_NOT_FOUND"


def test_a_batch_of_a_thousand_is_one_event(place: Place) -> None:
    """And its history comes back in pages, in order."""
    run = place.new_run()
    before = len(place.events())
    points = [
        {"key": "loss", "value": 1 / (n + 1), "timestamp": n, "step": n}
        for n in range(1000)
    ]
    for part in range(10):
        moved = [{**p, "step": p["step"] + 1000 * part} for p in points]
        answer = place.post("runs/log-batch", run_id=run, metrics=moved)
        assert answer.status_code == 200, answer.text
    assert len(place.events()) == before + 10
    found: list[Any] = []
    token = ""
    while True:
        more = {"page_token": token} if token else {}
        fields = {"run_id": run, "metric_key": "loss", "max_results": 4000, **more}
        page = place.get("metrics/get-history", **fields)
        found += page["metrics"]
        token = page.get("next_page_token", "")
        if not token:
            break
    assert len(found) == 10_000
    latest = place.get("runs/get", run_id=run)["run"]["data"]["metrics"]
    assert latest[0]["step"] == 9999


def test_a_hundred_thousand_points_come_back(place: Place) -> None:
    """To MLflow's own client, each once and in order; the bench has a million."""
    run = place.new_run()
    for part in range(POINTS // 1000):
        steps = range(part * 1000, (part + 1) * 1000)
        points = [
            {"key": "p", "value": n / 8, "timestamp": n, "step": n} for n in steps
        ]
        assert place.post("runs/log-batch", run_id=run, metrics=points).is_success
    done = subprocess.run(
        [CLIENT, "-c", READ, run],
        env={
            **os.environ,
            **QUIET,
            "MLFLOW_TRACKING_URI": place.registry.url,
            "MLFLOW_TRACKING_TOKEN": TOKEN,
        },
        capture_output=True,
        check=True,
        timeout=100,
    )
    assert json.loads(done.stdout) == [POINTS, True]


def test_killed_while_clients_write(place: Place, tmp_path: Path) -> None:
    """What was answered is there after kill -9, in the database and in the log."""
    run = place.new_run()
    answered: list[str] = []

    def write(worker: int) -> None:
        for step in range(1000):
            key = f"m{worker}.{step}"
            point = {"run_id": run, "key": key, "value": 1, "timestamp": 1}
            try:
                if place.post("runs/log-metric", **point).status_code != 200:
                    return
            except httpx.TransportError:
                return
            answered.append(key)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answered) > 40, 120)
    place.registry.kill()
    for thread in threads:
        thread.join(120)
    place.registry.start()
    known = place.get("runs/get", run_id=run)["run"]["data"]["metrics"]
    assert set(answered) <= {metric["key"] for metric in known}
    events = place.events()
    assert [e.revision for e in events] == list(range(1, len(events) + 1))
    assert hash_of_log(events, tmp_path / "log.db") == hash_of(place.home)


def test_rebuilt_from_the_log(place: Place) -> None:
    """Without its database the registry comes to the same state, then writes on."""
    place.new_run()
    before, count = hash_of(place.home), len(place.events())
    assert place.registry.stop() == 0
    for file in (place.home / "databases").iterdir():
        file.unlink()
    place.registry.start()
    assert hash_of(place.home) == before
    assert len(place.events()) == count  # nothing was said twice
    place.new_run()
    assert place.events()[-1].revision == count + 1
