"""``driftloop rebuild registry``: the database from the log alone, and in its place."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import (
    ModelDeployed,
    ModelRolledBack,
    PipelineApplied,
    RolloutAdvanced,
    ServedModel,
    TrackingChanged,
    TrainingSkipped,
    Trigger,
)
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics

from tests.component.processes import TOKEN, Log, ServiceProcess, with_id
from tests.unit.registry import story
from tests.unit.scorer.packages import Factory
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]
NAME = "rebuilt-bikes"
API = "/api/2.0/mlflow"
MODELS = f"/api/v1/models/{NAME}"
SERVICE = ("-m", "driftloop.registry", "rebuild")
CLI = ("-c", "from driftloop.cli.app import main; main()", "rebuild", "registry")


class Place:
    """A registry that has seen every kind of event, and its log."""

    def __init__(self, node: KafkaNode, folder: Path) -> None:
        create_topics(node.bootstrap)
        self.node = node
        self.home = folder / "home"
        self.broker = node.bootstrap
        self.log = Log(node.bootstrap, self.home)
        self.registry = ServiceProcess("registry", self.home, node.bootstrap)
        self.database = self.home / "databases" / "registry-0.db"

    def post(self, path: str, **fields: Any) -> Any:
        answer = self.registry.client.post(path, json=fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def live_through_it_all(self) -> None:
        """Let models be approved, refused, rolled out and back; let clients track."""
        spec = story.spec(name=NAME, automation="approve")
        applied = PipelineApplied(pipeline=NAME, spec=spec, applied_by="ada")
        factory = Factory(self.home)
        good, better, worse = (
            story.trained(factory, job, *rest, pipeline=NAME)
            for job, *rest in (("one",), ("two",), ("three", story.worse()))
        )
        self.log.publish(with_id(applied, str(uuid.uuid4())), good, better, worse)
        wait_until(lambda: self.states().get(3) == "rejected", 120)
        for version in (1, 2):
            path = f"{MODELS}/versions/{version}/approve"
            self.post(path, by="ann", reason="looks right")
        common = {"pipeline": NAME, "rollout_id": "r"}
        changes = [
            ModelDeployed(version=1, package=good.package, generation=1, **common),
            ModelDeployed(version=2, package=better.package, generation=2, **common),
            ModelRolledBack(
                version=2,
                generation=2,
                restored=ServedModel(version=1, package=good.package),
                reason="errors",
                **common,
            ),
        ]
        self.log.publish(
            *(with_id(each, f"{NAME}-{n}") for n, each in enumerate(changes))
        )
        wait_until(lambda: self.states().get(2) == "rolled_back", 120)
        self.see_steps_and_comments()
        self.track()

    def see_steps_and_comments(self) -> None:
        """Let a step be judged and a training be left out; say something about it."""
        step = RolloutAdvanced(
            pipeline=NAME, rollout_id="r", version=2, step="full", verdict="passed",
            detail="",
        )  # fmt: skip
        why = Trigger(event_id="d", event_type="drift-detected", reason="drift")
        skip = TrainingSkipped(
            pipeline=NAME, trigger=why, reason="cooldown", detail="2 days left"
        )
        self.log.publish(with_id(step, f"{NAME}-step"), with_id(skip, f"{NAME}-skip"))
        comments = f"/api/v1/pipelines/{NAME}/comments"
        made = self.post(comments, about="model/2", text="why?", by="ann")
        path = f"{comments}/{made['comment_id']}"
        self.registry.client.put(path, json={"text": "why, then?", "by": "ann"})
        decisions = f"/api/v1/decisions?pipeline={NAME}&kind=skip&kind=rollout"
        client = self.registry.client
        wait_until(lambda: len(client.get(decisions).json()["items"]) == 2, 120)

    def states(self) -> dict[int, str]:
        items = self.registry.client.get(f"{MODELS}/versions").json().get("items", [])
        return {item["version"]: item["state"] for item in items}

    def track(self) -> str:
        """Write as a client of MLflow does; return the run's id."""
        made = self.post(f"{API}/experiments/create", name=str(uuid.uuid4()))
        run = self.post(f"{API}/runs/create", experiment_id=made["experiment_id"])
        run_id: str = run["run"]["info"]["run_id"]
        points = [
            {"key": "loss", "value": 1 / (n + 1), "timestamp": n, "step": n}
            for n in range(100)
        ]
        self.post(f"{API}/runs/log-batch", run_id=run_id, metrics=points)
        for n in range(3):
            point = {"key": "acc", "value": n, "timestamp": n}
            self.post(f"{API}/runs/log-metric", run_id=run_id, **point)
        self.post(f"{API}/runs/set-tag", run_id=run_id, key="a", value="b")
        self.post(f"{API}/runs/delete-tag", run_id=run_id, key="a")
        self.post(f"{API}/runs/update", run_id=run_id, status="FINISHED", end_time=9)
        return run_id

    def rebuild(self, *options: str, by: Sequence[str] = SERVICE) -> Any:
        """Return exit code, the last line as JSON, and what is said beside."""
        done = subprocess.run(
            [sys.executable, *by, *options],
            env={
                **{k: v for k, v in os.environ.items() if "DRIFTLOOP_" not in k},
                "DRIFTLOOP_HOME": str(self.home),
                "DRIFTLOOP_BROKER": self.broker,
                "DRIFTLOOP_API_TOKEN": TOKEN,
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        answer = json.loads(done.stdout if by is CLI else done.stdout.splitlines()[-1])
        return done.returncode, answer.get("report", answer), done.stderr

    def everything(self) -> list[Any]:
        """Return what the registry answers about models and runs."""
        client = self.registry.client
        found = [
            client.get(f"{MODELS}/{part}").json() for part in ("versions", "history")
        ]
        found += [
            client.get(f"/api/v1/{part}?pipeline={NAME}").json()
            for part in ("decisions", "deployments", "runs")
        ]
        found.append(client.get(f"/api/v1/pipelines/{NAME}/comments").json())
        body = {"max_results": 1000}
        experiments = client.post(f"{API}/experiments/search", json=body).json()
        ids = [each["experiment_id"] for each in experiments["experiments"]]
        runs = client.post(f"{API}/runs/search", json={"experiment_ids": ids}).json()
        return [*found, experiments, runs]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("rebuild")
    with KafkaNode(folder / "kafka") as node:
        found = Place(node, folder)
        with found.registry:
            found.live_through_it_all()
            yield found
        found.log.close()


@pytest.fixture(autouse=True)
def _registry_runs(place: Place) -> Iterator[None]:
    yield
    if place.registry.exit_code() is not None:
        place.registry.start()


def alter(database: Path, statement: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(statement)
    connection.close()


def test_beside_a_registry_that_works(place: Place) -> None:
    """The log alone gives what it holds; it is not disturbed, and goes on writing."""
    before = place.everything()
    code, report, said = place.rebuild("--json", by=CLI)
    assert (code, report["compared"]) == (0, "same"), said
    assert report["event_count"] > 15
    assert not report["replaced"]
    assert Path(report["database"]).exists()
    assert place.everything() == before
    place.track()
    code, again, said = place.rebuild()  # the new file of before is no obstacle
    assert (code, again["compared"]) == (0, "same"), said
    assert again["state"] != report["state"]


def test_altered_rows_are_found_and_mended(place: Place) -> None:
    """Negative control, and the cure: the new database takes the place of the old."""
    before = place.everything()
    code, answer, _ = place.rebuild("--replace")  # while a registry works on it
    assert code == 2
    assert "another process works on" in answer["refused"]
    assert place.registry.stop() == 0
    alter(place.database, "UPDATE mlflow_metric SET value = value + 1 WHERE step = 7")
    alter(place.database, "UPDATE registry_decision SET by = 'eve'")
    alter(place.database, "DELETE FROM mlflow_run WHERE number = 1")
    code, report, said = place.rebuild("--replace")
    assert report["differing"] == ["mlflow_metric", "mlflow_run", "registry_decision"]
    assert (code, report["replaced"]) == (0, True), said
    assert Path(report["kept"]).exists()
    place.registry.start()
    assert place.everything() == before


def test_killed_and_its_database_lost(place: Place) -> None:
    """From nothing but the log; then it writes on."""
    before = place.everything()
    place.registry.kill()
    for file in place.database.parent.glob("registry-0.db*"):
        file.unlink()
    code, report, said = place.rebuild("--replace")
    assert (code, report["compared"]) == (0, "there is none"), said
    assert report["kept"] is None
    place.registry.start()
    assert place.everything() == before
    place.track()


def test_what_the_log_lacks_is_kept(place: Place) -> None:
    """Answered while the broker was away, then killed: it goes out all the same."""
    place.node.kill()
    name = str(uuid.uuid4())
    place.post(f"{API}/experiments/create", name=name)
    place.registry.kill()
    place.node.start()
    code, report, said = place.rebuild("--replace")
    assert (code, report["compared"]) == (0, "same"), said
    place.registry.start()
    fields = {"experiment_name": name}
    found = place.registry.client.get(f"{API}/experiments/get-by-name", params=fields)
    assert found.status_code == 200
    place.track()
    events = place.log.read(TrackingChanged)
    revisions = [e.revision for e in events if isinstance(e, TrackingChanged)]
    assert sorted(revisions) == list(range(1, len(revisions) + 1))
