"""Contributions are Shapley values: against their definition, and by what they promise.

The clock is a number that the model moves on: no test waits, none depends on a machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from driftloop.scorer.explaining import shapley
from driftloop.scorer.explaining.mixtures import (
    Background,
    Question,
    predictions_of_a_visit,
    seeds_of,
)
from driftloop.scorer.explaining.shapley import Explained, Seen, explain, method_for

Feeds = dict[str, npt.NDArray[Any]]
Function = Callable[[Feeds], npt.NDArray[np.float64]]
PACE = 1e-6
LONG = 1000.0
N_BACKGROUND = 16


class Model:
    """A function of columns as a model, whose every prediction takes its time."""

    def __init__(self, function: Function, pace: float = PACE) -> None:
        self.function = function
        self.pace = pace
        self.now = 0.0
        self.calls: list[int] = []

    def __call__(self, feeds: Feeds, rows: int) -> npt.NDArray[np.float64]:
        assert all(values.shape == (rows, 1) for values in feeds.values())
        self.now += rows * self.pace
        self.calls.append(rows)
        return self.function(feeds).reshape(rows, -1)

    def explained(
        self, rows: Feeds, background: Feeds, seconds: float = LONG, of: int = 0
    ) -> Seen:
        """Return the last of what is found out within so many seconds."""
        count = len(next(iter(rows.values())))
        said = self.function(rows).reshape(count, -1)
        number = len(next(iter(background.values())))
        question = Question(rows, said[:, of], np.full(count, of))
        base = Background(background, self.function(background).reshape(number, -1))
        until = self.now + seconds
        *_, last = explain(question, base, self, self.pace, until, lambda: self.now)
        assert last.predictions == sum(self.calls)
        assert last.calls == len(self.calls)
        return last


def numbers(n_rows: int, n_columns: int, seed: int) -> Feeds:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(n_columns, n_rows, 1)).astype(np.float32)
    return {f"x{number}": values[number] for number in range(n_columns)}


def table(feeds: Feeds) -> npt.NDArray[np.float64]:
    """Return (n_rows, n_columns)."""
    matrix: npt.NDArray[np.float64] = np.concatenate(
        list(feeds.values()), axis=1, dtype=np.float64
    )
    return matrix


def tangled(feeds: Feeds) -> npt.NDArray[np.float64]:
    """Columns that act together, in pairs and all at once."""
    x = table(feeds)
    pairs = (x[:, :-1] * x[:, 1:]).sum(axis=1)
    greatest = np.abs(x).max(axis=1) * x[:, 0]
    found: npt.NDArray[np.float64] = pairs + np.sin(x.sum(axis=1)) + greatest
    return found


def by_definition(
    function: Function, rows: Feeds, background: Feeds
) -> npt.NDArray[np.float64]:
    """Mean change at each column's turn, over all orders and background rows."""
    names = list(rows)
    n_rows, n_background = len(rows[names[0]]), len(background[names[0]])
    found = np.zeros((n_rows, len(names)))
    for row in range(n_rows):
        for order in permutations(range(len(names))):
            mixed = {name: values.copy() for name, values in background.items()}
            before = function(mixed).mean()
            for column in order:
                name = names[column]
                mixed[name] = np.repeat(rows[name][row : row + 1], n_background, axis=0)
                after = function(mixed).mean()
                found[row, column] += after - before
                before = after
    return found / math.factorial(len(names))


