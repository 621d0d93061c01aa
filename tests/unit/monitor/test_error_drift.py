"""When the error counts as risen."""

from __future__ import annotations

import numpy as np
import pytest
from driftloop.contracts.monitoring import ErrorDetector
from driftloop.monitor.error_drift import SHOWN, block_rows, error_rise
from hypothesis import given
from hypothesis import strategies as st

both: pytest.MarkDecorator = pytest.mark.parametrize(
    "detector", ["page_hinkley", "mixture"]
)


def noisy(levels: list[float], seed: int, noise: float = 0.25) -> list[float]:
    dice = np.random.default_rng(seed)
    found: list[float] = (
        np.array(levels) * np.exp(dice.normal(0, noise, len(levels)))
    ).tolist()
    return found


@both
def test_a_steady_error_never_alarms_over_a_year(detector: ErrorDetector) -> None:
    """Twenty years of noisy days, watched day by day: at most one false alarm."""
    alarms = 0
    for seed in range(20):
        levels = noisy([0.3] * 365, seed)
        alarms += any(
            error_rise(levels[:day], 0.3, 1.0, detector) for day in range(5, 365, 5)
        )
    assert alarms <= 1


@both
@pytest.mark.parametrize(("factor", "most_blocks"), [(3.0, 6), (2.0, 10), (1.5, 30)])
def test_a_rise_is_found_the_sooner_the_greater_it_is(
    factor: float, most_blocks: int, detector: ErrorDetector
) -> None:
    """Median number of blocks from the change to the alarm."""
    delays = []
    for seed in range(15):
        levels = noisy([0.3] * 40 + [0.3 * factor] * 60, seed)
        delays.append(
            next(
                n
                for n in range(1, 61)
                if error_rise(levels[: 40 + n], 0.3, 1.0, detector)
            )
        )
    assert np.median(delays) <= most_blocks


@both
def test_it_says_when_the_rise_began(detector: ErrorDetector) -> None:
    levels = noisy([0.3] * 30 + [0.8] * 10, 1)
    rise = error_rise(levels, 0.3, 1.0, detector)
    assert rise is not None
    assert abs(rise.since - 30) <= 2
    assert rise.before == pytest.approx(0.3, rel=0.2)
    assert rise.recent == pytest.approx(0.8, rel=0.2)
    assert rise.statistic > rise.threshold


@both
def test_a_reference_from_a_hard_stretch_does_not_hide_a_rise(
    detector: ErrorDetector,
) -> None:
    """The hold-out was over the holidays; the version then did much better."""
    levels = noisy([0.25] * 40 + [0.6] * 15, 2)
    assert error_rise(levels, 0.6, 1.0, detector) is not None


@both
def test_one_terrible_block_is_no_rise(detector: ErrorDetector) -> None:
    levels = [*noisy([0.3] * 30, 3), 6.0]
    assert error_rise(levels, 0.3, 1.0, detector) is None


@both
def test_a_rise_that_went_away_is_none(detector: ErrorDetector) -> None:
    levels = noisy([0.3] * 20 + [0.9] * 8 + [0.3] * 12, 4)
    assert error_rise(levels[:28], 0.3, 1.0, detector) is not None
    assert error_rise(levels, 0.3, 1.0, detector) is None


@both
def test_more_sensitive_alarms_earlier(detector: ErrorDetector) -> None:
    levels = noisy([0.3] * 20 + [0.5] * 30, 5)

    def delay(sensitivity: float) -> int:
        return next(
            n for n in range(50) if error_rise(levels[:n], 0.3, sensitivity, detector)
        )

    assert delay(2.0) < delay(1.0)


@given(
    st.lists(st.floats(0.01, 100), max_size=60),
    st.floats(0.01, 10),
    st.sampled_from([*SHOWN]),
)
def test_any_levels_are_judged(
    levels: list[float], reference: float, detector: ErrorDetector
) -> None:
    """No sequence of levels breaks any detector, and a rise lies inside of them."""
    rise = error_rise(levels, reference, 1.0, detector)
    if rise is not None:
        assert 0 <= rise.since < len(levels)
        assert rise.recent > rise.before
        assert rise.detector == SHOWN[detector]


@pytest.mark.parametrize("detector", [*SHOWN])
def test_each_detector_finds_a_lasting_tripling(detector: ErrorDetector) -> None:
    levels = noisy([0.3] * 60 + [0.9] * 60, 7, noise=0.1)
    assert error_rise(levels[:60], 0.3, 1.0, detector) is None
    rise = error_rise(levels, 0.3, 1.0, detector)
    if detector == "eddm":  # looks at how far apart bad blocks are: these all are
        return
    assert rise is not None
    assert abs(rise.since - 60) <= 15


@given(st.lists(st.floats(0.05, 5), min_size=1, max_size=40))
def test_units_do_not_matter(levels: list[float]) -> None:
    """A loss in other units, with its reference, is the same case."""
    one, other = error_rise(levels, 0.5), error_rise([8 * v for v in levels], 4.0)
    assert (one is None) == (other is None)


def test_a_block_is_a_part_of_the_window() -> None:
    assert [block_rows(n) for n in (20, 168, 1_000_000)] == [20, 24, 500]
