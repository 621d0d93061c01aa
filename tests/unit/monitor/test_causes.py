"""Each cause in a small world, with its negative control: what does not change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from driftloop.contracts.events import Cause
from driftloop.contracts.overruling import MAX_PRIOR, prior
from driftloop.monitor.causes import weighing
from driftloop.monitor.causes.seasons import Season, of_sample
from driftloop.monitor.causes.stretch import Stretch
from driftloop.monitor.causes.weighing import (
    CURED,
    MAX_MORE_ROWS,
    Signals,
    Weighed,
    gather,
    more_rows,
    weigh,
)

HOUR_US = 3_600_000_000
SOURCES = ("north", "east", "south")
Change = Callable[[dict[str, Any]], None]


def world(
    seed: int, count: int, change: Change = lambda _: None, start: int = 0
) -> Stretch:
    """Hours of a shop whose demand follows size and heat; a change is made in place.

    The model that answers knows the relation; what is changed after the demand has
    come about (``size`` of what is seen, not of the world) is seen by the model alone.
    """
    dice = np.random.default_rng(seed)
    rows: dict[str, Any] = {
        "count": count,
        "dice": dice,
        "size": dice.normal(50, 12, count).round(1),
        "heat": dice.normal(20, 6, count).round(1),
        "sky": dice.choice(["clear", "wet"], count, p=[0.7, 0.3]).astype(object),
        "source": np.resize(np.array(SOURCES, dtype=object), count),
        "relation": lambda size, heat: 10 * size + 4 * heat,
        "labels": lambda target, _: target,
        "sensors": lambda _: None,
    }
    change(rows)
    noise = dice.normal(0, 20, count)
    target = rows["relation"](rows["size"], rows["heat"]) + noise
    target = rows["labels"](target, rows["source"])
    rows["sensors"](rows)
    seen = {name: np.nan_to_num(rows[name], nan=40) for name in ("size", "heat")}
    said = 10 * np.clip(seen["size"], 0, 90) + 4 * seen["heat"]
    return Stretch(
        times_us=(start + np.arange(count)) * HOUR_US,
        source=rows["source"],
        amounts={"size": rows["size"], "heat": rows["heat"]},
        codes={"sky": rows["sky"]},
        loss=np.abs(said - target),
        target=target[:, None],
        said=said[:, None],
        labeller=rows["source"],
    )


def verdict(change: Change, **options: Any) -> Weighed:
    before = world(1, 900)
    now = world(2, 240, change, start=900)
    known = world(3, 900, start=-900)
    return weigh(gather(before, now, known, **options), options.get("prior"))


def sensors(make: Callable[[dict[str, Any]], None]) -> Change:
    def change(rows: dict[str, Any]) -> None:
        rows["sensors"] = make

    return change


def _scaled(rows: dict[str, Any]) -> None:
    rows["size"] = (rows["size"] * 1.4).round(1)


def _one_source(rows: dict[str, Any]) -> None:
    rows["size"] = np.where(rows["source"] == "east", rows["size"] + 25, rows["size"])


def _stuck(rows: dict[str, Any]) -> None:
    rows["size"] = np.full(rows["count"], 50.0)


def _nulls(rows: dict[str, Any]) -> None:
    lost = rows["dice"].random(rows["count"]) < 0.3
    rows["size"] = np.where(lost, np.nan, rows["size"])


def _gone(rows: dict[str, Any]) -> None:
    rows["size"] = np.full(rows["count"], np.nan)


def _renamed(rows: dict[str, Any]) -> None:
    rows["sky"] = np.array([sky.upper() for sky in rows["sky"]], dtype=object)


def _relation(rows: dict[str, Any]) -> None:
    rows["relation"] = lambda size, heat: 10 * size - 6 * heat + 100


def _larger(rows: dict[str, Any]) -> None:
    rows["size"] = rows["size"] + 40
    rows["relation"] = lambda size, heat: 10 * size + 4 * heat  # as it was


def _shuffled(rows: dict[str, Any]) -> None:
    rows["labels"] = lambda target, _: rows["dice"].permutation(target)


def _constant(rows: dict[str, Any]) -> None:
    rows["labels"] = lambda target, _: np.full_like(target, 500)


def _contrary(rows: dict[str, Any]) -> None:
    rows["labels"] = lambda target, _: 1160 - target


def _one_labeller(rows: dict[str, Any]) -> None:
    rows["labels"] = lambda target, source: np.where(
        source == "south", target * 3, target
    )


@pytest.mark.parametrize(
    ("change", "cause", "features", "sources"),
    [
        (sensors(_scaled), "sensor_fault", ["size"], []),
        (sensors(_one_source), "sensor_fault", ["size"], ["east"]),
        (sensors(_stuck), "sensor_fault", ["size"], []),
        (sensors(_nulls), "sensor_fault", ["size"], []),
        (sensors(_gone), "schema_change", ["size"], []),
        (sensors(_renamed), "schema_change", ["sky"], []),
        (_relation, "concept_drift", [], None),
        (_larger, "population_shift", ["size"], []),
        (_shuffled, "label_fault", [], []),
        (_constant, "label_fault", [], []),
        (_contrary, "label_fault", [], []),
        (_one_labeller, "label_fault", [], ["south"]),
    ],
)
def test_each_cause_is_told_with_what_carries_it(
    change: Change, cause: Cause, features: list[str], sources: list[str] | None
) -> None:
    found = verdict(change)
    assert found.cause == cause, found
    assert found.confidence > 0.5
    assert sum(found.alternatives.values()) < found.confidence
    assert list(found.speaking.carriers) == features
    if sources is not None:
        assert list(found.speaking.sources) == sources
    assert found.is_cured_by_training == (cause in CURED)


def _little(rows: dict[str, Any]) -> None:
    rows["relation"] = lambda size, heat: 10.4 * size + 4 * heat


def suspected(change: Change = _little, **moved: Any) -> Signals:
    """Return signals of a drift in whose rows heat is also as ``moved`` says."""
    signals = gather(world(1, 900), world(2, 240, change, start=900), world(3, 900))
    taken = moved.pop("taken", 0.5)
    found = [
        replace(m, **moved) if m.column == "heat" and not m.source else m
        for m in signals.moved
    ]
    return replace(signals, moved=found, is_untrue={"heat": taken})


def test_a_drift_while_a_column_may_be_wrong_waits_and_then_asks_a_person() -> None:
    few = suspected(distance=0.7, usual=0.2)
    waits = weigh(few)
    assert waits.cause == "not_enough_data"
    assert not waits.is_cured_by_training
    assert "heat moved by itself" in waits.speaking.why
    asks = weigh(replace(few, row_count=round(few.wait_rows)))
    assert asks.cause == "sensor_fault"
    assert asks.speaking.carriers == {"heat": 1.0}
    assert not asks.is_cured_by_training


@pytest.mark.parametrize(
    "same",
    [
        suspected(),  # it did not move
        suspected(distance=0.7, usual=0.65),  # as far as it does by itself
        suspected(distance=0.7, usual=0.2, taken=0.0),  # the target went with it
        suspected(_relation, distance=0.45, usual=0.2),  # the rise needs no column
    ],
)
def test_a_drift_that_no_column_makes_doubtful_is_trained(same: Signals) -> None:
    """Negative controls: each lacks one thing that makes a column suspected."""
    found = weigh(same)
    assert found.cause == "concept_drift", found
    assert found.is_cured_by_training


def test_a_column_that_moved_with_another_is_the_world() -> None:
    alone = suspected(distance=0.7, usual=0.2)
    both = [
        replace(m, distance=0.7, usual=0.2) if m.column == "size" else m
        for m in alone.moved
    ]
    assert not weigh(alone).is_cured_by_training
    assert weigh(replace(alone, moved=both)).is_cured_by_training


def test_values_between_a_sensors_steps_hold_a_training_back() -> None:
    assert weigh(suspected(unseen=0.02)).is_cured_by_training
    assert not weigh(suspected(unseen=0.3)).is_cured_by_training


def test_values_between_a_sensors_steps_are_a_fault_without_any_label() -> None:
    """However much the column moves by itself; what moves in its steps is none."""
    inputs = replace(world(2, 240, start=900), loss=np.zeros(0))
    signals = gather(world(1, 900), inputs, world(3, 900))

    def told(unseen: float) -> Weighed:
        moved = [
            replace(m, distance=0.6, usual=0.3, unseen=unseen)
            if m.column == "heat" and not m.source
            else m
            for m in signals.moved
        ]
        return weigh(replace(signals, moved=moved))

    assert told(0.7).cause == "sensor_fault"
    assert told(0.05).cause != "sensor_fault"


def test_a_verdict_says_how_many_rows_are_missing() -> None:
    """Doubt names a number that falls as rows come, and none where nothing helps."""
    few = gather(world(1, 900), world(2, 24, _little, start=900), world(3, 900))
    wanted = more_rows(few)
    assert wanted is not None
    assert f"about {wanted:,} more labelled rows" in weigh(few).speaking.why
    fewer = more_rows(replace(few, row_count=few.row_count - 12))
    assert fewer is not None
    assert fewer > wanted
    same = gather(world(1, 900), world(2, 600, start=900), world(3, 900))
    assert more_rows(same) is None
    assert f"more than {MAX_MORE_ROWS:,}" in weigh(same).speaking.why


def test_one_sources_missing_values_that_came_last_are_no_change_of_the_schema() -> (
    None
):
    """Rows arrive source by source; the newest by arrival are of one alone."""

    def one_gone(rows: dict[str, Any]) -> None:
        lost = rows["source"] == "south"
        rows["size"] = np.where(lost, np.nan, rows["size"])

    def told(change: Change) -> Weighed:
        now = world(2, 240, sensors(change), start=900)
        order = np.argsort(now.source, kind="stable")  # south is the last
        arrived = replace(
            now.where(now.source != ""),
            times_us=now.times_us[order],
            source=now.source[order],
            amounts={name: values[order] for name, values in now.amounts.items()},
            loss=np.zeros(0),
        )
        return weigh(gather(world(1, 900), arrived, world(3, 900)))

    found = told(one_gone)
    assert found.cause == "sensor_fault", found
    assert told(_gone).cause == "schema_change"  # negative control


def test_what_only_other_columns_speak_of_is_inferred() -> None:
    """Not what shows by itself: another source, missing or stuck values."""
    assert verdict(sensors(_scaled)).speaking.is_inferred
    for change in (_one_source, _nulls, _stuck):
        found = verdict(sensors(change))
        assert found.cause == "sensor_fault"
        assert not found.speaking.is_inferred


def test_rows_that_were_learned_and_answered_are_no_steps_of_a_sensor() -> None:
    """Each value comes twice then, in both stretches, and not by the sensor's doing."""

    def fine(rows: dict[str, Any]) -> None:
        rows["size"] = rows["size"] + rows["dice"].normal(0, 0.01, rows["count"])

    before, now = world(1, 900, fine), world(2, 240, fine, start=900)
    both = gather(before, now, before)
    assert {m.unseen for m in both.moved if m.column == "size"} == {0.0}
    stepped = gather(world(1, 900), now, world(1, 900))
    assert max(m.unseen for m in stepped.moved if m.column == "size") > 0.5


