"""The registry as a process: lineage, a collector of OpenLineage, and erasures."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.base import derived_id
from driftloop.contracts.events import (
    ErasureCompleted,
    ErasureTraced,
    LineageReported,
    PipelineApplied,
    RetrainRequested,
    SettlementRequested,
    TracedJob,
    TracedVersion,
)
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics

from tests.component.cli import run_cli
from tests.component.processes import Log, ServiceProcess, with_id
from tests.unit.registry import bench, story
from tests.unit.registry.bench import START, day_span, ref, trigger
from tests.unit.scorer.packages import Factory
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]

COLLECTOR_TOKEN = "a-token-of-the-collector"
SUBJECT = "a" * 32


class Collector:
    """An HTTP server as Marquez is one; ``answer`` says how it is today."""

    def __init__(self) -> None:
        self.answer = 201
        self.got: list[dict[str, Any]] = []
        self.asked = 0
        self.tokens: set[str | None] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(size))
                outer.asked += 1
                outer.tokens.add(self.headers["Authorization"])
                answer = outer.answer if self.path == "/api/v1/lineage" else 404
                if answer == 201:
                    outer.got.append(body)
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/v1/lineage"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def of(self, pipeline: str) -> list[tuple[str, str, str]]:
        """Return job, type and run of what came about a pipeline, in its order."""
        return [
            (e["job"]["name"].partition(".")[2], e["eventType"], e["run"]["runId"])
            for e in list(self.got)
            if e["job"]["name"].startswith(f"{pipeline}.")
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Installation:
    """A broker, a collector, a registry, and the other services played by the test."""

    def __init__(self, node: KafkaNode, home: Path) -> None:
        create_topics(node.bootstrap)
        self.home, self.bootstrap = home, node.bootstrap
        self.factory = Factory(home)
        self.log = Log(node.bootstrap, home)
        self.collector = Collector()
        self.registry = ServiceProcess(
            "registry", home, node.bootstrap, openlineage_url=self.collector.url,
            openlineage_token=COLLECTOR_TOKEN,
        )  # fmt: skip

    def get(self, path: str, **params: Any) -> Any:
        return self.registry.client.get(f"/api/v1{path}", params=params)

    def cli(self, *command: str) -> str:
        return run_cli(
            self.home, self.bootstrap, *command, REGISTRY_URL=self.registry.url
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("lineage")
    with KafkaNode(folder / "kafka") as node:
        found = Installation(node, folder / "home")
        with found.registry:
            yield found
        found.log.close()
        found.collector.close()


class World:
    """One test's pipeline."""

    def __init__(self, place: Installation, name: str) -> None:
        self.place, self.name = place, name
        spec = story.spec(name=name)
        event = PipelineApplied(pipeline=name, spec=spec, applied_by="ada")
        self.send(with_id(event, f"applied-{name}"))

    def send(self, *events: Any) -> None:
        """Publish events as of this pipeline, with ids of its own."""
        renamed = [event.model_copy(update={"pipeline": self.name}) for event in events]
        self.place.log.publish(*renamed)

    def versioned(self, day: int) -> str:
        event = bench.versioned(day)
        name = self.id(f"version-{day}")
        self.send(with_id(event, name, causation_id=self.id(f"batch-{day}")))
        return name

    def id(self, text: str) -> str:
        return derived_id(self.name, text, 0)

    def train(self, job: str, why: str, day: int) -> None:
        """Publish a training from its start to its model."""
        job, cause = self.id(job), trigger(why)
        started = bench.started(job, cause, ref(day), day)
        self.send(with_id(started, f"started-{job}"))
        event = bench.trained(
            self.place.factory, job, cause, ref(day), day, pipeline=self.name
        )
        self.send(with_id(event, f"trained-{job}"))

    def read(self, *wanted: Any) -> list[Any]:
        return self.place.log.read(*wanted, pipeline=self.name)

    def wait_for_version(self, version: int) -> None:
        path = f"/models/{self.name}/versions/{version}"
        wait_until(lambda: self.place.get(path).status_code == 200, 120)


