"""The monitor's verdicts, event by event, on a database in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    AlertRaised,
    DriftDetected,
    DriftEnded,
    ModelRolledBack,
    PerformanceMeasured,
    ServedModel,
    VerdictOverruled,
)
from driftloop.monitor.handlers import HANDLERS
from driftloop.monitor.store import load_watch
from driftloop.monitor.tables import MonitorLabel, MonitorPrediction
from driftloop.monitor.turn import Packaged
from driftloop.runtime.handlers import handler_table
from sqlmodel import select

from tests.unit.monitor.story import (
    EVALUATION,
    PACKAGE,
    ROWS,
    InProcess,
    Shop,
    day,
    spec,
)

CHANGED = 20


def grown(number: int, size: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return size * (16 if number >= CHANGED else 10)


class Grown(Shop):
    """What it sells is larger from a day on; what follows from a size is as it was."""

    def size(self, number: int) -> np.ndarray[Any, Any]:
        found = super().size(number)
        return found + 38 if CHANGED <= number < 1000 else found


@pytest.fixture
def shop() -> Shop:
    return Shop(true=grown)


@pytest.fixture
def monitor(shop: Shop) -> Iterator[InProcess]:
    """A monitor that watches version 1, with a sample of what it learned from."""
    found = watching(shop)
    yield found
    found.close()


def watching(shop: Shop, **how: Any) -> InProcess:
    found = InProcess(spec(**how), lambda _: Packaged(EVALUATION, shop.sample()))
    found.take(shop.deployed())
    return found


def retrains(monitor: InProcess) -> list[DriftDetected]:
    return [e for e in monitor.of(DriftDetected) if e.retrain_advised]


def faults(monitor: InProcess) -> list[DriftDetected]:
    return [e for e in monitor.of(DriftDetected) if e.cause == "sensor_fault"]


def test_handlers_are_for_the_topics_of_the_table() -> None:
    assert set(handler_table(HANDLERS).topics) == {
        "batch-validated", "batch-rejected", "batch-scored", "requests-answered",
        "model-deployed", "model-rolled-back", "verdict-overruled",
    }  # fmt: skip


def test_a_day_of_labels_is_one_measurement(monitor: InProcess, shop: Shop) -> None:
    """Mean absolute error of the champion over the rows, in their span."""
    monitor.take(shop.observed(0))
    monitor.take(shop.scored(0))
    told = monitor.take(shop.labelled(0))
    assert len(told) == 1
    measured = told[0]
    assert isinstance(measured, PerformanceMeasured)
    error = np.abs(10 * shop.size(0) - shop.target(0)).mean()
    assert measured.measurements[0].value == pytest.approx(error)
    assert (measured.row_count, measured.comparison) == (ROWS, None)
    assert measured.span.start == day(0)


def test_a_candidate_is_compared_on_the_same_rows(
    monitor: InProcess, shop: Shop
) -> None:
    monitor.take(shop.scored(0, version=1, candidate=2))
    (measured,) = monitor.take(shop.labelled(0))
    assert isinstance(measured, PerformanceMeasured)
    assert [(m.version, m.role) for m in measured.measurements] == [
        (1, "champion"), (2, "candidate"),
    ]  # fmt: skip
    said, target = 10 * shop.size(0), shop.target(0)
    difference = np.abs(said + 1 - target) - np.abs(said - target)
    assert measured.comparison is not None
    assert measured.comparison.mean_difference == pytest.approx(difference.mean())
    assert measured.comparison.standard_error == pytest.approx(
        difference.std(ddof=1) / ROWS**0.5
    )


def test_the_order_of_labels_and_predictions_does_not_matter(shop: Shop) -> None:
    """Labels first, predictions first, or a week apart: the same measurements."""
    days: list[list[Event]] = [
        [shop.observed(n) for n in range(8)],
        [shop.scored(n) for n in range(8)],
        [shop.labelled(n) for n in range(8)],
    ]
    results = []
    for order in itertools.permutations(days):
        monitor = InProcess(spec())
        monitor.take(shop.deployed())
        told = monitor.take_all(itertools.chain.from_iterable(order))
        results.append([e for e in told if isinstance(e, PerformanceMeasured)])
        waiting = [
            monitor.session.exec(select(table)).all()
            for table in (MonitorPrediction, MonitorLabel)
        ]
        assert waiting == [[], []], "pairs that have met still wait"
        monitor.close()
    assert all(found == results[0] for found in results)


def test_labels_may_come_with_the_rows(monitor: InProcess, shop: Shop) -> None:
    """A target in the observations themselves is a label, before the prediction."""
    assert monitor.take(shop.observed(0, cnt=shop.target(0))) == []
    assert len(monitor.take(shop.scored(0))) == 1


def test_a_second_label_of_a_row_counts_once(monitor: InProcess, shop: Shop) -> None:
    monitor.take(shop.labelled(0))
    monitor.take(shop.labelled(0))
    assert len(monitor.take(shop.scored(0))) == 1
    assert monitor.take(shop.labelled(0)) == []


def test_what_never_meets_is_forgotten(monitor: InProcess, shop: Shop) -> None:
    """Behind the horizon (90 days) nothing waits any more."""
    monitor.take(shop.scored(0))
    monitor.take(shop.labelled(1))
    monitor.take(shop.observed(200))
    for table in (MonitorPrediction, MonitorLabel):
        assert monitor.session.exec(select(table)).all() == []


def test_a_steady_shop_is_left_alone(monitor: InProcess) -> None:
    """Negative control: half a year without a change, without a word."""
    monitor.take_all(Shop().usual(range(180)))
    assert monitor.of(DriftDetected) == []
    assert monitor.of(AlertRaised) == []


def test_another_demand_for_the_same_inputs_is_a_concept_drift(
    monitor: InProcess, shop: Shop
) -> None:
    monitor.take_all(shop.usual(range(CHANGED + 6)))
    (drift,) = retrains(monitor)
    assert drift.cause == "concept_drift"
    assert drift.features == []
    assert abs(drift.since - day(CHANGED)) <= timedelta(days=1)
    assert drift.model_version == 1
    error = drift.evidence[0]
    assert error.threshold is not None
    assert error.statistic > error.threshold
    assert "concept drift" in drift.explanation


def test_other_inputs_with_the_error_are_a_population_shift(
    monitor: InProcess,
) -> None:
    """The error rises because the sizes are others than the version learned from."""
    shop = Grown(true=lambda _, size: 10 * size + 8 * np.maximum(size - 60, 0))
    monitor.take_all(shop.usual(range(CHANGED + 8)))
    (drift,) = retrains(monitor)
    assert drift.cause == "population_shift"
    assert drift.features == ["size"]
    assert [e.signal for e in drift.evidence][:2] == ["error", "feature:size"]


@pytest.mark.parametrize("step", [0, 10])
def test_a_drift_while_a_column_may_be_wrong_waits_for_a_person(step: int) -> None:
    """The weight jumps as the demand changes: by chance, or is it the balance?

    Negative control: the same drift while the weight goes on as it does.
    """
    shop = Shop(true=lambda n, size: size * (10.2 if n >= CHANGED else 10))
    monitor = watching(shop)
    for number in range(CHANGED + 40):
        usual = (78 if number // 2 % 2 else 62) + (step if number >= CHANGED else 0)
        weight = np.random.default_rng([9, number]).normal(usual, 6, ROWS).round()
        monitor.take(shop.observed(number, weight=weight))
        monitor.take(shop.scored(number))
        monitor.take(shop.labelled(number))
    told = monitor.of(DriftDetected)
    monitor.close()
    if not step:
        assert told[0].cause == "concept_drift"
        assert told[0].retrain_advised
        return
    assert not any(each.retrain_advised for each in told)
    assert told[0].cause == "not_enough_data"
    assert "weight moved by itself" in told[0].explanation
    (fault,) = [each for each in told if each.cause == "sensor_fault"]
    assert fault.features == ["weight"]


def test_moved_inputs_alone_are_told_and_no_reason_to_train(
    monitor: InProcess,
) -> None:
    """The weights are others, the error is not: one alert, no verdict."""
    calm = Shop()
    dice = np.random.default_rng(1)
    for number in range(40):
        monitor.take(calm.observed(number, weight=dice.uniform(80, 120, ROWS)))
        monitor.take(calm.scored(number))
        monitor.take(calm.labelled(number))
    assert monitor.of(DriftDetected) == []
    alerts = [e.condition for e in monitor.of(AlertRaised)]
    assert alerts == ["feature_drift:v1:weight"]
    assert monitor.of(AlertResolved) == []
    monitor.take(calm.deployed(2))
    (over,) = monitor.of(AlertResolved)
    assert (over.condition, over.why[-28:]) == (
        "feature_drift:v1:weight",
        "version 2 is in service now.",
    )
    monitor.take(calm.deployed(3))  # what is over is over
    assert len(monitor.of(AlertResolved)) == 1


def test_hopping_windows_see_a_move_earlier() -> None:
    """Looked at four times a window, not once; and a calm shop is still left alone."""
    told: dict[str, int | None] = {}
    for window in ("tumbling", "hopping"):
        for moved_from in (8, None):
            calm, dice = Shop(), np.random.default_rng(1)
            monitor = watching(calm, window=window)
            first = None
            for number in range(30):
                is_other = moved_from is not None and number >= moved_from
                columns = {"weight": dice.uniform(85, 125, ROWS)} if is_other else {}
                monitor.take(calm.observed(number, **columns))
                if first is None and monitor.of(AlertRaised):
                    first = number
            monitor.close()
            told[f"{window}, {'moved' if moved_from else 'still'}"] = first
    assert told["tumbling, still"] is None
    assert told["hopping, still"] is None
    tumbling, hopping = told["tumbling, moved"], told["hopping, moved"]
    assert tumbling is not None
    assert hopping is not None
    assert hopping < tumbling


def test_the_detector_of_the_pipeline_file_is_the_one_that_judges(shop: Shop) -> None:
    for name, shown in (("mixture", "Shiryaev-Roberts"), ("kswin", "KSWIN")):
        monitor = watching(shop, error_detector=name)
        monitor.take_all(shop.usual(range(CHANGED + 20)))
        drift = retrains(monitor)[0]
        monitor.close()
        assert drift.evidence[0].detector == shown
        assert abs(drift.since - day(CHANGED)) <= timedelta(days=1)


def test_repeats_wait_longer_each_time(monitor: InProcess, shop: Shop) -> None:
    """Nobody retrained: told again after 7, 14, 28 days, not each day."""
    monitor.take_all(shop.usual(range(CHANGED + 75)))
    times = [e.detected_at for e in retrains(monitor)]
    gaps = [(b - a).days for a, b in itertools.pairwise(times)]
    assert gaps[:3] == [7, 14, 28]


def test_a_new_version_is_judged_anew(monitor: InProcess) -> None:
    """After its deployment the old version's error says nothing."""
    shop = Shop(true=grown)
    monitor.take_all(shop.usual(range(CHANGED + 4)))
    assert len(retrains(monitor)) == 1
    monitor.take(shop.deployed(2))
    better = Shop()  # what version 2 learned is right again
    for number in range(CHANGED + 4, CHANGED + 60):
        monitor.take(better.observed(number))
        monitor.take(better.scored(number, version=2))
        monitor.take(better.labelled(number))
    assert len(retrains(monitor)) == 1