def test_an_inferred_fault_that_is_not_sure_enough_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = verdict(sensors(_scaled))
    assert found.cause == "sensor_fault"
    monkeypatch.setattr(weighing, "MIN_INFERRED", found.confidence + 0.001)
    unsure = verdict(sensors(_scaled))
    assert unsure.cause == "not_enough_data"
    assert unsure.alternatives["sensor_fault"] == pytest.approx(found.confidence)
    assert not unsure.is_cured_by_training
    assert verdict(sensors(_nulls)).cause == "sensor_fault", "that one shows by itself"


def test_of_a_settled_column_nothing_is_inferred_any_more() -> None:
    """What shows by itself is still told of it: one source, missing values."""
    settled = frozenset({"size"})
    for change, expected in (
        (_scaled, False), (_one_source, True), (_nulls, True),
    ):  # fmt: skip
        now = world(2, 240, sensors(change), start=900)
        found = gather(world(1, 900), now, world(3, 900, start=-900))
        assert weigh(found).cause == "sensor_fault"
        told = weigh(replace(found, settled=settled)).cause == "sensor_fault"
        assert told is expected


def test_where_nothing_changed_nothing_is_told() -> None:
    """Negative control: no cause has more than doubt beside it."""
    found = verdict(lambda _: None)
    assert found.cause == "not_enough_data"
    assert not found.is_cured_by_training


