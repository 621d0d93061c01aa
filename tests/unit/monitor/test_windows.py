"""Windows from scored rows to landed labels, by the monitor's handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.estimates import PerformanceEstimated, PerformanceSettled
from driftloop.contracts.events import AlertRaised, Evaluation
from driftloop.monitor.estimates import awaiting, kept, troubles, turns, windows
from driftloop.monitor.estimates.api import performance_view
from driftloop.monitor.state import Trouble, Windows
from driftloop.monitor.turn import Packaged
from sqlalchemy import text

from tests.unit.monitor.story import (
    EVALUATION,
    ROWS,
    START,
    BigShop,
    InProcess,
    Shop,
    day,
    spec,
)

BIG_FROM = 35
Alter = Callable[[int, np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def monitored(shop: Shop, **monitor: Any) -> InProcess:
    """A monitor of the shop with version 1 in service."""
    found = InProcess(
        spec(shop.name, **monitor), lambda _: Packaged(EVALUATION, shop.sample())
    )
    found.take(shop.deployed())
    return found


def walk(monitor: InProcess, shop: Shop, days: range, delay: int | None) -> None:
    """Days pass; labels land ``delay`` days late, or never."""
    for number in days:
        monitor.take(shop.observed(number))
        monitor.take(shop.scored(number))
        if delay is not None and number >= delay:
            monitor.take(shop.labelled(number - delay))


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def monitor(shop: Shop) -> Iterator[InProcess]:
    found = monitored(shop)
    yield found
    found.close()


def alerts(monitor: InProcess, begins: str) -> list[AlertRaised]:
    return [a for a in monitor.of(AlertRaised) if a.condition.startswith(begins)]


# ── estimates ───────────────────────────────────────────────────────────────


def test_windows_are_estimated_before_their_labels_and_settled_after(
    monitor: InProcess, shop: Shop
) -> None:
    walk(monitor, shop, range(42), delay=10)
    told, done = monitor.of(PerformanceEstimated), monitor.of(PerformanceSettled)
    assert [one.window for one in told] == [1, 2, 3, 4, 5, 6]
    assert [one.window for one in done] == [1, 2, 3, 4]
    assert [one.verdict for one in told] == ["cannot_tell"] * 2 + ["ok"] * 4
    assert "0 labelled rows" in told[0].reason
    assert told[0].estimates == []
    first = done[-1].metrics[0]
    assert first.estimate is not None
    assert first.estimate.low < first.value < first.estimate.high
    assert done[-1].labelled_count == done[-1].row_count == 7 * ROWS
    assert done[-1].score.window_count == 2
    assert done[-1].score.coverage == 1.0
    order = [type(e).__name__ for e in monitor.told if hasattr(e, "window")]
    assert order.index("PerformanceSettled") > order.index("PerformanceEstimated")


def test_a_window_is_measured_on_its_own_rows(monitor: InProcess, shop: Shop) -> None:
    walk(monitor, shop, range(21), delay=3)
    for done in monitor.of(PerformanceSettled):
        days = range((done.window - 1) * 7, done.window * 7)
        errors = np.concatenate([10 * shop.size(n) - shop.target(n) for n in days])
        assert done.metrics[0].value == pytest.approx(np.mean(np.abs(errors)))
        assert done.span.start == day(days[0])


def test_labels_in_the_rows_settle_a_window_when_it_closes(shop: Shop) -> None:
    monitor = monitored(shop)
    for number in range(14):
        target = {"cnt": shop.target(number)}
        monitor.take(shop.observed(number, **target))
        monitor.take(shop.scored(number))
    assert [e.window for e in monitor.of(PerformanceSettled)] == [1, 2]
    assert monitor.of(PerformanceEstimated)[1].labels.awaited_since is None
    monitor.close()


def test_without_labels_nothing_is_said_to_be_fine(
    monitor: InProcess, shop: Shop
) -> None:
    walk(monitor, shop, range(28), delay=None)
    told = monitor.of(PerformanceEstimated)
    assert len(told) == 4
    assert {one.verdict for one in told} == {"cannot_tell"}
    assert {one.labels.state for one in told} == {"none_yet"}
    assert monitor.of(PerformanceSettled) == []


def judged(shop: Shop, days: range = range(1100, 1106)) -> pa.Table:
    """What a package says of its hold-out."""
    return pa.Table.from_batches(
        [
            shop.rows(
                number,
                shop.features(number)
                | {"cnt": shop.target(number), "prediction": 10 * shop.size(number)},
            )
            for number in days
        ]
    )


def test_before_any_label_the_hold_out_of_the_version_is_known(shop: Shop) -> None:
    packaged = Packaged(EVALUATION, shop.sample(), judged(shop))
    monitor = InProcess(spec(), lambda _: packaged)
    monitor.take(shop.deployed())
    walk(monitor, shop, range(14), delay=None)
    first, second = monitor.of(PerformanceEstimated)
    assert (first.verdict, first.basis.row_count) == ("ok", 6 * ROWS)
    assert first.labels.state == second.labels.state == "none_yet"
    errors = [10 * shop.size(n) - shop.target(n) for n in range(7)]
    true = float(np.mean(np.abs(np.concatenate(errors))))
    assert first.estimates[0].low < true < first.estimates[0].high
    view = performance_view(monitor.session, shop.name, "mae", timedelta(days=90), 9)
    assert [one.window for one in view.windows] == [1, 2]
    monitor.take(shop.deployed(version=2))
    assert windows.holdout(monitor.session, shop.name, 1) is None
    assert windows.holdout(monitor.session, shop.name, 2) is not None
    monitor.close()


def test_a_hold_out_without_answers_is_passed_over(shop: Shop) -> None:
    packaged = Packaged(EVALUATION, None, judged(shop).drop_columns(["prediction"]))
    monitor = InProcess(spec(), lambda _: packaged)
    monitor.take(shop.deployed())
    walk(monitor, shop, range(7), delay=None)
    assert monitor.of(PerformanceEstimated)[0].verdict == "cannot_tell"
    monitor.close()


def test_shares_of_a_hold_out_are_those_of_its_classes() -> None:
    shop = Shop()
    rows = pa.Table.from_batches([shop.rows(0, {"size": shop.size(0)})])
    score = np.linspace(0.1, 0.9, ROWS)
    rows = rows.append_column("weather", pa.array(["wet", "dry"] * (ROWS // 2)))
    found = kept.judged(
        rows.append_column("score", pa.array(score)), "weather", ("dry", "wet"), 3
    )
    assert found is not None
    assert np.allclose(kept.shares_of(found, ("dry", "wet"))[:, 1], score)
    assert np.allclose(kept.shares_of(found, ("wet", "dry"))[:, 0], score)
    assert kept.truth_of(found, ("dry", "wet")).tolist() == [1, 0] * (ROWS // 2)
    assert kept.of_version(found, 3) is not None
    assert kept.of_version(found, 4) is None


def test_estimates_can_be_switched_off(shop: Shop) -> None:
    monitor = monitored(shop, estimate=False)
    walk(monitor, shop, range(21), delay=2)
    assert {e.reason for e in monitor.of(PerformanceEstimated)} == {
        "monitor.estimate is off"
    }
    assert len(monitor.of(PerformanceSettled)) == 2
    monitor.close()


def test_a_loss_that_rises_with_the_inputs_is_told_once_before_labels_land() -> None:
    shop = BigShop(BIG_FROM)
    monitor = monitored(shop, tolerated_rise=0.0)
    walk(monitor, shop, range(63), delay=21)
    assert monitor.of(PerformanceSettled)[-1].span.end < day(BIG_FROM + 7)
    (alert,) = alerts(monitor, "estimate:")
    assert "times the hold-out's 5" in alert.detail
    monitor.close()


def ends(monitor: InProcess, begins: str) -> list[AlertResolved]:
    found = monitor.of(AlertResolved)
    return [each for each in found if each.condition.startswith(begins)]


def test_an_estimate_is_over_after_windows_in_a_row_that_are_well_again() -> None:
    shop = BigShop(BIG_FROM, until=56)
    monitor = monitored(shop, tolerated_rise=0.0)
    walk(monitor, shop, range(70), delay=35)
    assert len(alerts(monitor, "estimate:")) == 1
    assert ends(monitor, "estimate:") == []  # two windows are well: not enough
    walk(monitor, shop, range(70, 77), delay=35)
    (over,) = ends(monitor, "estimate:")
    assert over.at == day(76) + timedelta(hours=23)
    assert over.owner == "ada"
    assert "in 3 windows in a row" in over.why
    walk(monitor, shop, range(77, 91), delay=35)
    assert len(ends(monitor, "estimate:")) == 1
    assert len(alerts(monitor, "estimate:")) == 1
    monitor.close()


def test_an_estimate_that_labels_contradict_is_over_when_they_land() -> None:
    """Nothing but labels says so: the inputs stay as unusual as they were."""
    shop = BigShop(BIG_FROM, is_calm=True)
    monitor = monitored(shop, tolerated_rise=0.0)
    walk(monitor, shop, range(56), delay=None)
    monitor.take_all(shop.labelled(number) for number in range(35))
    walk(monitor, shop, range(56, 77), delay=None)
    assert len(alerts(monitor, "estimate:")) == 1
    assert ends(monitor, "estimate:") == []
    monitor.take_all(shop.labelled(number) for number in range(35, 77))
    assert len(ends(monitor, "estimate:")) == 1
    monitor.close()


def test_an_estimate_that_labels_confirm_goes_on() -> None:
    """The control of both above: it is as bad as was thought, and stays so."""
    shop = BigShop(BIG_FROM)
    monitor = monitored(shop, tolerated_rise=0.0)
    walk(monitor, shop, range(112), delay=21)
    assert len(alerts(monitor, "estimate:")) == 1
    assert ends(monitor, "estimate:") == []
    monitor.close()


def test_what_is_told_of_a_version_is_over_when_another_serves() -> None:
    shop = Coloured(("red",))
    monitor = monitored(shop)
    walk(monitor, shop, range(63), delay=1)
    (alert,) = alerts(monitor, "slice:")
    assert alert.can_end
    assert ends(monitor, "slice:") == []
    told = monitor.take(shop.deployed(version=2))
    assert [e.condition for e in told if isinstance(e, AlertResolved)] == [
        alert.condition
    ]
    monitor.take(shop.deployed(version=3))
    walk(monitor, shop, range(63, 70), delay=1)
    assert len(ends(monitor, "slice:")) == len(alerts(monitor, "slice:")) == 1
    monitor.close()


def test_late_labels_of_a_version_that_no_longer_serves_raise_nothing() -> None:
    shop = Coloured(("red",))
    monitor = monitored(shop)
    walk(monitor, shop, range(63), delay=21)
    monitor.take(shop.deployed(version=2))
    monitor.take_all(shop.labelled(number) for number in range(42, 63))
    assert monitor.of(PerformanceSettled)[-1].version == 1
    assert alerts(monitor, "slice:") == []
    monitor.close()


def test_a_slice_is_over_when_it_does_as_before_for_windows_in_a_row() -> None:
    shop = Coloured(("red",), until=63)
    monitor = monitored(shop)
    walk(monitor, shop, range(77), delay=0)
    assert len(alerts(monitor, "slice:")) == 1
    assert ends(monitor, "slice:") == []
    walk(monitor, shop, range(77, 91), delay=0)
    (over,) = ends(monitor, "slice:")
    assert over.condition == "slice:v1:colour=red"
    monitor.close()


def test_a_slice_that_stays_bad_is_not_over_when_bad_has_become_usual() -> None:
    """What it is held against are the rows from before the alert."""
    shop = Coloured(("red",))
    monitor = monitored(shop)
    walk(monitor, shop, range(154), delay=0)
    before = [
        part.before
        for part in monitor.of(PerformanceSettled)[-1].slices
        if part.group == "red"
    ]
    assert before[0] is not None
    assert before[0] > 15  # five times as much as at first
    assert len(alerts(monitor, "slice:")) == 1
    assert ends(monitor, "slice:") == []
    monitor.close()


def test_a_window_that_is_bad_between_well_ones_puts_off_the_end() -> None:
    known = Trouble(condition="estimate:v1", since=4, calm=((4, False),))
    for window, is_well in ((5, True), (6, True), (7, False), (8, True), (9, True)):
        known = troubles.noted(known, window, is_well=is_well)
        assert not troubles.is_over(known)
    assert not troubles.is_over(troubles.noted(known, 2, is_well=True))
    assert troubles.is_over(troubles.noted(known, 7, is_well=True))  # its labels say so
    assert troubles.is_over(troubles.noted(known, 10, is_well=True))


def test_as_long_as_all_is_usual_no_alert_is_raised(
    monitor: InProcess, shop: Shop
) -> None:
    walk(monitor, shop, range(63), delay=21)
    assert monitor.of(AlertRaised) == []


def test_what_a_candidate_said_in_the_shadow_counts_when_it_serves(
    monitor: InProcess, shop: Shop
) -> None:
    for number in range(14):
        monitor.take(shop.observed(number))
        monitor.take(shop.scored(number, candidate=2))
        monitor.take(shop.labelled(number))
    monitor.take(shop.deployed(version=2))
    for number in range(14, 21):
        monitor.take(shop.observed(number))
        monitor.take(shop.scored(number, version=2))
    last = monitor.of(PerformanceEstimated)[-1]
    assert (last.version, last.basis.row_count) == (2, 14 * ROWS)
    assert last.estimates


# ── labels ──────────────────────────────────────────────────────────────────


def test_labels_that_stop_are_told_once_and_again_when_they_stop_again(
    monitor: InProcess, shop: Shop
) -> None:
    walk(monitor, shop, range(20), delay=2)
    assert alerts(monitor, "labels_late") == []
    walk(monitor, shop, range(20, 40), delay=None)
    (alert,) = alerts(monitor, "labels_late")
    assert "used to land within" in alert.detail
    assert monitor.of(AlertResolved) == []
    monitor.take_all(shop.labelled(number) for number in range(18, 40))
    assert [e.condition for e in monitor.of(AlertResolved)] == ["labels_late"]
    walk(monitor, shop, range(40, 60), delay=2)
    assert len(alerts(monitor, "labels_late")) == 1
    walk(monitor, shop, range(60, 120), delay=None)
    assert len(alerts(monitor, "labels_late")) == 2


def test_a_pipeline_without_any_label_is_late_after_its_horizon(shop: Shop) -> None:
    monitor = monitored(shop)
    walk(monitor, shop, range(89), delay=None)
    assert alerts(monitor, "labels_late") == []
    walk(monitor, shop, range(89, 93), delay=None)
    (alert,) = alerts(monitor, "labels_late")
    assert alert.title == "No label has come yet"
    monitor.close()


def test_a_stretch_without_rows_is_no_wait_for_labels(
    monitor: InProcess, shop: Shop
) -> None:
    walk(monitor, shop, range(20), delay=0)
    walk(monitor, shop, range(80, 100), delay=0)
    assert alerts(monitor, "labels_late") == []


def test_a_stretch_without_rows_is_none_either_when_answers_are_read_first(
    monitor: InProcess, shop: Shop
) -> None:
    """Topics have no common order: here all answers come before their rows."""
    days = [*range(10), *range(16, 26)]
    for number in days:
        monitor.take(shop.scored(number))
    for number in days:
        monitor.take(shop.observed(number))
        monitor.take(shop.labelled(number))
    assert alerts(monitor, "labels_late") == []


def test_waits_are_learned_from_the_pipeline() -> None:
    state = Windows()
    for number in range(8):
        start = START + timedelta(days=7 * number)
        state = awaiting.scored(state, start, start + timedelta(days=6))
        state = awaiting.landed(
            state, start + timedelta(days=6), start + timedelta(days=20)
        )
    assert awaiting.allowed_days(state, timedelta(days=90)) == 40
    assert awaiting.allowed_days(state, timedelta(days=30)) == 30
    assert awaiting.allowed_days(Windows(), timedelta(days=90)) == 90


def test_a_window_with_few_labels_is_settled_when_its_time_is_over(
    shop: Shop,
) -> None:
    monitor = monitored(shop)
    for number in range(60):
        monitor.take(shop.observed(number))
        monitor.take(shop.scored(number))
        if number >= 2:
            whole = shop.labelled(number - 2)
            rows = whole.rows.slice(0, 6)
            part = whole.model_copy(update={"row_count": 6}).with_rows(rows)
            monitor.take(part)
    done = monitor.of(PerformanceSettled)
    assert done
    assert {one.labelled_count for one in done} == {42}
    labels = monitor.of(PerformanceEstimated)[-1].labels
    assert labels.labelled_ratio == pytest.approx(0.25)
    monitor.close()


def test_a_window_without_labels_is_dropped_behind_the_horizon(shop: Shop) -> None:
    monitor = monitored(shop)
    walk(monitor, shop, range(110), delay=None)
    assert windows.opened(monitor.session, shop.name)[0].number == 3
    assert monitor.of(PerformanceSettled) == []
    assert monitor.of(PerformanceEstimated)[-1].labels.labelled_ratio == 0.0
    monitor.close()


# ── slices, metrics of one's own ────────────────────────────────────────────


class Coloured(Shop):
    """From a day on one colour, or all of them, sell otherwise."""

    def __init__(
        self, worse: tuple[str, ...], since: int = 42, until: int = 10_000
    ) -> None:
        super().__init__()
        self._worse, self._span = worse, range(since, until)

    def target(self, number: int) -> np.ndarray[Any, Any]:
        usual = super().target(number)
        if number not in self._span:
            return usual
        colours = np.array(self.features(number)["colour"])
        result: np.ndarray[Any, Any] = usual + 25 * np.isin(colours, self._worse)
        return result


def test_a_slice_that_becomes_worse_alone_is_told_once() -> None:
    shop = Coloured(("red",))
    monitor = monitored(shop)
    walk(monitor, shop, range(70), delay=1)
    (alert,) = alerts(monitor, "slice:")
    assert alert.title == "Version 1 has become worse where colour is red"
    part = next(
        part
        for done in monitor.of(PerformanceSettled)
        for part in done.slices
        if part.p_value is not None and part.p_value < 0.001
    )
    assert (part.column, part.group) == ("colour", "red")
    assert part.before is not None
    assert part.value > part.high - 10 > part.before
    monitor.close()


def test_when_all_become_worse_no_slice_is_accused() -> None:
    shop = Coloured(("red", "blue"))
    monitor = monitored(shop)
    walk(monitor, shop, range(70), delay=1)
    assert alerts(monitor, "slice:") == []
    monitor.close()


METRICS = [
    {"name": "asked", "expression": "prediction", "aggregate": "sum"},
    {
        "name": "lost sales",
        "expression": "case when label > prediction then label - prediction else 0 end",
        "max": 6,
    },
    {"name": "broken", "expression": "no_such_column + label"},
]


def test_metrics_of_ones_own_are_measured_when_what_they_need_is_there() -> None:
    shop = Shop(true=lambda day, size: 10 * size + (30 if 14 <= day < 28 else 0))
    monitor = monitored(shop, metrics=METRICS)
    walk(monitor, shop, range(28), delay=2)
    first, done = monitor.of(PerformanceEstimated)[0], monitor.of(PerformanceSettled)
    (asked,) = first.business
    said = sum(float((10 * shop.size(n)).sum()) for n in range(7))
    assert asked.value == pytest.approx(said)
    lost, broken = done[0].business
    assert lost.is_within
    assert broken.value is None
    assert "no_such_column" in broken.detail
    assert not done[2].business[0].is_within
    titles = [a.title for a in alerts(monitor, "metric:")]
    assert titles == [
        "broken cannot be computed",
        "lost sales is outside of its limits",
    ]
    assert monitor.of(AlertResolved) == []
    walk(monitor, shop, range(28, 42), delay=2)
    (over,) = monitor.of(AlertResolved)
    assert over.condition == "metric:lost sales"
    assert len(alerts(monitor, "metric:")) == 2
    monitor.close()


@pytest.mark.parametrize(
    "expression", ["(select 1)", "read_csv('x')", "label; drop table x"]
)
def test_an_expression_that_could_read_something_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="not allowed in an expression"):
        spec(metrics=[{"name": "bad", "expression": expression}])


# ── what it costs, what is shown ────────────────────────────────────────────


def count(monitor: InProcess, sql: str) -> int:
    return int(monitor.session.connection().execute(text(sql)).scalar_one())


def test_what_is_kept_does_not_grow_with_time(
    monitor: InProcess, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MAX_SETTLED", 6)
    walk(monitor, shop, range(84), delay=1)
    held = "SELECT COUNT(*) FROM monitor_window WHERE data IS NOT NULL"
    landed = "SELECT SUM(row_count) FROM monitor_slice WHERE kind = 'landed'"
    before = count(monitor, held)
    walk(monitor, shop, range(84, 168), delay=1)
    assert count(monitor, held) <= before + 8
    assert count(monitor, landed) <= 8 * ROWS
    assert count(monitor, "SELECT COUNT(*) FROM monitor_window") <= 20


def test_of_very_many_windows_some_wait_evenly_over_time(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MAX_OPEN", 4)
    monitor = monitored(shop)
    walk(monitor, shop, range(70), delay=None)
    numbers = [window.number for window in windows.opened(monitor.session, shop.name)]
    assert numbers == [4, 8]
    assert len(monitor.of(PerformanceEstimated)) == 10
    monitor.close()


def test_windows_do_not_close_more_often_than_each_hour() -> None:
    state = Windows(scored_rows=500, scored_until=START, closed_until=START)
    assert not turns._is_full(state, 168)
    later = state.model_copy(update={"scored_until": START + timedelta(hours=1)})
    assert turns._is_full(later, 168)
    assert not turns._is_full(later, 501)


def test_only_an_even_draw_of_a_large_window_is_kept(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MAX_KEPT_ROWS", 50)
    monitor = monitored(shop, metrics=METRICS[:1])
    walk(monitor, shop, range(16), delay=2)
    first, done = monitor.of(PerformanceEstimated)[0], monitor.of(PerformanceSettled)[0]
    assert (done.row_count, done.kept_count, done.labelled_count) == (168, 50, 50)
    said = sum(float((10 * shop.size(n)).sum()) for n in range(7))
    assert first.business[0].value == pytest.approx(said, rel=0.2)
    monitor.close()


def test_the_view_has_windows_labels_and_the_score(
    monitor: InProcess, shop: Shop
) -> None:
    horizon = timedelta(days=90)
    empty = performance_view(monitor.session, shop.name, "mae", horizon, 10)
    assert (empty.windows, empty.score, empty.labels.state) == ([], None, "none_yet")
    walk(monitor, shop, range(42), delay=10)
    seen = performance_view(monitor.session, shop.name, "mae", horizon, 3)
    assert [w.window for w in seen.windows] == [4, 5, 6]
    assert [w.is_settled for w in seen.windows] == [True, False, False]
    (metric,) = seen.windows[1].metrics
    assert metric.measured is None
    assert metric.estimate is not None
    assert seen.score is not None
    assert seen.score.window_count == 2
    assert seen.labels.state == "awaited"
    assert seen.labels.awaited_since == day(32)


def test_faulty_rows_are_not_estimated(monitor: InProcess, shop: Shop) -> None:
    walk(monitor, shop, range(21), delay=1)
    for number in range(21, 28):
        monitor.take(shop.observed(number, weight=shop.features(number)["weight"] * 9))
        monitor.take(shop.scored(number))
    last = monitor.of(PerformanceEstimated)[-1]
    assert last.verdict == "cannot_tell"
    assert "values of weight are wrong" in last.reason


def test_a_version_without_a_hold_out_is_not_called_degrading(shop: Shop) -> None:
    unknown = Evaluation(**(EVALUATION.model_dump() | {"baseline": 0.0}))
    monitor = InProcess(spec(), lambda _: Packaged(unknown, None))
    monitor.take(shop.deployed())
    walk(monitor, shop, range(35), delay=3)
    assert {e.verdict for e in monitor.of(PerformanceEstimated)[2:]} == {"ok"}
    monitor.close()
