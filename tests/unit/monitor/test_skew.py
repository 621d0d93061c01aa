"""A door that gives the model other values than training learns from is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import AlertRaised, RequestsAnswered, Span
from driftloop.monitor import skew

from tests.unit.monitor.story import EVALUATION, ROWS, InProcess, Shop, day, spec

KINDS = {"size": "number", "weight": "number", "colour": "category"}


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def monitor(shop: Shop) -> Iterator[InProcess]:
    from driftloop.monitor.turn import Packaged

    found = InProcess(spec(), lambda _: Packaged(EVALUATION, shop.sample()))
    found.take(shop.deployed())
    yield found
    found.close()


def asked(shop: Shop, number: int, version: int = 1, **columns: Any) -> Event:
    """Requests about a day's rows, with values in single precision as a door has."""
    features = shop.features(number)
    features["size"] = features["size"].astype(np.float32).astype(float)
    features["weight"] = features["weight"].astype(np.float32).astype(float)
    said = {"prediction": 10 * shop.size(number)}
    rows = shop.rows(number, features | said | columns).drop_columns(["source"])
    return RequestsAnswered(
        pipeline=shop.name, shard="scorer-0", row_count=ROWS, version=version,
        span=Span(start=day(number), end=day(number)), asked_count=ROWS,
    ).with_rows(rows)  # fmt: skip


def skews(monitor: InProcess) -> list[str]:
    return [
        alert.condition
        for alert in monitor.of(AlertRaised)
        if alert.condition.startswith("serving_skew")
    ]


@pytest.mark.parametrize("first", ["asked", "stream"])
def test_the_same_rows_are_silent_in_either_order(
    monitor: InProcess, shop: Shop, first: str
) -> None:
    for number in range(10):
        events = [asked(shop, number), shop.observed(number), shop.scored(number)]
        for event in events if first == "asked" else reversed(events):
            monitor.take(event)
    assert skews(monitor) == []


@pytest.mark.parametrize("first", ["asked", "stream"])
def test_a_column_that_a_door_reads_otherwise_is_told_once(
    monitor: InProcess, shop: Shop, first: str
) -> None:
    for number in range(3):
        heavy = (shop.features(number)["weight"] * 2.2).tolist()
        events = [asked(shop, number, weight=heavy), shop.observed(number)]
        for event in events if first == "asked" else reversed(events):
            monitor.take(event)
    assert skews(monitor) == ["serving_skew:v1:values:weight"]
    alert = next(a for a in monitor.of(AlertRaised) if "skew" in a.condition)
    assert alert.severity == "warning"
    assert alert.owner == "ada"
    assert "24 of 24 rows" in alert.detail
    assert "at the door" in alert.detail


def test_other_texts_and_missing_values_are_differences(
    monitor: InProcess, shop: Shop
) -> None:
    shouted = [colour.upper() for colour in shop.features(0)["colour"]]
    no_size = pa.nulls(ROWS, pa.float64())
    monitor.take(shop.observed(0))
    monitor.take(asked(shop, 0, colour=shouted, size=no_size))
    assert skews(monitor) == [
        "serving_skew:v1:values:colour",
        "serving_skew:v1:values:size",
    ]


def test_a_few_corrected_rows_are_no_skew(monitor: InProcess, shop: Shop) -> None:
    few = skew.MIN_DIFFERENT_ROWS - 1
    corrected = shop.features(0)["weight"].copy()
    corrected[:few] += 5
    monitor.take(asked(shop, 0, weight=corrected.tolist()))
    monitor.take(shop.observed(0))
    assert skews(monitor) == []


def test_other_answers_to_equal_rows_are_told(monitor: InProcess, shop: Shop) -> None:
    said = (10 * shop.size(0) + 3).tolist()
    monitor.take(asked(shop, 0, prediction=said))
    monitor.take(shop.observed(0))
    monitor.take(shop.scored(0, version=2))  # another version may answer otherwise
    assert skews(monitor) == []
    monitor.take(shop.scored(0))
    assert skews(monitor) == ["serving_skew:v1:answers:prediction"]


def test_rows_without_ids_are_judged_by_their_distribution(
    monitor: InProcess, shop: Shop
) -> None:
    nobody = pa.nulls(ROWS, pa.string())
    for number in range(14):
        monitor.take(shop.observed(number))
        monitor.take(asked(shop, number, id=nobody))
    assert skews(monitor) == []
    for number in range(14, 21):
        grams = (shop.features(number)["weight"] * 1000).tolist()
        monitor.take(shop.observed(number))
        monitor.take(asked(shop, number, id=nobody, weight=grams))
    assert skews(monitor) == ["serving_skew:v1:distribution:weight"]


def test_a_world_that_moved_is_not_the_doors_fault(
    monitor: InProcess, shop: Shop
) -> None:
    """The stream's rows of the same time are as far from training."""
    nobody = pa.nulls(ROWS, pa.string())
    for number in range(14):
        heavy = (shop.features(number)["weight"] + 15).tolist()
        monitor.take(shop.observed(number, weight=heavy))
        monitor.take(asked(shop, number, id=nobody, weight=heavy))
    assert "feature_drift:v1:weight" in {a.condition for a in monitor.of(AlertRaised)}
    assert skews(monitor) == []


def test_another_version_is_told_anew(monitor: InProcess, shop: Shop) -> None:
    double = (shop.features(0)["weight"] * 2).tolist()
    monitor.take(shop.observed(0))
    monitor.take(asked(shop, 0, weight=double))
    monitor.take(shop.deployed(2))
    monitor.take(asked(shop, 0, weight=double))
    assert skews(monitor) == [
        "serving_skew:v1:values:weight",
        "serving_skew:v2:values:weight",
    ]


def test_asked_rows_are_not_waited_for_without_end(
    monitor: InProcess, shop: Shop
) -> None:
    from driftloop.monitor import store

    monitor.take(asked(shop, 500))
    assert store.load_watch(monitor.session, shop.name).awaited_rows == 2 * 168
    for number in range(14):
        monitor.take(shop.observed(number))
    assert store.load_watch(monitor.session, shop.name).awaited_rows == 0


def test_busy_doors_cost_no_more_than_quiet_ones(
    monitor: InProcess, shop: Shop
) -> None:
    """Of one minute of requests a thousand rows are kept, of the next one again."""
    from driftloop.monitor import doors, store

    busy = 3 * doors.MAX_ROWS // ROWS
    for _ in range(busy):
        monitor.take(asked(shop, 0))
    assert store.load_watch(monitor.session, shop.name).minute_rows == doors.MAX_ROWS
    kept = store.newest_slices(monitor.session, shop.name, store.ASKED, 10**6)
    assert sum(row.row_count for row in kept) <= doors.MAX_ROWS
    monitor.take(asked(shop, 1))
    assert store.load_watch(monitor.session, shop.name).minute_rows == ROWS