def check_that_it_sums_up(found: Explained, answers: npt.NDArray[np.float64]) -> None:
    sums = found.base + found.values.sum(axis=1)
    assert sums == pytest.approx(answers, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("n_columns", [1, 2, 3, 5])
def test_few_columns_are_exact(n_columns: int) -> None:
    rows, background = numbers(3, n_columns, 1), numbers(7, n_columns, 2)
    function = tangled if n_columns > 1 else lambda feeds: table(feeds)[:, 0] ** 2
    seen = Model(function).explained(rows, background)
    found = seen.explained()
    assert (seen.method, seen.is_complete) == ("exact", True)
    assert found.values == pytest.approx(by_definition(function, rows, background))
    assert not found.errors.any()
    assert found.base == pytest.approx(np.full(3, function(background).mean()))
    assert seen.predictions == 3 * 7 * predictions_of_a_visit("exact", n_columns)
    check_that_it_sums_up(found, function(rows))


def test_texts_and_moments_are_columns_like_others() -> None:
    """A category that acts together with a number, and a moment that does nothing."""
    rows: Feeds = {
        "size": np.array([[2.0]], np.float32),
        "colour": np.array([["red"]], dtype=object),
        "at": np.array([[5]], np.int64),
    }
    background: Feeds = {
        "size": np.array([[0.0], [1.0]], np.float32),
        "colour": np.array([["blue"], ["red"]], dtype=object),
        "at": np.array([[7], [np.iinfo(np.int64).min]], np.int64),
    }

    def function(feeds: Feeds) -> npt.NDArray[np.float64]:
        assert feeds["size"].dtype == np.float32
        assert feeds["at"].dtype == np.int64
        return np.where(feeds["colour"] == "red", 10.0, 1.0) * feeds["size"]

    found = Model(lambda f: function(f)[:, 0]).explained(rows, background).explained()
    expected = by_definition(lambda f: function(f)[:, 0], rows, background)
    assert found.values == pytest.approx(expected)
    assert found.values[0, 2] == pytest.approx(0, abs=1e-12)
    assert found.values[0, 1] > 0


@pytest.mark.parametrize("n_columns", [4, 25])
def test_a_line_gives_its_slopes_times_the_distance_from_the_mean(
    n_columns: int,
) -> None:
    """By either method, with no error: orders do not matter to it."""
    slopes = np.linspace(-3, 5, n_columns)
    rows, background = numbers(4, n_columns, 3), numbers(N_BACKGROUND, n_columns, 4)
    model = Model(lambda feeds: table(feeds) @ slopes + 7)
    seen = model.explained(rows, background)
    found = seen.explained()
    assert seen.method == ("exact" if n_columns == 4 else "sampled")
    assert found.values == pytest.approx(
        slopes * (table(rows) - table(background).mean(axis=0))
    )
    assert found.errors == pytest.approx(np.zeros_like(found.values), abs=1e-9)


def test_columns_that_do_the_same_get_the_same() -> None:
    rows, background = numbers(1, 4, 5), numbers(6, 4, 6)
    for feeds in (rows, background):
        feeds["x1"] = feeds["x0"].copy()
    model = Model(lambda feeds: np.exp(table(feeds)[:, :3].sum(axis=1)))
    ((first, second, third, _),) = model.explained(rows, background).explained().values
    assert first == pytest.approx(second)
    assert first != pytest.approx(third), "negative control: it has another value"


@pytest.mark.parametrize("n_columns", [5, 20])
def test_a_column_that_does_nothing_gets_nothing(n_columns: int) -> None:
    rows, background = numbers(2, n_columns, 7), numbers(N_BACKGROUND, n_columns, 8)
    model = Model(lambda feeds: tangled({n: v for n, v in feeds.items() if n != "x2"}))
    found = model.explained(rows, background).explained()
    assert found.values[:, 2] == pytest.approx([0, 0], abs=1e-12)
    assert found.errors[:, 2] == pytest.approx([0, 0], abs=1e-12)
    assert (np.abs(found.values[:, [0, 1, 3]]) > 1e-3).all()


@pytest.mark.parametrize("seconds", [LONG, 0.004])
def test_sampled_contributions_sum_up_to_the_answer(seconds: float) -> None:
    """By construction, also when time was over before all was looked at."""
    rows, background = numbers(3, 30, 9), numbers(32, 30, 10)
    seen = Model(tangled).explained(rows, background, seconds)
    assert (seen.method, seen.is_complete) == ("sampled", seconds == LONG)
    check_that_it_sums_up(seen.explained(), tangled(rows))


def test_each_output_is_explained_by_itself() -> None:
    """Of more than one class, the predicted one's."""
    rows, background = numbers(2, 3, 11), numbers(5, 3, 12)

    def both(feeds: Feeds) -> npt.NDArray[np.float64]:
        return np.column_stack([tangled(feeds), -2 * tangled(feeds)])

    first = Model(both).explained(rows, background, of=0).explained()
    second = Model(both).explained(rows, background, of=1).explained()
    assert second.values == pytest.approx(-2 * first.values)
    assert second.base == pytest.approx(-2 * first.base)


# ── errors ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("seconds", "n_visits"), [(0.0002, 5), (0.0004, 10), (LONG, 16)]
)
def test_errors_say_how_wrong_contributions_are(
    monkeypatch: pytest.MonkeyPatch, seconds: float, n_visits: int
) -> None:
    """Against the exact values of the same rows: about as many are off as should be.

    With all visits made, only the orders are left to chance.
    """
    rows, background = numbers(30, 11, 13), numbers(N_BACKGROUND, 11, 14)
    offs = []
    for row in range(30):
        one = {name: values[row : row + 1] for name, values in rows.items()}
        found = Model(tangled).explained(one, background, seconds).explained()
        assert found.visits.tolist() == [n_visits]
        offs.append((found.values[0], found.errors[0]))
    monkeypatch.setattr(shapley, "EXACT_COLUMNS", 11)
    seen = Model(tangled).explained(rows, background)
    assert seen.method == "exact"
    exact = seen.explained().values
    errors = np.array([error for _, error in offs])
    distance = (np.array([values for values, _ in offs]) - exact) / errors
    assert 0.85 < (np.abs(distance) < 2).mean() < 1, "neither too small nor too wide"
    assert 0.5 < np.sqrt(np.median(distance**2)) < 1.1


