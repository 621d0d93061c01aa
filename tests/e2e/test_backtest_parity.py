"""A backtest over what a live run recorded decides what the live run decided.

A pipeline runs on the whole installation, from the door to the rollout, and its law
changes on the way. Event time stands still until every service has done with what came,
as a backtest has it. What may differ all the same is said in docs/backtest.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from driftloop.cli import data
from driftloop.cli.context import Installation
from driftloop.cli.demo.run import followed
from driftloop.cli.demo.scenario import Board
from driftloop.cli.publish import Part, plan, record_of
from driftloop.contracts import events as e
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.topics import SERVICES
from driftloop.runtime.follower import bounds_of
from driftloop.runtime.handlers import handler_table

from tests.unit.backtest import town

NAME, ROWS = "parity", 1000
BATCH, LABEL_DELAY = timedelta(hours=24), timedelta(hours=6)
SETTLE_TIMEOUT_S, POLL_S = 120.0, 0.1
LONG_AGO = datetime.min.replace(tzinfo=UTC)
"""A moment that no service is behind: what counts are trainings and loading."""
Decisions = dict[str, list[tuple[Any, ...]]]

pytestmark = [pytest.mark.timeout(1200), pytest.mark.broker, pytest.mark.slow]


def spec() -> PipelineSpec:
    return town.spec().model_copy(update={"name": NAME})


@dataclass
class Live:
    """A run: what was published when, and the log."""

    installation: Installation
    file: Path
    board: Board = field(default_factory=lambda: Board(NAME))
    steps: list[tuple[datetime, int]] = field(default_factory=list)

    def row_at(self, moment: datetime) -> int:
        """Return how many rows had been published at a moment."""
        times = [at for at, _ in self.steps]
        return self.steps[bisect_right(times, moment) - 1][1]


class Services:
    """Who reads what, and whether all of it is done."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap, self._admin = (
            bootstrap,
            AdminClient({"bootstrap.servers": bootstrap}),
        )
        self._topics = {
            name: handler_table(handlers).topics
            for name in SERVICES
            if (handlers := import_module(f"driftloop.{name}.handlers").HANDLERS)
        }

    def are_done(self) -> bool:
        """Whether every message is handled, and what came of it is published.

        A service commits an offset once its answers are acknowledged.
        """
        read = sorted({topic for topics in self._topics.values() for topic in topics})
        ends = bounds_of(self._bootstrap, read)
        for name, topics in self._topics.items():
            places = [
                p for p, (low, high) in ends.items() if p[0] in topics and high > low
            ]
            if not places:
                continue
            group = f"driftloop-{name}"
            asked = ConsumerGroupTopicPartitions(
                group, [TopicPartition(*place) for place in places]
            )
            found = self._admin.list_consumer_group_offsets([asked])[group].result()
            if any(p.offset < ends[p.topic, p.partition][1]
                   for p in found.topic_partitions):  # fmt: skip
                return False
        return True


def settle(live: Live, services: Services) -> None:
    """Wait until nothing is under way: no message, no training, no loading."""
    deadline, quiet = time.monotonic() + SETTLE_TIMEOUT_S, 0
    seen = -1
    while quiet < 2:
        assert time.monotonic() < deadline, (live.board.running_jobs, live.steps[-1:])
        count = len(live.board.entries)
        is_done = not live.board.is_behind(LONG_AGO) and services.are_done()
        quiet = quiet + 1 if is_done and count == seen else 0
        seen = len(live.board.entries) if is_done else -1
        time.sleep(POLL_S)


