"""When columns count as moved, and when values as broken."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from driftloop.contracts.monitoring import FeatureTest
from driftloop.monitor.feature_drift import (
    Kind,
    moved_category,
    moved_number,
    movements,
)
from driftloop.monitor.labelling.encoding import points
from driftloop.monitor.sensors import jumped, jumps
from driftloop.monitor.skew import distribution_differences, value_differences
from scipy import stats

DICE = np.random.default_rng(0)
KINDS: dict[str, Kind] = {"x": "number", "colour": "category", "is_new": "boolean"}


def rows(seed: int, n: int, middle: float = 0.0, red: float = 0.5) -> pa.Table:
    dice = np.random.default_rng(seed)
    return pa.table(
        {
            "x": dice.normal(middle, 1, n),
            "colour": np.where(dice.random(n) < red, "red", "blue"),
            "is_new": dice.random(n) < 0.5,
        }
    )


def pairs(seed: int, n: int, correlation: float) -> pa.Table:
    """Three numbers, of which two go together."""
    dice = np.random.default_rng(seed)
    x, y, z = dice.normal(size=(3, n))
    y = correlation * x + (1 - correlation**2) ** 0.5 * y
    return pa.table({"x": x, "y": y, "z": z})


NUMBERS: dict[str, Kind] = dict.fromkeys("xyz", "number")


def test_a_turned_correlation_is_seen_when_it_is_asked_for() -> None:
    """No column moves; KS, by default alone, says nothing."""
    reference, window = pairs(1, 2000, 0.0), pairs(2, 500, 0.7)
    tests: list[FeatureTest] = ["KS", "correlation"]
    found = movements(reference, window, NUMBERS, 0.001, tests)
    (moved,) = [m for m in found if m.is_moved]
    assert (moved.column, moved.detector) == ("x and y", "correlation")
    assert moved.columns == ("x", "y")
    assert [m for m in movements(reference, window, NUMBERS, 0.001) if m.is_moved] == []
    same = movements(reference, pairs(3, 500, 0.0), NUMBERS, 0.001, tests)
    assert [m for m in same if m.is_moved] == []


def test_each_test_sees_a_large_move_and_none_where_there_is_none() -> None:
    tests = list(get_args(FeatureTest))
    reference = rows(1, 3000).append_column("y", rows(9, 3000)["x"])
    kinds: dict[str, Kind] = KINDS | {"y": "number"}
    for window, expected in ((rows(5, 600, middle=1.5), True), (rows(5, 600), False)):
        wide = window.append_column("y", rows(8, 600)["x"])
        found = movements(reference, wide, kinds, 0.001, tests)
        moved = {m.detector for m in found if m.is_moved}
        assert moved == ({*tests} - {"correlation"} if expected else set())


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_distance_is_scipys(decimals: int) -> None:
    """The same statistic as scipy's, with ties and without."""
    for seed in range(20):
        dice = np.random.default_rng(seed)
        a = np.round(dice.normal(0, 1, dice.integers(20, 300)), decimals)
        b = np.round(dice.normal(0.3, 1, dice.integers(20, 300)), decimals)
        found = moved_number("x", a, b)
        assert found is not None
        expected = stats.ks_2samp(a, b, method="asymp").statistic
        assert found.effect == pytest.approx(expected, abs=1e-12)


def test_equal_windows_have_not_moved() -> None:
    """Negative control: no column of thirty windows from the same source."""
    reference = rows(1, 2000)
    for seed in range(2, 32):
        found = movements(reference, rows(seed, 168), KINDS, alpha=0.001)
        assert [m.column for m in found if m.is_moved] == []


@pytest.mark.parametrize(
    ("window", "expected"),
    [(rows(5, 168, middle=1.5), ["x"]), (rows(5, 168, red=0.95), ["colour"])],
)
def test_a_large_move_is_seen(window: pa.Table, expected: list[str]) -> None:
    found = movements(rows(1, 2000), window, KINDS, alpha=0.001)
    assert [m.column for m in found if m.is_moved] == expected


def test_a_significant_small_move_is_no_move() -> None:
    """With many rows everything is significant; only the effect makes it matter."""
    found = moved_number("x", DICE.normal(0, 1, 50_000), DICE.normal(0.2, 1, 50_000))
    assert found is not None
    assert found.p_value < 1e-6
    window = pa.table({"x": DICE.normal(0.2, 1, 50_000)})
    reference = pa.table({"x": DICE.normal(0, 1, 50_000)})
    assert not movements(reference, window, {"x": "number"}, 0.001)[0].is_moved


def test_too_few_values_say_nothing() -> None:
    assert moved_number("x", np.arange(19.0), np.arange(100.0)) is None
    assert moved_category("c", pa.array(["a"] * 5), pa.array(["b"] * 100)) is None
    assert movements(rows(1, 100), rows(2, 0), KINDS, 0.001) == []


def test_many_categories_are_counted() -> None:
    names = pa.array([f"c{n % 200}" for n in range(4000)])
    found = moved_category("c", names, names)
    assert found is not None
    assert found.effect == 0