def test_few_rows_are_a_verdict_and_no_reason_to_train() -> None:
    before, known = world(1, 900), world(3, 900)
    now = world(2, 12, _relation, start=900)
    found = weigh(gather(before, now, known))
    assert found.cause == "not_enough_data"
    assert not found.is_cured_by_training


def test_a_mix_of_slices_is_no_reason_to_train() -> None:
    """One source is harder; it sends more of the rows, each source as it was."""

    def harder(rows: dict[str, Any]) -> None:
        noise = rows["dice"].normal(0, 150, rows["count"])
        rows["labels"] = lambda target, source: (
            target + np.where(source == "south", noise, 0)
        )

    def more_of_it(rows: dict[str, Any]) -> None:
        rows["source"] = rows["dice"].choice(
            np.array(SOURCES, dtype=object), rows["count"], p=[0.1, 0.1, 0.8]
        )
        harder(rows)

    before, known = world(1, 900, harder), world(3, 900, harder)
    found = weigh(gather(before, world(2, 240, more_of_it, start=900), known))
    assert found.cause == "traffic_mix", found
    assert max(found.speaking.sources, key=lambda s: found.speaking.sources[s]) == (
        "south"
    )
    assert not found.is_cured_by_training
    same = weigh(gather(before, world(2, 240, harder, start=900), known))
    assert same.cause != "traffic_mix"


