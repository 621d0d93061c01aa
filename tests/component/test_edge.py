"""The page of the edge is followed from export to report, on a real broker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import (
    AlertRaised,
    BatchIngested,
    EdgeReported,
    ModelDeployed,
    ModelRolledBack,
    ModelTrained,
    PipelineApplied,
)
from driftloop.local.kafka import KafkaNode
from driftloop.local.processes import free_port
from driftloop.runtime.admin import create_topics

from tests.component.processes import TOKEN, Log, ServiceProcess, with_id
from tests.unit.registry import story
from tests.unit.scorer.packages import NAME, Factory
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "edge.md"
BLOCK = re.compile(r"<!-- run (at home|in line-4) -->\n```sh\n(.*?)```", re.DOTALL)
DRIFTLOOP = 'exec "{python}" -c "from driftloop.cli.app import main; main()" "$@"\n'


@dataclass
class Stage:
    """A broker, home's registry and ingest, and an approved version 1."""

    folder: Path
    bootstrap: str
    log: Log
    registry: ServiceProcess
    ingest: ServiceProcess
    trained: ModelTrained

    def version(self) -> Any:
        answer = self.registry.client.get(f"/api/v1/models/{NAME}/versions/1")
        return answer.json().get("state")

    def edges(self) -> list[Any]:
        items: list[Any] = self.registry.client.get("/api/v1/edges").json()["items"]
        return items


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("edge")
    home = folder / "home"
    with KafkaNode(folder / "kafka") as node:
        create_topics(node.bootstrap)
        log = Log(node.bootstrap, home)
        registry = ServiceProcess("registry", home, node.bootstrap)
        ingest = ServiceProcess("ingest", home, node.bootstrap)
        with registry, ingest:
            trained = story.trained(Factory(home), "one", pipeline=NAME)
            found = Stage(folder, node.bootstrap, log, registry, ingest, trained)
            applied = PipelineApplied(
                pipeline=NAME, spec=story.spec(), applied_by="ada"
            )
            log.publish(with_id(applied, str(uuid.uuid4())), trained)
            wait_until(lambda: found.version() == "approved", 120)
            yield found
        log.close()


def follow(stage: Stage) -> str:
    """Run the page's commands, as they stand but for the port; return what was said."""
    tools, port = stage.folder / "bin", free_port()
    tools.mkdir()
    shim(tools / "driftloop", DRIFTLOOP.format(python=sys.executable))
    known = {
        **{k: v for k, v in os.environ.items() if not k.startswith("DRIFTLOOP_")},
        "PATH": f"{tools}:{os.environ['PATH']}",
        "DRIFTLOOP_HOME": str(stage.folder / "home"),
        "DRIFTLOOP_BROKER": stage.bootstrap,
        "DRIFTLOOP_API_TOKEN": TOKEN,
        "DRIFTLOOP_REGISTRY_URL": stage.registry.url,
        "INGEST": stage.ingest.url,
        "COLUMNS": "200",
    }
    at_edge = {k: v for k, v in known.items() if not k.startswith("DRIFTLOOP_")}
    at_edge |= {"DRIFTLOOP_EDGE_PORT": str(port), "DRIFTLOOP_EDGE_REPORT_SECONDS": "1"}
    said = ""
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    assert [where for where, _ in blocks] == [
        "at home", "in line-4", "in line-4", "at home"
    ]  # fmt: skip
    for number, (where, script) in enumerate(blocks):
        place = stage.folder / "line-4" if where == "in line-4" else stage.folder
        if number == len(blocks) - 1:
            wait_until(lambda: bool(stage.edges()) and rows_of(stage) == 4)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c",
             script.replace("127.0.0.1:7003", f"127.0.0.1:{port}")],
            cwd=place, env=known if where == "at home" else at_edge,
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        said += done.stdout + done.stderr
        assert done.returncode == 0, said
        if number == 0:  # in place of the packages that the page installs
            environment = stage.folder / "line-4" / ".venv" / "bin"
            environment.mkdir(parents=True)
            shim(environment / "python", f'exec "{sys.executable}" "$@"\n')
    return said


@pytest.fixture(scope="module")
def followed(stage: Stage) -> tuple[str, Any]:
    """What the page's commands said, and what home knew of its runner after them."""
    said = follow(stage)
    [edge] = stage.edges()
    return said, edge


def shim(path: Path, command: str) -> None:
    path.write_text(f"#!/bin/sh\n{command}")
    path.chmod(0o755)


def rows_of(stage: Stage) -> int:
    return sum(edge["row_count"] for edge in stage.edges())


