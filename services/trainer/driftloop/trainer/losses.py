"""Losses row by row, and what their difference between two models is worth."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from driftloop.contracts.events import PairedComparison
from driftloop.models.onnx_model import Predictions

Floats = npt.NDArray[np.float64]
SMALLEST_PROBABILITY = 1e-6
"""Below this a float32 probability is no longer told from 0; it bounds the log loss."""
MIN_ROWS_FOR_CORRELATION = 8


@dataclass(frozen=True)
class Target:
    """True values of ``n_rows`` rows.

    Attributes
    ----------
    values : (n_rows,) float64 for regression, else str labels.
    classes : labels in the order of the score's columns; empty for regression.
    """

    values: npt.NDArray[np.generic]
    classes: tuple[str, ...] = ()


def row_losses(metric: str, target: Target, predicted: Predictions) -> Floats:
    """Return (n_rows,) losses whose mean decides: lower is better.

    ``mae``: absolute error. ``rmse``: squared error. ``log_loss``: minus the log of
    the probability given to the true class (a class never seen has none).
    """
    if metric == "log_loss":
        probability = _true_probability(target, predicted)
        return -np.log(np.maximum(probability, SMALLEST_PROBABILITY))
    error = predicted.prediction.astype(np.float64) - target.values.astype(np.float64)
    return np.abs(error) if metric == "mae" else np.square(error)


def _true_probability(target: Target, predicted: Predictions) -> Floats:
    score = predicted.score
    if score is None:
        raise ValueError("a log loss needs scores, and the model gives none")
    if score.ndim == 1:
        score = np.column_stack([1 - score, score])
    labels = {label: column for column, label in enumerate(target.classes)}
    columns = np.array([labels.get(str(v), -1) for v in target.values])
    found = score[np.arange(len(columns)), np.maximum(columns, 0)]
    return np.where(columns >= 0, found, 0.0)


def metric_value(metric: str, losses: Floats) -> float:
    """Return the metric in the unit in which people read it.

    >>> metric_value("rmse", np.array([9.0, 16.0]))
    3.5355339059327378
    """
    mean = float(np.mean(losses))
    return math.sqrt(mean) if metric == "rmse" else mean


def paired_comparison(candidate: Floats, other: Floats) -> PairedComparison:
    """Compare two models on the same rows in order of time.

    The standard error of the mean difference allows for errors that resemble those
    of the rows before: Newey and West's long-run variance with Bartlett weights,
    and Andrews' bandwidth for a first-order autoregression.

    Parameters
    ----------
    candidate, other : (n_rows,) losses, rows sorted by event time.

    Source: Newey and West (1987), doi 10.2307/1913610; Andrews (1991), doi
    10.2307/2938229, equations 6.2 and 6.4; Diebold and Mariano (1995) for the use on
    loss differences.
    """
    difference = candidate - other
    return PairedComparison(
        mean_difference=float(np.mean(difference)),
        standard_error=standard_error(difference),
        row_count=len(difference),
    )


def interval(metric: str, losses: Floats, confidence: float) -> tuple[float, float]:
    """Return the two-sided interval of the metric on rows like these.

    By the normal distribution of a mean; a loss is not below 0.

    >>> interval("mae", np.ones(10), 0.95)
    (1.0, 1.0)
    """
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * standard_error(losses)
    mean = float(np.mean(losses))
    low, high = max(0.0, mean - reach), mean + reach
    return (math.sqrt(low), math.sqrt(high)) if metric == "rmse" else (low, high)


def standard_error(values: Floats) -> float:
    """Return the standard error of the mean of an autocorrelated series.

    >>> standard_error(np.ones(10))
    0.0
    """
    count = len(values)
    centred = values - np.mean(values)
    variance = _product(centred, centred) / count
    if count < 2 or variance == 0:
        return 0.0
    long_run, lags = variance, _bandwidth(centred)
    for lag in range(1, lags + 1):
        weight = 1 - lag / (lags + 1)
        long_run += 2 * weight * _product(centred[lag:], centred[:-lag]) / count
    # Bartlett weights keep it from being negative; n - 1 as for a plain mean.
    return math.sqrt(max(long_run, 0.0) / (count - 1))


def _product(left: Floats, right: Floats) -> float:
    """Return the inner product; its last bit depends on no number of threads."""
    return float(np.sum(left * right))


def _bandwidth(centred: Floats) -> int:
    """Return the number of lags; 0 for few rows or none that resemble each other."""
    count = len(centred)
    if count < MIN_ROWS_FOR_CORRELATION:
        return 0
    rho = _product(centred[1:], centred[:-1]) / _product(centred, centred)
    rho = min(abs(rho), 0.97)  # closer to 1 the bandwidth would pass the series
    alpha = 4 * rho**2 / ((1 - rho) ** 2 * (1 + rho) ** 2)
    return min(int(1.1447 * (alpha * count) ** (1 / 3)), count // 4)