def test_a_season_that_was_learned_is_no_reason_to_train() -> None:
    """The error rises as it did in the same weeks a year before."""
    grown = gather(
        world(1, 900), world(2, 240, _relation, start=900), world(3, 900)
    ).grown
    known = Season("the same weeks of an earlier year", grown)
    found = verdict(_relation, season=known)
    assert found.cause == "seasonality"
    assert not found.is_cured_by_training
    unknown = verdict(_relation, season=replace(known, grown=1.0))
    assert unknown.cause == "concept_drift"  # negative control


def test_the_sample_is_a_reference_only_where_it_covers_the_year() -> None:
    year = world(4, 24 * 365)
    now, before = world(5, 240, start=24 * 200), world(6, 240, start=24 * 180)
    found = of_sample(year, before, now)
    assert found is not None
    assert found.grown == pytest.approx(1, abs=0.2)
    assert of_sample(year.newest(24 * 90), before, now) is None


def test_overrulings_tip_what_is_close_and_never_hide_what_is_sure() -> None:
    said: list[tuple[Cause, Cause]] = [("concept_drift", "label_fault")] * 100
    learned = prior(said)
    assert learned["label_fault"] == MAX_PRIOR
    assert learned["concept_drift"] == 1 / MAX_PRIOR
    signals = gather(world(1, 900), world(2, 240, _relation, start=900), world(3, 900))
    plain, tipped = weigh(signals), weigh(signals, learned)
    assert plain.cause == tipped.cause == "concept_drift"
    assert tipped.confidence < plain.confidence
    assert prior([("concept_drift", "concept_drift")]) == {}  # confirmed: no change