def test_the_page_can_be_followed(stage: Stage, followed: tuple[str, Any]) -> None:
    """Two rows were asked for, two were in the file; home knows of four."""
    said, edge = followed
    for words in (
        "2 samples answered as expected",
        "X-Driftloop-Model-Version: 1",
        "X-Request-Id: order-42",
        '{"predictions": [11.0]}',
        "all is at home",
        "line-4",
    ):
        assert words in said, words
    out = (stage.folder / "line-4" / "out.csv").read_text()
    assert out == "size,colour,prediction\n1,red,11.0\n2,blue,2.0\n"
    assert (edge["edge"], edge["version"], edge["problem"]) == ("line-4", 1, None)
    reports = stage.log.read(EdgeReported)
    mine = [event for event in reports if event.edge == "line-4"]
    assert {event.reported_by for event in mine} == {"line-4"}


def report(stage: Stage, edge: str, **more: Any) -> dict[str, Any]:
    path = ROOT / "libs/contracts/examples/edge-reported.json"
    own = {"edge": edge, "version": 1, "package_digest": stage.trained.package.digest}
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) | own | more
    return found


def send(stage: Stage, content: dict[str, Any]) -> None:
    """Send a report with the token that the page has made."""
    token = (stage.folder / "token").read_text().strip()
    sent = stage.ingest.client.post(
        f"/v1/pipelines/{NAME}/edge-reports",
        json=content,
        headers={"authorization": f"Bearer {token}"},
    )
    assert sent.status_code == 202, sent.text


@pytest.mark.usefixtures("followed")
def test_a_report_that_comes_again_counts_once(stage: Stage) -> None:
    """Its answer was lost, so the runner sends it again; another one counts."""
    for _ in range(3):
        send(stage, report(stage, "line-9", row_count=7))
    send(stage, report(stage, "line-9", row_count=100, report_id="0" * 32))

    def rows() -> int:
        return sum(e["row_count"] for e in stage.edges() if e["edge"] == "line-9")

    wait_until(lambda: rows() >= 107)
    assert rows() == 107
    reports = stage.log.read(EdgeReported)
    assert sum(event.edge == "line-9" for event in reports) == 2


@pytest.mark.usefixtures("followed")
def test_rows_come_by_the_door_that_all_rows_come_by(stage: Stage) -> None:
    """A sample of what was asked becomes a batch of the runner's own source."""
    folder = stage.folder / "line-4"
    environment = {
        "DRIFTLOOP_EDGE_HOME": stage.ingest.url,
        "DRIFTLOOP_EDGE_NAME": "line-4",
        "DRIFTLOOP_EDGE_TOKEN_FILE": "../token",
        "DRIFTLOOP_EDGE_SAMPLE_ROWS": "5",
        "PATH": os.environ["PATH"],
    }
    (stage.folder / "rows.csv").write_text("id,size,colour\nr1,1,red\nr2,2,blue\n")
    for words in ("score ../rows.csv ../answers.csv", "send"):
        done = subprocess.run(
            [str(folder / ".venv/bin/python"), "runner.py", *words.split()],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=100,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def came() -> list[Any]:
        batches = stage.log.read(BatchIngested)
        return [event for event in batches if event.shard == "edge-line-4"]

    wait_until(lambda: bool(came()))
    [batch] = came()
    assert sorted(batch.rows.column("id").to_pylist()) == ["r1", "r2"]


@pytest.mark.usefixtures("followed")
def test_people_are_told_of_a_version_that_is_taken_back(stage: Stage) -> None:
    send(stage, report(stage, "line-7"))
    wait_until(lambda: any(edge["edge"] == "line-7" for edge in stage.edges()))
    common = {"pipeline": NAME, "rollout_id": "r1", "version": 1, "generation": 1}
    deployed = ModelDeployed(package=stage.trained.package, **common)
    back = ModelRolledBack(reason="worse", restored=None, **common)
    stage.log.publish(with_id(deployed, str(uuid.uuid4())))
    wait_until(lambda: stage.version() == "deployed")
    stage.log.publish(with_id(back, str(uuid.uuid4())))

    def told() -> list[str]:
        alerts = stage.log.read(AlertRaised)
        return [a.detail for a in alerts if "was taken back and answers" in a.title]

    wait_until(lambda: any("line-4" in detail for detail in told()))
    assert any("line-4" in detail and "line-7" in detail for detail in told())
    assert {edge["problem"] for edge in stage.edges()} == {"was taken back"}
