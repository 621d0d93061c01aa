"""The loop turns, on real data, while every service is killed at random moments.

What runs is in ``loop.py``.
"""

import json
import subprocess
import sys
import threading
import time
from collections import Counter

import polars as pl
import pytest
from driftloop.cli import data, models
from driftloop.cli.demo.report import checks, errors_by_month
from driftloop.cli.demo.run import first_model
from driftloop.cli.demo.scenario import FAULT_END, FAULT_START, Board
from driftloop.cli.packages import work as packages
from driftloop.cli.why import tell
from driftloop.contracts import events as e
from driftloop.contracts.topics import SERVICES
from driftloop.local import stack
from support import plain

from tests.e2e.loop import Run

QUIET_TIMEOUT_S = 180.0

pytestmark = [pytest.mark.timeout(1200), pytest.mark.broker]


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
