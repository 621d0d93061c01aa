"""Whether probabilities, and predicted numbers, mean what they say."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from driftloop.contracts.measures import Calibration
from driftloop.trainer import losses
from driftloop.trainer.evaluation.subject import Scene, Subject, two_dimensional
from driftloop.trainer.losses import Floats

BINS = 10
COVERED = (0.05, 0.95)
"""Quantiles of the validation errors; nine of ten hold-out errors belong between."""
MIN_BIN_ROWS = 5


@dataclass(frozen=True)
class Bin:
    """Rows of like answers: what was said of them, and what was true.

    For classification the mean probability and the share of the class; for
    regression the mean prediction and the mean truth.
    """

    row_count: int
    said: float
    true: float


def measure(
    scene: Scene, validation_errors: Floats
) -> tuple[Calibration, dict[str, list[dict[str, Any]]]]:
    """Return how right the answers are on average, and by bins for each model.

    Parameters
    ----------
    validation_errors : (n,) prediction minus truth on rows that chose the candidate;
        empty for classification.
    """
    table = {}
    found = {}
    for role, subject in scene.subjects().items():
        if subject.target.classes:
            found[role], bins = of_classes(subject)
        else:
            found[role], bins = of_numbers(
                subject, scene.target_deviation, validation_errors
            )
        table[role] = [asdict(one) for one in bins]
    champion = found.get("champion")
    champion_error = None if champion is None else champion.error
    short = found["candidate"].model_copy(update={"champion_error": champion_error})
    return short, table


def of_classes(subject: Subject) -> tuple[Calibration, list[Bin]]:
    """Return the calibration of probabilities.

    Of two classes the second one's, of several the likeliest one's. Bins hold equally
    many rows. A calibrated model has an expected calibration error, too, because bins
    are small: what chance gives is taken off.

    Source: Naeini, Cooper and Hauskrecht (2015), AAAI, for the error; Guo et al.
    (2017), ICML, for the likeliest class; Bröcker and Smith (2007), Weather and
    Forecasting 22, for what chance gives; Brier (1950), Monthly Weather Review 78.
    """
    score = subject.predict().score
    if score is None:
        raise ValueError("a classifier gives scores")
    classes = list(subject.target.classes)
    truth = np.array(
        [
            classes.index(v) if v in classes else -1
            for v in subject.target.values.tolist()
        ]
    )
    scores = two_dimensional(score)
    brier = np.square(scores - (truth[:, None] == np.arange(len(classes)))).sum(axis=1)
    if len(classes) == 2:
        said, is_true, brier = scores[:, 1], truth == 1, brier / 2
    else:
        likeliest = scores.argmax(axis=1)
        said, is_true = scores.max(axis=1), truth == likeliest
    bins = bins_of(said, is_true.astype(np.float64))
    gap = sum(abs(b.said - b.true) * b.row_count for b in bins) / len(said)
    error = max(0.0, gap - _by_chance(bins, len(said)))
    return Calibration(error=error, brier=float(np.mean(brier))), bins


def _by_chance(bins: list[Bin], row_count: int) -> float:
    """Return the error that a calibrated model is expected to show.

    The mean absolute deviation of a share of ``n`` rows, by the normal distribution.
    """
    return sum(
        b.row_count / row_count
        * math.sqrt(2 / math.pi * max(b.said * (1 - b.said), 0.0) / b.row_count)
        for b in bins
    )  # fmt: skip


def bins_of(said: Floats, true: Floats) -> list[Bin]:
    """Return bins of equally many rows, by what was said of them."""
    count = max(1, min(BINS, len(said) // MIN_BIN_ROWS))
    order = np.argsort(said, kind="stable")
    return [
        Bin(len(rows), float(np.mean(said[rows])), float(np.mean(true[rows])))
        for rows in np.array_split(order, count)
    ]


def of_numbers(
    subject: Subject, deviation: float, validation_errors: Floats
) -> tuple[Calibration, list[Bin]]:
    """Return the calibration of predicted numbers.

    Mean error; slope of truth on prediction, 1 where predictions neither exaggerate
    nor hide differences; and how many errors lie where the validation errors say.

    Source: Mincer and Zarnowitz (1969), The Evaluation of Economic Forecasts, for the
    slope; Lei et al. (2018), JASA 113, for ranges by held-out errors.
    """
    said: npt.NDArray[np.float64] = subject.predict().prediction.astype(np.float64)
    truth = subject.target.values.astype(np.float64)
    errors = said - truth
    bias = float(np.mean(errors))
    beyond = max(0.0, abs(bias) - losses.standard_error(errors))
    varies = float(np.var(said)) > 0
    slope = (
        float(np.cov(said, truth, bias=True)[0, 1] / np.var(said)) if varies else None
    )
    coverage = None
    if len(validation_errors):
        low, high = np.quantile(validation_errors, COVERED)
        coverage = float(np.mean((errors >= low) & (errors <= high)))
    return (
        Calibration(
            error=beyond / deviation, bias=bias, slope=slope, coverage=coverage
        ),
        bins_of(said, truth),
    )
