"""Rows of a window as arrays: points, answers, truth, and the losses of the answers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from driftloop.models.columns import Floats
from driftloop.models.losses import log_losses, squared_or_absolute

Ints = npt.NDArray[np.int64]

MIN_SHARE = 1e-6
"""Probabilities are held this far from 0 and 1 before their odds are taken."""


@dataclass(frozen=True)
class Rows:
    """Rows and what a version said of them.

    Attributes
    ----------
    points : (n_rows, width) features on one scale.
    said : (n_rows,) predictions of a regression in the target's unit, or
        (n_rows, n_classes) probabilities.
    truth : (n_rows,) the target, or the class's number with -1 for one that the
        version does not know; None: no labels yet.
    ages : (n_rows,) age in windows; 0 is now.
    """

    points: Floats
    said: Floats
    truth: Floats | Ints | None = None
    ages: Floats | None = None

    @property
    def count(self) -> int:
        return len(self.said)

    @property
    def class_count(self) -> int:
        """0 for a regression."""
        return self.said.shape[1] if self.said.ndim == 2 else 0

    def labels(self) -> Floats | Ints:
        if self.truth is None:
            raise ValueError("these rows have no labels")
        return self.truth


def row_losses(metric: str, rows: Rows) -> Floats:
    """Return (n_rows,) losses whose mean (root of it, for ``rmse``) is the metric.

    ``accuracy`` and ``roc_auc`` are no losses: the former is 1 for a right row, the
    latter has no value a row.

    Raises
    ------
    ValueError
        For a metric that is no mean over rows.
    """
    truth = rows.labels()
    if metric in ("mae", "rmse"):
        numbers = np.asarray(truth, dtype=np.float64)
        return squared_or_absolute(metric, numbers, rows.said)
    classes = truth.astype(np.int64)
    if metric == "accuracy":
        is_right: Floats = (rows.said.argmax(axis=1) == classes).astype(np.float64)
        return is_right
    if metric == "log_loss":
        known = classes >= 0
        given = np.zeros(rows.count)
        given[known] = rows.said[known, classes[known]]
        return log_losses(given)
    raise ValueError(f"{metric} is no mean over rows")


def roc_auc(score: Floats, is_second: Floats) -> float | None:
    """Return the area under the ROC curve; None where one class is missing.

    Source: Hanley and McNeil (1982), Radiology 143(1), as the rank statistic.

    >>> roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]))
    0.75
    """
    positive = float(is_second.sum())
    negative = len(is_second) - positive
    if positive == 0 or negative == 0:
        return None
    ordered = np.sort(score)
    first = np.searchsorted(ordered, score, side="left")
    last = np.searchsorted(ordered, score, side="right")
    ranks = float(np.sum((first + last + 1) / 2 * is_second))
    return (ranks - positive * (positive + 1) / 2) / (positive * negative)


def expected_roc_auc(score: Floats, chance: Floats) -> float | None:
    """Return the area that is expected when row i is of the second class by chance.

    >>> score = np.array([0.1, 0.4, 0.35, 0.8])
    >>> expected_roc_auc(score, np.array([0.0, 0.0, 1.0, 1.0]))
    0.75
    """
    order = np.argsort(score, kind="stable")
    score, chance = score[order], chance[order]
    positive, negative = float(chance.sum()), float((1 - chance).sum())
    if min(positive, negative) <= 0:
        return None
    before = np.concatenate([[0.0], np.cumsum(1 - chance)])
    first = np.searchsorted(score, score, side="left")
    last = np.searchsorted(score, score, side="right")
    lower = (before[first] + before[last]) / 2
    # A row is not compared with itself, which the half of its own class would be.
    own = chance * (1 - chance) / 2
    pairs = positive * negative - float(np.sum(chance * (1 - chance)))
    if pairs <= 0:
        return None
    return float((np.sum(chance * lower) - own.sum()) / pairs)
