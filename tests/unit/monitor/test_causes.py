"""Each cause in a small world, with its negative control: what does not change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from driftloop.contracts.events import Cause
from driftloop.contracts.overruling import MAX_PRIOR, prior
from driftloop.monitor.causes.seasons import Season, of_sample
from driftloop.monitor.causes.stretch import Stretch
from driftloop.monitor.causes.weighing import CURED, Weighed, gather, weigh

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
