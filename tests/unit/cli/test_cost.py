"""What is counted as a model's cost, once and under the right version."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from driftloop.cli.cost.command import cost_view
from driftloop.cli.cost.work import Cost, Tally, package_bytes
from driftloop.cli.log import Entry
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    BatchScored,
    ModelRegistered,
    PackageRef,
    RequestsAnswered,
    Span,
    TrainingCancelled,
    TrainingFailed,
    Trigger,
)
from driftloop.runtime.artifacts import FolderStore
from rich.console import Console

from tests.unit.registry import story
from tests.unit.scorer.packages import Factory

START = datetime(2026, 1, 1, tzinfo=UTC)
TRIGGER = Trigger(event_id="e", event_type="t", reason="first_model")
PACKAGE = PackageRef(uri="artifact:sha256/" + "0" * 64, digest="0" * 64, signer="s")


def entry(event: Event, event_id: str, day: int = 0) -> Entry:
    meta = story.meta(event_id)
    meta = type(meta)(event_id, START + timedelta(days=day), meta.source, meta.chain)
    return Entry(event.with_meta(meta), meta)


def registered(job: str, version: int) -> Event:
    return ModelRegistered(
        pipeline=story.NAME, version=version, job_id=job, package=PACKAGE,
        algorithm="linear", evaluation=story.evaluation(), gate=[],
    )  # fmt: skip


def trained(tmp_path: Path, job: str, cpu_seconds: float) -> Event:
    event = story.trained(Factory(tmp_path / job), job)
    return event.model_copy(update={"cpu_seconds": cpu_seconds})


def rows(count: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": [str(n) for n in range(count)]})


def scored(count: int, **versions: int) -> Event:
    return BatchScored(
        pipeline=story.NAME, shard="s", row_count=count, duration_seconds=0.1,
        span=Span(start=START, end=START), **versions,
    ).with_rows(rows(count))  # fmt: skip


def asked(count: int, version: int) -> Event:
    return RequestsAnswered(
        pipeline=story.NAME, shard="s", row_count=1, asked_count=count,
        version=version, span=Span(start=START, end=START),
    ).with_rows(rows(1))  # fmt: skip


def counted(entries: list[Entry], since: datetime | None = None) -> Cost:
    tally = Tally(since)
    for one in entries:
        tally.take(one)
    ((cost, _),) = tally.costs()
    return cost


def everything(tmp_path: Path) -> list[Entry]:
    failed = TrainingFailed(
        pipeline=story.NAME, job_id="c", trigger=TRIGGER, error="x", attempts=2,
        cpu_seconds=3,
    )  # fmt: skip
    cancelled = TrainingCancelled(
        pipeline=story.NAME, job_id="d", trigger=TRIGGER, cancelled_by="ann",
        reason="r",
    )  # fmt: skip
    return [
        entry(registered("a", 1), "a-registered"),
        entry(trained(tmp_path, "a", 10), "a-trained"),
        entry(trained(tmp_path, "b", 20), "b-trained", 5),
        entry(registered("b", 2), "b-registered", 5),
        entry(failed, "failed", 6),
        entry(cancelled, "cancelled", 6),
        entry(scored(4, champion_version=1, candidate_version=2), "s1", 5),
        entry(scored(2, champion_version=2), "s2", 7),
        entry(asked(7, 1), "asked", 1),
    ]


def test_each_version_bears_what_it_took(tmp_path: Path) -> None:
    """In any order of the topics, and a repeated event counts once."""
    entries = everything(tmp_path)
    cost = counted(entries)
    assert counted([*reversed(entries), *entries]) == cost
    first, second = cost.versions
    assert (first.training_cpu_seconds, second.training_cpu_seconds) == (10, 20)
    assert (first.stream_rows, second.stream_rows) == (4, 6)
    assert (first.asked_rows, second.asked_rows) == (7, 0)
    assert (cost.failed_count, cost.failed_cpu_seconds, cost.cancelled_count) == (
        1,
        3,
        1,
    )
    assert cost.cpu_seconds == 33


def test_since_leaves_out_what_was_before(tmp_path: Path) -> None:
    """The first version is still there, and has cost nothing since."""
    cost = counted(everything(tmp_path), START + timedelta(days=5))
    first, second = cost.versions
    assert (first.training_cpu_seconds, first.asked_rows) == (0, 0)
    assert second.training_cpu_seconds == 20
    assert cost.rows_from == START + timedelta(days=5)


def test_a_model_that_is_not_registered_is_not_lost(tmp_path: Path) -> None:
    cost = counted([entry(trained(tmp_path, "a", 10), "a")])
    assert cost.versions == []
    assert cost.unregistered_cpu_seconds == cost.cpu_seconds == 10


def test_a_package_is_as_large_as_its_objects(tmp_path: Path) -> None:
    """Envelope and files; None where it is gone, or is no package."""
    factory = Factory(tmp_path)
    event = story.trained(factory, "a")
    found = sum(one.size_bytes for one in factory.store.stored())
    assert package_bytes(event.package, factory.store) == found
    assert package_bytes(PACKAGE, factory.store) is None
    other = FolderStore(tmp_path / "other")
    ref = other.put(b'{"payload": "e30="}')
    package = PACKAGE.model_copy(update={"uri": ref.uri})
    assert package_bytes(package, other) is None


def test_people_and_programs_read_the_same(tmp_path: Path) -> None:
    cost = counted(everything(tmp_path))
    cost.dataset_bytes = 1536
    text = io.StringIO()
    Console(file=text, width=80).print(cost_view([cost]))
    shown = text.getvalue()
    for part in ("33.0 s of CPU", "v2", "1.5 KiB", "failed: 1, 3.0 s", "cancelled: 1"):
        assert part in shown, shown
    said: dict[str, Any] = json.loads(json.dumps(cost.as_json(), default=str))
    assert said["cpu_seconds"] == 33
    assert said["versions"][1]["stream_rows"] == 6
