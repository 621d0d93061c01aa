"""The publishers of docs/guides/publishers.md, each against a broker and ingest."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from driftloop.contracts.events import BatchIngested, PipelineApplied
from driftloop.contracts.pipeline import load_pipeline
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from prometheus_client.parser import text_string_to_metric_families

from tests.component.processes import TOKEN, Log, ServiceProcess, with_id
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/publishers"
BUILD_TIMEOUT_S = 400
RUN_TIMEOUT_S = 120
NOBODY = "127.0.0.1:1"


@dataclass(frozen=True)
class Language:
    """How a publisher is built and run, in a copy of its folder."""

    tools: tuple[str, ...]
    run: tuple[str, ...]
    build: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    version: tuple[str, ...] = ()
    least: tuple[int, int] = (0, 0)

    def missing(self) -> str | None:
        """Say what this machine lacks."""
        if absent := [tool for tool in self.tools if not shutil.which(tool)]:
            return ", ".join(absent)
        if self.version and (found := version_of(self.version)) < self.least:
            return f"{self.version[0]} {self.least}, here is {found}"
        return None


def version_of(command: tuple[str, ...]) -> tuple[int, int]:
    """Return major and minor version, as a tool prints them first."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    )
    found = re.search(r"(\d+)\.(\d+)", done.stdout + done.stderr)
    assert found, done
    return int(found[1]), int(found[2])


LANGUAGES = {
    "python": Language((), (sys.executable, "publish.py")),
    "java": Language(
        ("java", "javac", "mvn"),
        ("java", "-cp", "target/classes:target/dependency/*", "Publish"),
        ("mvn", "-q", "-B", "compile", "dependency:copy-dependencies"),
        version=("java", "-version"), least=(17, 0),
    ),
    "go": Language(
        ("go",), ("./publisher",), ("go", "build", "-o", "publisher", "."),
        {"GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local"},
        ("go", "version"), (1, 26),
    ),
    "node": Language(
        ("node", "npm"), ("node", "publish.js"),
        ("npm", "install", "--no-audit", "--no-fund", "--loglevel=error"),
        version=("node", "--version"), least=(20, 19),
    ),
    "curl": Language(("curl",), ("sh", "publish.sh")),
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    kafka: KafkaNode
    log: Log
    ingest: ServiceProcess

    def apply(self, name: str) -> None:
        """Put the bikes' pipeline into force under another name."""
        spec = load_pipeline(ROOT / "examples/bike-demand/pipeline.yaml")
        spec = spec.model_copy(update={"name": name})
        event = PipelineApplied(pipeline=name, spec=spec, applied_by="test")
        self.log.publish(with_id(event, f"applied-{name}"))
        url = f"/v1/pipelines/{name}/sources"
        wait_until(lambda: self.ingest.client.get(url).status_code == 200)

    def counted(self, pipeline: str, kind: str, outcome: str) -> int:
        """Return how many rows ingest has counted."""
        wanted = {"pipeline": pipeline, "kind": kind, "outcome": outcome}
        page = self.ingest.client.get("/metrics").text
        return sum(
            int(sample.value)
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "driftloop_ingest_rows_total" and sample.labels == wanted
        )

    def batches(self, pipeline: str, kind: str) -> list[BatchIngested]:
        return [
            event
            for event in self.log.read(BatchIngested, pipeline=pipeline)
            if isinstance(event, BatchIngested)
            and event.kind == kind
            and event.row_count
        ]


@pytest.fixture(scope="module")
def stage(
    kafka: KafkaNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("publishers")
    create_topics(kafka.bootstrap)
    log = Log(kafka.bootstrap, home)
    with ServiceProcess("ingest", home, kafka.bootstrap) as ingest:
        yield Stage(kafka, log, ingest)
    log.close()


@dataclass(frozen=True)
class Program:
    """A publisher that is built, in a folder of its own."""

    language: Language
    folder: Path

    def publish(
        self, pipeline: str, broker: str, ingest_url: str
    ) -> subprocess.CompletedProcess[str]:
        return self._run(
            (*self.language.run, str(EXAMPLES)), RUN_TIMEOUT_S,
            DRIFTLOOP_PIPELINE=pipeline, DRIFTLOOP_BROKER=broker,
            DRIFTLOOP_INGEST_URL=ingest_url, DRIFTLOOP_API_TOKEN=TOKEN,
        )  # fmt: skip

    def build(self) -> None:
        if self.language.build:
            done = self._run(self.language.build, BUILD_TIMEOUT_S)
            assert done.returncode == 0, done.stdout + done.stderr

    def _run(
        self, command: tuple[str, ...], timeout_s: float, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True,
            timeout=timeout_s, check=False,
            env={**os.environ, **self.language.environment, **environment},
        )  # fmt: skip


@pytest.fixture(scope="module", params=LANGUAGES)
def program(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Program:
    """Each language in turn, built once; skipped where its tools are missing."""
    name: str = request.param
    language = LANGUAGES[name]
    if missing := language.missing():
        pytest.skip(f"the publisher in {name} needs {missing}")
    folder = tmp_path_factory.mktemp("publisher") / name
    built = shutil.ignore_patterns("node_modules", "target", "publisher")
    shutil.copytree(EXAMPLES / name, folder, ignore=built)
    program = Program(language, folder)
    program.build()
    return program


def rows_of(kind: str) -> list[dict[str, object]]:
    text = (EXAMPLES / f"{kind}.ndjson").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_rows_are_ingested_once_though_sent_twice(
    stage: Stage, program: Program, unique_name: Callable[[str], str]
) -> None:
    """Both batches, with every value and under their source; the repeat adds none."""
    pipeline = unique_name("publisher")
    stage.apply(pipeline)
    kinds = ("observations", "labels")
    for time in (1, 2):
        done = program.publish(pipeline, stage.kafka.bootstrap, stage.ingest.url)
        assert done.returncode == 0, done.stdout + done.stderr
        outcome = "new" if time == 1 else "duplicate"
        for kind in kinds:
            count = len(rows_of(kind))
            wait_until(
                lambda kind=kind, count=count, outcome=outcome: (
                    stage.counted(pipeline, kind, outcome) == count
                )
            )
    for kind in kinds:
        (batch,) = stage.batches(pipeline, kind)
        assert batch.shard == "city-counter"
        found = batch.rows.to_pylist()
        for row, sent in zip(found, rows_of(kind), strict=True):
            sent.pop("time")
            assert {name: row[name] for name in sent} == sent


def test_a_publisher_fails_loudly_where_nobody_listens(program: Program) -> None:
    """Negative control: no broker and no door, and the exit status says so."""
    done = program.publish("bike-demand", NOBODY, f"http://{NOBODY}")
    assert done.returncode != 0
    assert "published" not in done.stdout