@pytest.fixture
def world(place: Installation, unique_name: Callable[[str], str]) -> World:
    return World(place, unique_name("bikes"))


def test_lineage_by_rest_and_on_the_terminal(world: World) -> None:
    """Pages make up the whole; what is not known is said."""
    place, name = world.place, world.name
    for day in (1, 2, 3):
        last = world.versioned(day)
    world.train("one", last, 3)
    world.wait_for_version(1)
    wait_until(lambda: place.get("/lineage", of=world.id("batch-3")).is_success, 120)

    whole = place.get("/lineage", of=f"{name}/1", direction="upstream").json()
    kinds = {node["kind"] for node in whole["nodes"]}
    assert kinds == {"model", "training", "dataset", "validated", "batch"}
    sources = {edge["source"] for edge in whole["edges"]}
    assert f"batch/{name}/{world.id('batch-3')}" in sources
    pages, cursor = [], 0
    while cursor is not None:
        page = place.get(
            "/lineage", of=f"{name}/1", direction="upstream", limit=3, cursor=cursor
        ).json()
        assert len(page["nodes"]) <= 3
        pages += page["nodes"]
        cursor = page["next_cursor"]
    assert pages == whole["nodes"]
    down = place.get("/lineage", of=world.id("batch-1"), direction="downstream").json()
    assert f"model/{name}/1" in {node["id"] for node in down["nodes"]}

    tree = place.cli("lineage", f"{name}/1")
    assert "came of" in tree
    assert f"training {world.id('one')}" in tree
    missing = place.get("/lineage", of=f"{name}/9")
    assert missing.status_code == 404
    assert "name a version" in missing.json()["title"]
    assert place.get("/lineage", of=f"{name}/1", depth=0).status_code == 422
    facet = place.get("/lineage/facets/model.v1.json").json()
    assert facet["$id"] == "urn:driftloop:openlineage:model:v1"
    assert place.get("/lineage/facets/other.v1.json").status_code == 404


def test_a_collector_is_told_whatever_is_killed(world: World) -> None:
    """In order, each at least once, by the same runs; the token goes nowhere else."""
    place, collector = world.place, world.place.collector
    last = world.versioned(1)
    wait_until(lambda: len(collector.of(world.name)) == 2, 120)
    collector.answer = 503
    before = collector.asked
    world.train("one", last, 1)
    world.wait_for_version(1)
    wait_until(lambda: collector.asked > before, 120)
    assert len(collector.of(world.name)) == 2  # it has refused the rest
    place.registry.kill()
    collector.answer = 201
    place.registry.start()
    wait_until(lambda: len(set(collector.of(world.name))) == 4, 120)

    job = world.id("one")
    told = list(dict.fromkeys(collector.of(world.name)))
    validation, training = told[0][2], told[2][2]
    assert told == [
        ("validation", "START", validation), ("validation", "COMPLETE", validation),
        ("training", "START", training), ("training", "COMPLETE", training),
    ]  # fmt: skip
    assert training == job
    assert collector.tokens == {f"Bearer {COLLECTOR_TOKEN}"}
    said = place.registry.log.read_text()
    assert COLLECTOR_TOKEN not in said
    in_log = [e.model_dump(mode="json") for e in world.read(LineageReported)]
    sent = [e for e in collector.got if e["job"]["name"].startswith(f"{world.name}.")]
    assert all("pipeline" not in event for event in sent)
    runs = {(e["run"]["runId"], e["eventType"]) for e in in_log}
    assert runs == {(e["run"]["runId"], e["eventType"]) for e in sent}


def test_what_a_collector_refuses_does_not_hold_up_the_rest(world: World) -> None:
    collector = world.place.collector
    collector.answer = 422
    before = collector.asked
    world.versioned(1)
    wait_until(lambda: collector.asked >= before + 2, 120)
    collector.answer = 201
    world.train("one", "x", 1)
    wait_until(lambda: len(collector.of(world.name)) == 2, 120)
    metrics = world.place.registry.client.get("/metrics").text
    refused = next(
        line for line in metrics.splitlines()
        if line.startswith('driftloop_registry_openlineage_total{outcome="refused"}')
    )  # fmt: skip
    assert float(refused.rpartition(" ")[2]) >= 2