def test_no_verdict_while_a_candidate_is_on_its_way(
    monitor: InProcess, shop: Shop
) -> None:
    for number in range(CHANGED + 15):
        monitor.take(shop.observed(number))
        candidate = 2 if number >= CHANGED else None
        monitor.take(shop.scored(number, candidate=candidate))
        monitor.take(shop.labelled(number))
    assert retrains(monitor) == []


def test_a_verdict_waits_for_the_inputs_of_its_rows(
    monitor: InProcess, shop: Shop
) -> None:
    """Topics are read side by side: the cause is not guessed from half of them."""
    late = []
    for number in range(CHANGED + 6):
        if number < CHANGED:
            monitor.take(shop.observed(number))
        else:
            late.append(shop.observed(number))
        monitor.take(shop.scored(number))
        monitor.take(shop.labelled(number))
    assert retrains(monitor) == []
    monitor.take_all(iter(late))
    assert len(retrains(monitor)) == 1


def test_quarantined_rows_are_a_fault_once_and_over_once(
    monitor: InProcess, shop: Shop
) -> None:
    monitor.take_all(Shop().usual(range(10)))
    for number in range(10, 15):
        monitor.take(shop.rejected(number))
    (fault,) = faults(monitor)
    assert not fault.retrain_advised
    assert fault.features == ["size"]
    assert fault.since == day(10)
    assert fault.detected_at < day(12)
    assert (fault.faulty, fault.sources) == ("rows", {})
    assert monitor.of(DriftEnded) == []
    monitor.take_all(Shop().usual(range(15, 30)))
    (end,) = monitor.of(DriftEnded)
    assert (end.cause, end.features, end.since) == ("sensor_fault", ["size"], day(10))
    assert end.until == day(15)
    assert end.detected_at == fault.detected_at
    (alert,) = monitor.of(AlertRaised)
    assert (alert.severity, alert.owner, alert.can_end) == ("critical", "ada", True)
    (over,) = monitor.of(AlertResolved)
    assert (over.condition, over.at, over.owner) == (alert.condition, day(15), "ada")
    assert "to about 2024-01-16 00:00" in over.why
    assert retrains(monitor) == []


