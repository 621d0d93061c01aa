"""The oracle's course, and how sure a recommendation is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from driftloop.backtest.oracle import best_course, hindsight
from driftloop.backtest.weighing import Weighed, interval, recommend


def test_the_course_is_the_best_of_all_choices() -> None:
    dice = np.random.default_rng(4)
    for cost in (0.0, 3.0, 50.0):
        starts = [0, 7, 20, 33]
        losses = [dice.uniform(0, 2, 40 - start) for start in starts]
        counted = dice.uniform(size=40) < 0.8

        def total(choice: tuple[int, ...], starts=starts, losses=losses,
                  counted=counted, cost=cost) -> float:  # fmt: skip
            found = 0.0
            for at, chosen in enumerate(choice):
                start = starts[chosen]
                end = starts[choice[at + 1]] if at + 1 < len(choice) else 40
                part = losses[chosen][: end - start]
                found += float(part[counted[start:end]].sum())
            return found + cost * (len(choice) - 1)

        choices = [
            (0, *rest)
            for size in range(4)
            for rest in itertools.combinations((1, 2, 3), size)
        ]
        course = best_course(starts, losses, counted, cost)
        assert course.total == pytest.approx(min(map(total, choices)))
        assert total(course.chosen) == pytest.approx(course.total)


def test_a_policy_that_was_better_is_the_oracles_course() -> None:
    counted = np.ones(4, dtype=bool)
    course = best_course([0], [np.ones(4)], counted, 0.0)
    better = hindsight(course, {"a": (np.full(4, 0.5), 1.0)}, counted)
    assert (better.of, better.total) == ("a", 3.0)
    dear = hindsight(course, {"a": (np.full(4, 0.5), 5.0)}, counted)
    assert dear.of is None


def test_an_interval_of_blocks_is_wider_for_rows_that_are_alike() -> None:
    dice = np.random.default_rng(0)
    noise = dice.normal(0, 1, 2000)
    alike = np.repeat(dice.normal(0, 1, 40), 50)
    low, high = interval(noise, 1, 0.95, seed=1)
    assert high - low == pytest.approx(4 / 2000**0.5, rel=0.15)
    low, high = interval(alike, 100, 0.95, seed=1)
    assert high - low > 0.4


def _weighed(name: str, mean: float, trainings: int, costs: float = 0.0) -> Weighed:
    losses = mean + np.random.default_rng(len(name)).normal(0, 1, 3000)
    return Weighed(name, losses, trainings, costs)


def test_a_clear_winner_is_called_one() -> None:
    best = recommend([_weighed("a", 1.0, 9), _weighed("bb", 2.0, 1)], 20)
    assert (best.name, best.is_clear, best.alike) == ("a", True, ())


def test_chance_is_no_winner_and_the_less_costly_is_taken() -> None:
    best = recommend([_weighed("a", 5.0, 9), _weighed("bb", 5.001, 1)], 20)
    assert not best.is_clear
    assert best.name == "bb"
    assert best.alike == ("a",)


def test_costs_can_turn_the_choice() -> None:
    """Without them the first one wins clearly; that is the test above it."""
    best = recommend([_weighed("a", 1.0, 9, 9000.0), _weighed("bb", 2.0, 1)], 20)
    assert (best.name, best.is_clear) == ("bb", True)
