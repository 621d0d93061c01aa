"""How much labelled rows count when the rows to judge are of another population."""

from dataclasses import dataclass

import numpy as np
from driftloop.models.columns import Floats
from scipy.special import expit

MIN_GAIN = 0.005
"""Nats by which rows of the two sides must be told apart, on rows that were not
learned from, before any weight differs from 1: noise is no shift."""
MAX_TESTED_ROWS = 700
"""Of either side, evenly taken, by which it is asked whether the two differ."""
MAX_WEIGHT = 20.0
MAX_LOG_ODDS = 6.0
RIDGE = 5.0
"""In rows of one standard deviation."""
STEPS = 15
MIN_CURVATURE = 1e-6
MAX_STEP = 5.0
DONE = 1e-5
INTERCEPT_RIDGE = 1e-8
MAX_POINT = 5.0


def standardised(known: Floats, *others: Floats) -> list[Floats]:
    """Return all of them in standard deviations of the known rows.

    >>> standardised(np.array([[0.0], [2.0]]), np.array([[4.0]]))[1].tolist()
    [[3.0]]
    """
    middle, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    return [
        np.clip((one - middle) / spread, -MAX_POINT, MAX_POINT)
        for one in (known, *others)
    ]


def quadratic(points: Floats) -> Floats:
    """Return (n_rows, 1 + 2 * width): a constant, the points and their squares."""
    return np.column_stack([np.ones(len(points)), points, points**2 - 1])


def logistic(design: Floats, outcome: Floats, weights: Floats, ridge: float) -> Floats:
    """Return the coefficients of a ridge logistic regression, by Newton's method.

    Parameters
    ----------
    design : (n_rows, width), its first column the constant, which is not shrunk.
    outcome : (n_rows,) 0 to 1.
    """
    found = np.zeros(design.shape[1])
    penalty = np.full(design.shape[1], ridge)
    penalty[0] = INTERCEPT_RIDGE
    for _ in range(STEPS):
        chance = expit(design @ found)
        slope = design.T @ (weights * (outcome - chance)) - penalty * found
        curvature = np.maximum(chance * (1 - chance), MIN_CURVATURE) * weights
        matrix = (design * curvature[:, None]).T @ design + np.diag(penalty)
        step = np.clip(np.linalg.solve(matrix, slope), -MAX_STEP, MAX_STEP)
        found = found + step
        if float(np.abs(step).max()) < DONE:
            break
    return found


@dataclass(frozen=True)
class Shift:
    """How known rows stand to the window's.

    Attributes
    ----------
    weights : (n_known,) of mean 1; all 1 where the two cannot be told apart.
    overlap : share of the window's population that is among the known rows at all.
    """

    weights: Floats
    overlap: float = 1.0

    @property
    def is_there(self) -> bool:
        """Whether the window is of another population."""
        return bool(np.any(self.weights != 1.0))

    @property
    def alike_count(self) -> float:
        """As how many rows like the window's the known ones say."""
        return effective_count(self.weights) * self.overlap


def shift_of(known: Floats, window: Floats) -> Shift:
    """Return by how much each known row resembles the window.

    By a classifier that tells the two apart, where it can do so on the half of the
    rows that it has not learned from. Density ratios have the mean 1 over the known
    rows where these are found wherever the window is; what is missing from it is of a
    population that no known row is of.

    Parameters
    ----------
    known, window : (n_rows, width), on one scale.

    Source: Sugiyama, Suzuki and Kanamori (2012), Density Ratio Estimation in Machine
    Learning, chapter 4; Bialek et al. (2024), Estimating Model Performance Under
    Covariate Shift Without Labels, for its use in calibration.
    """
    if not _differ(_thinned(known), _thinned(window)):
        return Shift(np.ones(len(known)))
    design, side, balance = _sides(known, window)
    found = logistic(design, side, balance, RIDGE)
    odds = np.clip(design[: len(known)] @ found, -MAX_LOG_ODDS, MAX_LOG_ODDS)
    ratios = np.exp(odds)
    overlap = min(1.0, float(ratios.mean()))
    weights = np.minimum(ratios / ratios.mean(), MAX_WEIGHT)
    return Shift(weights / weights.mean(), overlap)


def _thinned(points: Floats) -> Floats:
    return points[:: -(-len(points) // MAX_TESTED_ROWS)]


def _sides(known: Floats, window: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the design of both, which side each row is of, and weights of balance."""
    count = len(known) + len(window)
    side = np.concatenate([np.zeros(len(known)), np.ones(len(window))])
    balance = np.where(side > 0, 0.5 / len(window), 0.5 / len(known)) * count
    return quadratic(np.vstack([known, window])), side, balance


def _differ(known: Floats, window: Floats) -> bool:
    """Whether rows are told apart that were not learned from."""
    design, side, balance = _sides(known, window)
    is_even = np.arange(len(side)) % 2 == 0
    loss = 0.0
    for part in (is_even, ~is_even):
        found = logistic(design[~part], side[~part], balance[~part], RIDGE)
        odds = np.clip(design[part] @ found, -MAX_LOG_ODDS, MAX_LOG_ODDS)
        signs = np.where(side[part] > 0, -odds, odds)
        loss += float(np.sum(balance[part] * np.logaddexp(0.0, signs)))
    return bool(np.log(2) - loss / len(side) >= MIN_GAIN)


def effective_count(weights: Floats) -> float:
    """Return as how many equal rows weighted ones say as much.

    Source: Kish (1965), Survey Sampling, section 11.7.

    >>> effective_count(np.array([1.0, 1.0, 0.0]))
    2.0
    """
    total = float(np.sum(weights))
    return total**2 / float(np.sum(weights**2)) if total > 0 else 0.0
