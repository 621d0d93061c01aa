"""Losses of rows, of a guess without skill, and of two versions on the same rows."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from driftloop.contracts.events import PairedComparison
from driftloop.models.columns import Floats

Target = float | str
"""A number for regression, else the label as text."""
MIN_PROBABILITY = 1e-15
"""A sure and wrong answer costs 34.5, not infinity (as scikit-learn clips)."""


def squared_or_absolute(metric: str, target: Floats, prediction: Floats) -> Floats:
    """Return the loss of each row of a regression.

    Parameters
    ----------
    metric : ``mae`` or ``rmse``.
    target, prediction : (n_rows,) in the target's unit.

    Returns
    -------
    (n_rows,) absolute errors, or squared ones for ``rmse``.

    >>> squared_or_absolute("rmse", np.array([1.0, 2.0]), np.array([1.0, 5.0])).tolist()
    [0.0, 9.0]
    """
    error = np.abs(target - prediction)
    return error**2 if metric == "rmse" else error


def log_losses(probabilities: Floats) -> Floats:
    """Return -ln of the probabilities (n_rows,) given to what came true.

    >>> log_losses(np.array([1.0, 0.0])).round(1).tolist()
    [-0.0, 34.5]
    """
    result: Floats = -np.log(np.clip(probabilities, MIN_PROBABILITY, 1.0))
    return result


def measured(metric: str, losses: Floats) -> float:
    """Return the metric over rows, in the metric's unit.

    >>> measured("rmse", np.array([0.0, 9.0, 9.0]))
    2.449489742783178
    """
    mean = float(np.mean(losses))
    return mean**0.5 if metric == "rmse" else mean


def no_skill_loss(metric: str, targets: Sequence[Target]) -> float:
    """Return the mean loss of the best constant guess for these targets.

    The median for ``mae``, the mean for ``rmse`` (squared, as the rows' losses are),
    the shares of the classes for ``log_loss``. It says how hard a stretch is.

    >>> no_skill_loss("mae", [1.0, 2.0, 6.0])
    1.6666666666666667
    >>> round(no_skill_loss("log_loss", ["a", "b"]), 3)
    0.693
    """
    if metric == "log_loss":
        shares = np.array(list(Counter(targets).values())) / len(targets)
        return float(-np.sum(shares * np.log(shares)))
    values = np.asarray(targets, dtype=np.float64)
    if metric == "rmse":
        return float(np.var(values))
    return float(np.mean(np.abs(values - np.median(values))))


def paired(candidate: Floats, champion: Floats) -> PairedComparison:
    """Compare two versions by their losses (n_rows,) on the same rows.

    With one row there is no spread to see; the difference itself stands for it.

    >>> paired(np.array([1.0, 2.0]), np.array([2.0, 4.0])).mean_difference
    -1.5
    """
    difference = candidate - champion
    mean, count = float(np.mean(difference)), len(difference)
    if count == 1:
        error = abs(mean)
    else:
        error = float(np.std(difference, ddof=1)) / count**0.5
    return PairedComparison(mean_difference=mean, standard_error=error, row_count=count)


def paired_over_time(candidate: Floats, champion: Floats) -> PairedComparison:
    """Compare two versions by their losses (n_rows,), in order of event time.

    Losses of neighbours resemble each other, so the standard error is that of the
    means of about sqrt(n_rows) runs of rows where it is larger than :func:`paired`'s.

    Source: batch means; Schmeiser (1982), Operations Research 30 (3), 556-568.

    >>> calm, alike = np.array([1.0, -1.0] * 8), np.repeat([1.0, -1.0], 8)
    >>> [round(paired_over_time(x, np.zeros(16)).standard_error, 2)
    ...  for x in (calm, alike)]
    [0.26, 0.58]
    """
    found = paired(candidate, champion)
    runs = np.array_split(candidate - champion, math.isqrt(found.row_count))
    if len(runs) < 2:
        return found
    means = np.array([run.mean() for run in runs])
    error = float(np.std(means, ddof=1)) / len(runs) ** 0.5
    worst = max(error, found.standard_error)
    return found.model_copy(update={"standard_error": worst})