def test_labels_are_equal_however_they_are_stored() -> None:
    found = moved_category("c", pa.array([1.0, 2.0] * 50), pa.array(["1", "2"] * 50))
    assert found is not None
    assert found.effect == 0


BEFORE = np.random.default_rng(9).uniform(0.2, 0.8, 168)
NOW = np.random.default_rng(10).uniform(0.3, 0.7, 24)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (NOW * 41, "scale"),
        (NOW / 1000, "scale"),
        (NOW + 273.15, "scale"),
        (np.zeros(24), "stuck"),
    ],
)
def test_broken_values_are_seen(values: np.ndarray, kind: str) -> None:
    found = jumped("temp", BEFORE, values)
    assert found is not None
    assert found.kind == kind


def test_a_shift_across_zero_is_seen() -> None:
    found = jumped("x", DICE.normal(0, 1, 168), DICE.normal(30, 1, 24))
    assert found is not None
    assert found.kind == "shift"
    assert found.amount == pytest.approx(30, abs=1)


@pytest.mark.parametrize(
    "values",
    [
        NOW,
        NOW * 1.3,
        np.full(24, 0.5),  # a calm day inside of what is usual
        np.append(NOW, [50.0]),  # one outlier
    ],
)
def test_the_world_is_no_fault(values: np.ndarray) -> None:
    """Negative control: weather changes, and a few odd values come."""
    assert jumped("temp", BEFORE, values) is None


def test_codes_and_rare_values_are_no_sensors() -> None:
    month = np.repeat([1.0, 2.0], 84)
    assert jumped("month", month, np.full(24, 12.0)) is None
    rain = np.append(np.zeros(150), np.arange(1.0, 19.0))
    assert jumped("rain", rain, np.zeros(24)) is None


def test_when_all_columns_jump_no_sensor_did() -> None:
    """Another city's rows, say: not the fault of three sensors at once."""
    before = pa.table(dict.fromkeys("abc", BEFORE))
    now = pa.table(dict.fromkeys("abc", NOW * 41))
    kinds: dict[str, Kind] = {"a": "number", "b": "number", "c": "number"}
    assert jumps(before, now, kinds) == []
    one = now.set_column(0, "a", pa.array(NOW)).set_column(1, "b", pa.array(NOW))
    assert [j.column for j in jumps(before, one, kinds)] == ["c"]


def opened(seed: int, count: int, day: float, older: float = 0.0) -> pa.Table:
    """Rows of one day, each with a moment some days before it."""
    dice = np.random.default_rng(seed)
    times = np.full(count, day * 86_400e6)
    then = times - (dice.exponential(100, count) + older) * 86_400e6
    kind = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "id": [f"{seed}-{at}" for at in range(count)],
            "event_time": pa.array(times.astype(np.int64)).cast(kind),
            "opened": pa.array(then.astype(np.int64), mask=dice.random(count) < 0.1)
            .cast(kind),
        }
    )  # fmt: skip


def test_of_a_moment_its_age_is_watched() -> None:
    kinds: dict[str, Kind] = {"opened": "datetime"}
    reference = opened(1, 2000, day=15_000)
    later = movements(reference, opened(2, 168, day=15_400), kinds, alpha=0.001)
    assert [m.is_moved for m in later] == [False]
    older = opened(3, 168, day=15_000, older=150)
    (moved,) = movements(reference, older, kinds, alpha=0.001)
    assert moved.is_moved
    without = older.drop_columns(["event_time"])
    assert movements(reference, without, kinds, alpha=0.001) == []


def test_moments_are_neither_jumps_nor_a_skew_of_distributions() -> None:
    kinds: dict[str, Kind] = {"opened": "datetime"}
    before, now = opened(1, 500, day=1), opened(2, 500, day=900, older=500)
    assert jumps(before, now, kinds) == []
    assert distribution_differences(before, now, None, kinds, 0.001) == []


def test_the_same_row_has_the_same_moment_at_a_door() -> None:
    kinds: dict[str, Kind] = {"opened": "datetime"}
    rows_ = opened(1, 50, day=1)
    assert value_differences(rows_, rows_, None, kinds) == []
    moved = pc.add(rows_["opened"], pa.scalar(1, pa.duration("us")))
    asked = rows_.set_column(2, "opened", moved)
    (found,) = value_differences(asked, rows_, None, kinds)
    assert (found.column, found.check) == ("opened", "values")


def test_moments_are_points_by_their_age() -> None:
    kinds: dict[str, Kind] = {"opened": "datetime"}
    basis, later = opened(1, 300, day=1), opened(1, 300, day=800)
    (one, other) = points(basis, [basis, later], kinds)
    assert one.shape == (300, 3)
    np.testing.assert_allclose(one, other, atol=1e-6)
    (bare,) = points(basis.drop_columns(["event_time"]), [basis], kinds)
    assert bare.shape == (300, 1)
