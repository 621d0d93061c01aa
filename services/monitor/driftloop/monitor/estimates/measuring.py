"""What labelled rows say: metrics with their intervals, and calibration. Pure."""

import math

import numpy as np
from driftloop.contracts.estimates import CalibrationMeasured, Figure
from driftloop.models.columns import Floats
from driftloop.models.losses import measured
from driftloop.monitor.estimates.arrays import Rows, roc_auc, row_losses
from driftloop.monitor.estimates.combining import UNIT_METRICS, Z_95, variance_of

MAX_BINS = 10
MIN_BIN_ROWS = 20
"""A share of fewer rows says nothing; so few rows have one bin, and then the error is
that of the mean."""


def metric_of(metric: str, rows: Rows) -> tuple[Figure, float] | None:
    """Return a metric over labelled rows with its interval, and its variance.

    None where it has no value: no area under a curve of one class alone.
    """
    if metric == "roc_auc":
        truth = (rows.labels() == 1).astype(np.float64)
        value = roc_auc(rows.said[:, 1], truth)
        if value is None:
            return None
        fewer = 2 * min(float(truth.sum()), float(len(truth) - truth.sum()))
        variance = variance_of(metric, value, {}, fewer)
    else:
        losses = row_losses(metric, rows)
        value = (
            float(np.mean(losses)) if metric == "accuracy" else measured(metric, losses)
        )
        spread = {metric: float(np.std(losses))}
        variance = variance_of(metric, value, spread, rows.count)
    return _figure(metric, value, variance), variance


def _figure(metric: str, value: float, variance: float) -> Figure:
    reach = Z_95 * variance**0.5
    high = value + reach
    return Figure(
        value=value,
        low=max(value - reach, 0.0),
        high=min(high, 1.0) if metric in UNIT_METRICS else high,
    )


def calibration(rows: Rows) -> CalibrationMeasured:
    """Return whether answers meant what they said.

    Of two classes the second one's, of several the likeliest one's, in bins of equally
    many rows, of which there are as many as the rows allow. What chance gives a
    calibrated model is taken off.

    Source: Naeini, Cooper and Hauskrecht (2015), AAAI, for the error; Bröcker and
    Smith (2007), Weather and Forecasting 22, for what chance gives; Brier (1950),
    Monthly Weather Review 78; the number of bins grows with the rows after Roelofs et
    al. (2022), AISTATS, Mitigating Bias in Calibration Error Estimation.
    """
    if not rows.class_count:
        return _of_numbers(rows)
    truth, said = rows.labels().astype(np.int64), rows.said
    is_class = truth[:, None] == np.arange(rows.class_count)
    brier = np.square(said - is_class).sum(axis=1)
    if rows.class_count == 2:
        sure, is_true, brier = said[:, 1], truth == 1, brier / 2
    else:
        sure, is_true = said.max(axis=1), truth == said.argmax(axis=1)
    bins = _bins(sure)
    gap, chance = 0.0, 0.0
    for places in bins:
        share, true = float(sure[places].mean()), float(is_true[places].mean())
        part = len(places) / rows.count
        gap += part * abs(share - true)
        spread = max(share * (1 - share), 0.0) / len(places)
        chance += part * math.sqrt(2 / math.pi * spread)
    return CalibrationMeasured(
        error=max(gap - chance, 0.0),
        bin_count=len(bins),
        brier=float(np.mean(brier)),
    )


def _bins(sure: Floats) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    count = max(1, min(MAX_BINS, len(sure) // MIN_BIN_ROWS))
    return np.array_split(np.argsort(sure, kind="stable"), count)


def _of_numbers(rows: Rows) -> CalibrationMeasured:
    truth = rows.labels().astype(np.float64)
    errors = rows.said - truth
    bias, deviation = float(np.mean(errors)), float(np.std(truth))
    own = float(np.std(errors)) / math.sqrt(rows.count)
    beyond = max(0.0, abs(bias) - own)
    return CalibrationMeasured(
        error=beyond / deviation if deviation > 0 else 0.0, bin_count=1, bias=bias
    )