def traced(world: World, *jobs: str) -> str:
    """Publish that a subject was erased; return the erasure's id."""
    erasure = world.id(f"erasure-{len(jobs)}")
    event = ErasureTraced(
        pipeline=world.name, erasure_id=erasure, subject=SUBJECT, requested_by="ben",
        erased_at=START, key_count=1, token_count=0,
        versions=[
            TracedVersion(
                kind="observations", version=1, row_count=2, span=day_span(1)
            )
        ],
        jobs=[TracedJob(job_id=world.id(job), observations=1) for job in jobs],
    )  # fmt: skip
    world.send(with_id(event, f"traced-{erasure}"))
    return erasure


def test_an_erasure_is_settled_model_by_model(world: World) -> None:
    """By REST and on the terminal, through kill -9 and the loss of the database."""
    place = world.place
    for job in ("one", "two"):
        world.train(job, "x", 1)
        world.wait_for_version(1 if job == "one" else 2)
    erasure = traced(world, "one", "two")
    path = f"/erasures/{erasure}"
    wait_until(lambda: place.get(path).is_success, 120)
    assert [m["state"] for m in place.get(path).json()["models"]] == [
        "waiting_for_decision", "waiting_for_decision",
    ]  # fmt: skip
    post = place.registry.client.post
    body = {"versions": [1], "decision": "waive", "by": "ann", "reason": "not served"}
    wrong = post(f"/api/v1{path}/settle", json={**body, "versions": [7]})
    assert wrong.status_code == 409
    assert "affected are: 1, 2" in wrong.json()["title"]
    key = {"Idempotency-Key": world.id("waive")}
    for _ in range(2):
        done = post(f"/api/v1{path}/settle", json=body, headers=key)
        assert done.status_code == 200, done.text
    assert done.json()["models"][0]["settled"]["settlement"] == "waived"
    late = post(f"/api/v1{path}/settle", json=body)
    assert late.status_code == 409
    assert place.get("/erasures/nobody").status_code == 404

    said = place.cli(
        "erasures", "settle", erasure, "--model", "2", "--retrain", "--by", "bob",
        "--reason", "it is served",
    )  # fmt: skip
    assert "model v2: waiting for training (bob: it is served)" in said
    [request] = world.read(RetrainRequested)
    assert request.requested_by == "bob"
    assert world.read(ErasureCompleted) == []
    place.registry.kill()
    world.train("new", request.meta.id, 2)
    place.registry.start(wait=False)
    place.registry.kill()  # somewhere in its start
    place.registry.start()
    wait_until(lambda: bool(world.read(ErasureCompleted)), 120)
    [proof] = world.read(ErasureCompleted)
    assert [(m.version, m.settlement, m.replaced_by) for m in proof.models] == [
        (1, "waived", None), (2, "retrained", 3),
    ]  # fmt: skip
    wait_until(lambda: place.get(path).json()["is_completed"], 120)
    assert "replaced by v3" in place.cli("erasures", "show", erasure)

    view = place.get(path).json()
    lineage = place.get("/lineage", of=f"{world.name}/3").json()
    place.registry.stop()
    for file in (place.home / "databases").glob("registry*"):
        file.unlink()
    place.registry.start()
    wait_until(lambda: place.get(path).is_success, 120)
    wait_until(lambda: place.get(path).json() == view, 120)
    wait_until(
        lambda: place.get("/lineage", of=f"{world.name}/3").json() == lineage, 60
    )
    assert len(world.read(ErasureCompleted)) == 1
    assert len(world.read(SettlementRequested)) == 1
    assert len(world.read(RetrainRequested)) == 1


def test_nothing_is_asked_where_nothing_is_affected(world: World) -> None:
    """Negative control: a model of others' rows, and a proof at once."""
    world.train("other", "x", 1)
    world.wait_for_version(1)
    traced(world)
    wait_until(lambda: bool(world.read(ErasureCompleted)), 120)
    [proof] = world.read(ErasureCompleted)
    assert proof.models == []
    assert world.read(SettlementRequested) == []
