"""The loop on two real years of bike rentals: what the monitor's verdicts are worth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from driftloop.contracts.events import DriftDetected
from driftloop.contracts.pipeline import PipelineSpec, load_pipeline
from threadpoolctl import threadpool_limits

from tests.component.monitor_replay import Town, read_days
from tests.unit.monitor.story import InProcess

EXAMPLE = Path(__file__).parents[2] / "examples" / "bike-demand"
FAULT = (datetime(2011, 9, 5, tzinfo=UTC), datetime(2011, 9, 12, tzinfo=UTC))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def two_years() -> tuple[PipelineSpec, Town]:
    spec = load_pipeline(EXAMPLE / "pipeline.yaml")
    return spec, Town(spec, read_days(EXAMPLE / "rentals.csv"), fault=FAULT)


@pytest.fixture(scope="module")
def replayed() -> tuple[Town, InProcess]:
    """The loop as the pipeline file says, with a week of another unit."""
    _, town = two_years()
    with threadpool_limits(1):
        return town, town.run()


@pytest.fixture(scope="module")
def never() -> Town:
    """The first version for two years, monitored by nobody."""
    _, town = two_years()
    town.retrains = False
    town.is_watched = False
    with threadpool_limits(1):
        town.run()
    return town


def test_the_loop_is_far_better_than_no_retraining(
    replayed: tuple[Town, InProcess], never: Town
) -> None:
    """Over the second year the error is less than half of the frozen model's."""
    town, _ = replayed
    assert town.relative_error("2012") < 0.5 * never.relative_error("2012")
    assert town.relative_error("2012") < 0.3


def test_it_retrains_now_and_then(replayed: tuple[Town, InProcess]) -> None:
    """As often as the year needs: not monthly, and not once."""
    town, _ = replayed
    assert 5 <= len(town.trainings) <= 18, town.trainings
    assert len(town.versions) >= 5


def test_the_fault_is_one_verdict_and_no_training(
    replayed: tuple[Town, InProcess],
) -> None:
    """A week of temp in another unit: told once, soon, and never a reason to train."""
    _, monitor = replayed
    verdicts = monitor.of(DriftDetected)
    temp = [e for e in verdicts if e.cause == "sensor_fault" and e.features == ["temp"]]
    faults = [e for e in temp if e.since == FAULT[0]]
    assert len(faults) == 1
    assert len(temp) <= 2  # a hot week of April looks like one as well
    assert faults[0].since == FAULT[0]
    assert faults[0].detected_at < FAULT[0] + timedelta(days=3)
    assert not faults[0].retrain_advised
    assert not [
        e
        for e in verdicts
        if e.retrain_advised and FAULT[0] <= e.detected_at < FAULT[1]
    ]
