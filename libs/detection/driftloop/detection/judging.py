"""What a test found, and whether that is a change, none, or too little data to say.

With enough rows any difference is significant, and with too few none is. So a signal
has *moved* only when its effect is significant and large, and it is *the same* only
when there were enough rows to find a large effect. Else there is *not enough data*.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from driftloop.detection.recursion import Floats

Verdict = Literal["moved", "same", "not_enough_data"]
POWER = 0.8
"""Chance to find an effect of the least size that matters, when it is there."""
POWER_SCORE = 0.8416
"""Standard normal quantile of :data:`POWER`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far a window is from its reference in one signal.

    Attributes
    ----------
    signal : a column's name, or of several: ``together``, ``correlation``, ``domain``.
    test : ``KS``, ``PSI``, ``Wasserstein``, ``Jensen-Shannon``, ``chi-square``,
        ``MMD``, ``correlation``, ``classifier``.
    statistic : in the test's own unit.
    effect : distance that does not grow with the number of rows; each test's module
        says in which unit.
    p_value : after :func:`judged` adjusted for the number of comparisons.
    row_count : values of the window that were compared.
    needed_rows : of a window, to find an effect of ``least_effect`` with a chance of
        :data:`POWER`; infinite where the reference is too small for any.
    columns : of a pair, or empty: ``signal`` is the column, or it is all of them.
    """

    signal: str
    test: str
    statistic: float
    effect: float
    p_value: float
    row_count: int
    least_effect: float
    needed_rows: float
    verdict: Verdict = "not_enough_data"
    columns: tuple[str, ...] = ()


def judged(found: Sequence[Comparison], alpha: float) -> list[Comparison]:
    """Adjust the p-values for their number and say what each comparison means.

    Parameters
    ----------
    alpha : share of false ones among those that moved, at most.

    Examples
    --------
    >>> one = Comparison("x", "KS", 0.5, 0.5, 1e-9, 400, 0.3, 90)
    >>> few = Comparison("y", "KS", 0.2, 0.2, 0.3, 40, 0.3, 90)
    >>> [c.verdict for c in judged([one, few], 0.001)]
    ['moved', 'not_enough_data']
    """
    p_values = false_discovery([c.p_value for c in found])
    return [
        Comparison(
            c.signal, c.test, c.statistic, c.effect, p, c.row_count, c.least_effect,
            c.needed_rows, _verdict(c, p, alpha), c.columns,
        )
        for c, p in zip(found, p_values.tolist(), strict=True)
    ]  # fmt: skip


def _verdict(found: Comparison, p_value: float, alpha: float) -> Verdict:
    if p_value < alpha and found.effect >= found.least_effect:
        return "moved"
    return "same" if found.row_count >= found.needed_rows else "not_enough_data"


def false_discovery(p_values: Sequence[float]) -> Floats:
    """Return p-values adjusted to control the false discovery rate.

    Source: Benjamini and Hochberg (1995), JRSS B 57.

    >>> false_discovery([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not len(values):
        return values
    order = np.argsort(values)[::-1]
    scaled = values[order] * len(values) / np.arange(len(values), 0, -1)
    found = np.empty_like(values)
    found[order] = np.minimum(1.0, np.minimum.accumulate(scaled))
    return found


def window_for(wanted: float, reference_rows: float) -> float:
    """Return the window that is, with the reference, worth ``wanted`` rows.

    Two samples are worth their harmonic sum.

    >>> window_for(100, 900)
    112.5
    >>> window_for(100, 90)
    inf
    """
    if reference_rows <= wanted:
        return math.inf
    return wanted * reference_rows / (reference_rows - wanted)
