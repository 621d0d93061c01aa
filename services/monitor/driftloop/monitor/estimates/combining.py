"""One estimate out of several, and how far it may be off: by what became of the last.

Pure. Each settled window says how wrong each expert was; experts count by that. The
interval holds the chance of the window's own rows and the errors that the estimates
have made beyond it, so an estimator that is often wrong says so by wide intervals. It
is wider on the side of the worse where rows are further out than any labelled one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from driftloop.monitor.estimates.experts import LEVEL, Opinions
from pydantic import BaseModel, ConfigDict

DISCOUNT = 0.8
"""What a settled window counts for beside the one after it."""
PRIOR_WINDOWS = 2.0
"""Equal experts, so many windows strong, are what one begins with."""
SHIFTED_LEVEL = 0.5
"""Of the weight of the last rows' level where the window is of another population."""
DOUBT = 0.25
"""Share of the way from the last rows' level to the estimate that may be wrong, until
settled windows say better."""
TINY = 1e-12
Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""
MAX_PAST = 30
"""Settled windows that are looked at; older ones count for nothing by the discount."""
UNIT_METRICS = frozenset({"accuracy", "roc_auc"})
"""Between 0 and 1."""


class Combined(BaseModel):
    """An estimate as it was made, with each expert's part."""

    model_config = ConfigDict(frozen=True)

    metric: str
    value: float
    low: float
    high: float
    experts: dict[str, float]

    @property
    def level(self) -> float:
        return self.experts[LEVEL]


@dataclass(frozen=True)
class Past:
    """An estimate and what it turned out to be.

    Attributes
    ----------
    chance : variance of ``realised`` that is the rows' own.
    """

    estimate: Combined
    realised: float
    chance: float = 0.0


def combined(
    found: Opinions, row_count: int, past: Mapping[str, Sequence[Past]]
) -> list[Combined]:
    """Return an estimate for each metric of which anybody had an opinion.

    Parameters
    ----------
    row_count : rows of the window.
    past : by metric, oldest first.
    """
    return [
        _one(metric, said, found, row_count, list(past.get(metric, ()))[-MAX_PAST:])
        for metric, said in found.by_metric.items()
        if LEVEL in said
    ]


def _one(
    metric: str,
    said: Mapping[str, float],
    found: Opinions,
    row_count: int,
    past: Sequence[Past],
) -> Combined:
    weights = weights_of(list(said), past)
    if found.is_shifted:
        weights[LEVEL] *= SHIFTED_LEVEL
        whole = sum(weights.values())
        weights = {name: each / whole for name, each in weights.items()}
    value = sum(weights[name] * each for name, each in said.items())
    chance = variance_of(metric, value, found.deviation, row_count)
    known = variance_of(metric, value, found.deviation, max(found.alike_count, 1.0))
    moved = (DOUBT * (value - said[LEVEL])) ** 2
    beyond = _beyond_chance(past, known + _dissent(said, weights) + moved)
    reach = Z_95 * (chance + beyond) ** 0.5
    # Of rows further out than labelled ones only the better end is known.
    low, high = value - reach, value + reach + found.unseen
    return Combined(
        metric=metric,
        value=value,
        low=max(low, 0.0),
        high=min(high, 1.0) if metric in UNIT_METRICS else high,
        experts=dict(said),
    )


def _dissent(said: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """Return the variance of the mean of those who adjust the last rows' level."""
    others = {name: weights[name] for name in said if name != LEVEL}
    whole = sum(others.values())
    if whole <= 0:
        return 0.0
    middle = sum(part * said[name] for name, part in others.items()) / whole
    spread = sum(part * (said[name] - middle) ** 2 for name, part in others.items())
    alone = sum((part / whole) ** 2 for part in others.values())
    return spread / whole * alone


def weights_of(names: Sequence[str], past: Sequence[Past]) -> dict[str, float]:
    """Return what each expert counts, 1 in all: by the inverse of its squared error.

    Source: Bates and Granger (1969), The Combination of Forecasts, Operational Research
    Quarterly 20(4), with the errors discounted by age.

    >>> weights_of(["level", "calibrated"], [])
    {'level': 0.5, 'calibrated': 0.5}
    """
    errors = dict.fromkeys(names, 0.0)
    counts = dict.fromkeys(names, 0.0)
    for age, one in enumerate(reversed(past)):
        for name in names:
            if name in one.estimate.experts:
                weight = DISCOUNT**age
                error = one.estimate.experts[name] - one.realised
                errors[name] += weight * error**2
                counts[name] += weight
    usual = sum(errors.values()) / max(sum(counts.values()), TINY) or 1.0
    inverse = {
        name: (counts[name] + PRIOR_WINDOWS)
        / max(errors[name] + PRIOR_WINDOWS * usual, TINY)
        for name in names
    }
    whole = sum(inverse.values())
    return {name: each / whole for name, each in inverse.items()}


def variance_of(
    metric: str, value: float, deviation: Mapping[str, float], row_count: float
) -> float:
    """Return the variance that a metric over so many rows has by chance.

    Of a root mean square by the delta method; of an area under the curve by Hanley and
    McNeil's (1982) formula for as many rows of either class, Radiology 143(1).
    """
    if metric == "roc_auc":
        side = row_count / 2
        both = value / (2 - value) - value**2
        other = 2 * value**2 / (1 + value) - value**2
        own = value * (1 - value)
        return max(own + (side - 1) * (both + other), 0.0) / max(side**2, TINY)
    variance = deviation.get(metric, 0.0) ** 2 / max(row_count, TINY)
    return variance / (4 * max(value, TINY) ** 2) if metric == "rmse" else variance


def _beyond_chance(past: Sequence[Past], prior: float) -> float:
    """Return the variance of past errors that the rows' own chance does not explain.

    Until there are errors, that of the labelled rows and of the experts' dissent.
    """
    total, count = PRIOR_WINDOWS * prior, PRIOR_WINDOWS
    for age, one in enumerate(reversed(past)):
        weight = DISCOUNT**age
        error = one.estimate.value - one.realised
        total += weight * max(error**2 - one.chance, 0.0)
        count += weight
    return float(total / count)


@dataclass(frozen=True)
class Score:
    """How good a run of estimates was."""

    window_count: int
    mean_absolute_error: float | None
    level_error: float | None
    coverage: float | None


def scored(past: Sequence[Past]) -> Score:
    """Return how far estimates were off, and how often their interval held.

    >>> scored([]).window_count
    0
    """
    if not past:
        return Score(0, None, None, None)
    errors = [abs(one.estimate.value - one.realised) for one in past]
    level = [abs(one.estimate.level - one.realised) for one in past]
    held = [one.estimate.low <= one.realised <= one.estimate.high for one in past]
    return Score(
        len(past),
        float(np.mean(errors)),
        float(np.mean(level)),
        float(np.mean(held)),
    )
