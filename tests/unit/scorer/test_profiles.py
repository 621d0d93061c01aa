"""What versions and the door cost is measured, kept for the machine, and told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.profile import BatchCost, VersionProfile
from driftloop.models.trial import Figures
from driftloop.runtime.database import open_database
from driftloop.scorer import profiles
from driftloop.scorer.answering import Traffic
from driftloop.scorer.profiles import (
    Meter,
    Taken,
    keep_profile,
    kept_profile,
    machine_name,
    profile_of,
)
from driftloop.scorer.tables import ScorerTried
from pydantic import ValidationError
from sqlalchemy import Engine

from tests.unit.scorer.door import Door
from tests.unit.scorer.packages import Factory

COST = BatchCost(rows=1, calls=9, p50_seconds=1, p99_seconds=2, memory_bytes=3)
FIGURES = Figures(
    p50_ms=1, p99_ms=2, hundred_rows_ms=3, memory_mib=4, child_bytes=5, batches=(COST,)
)
DIGEST = "0" * 64


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(f"sqlite:///{tmp_path}/scorer.db", [ScorerTried])
    yield engine
    engine.dispose()


def test_a_profile_is_kept_for_the_package_and_the_machine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine, or another package, has to be tried by itself."""
    assert kept_profile(engine, DIGEST) is None
    profile = profile_of(FIGURES)
    keep_profile(engine, DIGEST, profile)
    assert kept_profile(engine, DIGEST) == profile
    assert profile.machine == machine_name()
    assert kept_profile(engine, "1" * 64) is None
    monkeypatch.setattr(profiles, "machine_name", lambda: "another, 3 CPUs")
    assert kept_profile(engine, DIGEST) is None


def test_a_machine_has_a_name_with_and_without_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "cpuinfo"
    said.write_text("processor : 0\nmodel name\t: Fast 9\nmodel name\t: Fast 9\n")
    monkeypatch.setattr(profiles, "CPU_INFO", said)
    assert profiles._processor() == "Fast 9"
    monkeypatch.setattr(profiles, "CPU_INFO", tmp_path / "none")
    assert profiles._processor()


def test_the_sizes_of_a_profile_are_in_order() -> None:
    more = COST.model_copy(update={"rows": 2})
    fine = {"machine": "a", "onnx_runtime": "1", "batches": [COST, more]}
    assert VersionProfile.model_validate(fine)
    for wrong in ([more, COST], [COST, COST], []):
        with pytest.raises(ValidationError):
            VersionProfile.model_validate(fine | {"batches": wrong})


def spend(seconds: float) -> None:
    """Use the processor for so long, however busy the machine is."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def test_the_models_time_is_not_the_doors() -> None:
    """What a thread does between two requests counts, but for the model's calls."""
    meter = Meter()
    assert meter.taken() is None
    spend(0.02)
    with meter.model_call():
        spend(0.2)
    taken = meter.taken()
    assert taken
    assert 0.02 <= taken.door < 0.2 <= taken.model
    spend(0.2)
    again = meter.taken()
    assert again
    assert again.door >= 0.2  # control: the same, and not the model's
    assert again.model == 0


def test_each_thread_is_metered_by_itself() -> None:
    meter, found = Meter(), []
    meter.taken()
    other = threading.Thread(target=lambda: found.append(meter.taken()))
    other.start()
    other.join()
    assert found == [None]


def test_waiting_costs_the_door_nothing() -> None:
    meter = Meter()
    meter.taken()
    time.sleep(0.3)
    taken = meter.taken()
    assert taken
    assert taken.door < 0.1


def test_traffic_tells_the_doors_mean() -> None:
    traffic, key = Traffic(), ("bikes", 3, 1)
    traffic.add(key, "champion", 5, 0.01, None)  # the first of a thread: not known
    traffic.add(key, "champion", 1, 0.01, None, Taken(0.002, 0.5))
    traffic.add(key, "champion", 3, 0.01, None, Taken(0.004, 0.7))
    ((report,),) = traffic.drain().values()
    assert report.row_count == 9
    assert report.door
    assert (report.door.requests, report.door.rows) == (2, 2)
    assert report.door.seconds == pytest.approx(0.003)
    assert report.door.model_seconds == pytest.approx(0.6)
    traffic.add(key, "champion", 5, 0.01, None)
    ((alone,),) = traffic.drain().values()
    assert alone.door is None


def test_requests_at_the_door_are_metered(tmp_path: Path) -> None:
    factory = Factory(tmp_path)
    door = Door(factory.loaded(1, 1.0))
    record: dict[str, Any] = {"size": 1.0, "colour": "red"}
    for _ in range(5):
        door.invoke(record, record)
    ((report,),) = door.traffic.drain().values()
    assert report.call_count == 5
    assert report.door
    assert 1 <= report.door.requests <= 5
    assert report.door.rows == 2
    assert report.door.seconds > 0
    assert report.door.model_seconds > 0