def test_a_few_bad_rows_are_no_fault(monitor: InProcess) -> None:
    """Negative control: 5 % of the rows in quarantine, for weeks."""
    calm = Shop()
    for number in range(30):
        part = calm.observed(number).model_copy(
            update={"row_count": ROWS - 1, "quarantined_count": 1}
        )
        part = part.with_rows(calm.observed(number).rows.slice(1))
        monitor.take(part, f"b{number}")
        monitor.take(calm.rejected(number, bad=1), f"b{number}")
    assert monitor.of(DriftDetected) == []


@pytest.mark.parametrize("is_good_first", [True, False])
def test_halves_of_a_batch_are_counted_together(
    monitor: InProcess, is_good_first: bool
) -> None:
    """A third of each batch is bad: a fault, whichever half comes first."""
    calm = Shop()
    bad = ROWS // 3
    for number in range(10):
        whole = calm.observed(number)
        good: Event = whole.model_copy(
            update={"row_count": ROWS - bad, "quarantined_count": bad}
        ).with_rows(whole.rows.slice(bad))
        halves = [good, calm.rejected(number, bad=bad)]
        for half in halves if is_good_first else reversed(halves):
            monitor.take(half, f"b{number}")
    (fault,) = faults(monitor)
    assert fault.evidence[0].statistic == pytest.approx(1 / 3)


