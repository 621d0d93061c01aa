"""The registry on PostgreSQL: approvals, MLflow's client, a rebuild from the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import (
    ApprovalExpired,
    ModelApproved,
    ModelDeployed,
    PipelineApplied,
)
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from sqlalchemy import create_engine, text

from tests.component.mlflow_client import ANSWERS, CLIENT, differences, tell
from tests.component.processes import TOKEN, Log, ServiceProcess, with_id
from tests.servers import PostgresqlServer
from tests.unit.registry import story
from tests.unit.scorer.packages import Factory
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]
NAME = "bikes-on-postgresql"
MODELS = f"/api/v1/models/{NAME}"
SECTIONS = ("registered models", "model versions", "model searches")


class Place:
    """A registry on a database of its own, and what people ask of it."""

    def __init__(
        self, node: KafkaNode, folder: Path, postgresql: PostgresqlServer
    ) -> None:
        create_topics(node.bootstrap)
        self.broker, self.home = node.bootstrap, folder / "home"
        self.postgresql = postgresql
        self.url = postgresql.new_database()
        self.log = Log(node.bootstrap, self.home)
        self.registry = ServiceProcess(
            "registry", self.home, node.bootstrap, DATABASE_URL=self.url
        )
        self.factory = Factory(self.home)

    def apply(self, **approval: Any) -> None:
        terms = {"approval": approval}
        spec = story.spec("approve", name=NAME, rollout=terms)
        event = PipelineApplied(pipeline=NAME, spec=spec, applied_by="ada")
        self.log.publish(with_id(event, str(uuid.uuid4())))

    def ask(self, method: str, path: str, **fields: Any) -> Any:
        body = {"json": fields} if fields else {}
        return self.registry.client.request(method, f"{MODELS}{path}", **body)

    def state(self, version: int) -> str | None:
        items = self.ask("GET", "/versions").json().get("items", [])
        return {item["version"]: item["state"] for item in items}.get(version)

    def wait_for(self, version: int, state: str) -> None:
        wait_until(lambda: self.state(version) == state, 120)

    def decide(self, what: str, version: int, by: str) -> Any:
        path = f"/versions/{version}/{what}"
        return self.ask("POST", path, by=by, reason="because")

    def rebuild(self, into: str) -> tuple[int, dict[str, Any], str]:
        """Return exit code, the last line as JSON, and what is said beside."""
        done = subprocess.run(
            [sys.executable, "-m", "driftloop.registry", "rebuild", "--into", into],
            env={
                **{k: v for k, v in os.environ.items() if "DRIFTLOOP_" not in k},
                "DRIFTLOOP_HOME": str(self.home),
                "DRIFTLOOP_BROKER": self.broker,
                "DRIFTLOOP_API_TOKEN": TOKEN,
                "DRIFTLOOP_REGISTRY_DATABASE_URL": self.url,
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        answer = json.loads(done.stdout.splitlines()[-1])
        return done.returncode, answer.get("report", answer), done.stderr


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, postgresql: PostgresqlServer
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("registry-postgresql")
    with KafkaNode(folder / "kafka") as node:
        found = Place(node, folder, postgresql)
        with found.registry:
            yield found
        found.log.close()


def live_through_it_all(place: Place) -> None:
    """One version expires and comes back, one is approved by two and deployed."""
    place.apply(expires_after="2s")
    first, second = (
        story.trained(place.factory, job, pipeline=NAME) for job in ("one", "two")
    )
    place.log.publish(first)
    place.wait_for(1, "expired")
    late = place.decide("approve", 1, "ann")
    assert late.status_code == 409
    assert "expired at" in late.json()["title"]
    place.apply(people=2)
    place.log.publish(second)
    place.wait_for(2, "awaiting_approval")
    again = place.ask(
        "POST", "/versions/1/request-approval", requested_by="dan", reason="away"
    )
    assert again.json()["state"] == "awaiting_approval", again.text
    assert place.decide("reject", 1, "ann").json()["state"] == "rejected"
    one = place.decide("approve", 2, "ann").json()
    assert one["approval_request"]["progress"] == "1 of 2"
    assert place.decide("approve", 2, "Ann").status_code == 409
    place.registry.kill()
    place.registry.start()
    assert place.decide("approve", 2, "bob").json()["state"] == "approved"
    deployed = ModelDeployed(
        pipeline=NAME, rollout_id="r", version=2, package=second.package, generation=1
    )
    place.log.publish(with_id(deployed, f"deployed-{NAME}"))
    place.wait_for(2, "deployed")


def alter(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_the_walk_and_the_rebuild(place: Place, tmp_path: Path) -> None:
    """What MLflow's client is told there, and the log's state in another database."""
    if not CLIENT.exists():
        pytest.skip("MLflow's client is not installed: make setup-mlflow")
    told = tell(
        place.registry.url,
        tmp_path / "told.json",
        sections=SECTIONS,
        MLFLOW_TRACKING_TOKEN=TOKEN,
    )
    theirs = json.loads(ANSWERS.read_text("utf-8"))["sections"]
    wanted = {name: theirs[name] for name in SECTIONS}
    assert list(differences(wanted, told["sections"])) == []

    live_through_it_all(place)
    assert [e.request for e in place.log.read(ApprovalExpired)] == [1]
    approved = place.log.read(ModelApproved)
    assert [(e.version, e.approved_by) for e in approved] == [(2, ["ann", "bob"])]
    champion = place.ask("GET", "/aliases/champion").json()
    assert champion["version"] == 2
    history = place.ask("GET", "/history").json()["items"]
    assert [e["after"] for e in history if e["version"] == 1][:4] == [
        "registered", "awaiting_approval", "expired", "awaiting_approval",
    ]  # fmt: skip

    other = place.postgresql.new_database()
    code, report, said = place.rebuild(other)
    assert (code, report["compared"], report["differing"]) == (0, "same", []), said
    code, answer, _ = place.rebuild(other)
    assert code == 2
    assert "not empty" in answer["refused"]
    file = tmp_path / "lite.db"
    code, lite, said = place.rebuild(f"sqlite:///{file}")
    assert (code, lite["state"]) == (0, report["state"]), said
    alter(place.url, "UPDATE registry_decision SET by = 'eve'")  # negative control
    code, report, _ = place.rebuild(place.postgresql.new_database())
    assert (code, report["differing"]) == (1, ["registry_decision"])
