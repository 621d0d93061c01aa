"""Windows of inputs against a reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from driftloop.detection import binned, together
from driftloop.detection.binned import LEAST_EFFECTS, Binned
from driftloop.detection.categories import compared
from driftloop.detection.judging import Comparison, false_discovery, judged
from driftloop.detection.together import Together
from driftloop.detection.windows import Windows
from scipy import stats

TESTS = tuple(LEAST_EFFECTS)


def normal(rows: int, columns: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns))


def one(test: str, reference: np.ndarray, window: np.ndarray) -> Comparison:
    known = Binned.of(["x"], reference.reshape(-1, 1))
    (found,) = known.compare(known.counts(window.reshape(-1, 1)), (test,))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    "make",
    [
        lambda dice, n: dice.standard_normal(n),
        lambda dice, n: dice.standard_cauchy(n),
        lambda dice, n: np.exp(3 * dice.standard_normal(n)),
        lambda dice, n: dice.integers(0, 5, n).astype(float),
        lambda dice, n: dice.poisson(300, n).astype(float),
        lambda dice, n: np.where(dice.random(n) < 0.6, 0.0, dice.random(n)),
    ],
)
def test_distance_is_that_of_scipy(make: object) -> None:
    """Whatever the column looks like: to the width of a bin."""
    dice = np.random.default_rng(1)
    reference, window = make(dice, 4_000), make(dice, 900)  # type: ignore[operator]
    for moved in (window, window * 1.5 + 0.3):
        expected = stats.ks_2samp(reference, moved).statistic
        assert one("KS", reference, moved).effect == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("test", TESTS)
def test_p_values_are_uniform_where_nothing_moved(test: str) -> None:
    """The share of p-values below a limit is the limit, or less."""
    reference = normal(5_000, 60)
    known = Binned.of([str(i) for i in range(60)], reference)
    p_values = [
        c.p_value
        for seed in range(15)
        for c in known.compare(known.counts(normal(600, 60, 100 + seed)), (test,))  # type: ignore[arg-type]
    ]
    assert np.mean(np.array(p_values) < 0.05) <= 0.08
    assert np.mean(np.array(p_values) < 0.5) > 0.25  # the control: not all are 1


@pytest.mark.parametrize("test", TESTS)
def test_a_shift_is_found_by_each_test(test: str) -> None:
    found = one(test, normal(5_000), normal(500, seed=1) + 1.0)
    assert judged([found], 0.001)[0].verdict == "moved"
    still = one(test, normal(5_000), normal(500, seed=1))
    assert judged([still], 0.001)[0].verdict == "same"


@pytest.mark.parametrize("test", TESTS)
def test_too_few_rows_is_a_verdict(test: str) -> None:
    found = one(test, normal(5_000), normal(25, seed=1))
    assert found.needed_rows > 25
    assert judged([found], 0.001)[0].verdict == "not_enough_data"


def test_needed_rows_find_the_least_effect_four_times_of_five_at_least() -> None:
    """Of a distance of 0.3, which is a shift of 0.77 standard deviations."""
    needed = math.ceil(one("KS", normal(5_000), normal(100)).needed_rows)
    known = Binned.of(["x"], normal(5_000))
    hits = 0
    for seed in range(200):
        window = normal(needed, seed=1_000 + seed) + 0.771
        (found,) = known.compare(known.counts(window), ("KS",))
        hits += found.p_value < 0.001
    assert 0.8 <= hits / 200 < 1


def test_wasserstein_is_in_standard_deviations() -> None:
    found = one("Wasserstein", 7 * normal(20_000), 7 * (normal(5_000, seed=1) + 0.8))
    assert found.effect == pytest.approx(0.8, abs=0.08)


def test_counts_of_parts_add_up_and_missing_values_do_not_count() -> None:
    reference, window = normal(2_000, 3), normal(500, 3, seed=2)
    known = Binned.of("abc", reference)
    whole = known.counts(window)
    parts = known.counts(window[:200]) + known.counts(window[200:])
    assert (whole == parts).all()
    window[::2, 1] = np.nan
    assert known.counts(window).sum(axis=1).tolist() == [500, 250, 500]
    assert (known.counts(window)[0] == whole[0]).all()


@pytest.mark.parametrize("values", [[], [3.0], [3.0] * 100, [0.0, np.inf] * 50])
def test_odd_references_are_judged(values: list[float]) -> None:
    known = Binned.of(["x"], np.array(values).reshape(-1, 1))
    found = known.compare(known.counts(normal(100)), TESTS)
    assert all(0 <= c.p_value <= 1 for c in found)


def test_a_new_value_of_a_category_is_a_change() -> None:
    usual = {"a": 500, "b": 500}
    assert compared("kind", usual, {"a": 52, "b": 48}).p_value > 0.1  # type: ignore[union-attr]
    found = compared("kind", usual, {"a": 60, "c": 40})
    assert found is not None
    assert found.effect == pytest.approx(0.5)
    assert judged([found], 0.001)[0].verdict == "moved"
    assert compared("kind", usual, {"a": 5}) is None


# ── all at once ─────────────────────────────────────────────────────────────


def turned(rows: int, correlation: float, seed: int) -> np.ndarray:
    found = normal(rows, 6, seed)
    rest = math.sqrt(1 - correlation**2)
    found[:, 1] = correlation * found[:, 0] + rest * found[:, 1]
    return found


@pytest.mark.parametrize("test", ["discrepancy", "correlation", "classified"])
def test_joint_p_values_are_uniform_where_nothing_moved(test: str) -> None:
    known = Together.of("abcdef", turned(4_000, 0.3, 1))
    p_values = [
        getattr(known, test)(known.standardised(turned(400, 0.3, 50 + seed))).p_value
        for seed in range(100)
    ]
    assert np.mean(np.array(p_values) < 0.05) <= 0.11
    assert np.mean(np.array(p_values) < 0.6) > 0.2


@pytest.mark.parametrize("test", ["discrepancy", "correlation", "classified"])
def test_a_turned_correlation_is_found_by_each_joint_test(test: str) -> None:
    """No column alone shows it."""
    reference, window = turned(4_000, 0.0, 1), turned(1_500, 0.7, 2)
    known = Together.of("abcdef", reference)
    found = getattr(known, test)(known.standardised(window))
    assert found.p_value < 1e-6
    columns = Binned.of("abcdef", reference)
    alone = columns.compare(columns.counts(window), ("KS",))
    assert min(c.p_value for c in alone) > 1e-4


def test_the_pair_that_turned_is_named() -> None:
    known = Together.of("abcdef", turned(4_000, 0.0, 1))
    found = known.correlation(known.standardised(turned(800, 0.5, 2)))
    assert found is not None
    assert (found.signal, found.columns) == ("a and b", ("a", "b"))
    assert found.effect == pytest.approx(0.5, abs=0.1)


def test_a_classifier_says_how_far_apart_they_are() -> None:
    known = Together.of("abcdef", normal(3_000, 6))
    window = normal(1_000, 6, 1)
    window[:, 2] += 1.0  # AUC of a shift of 1: 0.76
    found = known.classified(known.standardised(window))
    assert found is not None
    assert found.effect == pytest.approx(0.76, abs=0.04)


def test_few_rows_are_not_compared_together() -> None:
    known = Together.of("abcdef", normal(3_000, 6))
    few = known.standardised(normal(together.MIN_ROWS - 1, 6))
    assert known.discrepancy(few) is None
    assert known.correlation(few) is None
    assert known.classified(few) is None


def test_missing_and_constant_columns_do_no_harm() -> None:
    reference, window = normal(1_000, 4), normal(300, 4, 1)
    reference[:, 0], window[:, 0] = 5.0, 5.0
    reference[:, 1] = np.nan
    window[::3, 2] = np.nan
    known = Together.of("abcd", reference)
    standard = known.standardised(window)
    for found in (known.discrepancy(standard), known.correlation(standard)):
        assert found is not None
        assert 0 <= found.p_value <= 1


# ── judging ─────────────────────────────────────────────────────────────────


def test_false_discovery_is_that_of_scipy() -> None:
    p_values = np.random.default_rng(0).random(50) ** 3
    expected = stats.false_discovery_control(p_values)
    assert false_discovery(p_values.tolist()) == pytest.approx(expected)
    assert len(false_discovery([])) == 0


def test_many_columns_do_not_make_more_false_ones() -> None:
    """At a level of 5 %: of 40 windows of 60 columns, few have a column that moved."""
    known = Binned.of([str(i) for i in range(60)], normal(3_000, 60))
    found = [
        known.compare(known.counts(normal(300, 60, seed)), ("KS",))
        for seed in range(1, 41)
    ]
    corrected = sum(min(c.p_value for c in judged(f, 0.05)) < 0.05 for f in found)
    uncorrected = sum(min(c.p_value for c in f) < 0.05 for f in found)
    assert corrected <= 6
    assert uncorrected > 30  # the control


def test_windows_end_alike_however_rows_come() -> None:
    windows = Windows.hopping(100)
    at_once = list(windows.ends(0, 500))
    steps = [end for n in range(500) for end in windows.ends(n, n + 1)]
    assert at_once == steps
    assert list(Windows.tumbling(100).ends(0, 500)) == [100, 200, 300, 400, 500]


def test_bins_hold_about_the_same() -> None:
    known = Binned.of(["x"], normal(10_000))
    assert known.shares.max() < binned.MAX_SHARE
    assert known.shares.shape[1] > binned.BINS * 0.9
