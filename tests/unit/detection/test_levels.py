"""A rise of a level, block by block."""

from __future__ import annotations

import numpy as np
import pytest
from driftloop.detection.levels import BLOCKS_TO_ALARM, first_rise, noise_of


def noisy(level: float, blocks: int, seed: int, noise: float = 0.2) -> list[float]:
    dice = np.random.default_rng(seed)
    found: list[float] = (level * np.exp(dice.normal(0, noise, blocks))).tolist()
    return found


def test_one_or_two_terrible_blocks_are_no_rise() -> None:
    calm = noisy(0.3, 40, 1)
    for count in range(1, BLOCKS_TO_ALARM):
        assert first_rise([*calm, *[30.0] * count], 0.3) is None
    assert first_rise([*calm, *[30.0] * 5], 0.3) is not None  # the control


def test_what_is_tolerated_is_never_an_alarm() -> None:
    """A tenth more, for ever, against a level that was known exactly."""
    assert first_rise([0.3] * 60 + [0.32] * 400, 0.3) is None
    assert first_rise([0.3] * 60 + [0.45] * 400, 0.3) is not None


def test_it_says_where_it_began_and_from_what() -> None:
    rise = first_rise(noisy(0.3, 30, 2) + noisy(0.7, 20, 3), 0.3)
    assert rise is not None
    assert abs(rise.since - 30) <= 2
    assert rise.before == pytest.approx(0.0, abs=0.1)
    assert rise.at >= rise.since
    assert rise.statistic >= rise.threshold


def test_noise_is_measured_and_a_trend_is_none() -> None:
    dice = np.random.default_rng(0)
    white = dice.normal(0, 0.1, 500)
    assert noise_of(white) == pytest.approx(0.01, rel=0.3)
    assert noise_of(white + np.linspace(0, 5, 500)) == pytest.approx(0.01, rel=0.3)


def test_no_blocks_are_no_rise() -> None:
    assert first_rise([], 0.3) is None
