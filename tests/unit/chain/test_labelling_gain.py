"""What chosen labels are worth on real bike rentals, against as many at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.labelling import Strategy
from driftloop.contracts.pipeline import load_pipeline
from driftloop.monitor.feature_drift import Kind
from driftloop.monitor.labelling.choosing import Pool, choose
from driftloop.monitor.turn import kinds_of
from pyarrow import csv
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

Floats = np.ndarray[Any, np.dtype[np.float64]]
BIKES = Path(__file__).parents[3] / "examples/bike-demand"
SEEDS = range(300, 306)
"""Over 40 of them it was the same: docs/labelling.md has the figures."""
FIRST_HOURS, FIRST_ROWS = 450, 150
BUDGET, WINDOW, WINDOWS = 40, 336, 5
LATER_HOURS = 2000


@dataclass(frozen=True)
class Rentals:
    rows: pa.Table
    values: Floats
    counts: Floats
    kinds: dict[str, Kind]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than so few rows are worth."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def rentals() -> Rentals:
    spec = load_pipeline(BIKES / "pipeline.yaml")
    table = csv.read_csv(BIKES / "rentals.csv")
    kinds = kinds_of(spec, table)
    values = np.column_stack([table[name].to_numpy() for name in kinds])
    counts = table["cnt"].to_numpy().astype(np.float64)
    return Rentals(table, values.astype(np.float64), counts, kinds)


def learned(rentals: Rentals, known: list[int]) -> HistGradientBoostingRegressor:
    model = HistGradientBoostingRegressor(loss="absolute_error", random_state=0)
    return model.fit(rentals.values[known], rentals.counts[known])


def error_after(
    rentals: Rentals, strategy: Strategy, seed: int, draw: int = 0
) -> Floats:
    """Mean absolute error on hours between and after those that could be asked for.

    150 hours are labelled at first, 40 of each two weeks that follow; half of the hours
    can never be asked for, so that both models are judged on the same ones.
    """
    dice = np.random.default_rng(seed)
    span = FIRST_HOURS + WINDOW * WINDOWS
    start = int(dice.integers(0, len(rentals.counts) - span - LATER_HOURS))
    is_held = dice.random(span) < 0.5
    open_hours = np.flatnonzero(~is_held)
    first = open_hours[open_hours < FIRST_HOURS]
    known: list[int] = (start + dice.choice(first, FIRST_ROWS, replace=False)).tolist()
    for number in range(WINDOWS):
        begin = FIRST_HOURS + number * WINDOW
        window = (
            start + open_hours[(open_hours >= begin) & (open_hours < begin + WINDOW)]
        )
        pool = pool_of(rentals, learned(rentals, known), sorted(known), window)
        chosen = choose(pool, strategy, BUDGET, 1.0, [seed, number, draw])
        assert len(chosen) == BUDGET
        known += [int(window[choice.place]) for choice in chosen]
    model = learned(rentals, known)
    between = start + np.flatnonzero(is_held)
    later = np.arange(start + span, start + span + LATER_HOURS)
    return np.array(
        [
            np.mean(np.abs(model.predict(rentals.values[at]) - rentals.counts[at]))
            for at in (between, later)
        ]
    )


def pool_of(
    rentals: Rentals,
    model: HistGradientBoostingRegressor,
    known: list[int],
    window: np.ndarray[Any, Any],
) -> Pool:
    said = pa.array(model.predict(rentals.values[known]))
    return Pool(
        rows=rentals.rows.take(window),
        margins=None,
        answers=model.predict(rentals.values[window]),
        reference=rentals.rows.take(known).append_column("prediction", said),
        asked=rentals.rows.slice(0, 0),
        asked_answers=np.zeros(0),
        kinds=rentals.kinds,
    )


def test_chosen_labels_make_a_better_model_than_random_ones(rentals: Rentals) -> None:
    """350 labels each. Negative control: two random choices do not differ as much."""
    one, other = (
        np.array([error_after(rentals, "random", seed, draw) for seed in SEEDS])
        for draw in (0, 1)
    )
    chosen = np.array([error_after(rentals, "informative", seed) for seed in SEEDS])
    usual = (one + other) / 2
    gained = (chosen / usual).mean(axis=0)
    assert np.all(gained < 0.98), gained
    assert np.sum(chosen < usual) > 1.3 * len(SEEDS)  # of two figures a seed
    by_luck = (one / usual).mean(axis=0)
    assert np.all(np.abs(by_luck - 1) < 1 - gained), (by_luck, gained)