def test_before_a_window_is_full_nothing_is_said(
    monitor: InProcess, shop: Shop
) -> None:
    for number in range(6):  # 144 of 168 rows
        monitor.take(shop.rejected(number))
    assert monitor.told == []


def test_values_in_another_unit_are_a_fault_and_silence_the_error(
    monitor: InProcess,
) -> None:
    """A column without a range rule: found by its jump, before the error is judged."""
    calm = Shop()
    for number in range(40):
        is_broken = 20 <= number < 27
        columns = {}
        if is_broken:
            columns["weight"] = calm.features(number)["weight"] * 1000
        monitor.take(calm.observed(number, **columns))
        scored = calm.scored(number)
        if is_broken:  # a model that is given nonsense talks nonsense
            said = scored.rows.set_column(
                3, "champion_prediction", pa.array(np.full(ROWS, 5000.0))
            )
            scored = scored.with_rows(said)
        monitor.take(scored)
        monitor.take(calm.labelled(number))
    (fault,) = faults(monitor)
    assert fault.features == ["weight"]
    assert fault.since == day(20)
    assert fault.evidence[0].detector == "scale"
    assert fault.faulty == "rows"
    (end,) = monitor.of(DriftEnded)
    assert end.detected_at == fault.detected_at
    assert (end.features, end.since, end.until) == (["weight"], day(20), day(27))
    assert retrains(monitor) == []
    (alert,) = monitor.of(AlertRaised)
    assert alert.severity == "critical"
    assert [e.condition for e in monitor.of(AlertResolved)] == [alert.condition]


