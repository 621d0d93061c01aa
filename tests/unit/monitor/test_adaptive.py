"""Limits from the past: the achieved rate of false alarms, and what they still find."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.events import AlertRaised
from driftloop.monitor import adaptive

from tests.unit.monitor.story import InProcess, Shop, day, spec

Values = np.ndarray[Any, np.dtype[np.float64]]
Draw = Callable[[np.random.Generator, int], Values]
RUNS = 1000


def flat(dice: np.random.Generator, n: int) -> Values:
    """Shares of bad rows among 168, usually one in a hundred."""
    return dice.binomial(168, 0.01, n) / 168


def heavy(dice: np.random.Generator, n: int) -> Values:
    return dice.lognormal(0, 1.5, n)


def rising(dice: np.random.Generator, n: int) -> Values:
    return dice.normal(0, 1, n) + 0.05 * np.arange(n)


def achieved(draw: Draw, rate: float, find: Callable[[Values], float | None]) -> float:
    """Return how often the next value is above the limit."""
    dice = np.random.default_rng(20261127)
    n, false_count = adaptive.wanted(rate), 0
    for _ in range(RUNS):
        values = draw(dice, n + 1)
        limit = find(values[:-1])
        assert limit is not None
        false_count += values[-1] > limit
    return false_count / RUNS


@pytest.mark.parametrize("rate", [0.05, 0.2])
@pytest.mark.parametrize("draw", [flat, heavy, rising])
def test_no_more_false_alarms_than_stated(draw: Draw, rate: float) -> None:
    """Four standard errors of a simulation's rate are allowed for chance."""
    found = achieved(draw, rate, lambda past: adaptive.limit(past, rate))
    assert found <= rate + 4 * (rate * (1 - rate) / RUNS) ** 0.5


def test_without_the_trend_taken_away_it_fails() -> None:
    """The negative control: a plain quantile of a series that rises."""
    found = achieved(rising, 0.05, lambda past: float(np.quantile(past, 0.95)))
    assert found > 0.1


@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_a_limit_is_no_wider_than_it_has_to_be(rate: float) -> None:
    """Half the stated rate is reached at least, where values are no whole counts."""
    found = achieved(heavy, rate, lambda past: adaptive.limit(past, rate))
    assert found > rate / 2


def test_a_few_faults_do_not_bend_the_line() -> None:
    dice = np.random.default_rng(1)
    values = dice.normal(0, 0.01, 60) + 0.001 * np.arange(60)
    spoilt = values.copy()
    spoilt[[10, 20, 30]] = 5.0
    assert adaptive._trend(spoilt) == pytest.approx(adaptive._trend(values), rel=0.2)
    plain = np.polyfit(np.arange(60), spoilt, 1)[0]
    assert plain != pytest.approx(0.001, rel=0.2)  # as least squares would


def test_a_short_past_promises_nothing() -> None:
    assert adaptive.limit([0.0] * 18, 0.05) is None
    assert adaptive.limit([0.0] * 19, 0.05) == 0.0
    assert adaptive.share_limit([0.0] * 18, 0.05, 0.2) == 0.2
    assert adaptive.share_limit([0.0] * 19, 0.05, 0.2) == adaptive.LEAST_SHARE
    assert adaptive.share_limit([0.9] * 19, 0.05, 0.2) == adaptive.MOST_SHARE


def tell(bad: list[int], **monitor: Any) -> tuple[list[AlertRaised], int]:
    """Send a batch a day with so many bad rows; return alerts and how many ended."""
    world = InProcess(spec(**monitor))
    try:
        world.take(Shop().deployed(1))
        for number, count in enumerate(bad):
            good = Shop().observed(number)
            good = good.model_copy(update={"quarantined_count": count})
            shop = Shop()
            rows = shop.observed(number).rows
            world.take(good.with_rows(rows), f"b{number}")
            if count:
                world.take(shop.rejected(number, count), f"b{number}")
        return world.of(AlertRaised), len(world.of(AlertResolved))
    finally:
        world.close()


USUAL = [1 if number % 3 == 0 else 0 for number in range(60)]
"""Of 24 rows a day one is bad now and then."""
EARLY = [*USUAL, *[4] * 12]
"""Then one in six: a window of seven days holds 17 %."""


def test_a_share_that_is_unusual_here_is_a_fault() -> None:
    """Below the fixed limit; a pipeline whose usual share it is hears nothing."""
    (alert,), _ = tell(EARLY, fault_false_alarms=0.2)
    assert alert.condition.startswith("sensor_fault:")
    assert tell(EARLY) == ([], 0)
    assert tell([4] * 72, fault_false_alarms=0.2) == ([], 0)


def test_what_was_wrong_once_is_not_usual() -> None:
    """The same fault, after it was over, is told again."""
    alerts, over_count = tell([*EARLY, *USUAL, *[4] * 12], fault_false_alarms=0.2)
    assert over_count == len(alerts) - 1
    begun = datetime.fromisoformat(f"{alerts[-1].condition.split(':', 2)[2]}+00:00")
    assert begun > day(len(EARLY) + len(USUAL) - 7)  # a window before the second one