@pytest.fixture(scope="module")
def live(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("parity")
    file = folder / "pipeline.yaml"
    said = spec().model_dump(mode="json", exclude_unset=True)
    file.write_text(yaml.safe_dump(said))
    data.apply(installation, file)
    run, services = Live(installation, file), Services(installation.bootstrap)
    frame = pl.from_arrow(town.rows(ROWS))
    assert isinstance(frame, pl.DataFrame)
    frame = frame.drop("source")
    sender = data.publisher(installation)
    try:
        with followed(installation, run.board):
            rows = 0
            for part in plan(frame, spec(), BATCH, LABEL_DELAY):
                rows += 0 if part.is_labels else part.rows.height
                run.steps.append((datetime.now(UTC), rows))
                sender.publish([_record(part)])
                settle(run, services)
            yield run
    finally:
        sender.close()


def _record(part: Part) -> Any:
    return record_of(part, NAME, "town", "parity")


def recorded(live: Live) -> Decisions:
    """Return what was decided live, of each kind in order, with the rows by then."""
    found: Decisions = defaultdict(list)
    kinds = (
        e.DriftDetected, e.TrainingStarted, e.TrainingSkipped, e.TrainingFailed,
        e.ModelRegistered, e.ModelDeployed, e.ModelRolledBack,
    )  # fmt: skip
    for entry in live.board.of(*kinds):
        row = live.row_at(entry.meta.time)
        match entry.event:
            case e.DriftDetected() as said:
                advised = said.retrain_advised
                when = said.detected_at.isoformat()
                found["drift"].append((row, said.cause, advised, when))
            case e.TrainingStarted() as said:
                spans = [said.train_span, said.holdout_span]
                ends = [[s.start.isoformat(), s.end.isoformat()] for s in spans]
                found["training"].append((row, said.trigger.reason, ends))
            case e.TrainingSkipped() as said:
                found["skip"].append((row, said.trigger.reason, said.reason))
            case e.TrainingFailed():
                found["failed"].append((row,))
            case e.ModelRegistered() as said:
                failed = [
                    c.name for c in said.gate if not c.passed and c.severity != "warn"
                ]
                loss = pytest.approx(said.evaluation.candidate, rel=1e-9)
                count = said.evaluation.holdout_row_count
                found["trained"].append((row, said.version, count, failed, loss))
            case e.ModelDeployed() as said:
                found["deployed"].append((row, said.version))
            case e.ModelRolledBack() as said:
                found["taken_back"].append((row, said.version))
    return dict(found)


FIELDS = {
    "drift": ("row", "cause", "advised", "detected_at"),
    "training": ("row", "reason", "spans"),
    "skip": ("row", "cause", "reason"),
    "failed": ("row",),
    "trained": ("row", "version", "holdout_rows", "failed_checks", "loss"),
    "deployed": ("row", "version"),
    "taken_back": ("row", "version"),
}


def simulated(line: dict[str, Any]) -> Decisions:
    """Return what a policy decided in the backtest, in the same form."""
    found: Decisions = defaultdict(list)
    for entry in line["timeline"]:
        if names := FIELDS.get(entry["what"]):
            found[entry["what"]].append(tuple(entry[name] for name in names))
    return dict(found)


def backtested(live: Live, *options: str) -> dict[str, Any]:
    """Run the program as a person does."""
    start = "from driftloop.cli.app import main; main()"
    asked = ["backtest", str(live.file), "--from", f"{NAME}@latest", "--no-bounds",
             "--home", str(live.installation.home), "--json", *options]  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", start, *asked], capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_the_policy_that_ran_decides_as_it_did_live(live: Live) -> None:
    """Verdicts, trainings and their rows, gate and versions; another policy differs."""
    patient = live.file.with_name("patient.yaml")
    patient.write_text("retrain: {cooldown_days: 365}\nmonitor: {window_rows: 280}\n")
    report = backtested(live, "--policy", str(patient))
    was, found = recorded(live), simulated(town.line(report, "pipeline"))
    assert len(was["training"]) >= 2
    assert {cause for _, cause, *_ in was["drift"]} >= {"concept_drift"}
    assert found == was
    other = simulated(town.line(report, "patient"))
    assert other["training"] != was["training"]
    assert other["drift"] != was["drift"]


def test_another_rhythm_than_the_recorded_one_decides_otherwise(live: Live) -> None:
    """The batches and the delay of labels come from the record, and matter."""
    report = backtested(live, "--batch-rows", "100", "--label-delay-hours", "48")
    assert simulated(town.line(report, "pipeline")) != recorded(live)