def test_after_a_roll_back_the_restored_version_is_judged(
    monitor: InProcess, shop: Shop
) -> None:
    monitor.take(shop.deployed(2))
    monitor.take(
        ModelRolledBack(
            pipeline=shop.name,
            rollout_id="r2",
            version=2,
            restored=ServedModel(version=1, package=PACKAGE),
            reason="worse",
        )
    )
    monitor.take_all(shop.usual(range(CHANGED + 6)))
    assert [e.model_version for e in retrains(monitor)] == [1]


def test_without_a_version_in_service_nothing_is_judged(shop: Shop) -> None:
    monitor = InProcess(spec())
    monitor.take_all(shop.usual(range(CHANGED + 6)))
    assert monitor.of(DriftDetected) == []
    monitor.close()


def test_labels_that_stay_away_are_a_fault_until_they_come_again(
    monitor: InProcess,
) -> None:
    calm = Shop()
    monitor.take_all(calm.usual(range(30)))
    for number in range(30, 60):
        monitor.take(calm.observed(number))
        monitor.take(calm.scored(number))
    (fault,) = monitor.of(DriftDetected)
    assert (fault.cause, fault.features) == ("label_fault", ["cnt"])
    assert fault.faulty is None  # those that came are right
    assert not fault.retrain_advised
    assert [e.condition for e in monitor.of(AlertRaised)] == ["labels_late"]
    monitor.take_all(calm.usual(range(60, 90)))
    (end,) = monitor.of(DriftEnded)
    assert (end.cause, end.features) == ("label_fault", ["cnt"])


def test_no_labels_at_all_are_told_once_and_never_fine(monitor: InProcess) -> None:
    calm = Shop()
    for number in range(40):
        monitor.take(calm.observed(number))
        monitor.take(calm.scored(number))
    (open_one,) = monitor.of(DriftDetected)
    assert open_one.cause == "not_enough_data"
    assert not open_one.retrain_advised


def test_a_person_ends_a_fault_that_was_none(monitor: InProcess) -> None:
    """What it silenced is spoken of again; the person's word is remembered."""
    calm = Shop()
    monitor.take_all(calm.usual(range(30)))
    for number in range(30, 60):
        monitor.take(calm.observed(number))
        monitor.take(calm.scored(number))
    (fault,) = monitor.of(DriftDetected)
    said = VerdictOverruled(
        pipeline=fault.pipeline, verdict_id="v", verdict_cause=fault.cause,
        cause="not_enough_data", overruled_by="ann", reason="they come on Mondays",
        since=fault.since, detected_at=fault.detected_at, model_version=1,
    )  # fmt: skip
    (end,) = monitor.take(said)
    assert isinstance(end, DriftEnded)
    watch = load_watch(monitor.session, fault.pipeline)
    assert watch.faults == ()
    assert watch.overrulings == (("label_fault", "not_enough_data"),)
    other = said.model_copy(update={"cause": "sensor_fault"})
    assert monitor.take(other.model_copy(update={"mended": True})) == []
    (alert,) = monitor.take(other)
    assert isinstance(alert, AlertRaised)
    assert (alert.severity, alert.owner) == ("critical", "ada")