def test_less_time_gives_wider_errors() -> None:
    rows, background = numbers(1, 20, 15), numbers(32, 20, 16)
    errors = []
    for seconds in (0.0004, 0.001, LONG):
        seen = Model(tangled).explained(rows, background, seconds)
        errors.append(float(np.mean(seen.explained().errors)))
    assert errors[0] > 1.3 * errors[1] > 1.3 * 1.3 * errors[2] > 0


# ── the time ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n_columns", [6, 30])
@pytest.mark.parametrize("seconds", [0.0003, 0.004, 0.05])
def test_it_is_never_late(n_columns: int, seconds: float) -> None:
    """As long as the model takes what it took before."""
    rows, background = numbers(8, n_columns, 17), numbers(32, n_columns, 18)
    model = Model(tangled)
    model.explained(rows, background, seconds)
    assert model.now <= seconds
    assert model.now > 0.7 * seconds or sum(model.calls) == 8 * 32 * (
        predictions_of_a_visit("exact" if n_columns == 6 else "sampled", n_columns)
    )


def test_calls_are_short_and_few() -> None:
    """Many mixtures a call, but not more than others can wait for."""
    rows, background = numbers(4, 30, 19), numbers(32, 30, 20)
    model = Model(tangled)
    model.explained(rows, background)
    assert max(model.calls) <= shapley.CALL_ROWS
    assert len(model.calls) <= 2 + sum(model.calls) / (0.9 * shapley.CALL_ROWS)
    slow = Model(tangled, pace=1e-5)
    slow.explained(rows, background)
    assert max(slow.calls) * 1e-5 <= shapley.CALL_SECONDS


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-5])
def test_without_time_nothing_is_asked_and_nothing_said(seconds: float) -> None:
    model = Model(tangled)
    seen = model.explained(numbers(2, 30, 21), numbers(8, 30, 22), seconds)
    assert (model.calls, seen.is_complete) == ([], False)
    assert np.isnan(seen.explained().values).all()
    assert np.isnan(seen.explained().errors).all()


def test_some_rows_are_told_rather_than_none() -> None:
    rows, background = numbers(50, 30, 29), numbers(32, 30, 30)
    seen = Model(tangled).explained(rows, background, 41.5 * 116 * PACE)
    assert seen.visits.tolist() == [2] * 20 + [1] + [0] * 29
    is_told = np.isfinite(seen.explained().values).all(axis=1)
    assert is_told.tolist() == [True] * 20 + [False] * 30


def test_rows_that_are_told_go_on_together() -> None:
    """Where time runs out, all have been compared equally often, or about."""
    rows, background = numbers(5, 30, 23), numbers(32, 30, 24)
    seen = Model(tangled).explained(rows, background, 0.005)
    assert not seen.is_complete
    assert seen.visits.max() - seen.visits.min() <= 1
    assert seen.visits.min() >= 2


def test_one_visit_alone_is_not_told() -> None:
    """Nobody could say how wrong it is; its neighbour, compared twice, is told."""
    rows, background = numbers(2, 30, 25), numbers(8, 30, 26)
    seen = Model(tangled).explained(rows, background, 3.5 * 116 * PACE)
    assert sorted(seen.visits) == [1, 2]
    is_told = np.isfinite(seen.explained().values).all(axis=1)
    assert is_told.tolist() == (seen.visits == 2).tolist()


# ── the same again ──────────────────────────────────────────────────────────


def test_a_row_gets_the_same_values_again_in_whatever_company() -> None:
    rows, background = numbers(6, 20, 27), numbers(16, 20, 28)
    together = Model(tangled).explained(rows, background).explained()
    again = Model(tangled).explained(rows, background).explained()
    assert (again.values == together.values).all()
    for row in (0, 4):
        one = {name: values[row : row + 1] for name, values in rows.items()}
        alone = Model(tangled).explained(one, background).explained()
        assert alone.values[0] == pytest.approx(together.values[row], rel=1e-12)


def test_rows_are_walked_in_orders_of_their_own() -> None:
    """So that the errors of many rows do not add up in one direction."""
    rows: Feeds = {
        "size": np.array([[1.0], [1.0], [2.0]], np.float32),
        "colour": np.array([["a"], ["a"], ["a"]], dtype=object),
    }
    first, second, third = seeds_of(rows, 3)
    assert first == second != third
    rows["colour"] = np.array([["a"], ["b"], ["a"]], dtype=object)
    first, second, _ = seeds_of(rows, 3)
    assert first != second


def test_few_columns_are_sampled_where_the_model_is_slow() -> None:
    assert method_for(1, 10, 32, pace=1e-6, seconds=1) == "exact"
    assert method_for(1, 10, 32, pace=1e-3, seconds=1) == "sampled"
    assert method_for(100, 10, 32, pace=1e-6, seconds=1) == "sampled"
    assert method_for(100, 3, 32, pace=1e-3, seconds=0.01) == "exact", "it costs less"
    assert method_for(1, 11, 2, pace=1e-9, seconds=1) == "sampled"
