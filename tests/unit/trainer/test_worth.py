"""A training is made when what waiting loses is more than what it costs."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from driftloop.contracts.events import Measurement, PerformanceMeasured, Span
from driftloop.contracts.retraining import CostSection
from driftloop.trainer import core
from driftloop.trainer.core import Data, LastJob, Pending, SkipWith, Start, State
from driftloop.trainer.worth import KEPT_DAYS, LossMemory, remembered, weigh

from tests.unit.trainer.cases import data as data_of
from tests.unit.trainer.cases import day, drift, spec

COST = CostSection(
    loss_unit_value=2.0, unit="€", training=100, rollout=20, horizon_days=10,
    window_rows=48,
)  # fmt: skip
ROWS_A_DAY = 24


def measured(
    at: float, loss: float, version: int = 1, metric: str = "mae"
) -> PerformanceMeasured:
    time: datetime = day(at)
    return PerformanceMeasured(
        pipeline="bikes",
        span=Span(start=time, end=time + timedelta(hours=23)),
        row_count=ROWS_A_DAY,
        measurements=[
            Measurement(version=version, role="champion", metric=metric, value=loss)
        ],
    )


def memory_of(losses: list[float], version: int = 1) -> LossMemory | None:
    memory = None
    for number, loss in enumerate(losses):
        memory = remembered(memory, measured(number, loss, version), COST)
    return memory


def test_the_sum_is_loss_by_rows_by_days_by_value() -> None:
    found = weigh(memory_of([1.0, 1.0, 1.5, 1.5]), COST)
    assert found is not None
    assert found.gain == pytest.approx(0.5 * 24 * 10 * 2)
    assert (found.cost, found.is_worth_it) == (120.0, True)
    assert "a training with its rollout costs 120 €" in found.text


@pytest.mark.parametrize(("now", "is_worth_it"), [(1.2, False), (1.3, True)])
def test_little_is_not_worth_it(now: float, is_worth_it: bool) -> None:
    """24 rows x 10 days x 2 € is 480 € a unit: 0.25 is what 120 € are."""
    found = weigh(memory_of([1.0, 1.0, now, now]), COST)
    assert found is not None
    assert found.is_worth_it == is_worth_it


def test_what_is_not_known_holds_nothing_back() -> None:
    for memory in (None, memory_of([1.0])):
        found = weigh(memory, COST)
        assert found is not None
        assert (found.is_worth_it, found.gain) == (True, None)


def test_without_a_value_nothing_is_weighed_or_kept() -> None:
    off = CostSection(training=1e9)
    assert remembered(None, measured(0, 1.0), off) is None
    assert weigh(memory_of([1.0, 1.0, 9.0, 9.0]), off) is None


def test_a_new_version_is_measured_by_its_own_first_window() -> None:
    memory = memory_of([1.0, 1.0, 5.0, 5.0])
    for number, loss in ((4, 3.0), (5, 3.0), (6, 3.1), (7, 3.1)):
        memory = remembered(memory, measured(number, loss, version=2), COST)
    assert memory is not None
    assert memory.fresh == pytest.approx(3.0)
    found = weigh(memory, COST)
    assert found is not None
    assert not found.is_worth_it


def test_roots_are_squares_of_rows() -> None:
    memory = remembered(None, measured(0, 3.0, metric="rmse"), COST)
    assert memory is not None
    assert memory.days[0].total == pytest.approx(9.0 * ROWS_A_DAY)


def test_a_candidates_loss_is_no_reason() -> None:
    event = measured(0, 1.0)
    only = event.measurements[0].model_copy(update={"role": "candidate"})
    event = event.model_copy(update={"measurements": [only]})
    assert remembered(None, event, COST) is None


def _two_years(summer: float, winter: float, now: float) -> LossMemory | None:
    """A year in which summers cost more, and the same again; ``now`` is the end."""
    losses = [summer if 150 <= n % 365 < 250 else winter for n in range(365 + 200)]
    memory = None
    for number, loss in enumerate(losses):
        version = 1 if number < 365 + 100 else 2
        value = now if number >= 365 + 190 else loss
        memory = remembered(memory, measured(number, value, version), COST)
    return memory


def test_a_season_is_no_reason_to_train() -> None:
    """The same rise without a year before is worth a training: the control."""
    season = weigh(_two_years(summer=2.0, winter=1.0, now=2.0), COST)
    assert season is not None
    assert not season.is_worth_it
    assert "by the season 2.00 times" in season.text
    control = weigh(memory_of([1.0] * 5 + [2.0] * 5), COST)
    assert control is not None
    assert control.is_worth_it


def test_more_than_the_season_counts() -> None:
    found = weigh(_two_years(summer=2.0, winter=1.0, now=2.6), COST)
    assert found is not None
    assert found.gain == pytest.approx(0.6 * 24 * 10 * 2, rel=0.01)


def test_memory_is_bounded() -> None:
    memory = memory_of([1.0] * (KEPT_DAYS + 50))
    assert memory is not None
    assert len(memory.days) == KEPT_DAYS


# ── the policy ──────────────────────────────────────────────────────────────


def _state(losses: list[float], champion: int | None = 1) -> State:
    job = LastJob("j", False, False, day(10), 1000, None, day(10))
    data: Data = data_of(1500, end=60)
    return State(data, champion, job, losses=memory_of(losses))


WEIGHED = {"cost": COST.model_dump()}


def test_a_verdict_that_is_not_worth_it_waits_until_it_is() -> None:
    how = spec(retrain=WEIGHED)
    skipped = core.after_drift(drift(60), "d", _state([1, 1, 1.1, 1.1]), how)
    assert isinstance(skipped, SkipWith)
    assert skipped.reason == "not_worth_it"
    assert isinstance(skipped.keep, Pending)
    kept = {"pending": skipped.keep}
    waits = State(**(vars(_state([1, 1, 1.1, 1.1])) | kept))
    assert core.after_data("e", waits, how) is None
    grown = State(**(vars(_state([1, 1, 1.1, 3.0, 3.0])) | kept))
    started = core.after_data("e", grown, how)
    assert isinstance(started, Start)
    assert started.trigger.event_id == "d"
    assert "costs 120 €" in started.why


def test_without_the_section_the_verdict_trains_at_once() -> None:
    started = core.after_drift(drift(60), "d", _state([1, 1, 1.1, 1.1]), spec())
    assert isinstance(started, Start)
    assert started.why == ""


def test_new_rows_and_the_calendar_have_to_be_worth_it_too() -> None:
    how = spec(retrain=WEIGHED | {"every_rows": 100})
    skipped = core.after_data("e", _state([1, 1, 1.1, 1.1]), how)
    assert isinstance(skipped, SkipWith)
    assert skipped.reason == "not_worth_it"
    assert isinstance(core.after_data("e", _state([1, 1, 3.0, 3.0]), how), Start)


def test_a_first_model_is_not_weighed() -> None:
    how = spec(retrain=WEIGHED)
    state = State(data_of(1500, end=60), None, losses=memory_of([1, 1, 1, 1]))
    started = core.after_data("e", state, how)
    assert isinstance(started, Start)
    assert started.why == ""


def test_a_season_in_a_verdict_is_never_cured() -> None:
    verdict = drift(60).model_copy(update={"cause": "seasonality"})
    skipped = core.after_drift(verdict, "d", _state([1, 1, 3, 3]), spec())
    assert isinstance(skipped, SkipWith)
    assert skipped.reason == "cause_not_cured_by_training"
