"""The loop turns, on real data, while every service is killed at random moments.

One run serves all tests of this module: fifteen months of the demo's data with its
staged fault, and a kill -9 of each service at a moment that the printed seed gives.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from driftloop.cli import data, models
from driftloop.cli.context import Installation
from driftloop.cli.demo.report import checks, errors_by_month
from driftloop.cli.demo.run import first_model, followed, settle
from driftloop.cli.demo.scenario import FAULT_END, FAULT_START, Board, Scenario
from driftloop.cli.packages import work as packages
from driftloop.cli.why import tell
from driftloop.contracts import events as e
from driftloop.contracts.pipeline import load_pipeline
from driftloop.contracts.topics import SERVICES
from driftloop.local import stack
from support import plain

EXAMPLE = Path(__file__).parents[2] / "examples" / "bike-demand"
UNTIL = datetime(2012, 4, 1, tzinfo=UTC)
SPEED_DAYS_PER_S = 6.0
QUIET_TIMEOUT_S = 180.0

pytestmark = [pytest.mark.timeout(1200), pytest.mark.broker]


@dataclass
class Run:
    installation: Installation
    scenario: Scenario
    board: Board
    killed: dict[str, int] = field(default_factory=dict)


def kill_each(home: Path, run: Run, seed: int, stop: threading.Event) -> None:
    """Kill each service once, at a random share of the way."""
    rng = random.Random(seed)
    begin = run.scenario.parts[0].due
    for share, name in sorted((rng.uniform(0.05, 0.9), name) for name in SERVICES):
        moment = begin + share * (UNTIL - begin)
        while not stop.is_set():
            reached = run.board.validated_until
            if reached is not None and reached >= moment:
                break
            time.sleep(0.1)
        pid = stack.status(home)["processes"][name]["pid"]
        if pid and not stop.is_set():
            os.kill(pid, signal.SIGKILL)
            run.killed[name] = pid


@pytest.fixture(scope="module")
def run(home: Path, installation: Installation) -> Iterator[Run]:
    seed = int(os.environ.get("DRIFTLOOP_TEST_SEED", time.time_ns() % 10**6))
    print(f"kill moments: DRIFTLOOP_TEST_SEED={seed}")  # noqa: T201 - to repeat a run
    spec = load_pipeline(EXAMPLE / "pipeline.yaml")
    data.apply(installation, EXAMPLE / "pipeline.yaml")
    scenario = Scenario.load(EXAMPLE, spec, UNTIL)
    result = Run(installation, scenario, Board(spec.name))
    stop = threading.Event()
    sender = data.publisher(installation)
    with followed(installation, result.board):
        killer = threading.Thread(target=kill_each, args=(home, result, seed, stop))
        killer.start()
        try:
            scenario.publish(
                sender, result.board, SPEED_DAYS_PER_S, lambda _: None, stop
            )
            settle(result.board, scenario)
        finally:
            stop.set()
            killer.join()
            sender.close()
        yield result


def of(run: Run, kind: type) -> list:
    return [entry.event for entry in run.board.of(kind)]


def ids_of(run: Run, kind: type, row_kind: str) -> list[str]:
    batches = [event.rows for event in of(run, kind) if event.kind == row_kind]
    return [row for batch in batches for row in batch.column("id").to_pylist()]


def test_each_service_was_killed(run: Run) -> None:
    """Without this the tests below would prove nothing."""
    assert set(run.killed) == set(SERVICES)


def test_the_demo_keeps_its_promises(run: Run) -> None:
    first = first_model(run.installation, run.board)
    errors = errors_by_month(run.scenario, run.board, first)
    failed = [check.text for check in checks(run.board, errors) if not check.holds]
    assert failed == []


def test_no_version_and_no_rollout_twice(run: Run) -> None:
    trained = Counter(event.job_id for event in of(run, e.ModelTrained))
    registered = Counter(event.job_id for event in of(run, e.ModelRegistered))
    versions = Counter(event.version for event in of(run, e.ModelRegistered))
    deployed = Counter(event.version for event in of(run, e.ModelDeployed))
    for counts in (trained, registered, versions, deployed):
        assert set(counts.values()) == {1}
    assert trained == registered
    assert sorted(versions) == list(range(1, len(versions) + 1))


def test_no_row_is_lost_and_none_comes_twice(run: Run) -> None:
    published = sorted(run.scenario.rows[run.scenario.spec.data.id])
    for kind in ("observations", "labels"):
        assert sorted(ids_of(run, e.BatchIngested, kind)) == published
        good = ids_of(run, e.BatchValidated, kind)
        bad = ids_of(run, e.BatchRejected, kind)
        assert sorted(good + bad) == published


def test_the_fault_and_only_the_fault_is_quarantined(run: Run) -> None:
    rows = run.scenario.rows
    times = rows[run.scenario.spec.data.time].str.to_datetime(time_zone="UTC")
    wrong = rows.filter((times >= FAULT_START) & (times < FAULT_END))
    wrong = wrong.filter(pl.col("temp") > 1)
    assert wrong.height > 0
    assert sorted(ids_of(run, e.BatchRejected, "observations")) == sorted(wrong["id"])


def test_the_dataset_counts_each_validated_row_once(run: Run) -> None:
    count = max(event.observation_count for event in of(run, e.DatasetVersioned))
    assert count == len(ids_of(run, e.BatchValidated, "observations"))


def test_why_tells_the_whole_chain_in_one_trace(run: Run) -> None:
    entries = sorted(run.board.entries, key=lambda entry: entry.meta.time)
    story = tell(entries, run.scenario.spec.name, run.board.champion)
    assert {
        "batch-ingested",
        "batch-validated",
        "drift-detected",
        "training-started",
        "model-trained",
        "model-registered",
        "model-approved",
        "rollout-advanced",
        "model-deployed",
    } <= {entry.topic for entry in story.entries}
    assert len(story.trace_ids) == 1
    assert story.missing_causes <= upstream_causes(run)
    assert models.story_json(story)["events"]


def test_the_champion_is_made_again_byte_by_byte(run: Run) -> None:
    """By the program, from the champion's package and the recorded rows."""
    asked = f"{run.scenario.spec.name}/{run.board.champion}"
    home = str(run.installation.home)
    start = "from driftloop.cli.app import main; main()"
    program = [sys.executable, "-c", start, "reproduce", asked]
    ended = subprocess.run(
        [*program, "--home", home, "--json"], capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    assert found["recorded_digest"] == found["found_digest"]
    bom = json.loads(packages.bom(run.installation, asked, None))
    model = bom["metadata"]["component"]
    assert model["pedigree"]["ancestors"]
    listed = {
        part["name"]: part["hashes"][0]["content"] for part in model["components"]
    }
    recorded = {file["name"]: file["recorded"] for file in found["files"]}
    assert listed.items() <= recorded.items()


def upstream_causes(run: Run) -> set[str | None]:
    """Chunks of the door's topics, which are not events of ours."""
    return {entry.meta.causation_id for entry in run.board.of(e.BatchIngested)}


def test_every_cause_is_in_the_log(run: Run) -> None:
    known = {entry.meta.id for entry in run.board.entries} | upstream_causes(run)
    lost = [
        (entry.topic, entry.meta.causation_id)
        for entry in run.board.entries
        if entry.meta.causation_id is not None and entry.meta.causation_id not in known
    ]
    assert lost == []


def test_the_same_file_again_changes_nothing(run: Run) -> None:
    """Published again: no row comes twice, and no version is made."""

    def counts() -> tuple[int, int, int]:
        return (
            len(of(run, e.ModelRegistered)),
            len(of(run, e.DatasetVersioned)),
            len(ids_of(run, e.BatchIngested, "observations")),
        )

    before = counts()
    sender = data.publisher(run.installation)
    nothing = Board(run.scenario.spec.name)
    run.scenario.publish(sender, nothing, 1e6, lambda _: None, threading.Event())
    sender.close()
    wait_until_ingested(run)
    assert counts() == before


def wait_until_ingested(run: Run) -> None:
    """Wait until ingest has had no lag for a while."""
    url = stack.status(run.installation.home)["urls"]["ingest"]
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    quiet = 0
    while quiet < 6:
        assert time.monotonic() < deadline, "ingest did not come to rest"
        quiet = quiet + 1 if plain.get(f"{url}/readyz").json()["lag"] == 0 else 0
        time.sleep(0.5)
