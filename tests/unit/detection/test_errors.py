"""A rise of the share of wrong answers, row by row."""

from __future__ import annotations

import json

import numpy as np
import pytest
from driftloop.detection import errors
from driftloop.detection.errors import Watched, observe
from hypothesis import given
from hypothesis import strategies as st


def answers(*parts: tuple[float, int], seed: int = 0) -> np.ndarray:
    """Return whether each answer is wrong: shares and how many rows they last."""
    dice = np.random.default_rng(seed)
    return np.concatenate([dice.random(rows) < share for share, rows in parts])


@pytest.mark.parametrize("share", [0.02, 0.13, 0.4])
def test_false_alarms_are_as_rare_as_was_asked(share: float) -> None:
    """100,000 rows without a change: one alarm is expected at 100,000, ten at 2,000."""
    rare, often = 0, 0
    for seed in range(10):
        wrong = answers((share, 10_000), seed=seed)
        rare += len(observe(Watched.since(run_length=100_000), wrong)[1])
        often += len(observe(Watched.since(run_length=2_000), wrong)[1])
    assert rare <= 3
    assert often > rare  # the control: it is no detector that never alarms


@pytest.mark.parametrize(
    ("before", "after", "bound"), [(0.13, 0.3, 100), (0.23, 0.51, 54), (0.02, 0.1, 117)]
)
def test_a_rise_is_found_about_as_soon_as_can_be(
    before: float, after: float, bound: int
) -> None:
    """Lorden's bound for one false alarm in 20,000 rows; ours has ten times fewer."""
    delays = []
    for seed in range(15):
        wrong = answers((before, 4_000), (after, 20 * bound), seed=seed)
        alarms = [c.at for c in observe(Watched(), wrong)[1] if c.at >= 4_000]
        delays.append(alarms[0] - 3_999)
    assert np.median(delays) <= 1.6 * bound


def test_it_says_when_and_from_what_to_what() -> None:
    _, (change, *_) = observe(Watched(), answers((0.1, 5_000), (0.4, 500), seed=3))
    assert change.since == pytest.approx(5_000, abs=60)
    assert change.before == pytest.approx(0.1, abs=0.02)
    assert change.now == pytest.approx(0.4, abs=0.15)
    assert change.statistic >= change.threshold
    assert change.since <= change.at


def test_a_fall_is_no_alarm_and_a_rise_after_it_is() -> None:
    """What is compared with is the better state, not the mean of both."""
    wrong = answers((0.4, 5_000), (0.1, 3_000), (0.25, 1_500), seed=4)
    _, changes = observe(Watched(), wrong)
    assert [change.at > 8_000 for change in changes] == [True]
    assert changes[0].before == pytest.approx(0.1, abs=0.03)


def test_few_rows_are_not_enough_data() -> None:
    """Nothing is said of a share that is not known, however bad the rows after are."""
    state, changes = observe(Watched(), answers((0.1, 100), (0.9, 150)))
    assert not state.is_enough
    assert state.least_found is None
    assert changes == []
    state, _ = observe(Watched(), answers((0.1, 30_000)))
    assert state.is_enough


def test_more_rows_find_smaller_rises() -> None:
    few, many = (Watched.since(rows, rows * 0.1).least_found for rows in (600, 30_000))
    assert few is not None
    assert many is not None
    assert 0.1 < many < few


def test_a_hold_out_is_a_start() -> None:
    """The first rows in service are compared with it at once."""
    wrong = answers((0.4, 200), seed=5)
    assert observe(Watched(), wrong)[1] == []
    assert observe(Watched.since(2_000, 200), wrong)[1] != []


@given(st.lists(st.integers(1, 700), max_size=8), st.integers(0, 50))
def test_how_rows_are_cut_into_batches_does_not_matter(
    sizes: list[int], seed: int
) -> None:
    wrong = answers((0.1, 1_500), (0.5, 500), seed=seed)
    whole, expected = observe(Watched(), wrong)
    state, found = Watched(), []
    for part in np.split(wrong, np.minimum(np.cumsum(sizes), len(wrong))):
        state, more = observe(state, part)
        found += more
    assert [(c.at, c.since) for c in found] == [(c.at, c.since) for c in expected]
    assert state.seen == whole.seen
    assert state.share == pytest.approx(whole.share)


def test_a_state_survives_json() -> None:
    wrong = answers((0.1, 3_000), (0.3, 300), seed=6)
    state, _ = observe(Watched(), wrong[:2_950])
    again = Watched.of_json(json.loads(json.dumps(state.as_json())))
    assert again == state
    assert observe(again, wrong[2_950:]) == observe(state, wrong[2_950:])
    assert len(json.dumps(state.as_json())) < 2_000


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_answers_that_are_all_alike_are_judged(share: float) -> None:
    state, changes = observe(Watched(), answers((share, 3_000)))
    assert changes == []
    assert 0 < state.share < 1


def test_no_rows_change_nothing() -> None:
    assert observe(Watched(), []) == (Watched(), [])


def test_memory_of_the_share_before_is_bounded() -> None:
    state, _ = observe(Watched(), answers((0.1, 60_000)))
    assert state.rows <= errors.KEPT_ROWS + errors.STEP_ROWS
