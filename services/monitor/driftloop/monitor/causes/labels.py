"""Whether the labels are at fault, not the model: signals of labels and labellers."""

from dataclasses import dataclass

import numpy as np
from driftloop.models.columns import Floats
from driftloop.monitor.causes.stretch import NO_SOURCE, Stretch
from driftloop.monitor.feature_drift import MIN_ROWS

IMPLAUSIBLE_FACTOR = 4.0
"""The world seldom gets so many times larger from one row to the next; a unit does."""
MIN_ONE_SHARE = 0.3
"""More labels of one value than before by this share of a labeller's rows."""
MIN_AGREEMENT = 0.3


@dataclass(frozen=True)
class OfLabeller:
    """How one labeller's labels are, beside before.

    Attributes
    ----------
    grown : the loss now to that of before.
    agreement : correlation of answers and labels, before and now.
    one_value : share of the most frequent label now, less that of before.
    factor : of the labels to the answers, beside before; 1: as before.
    """

    source: str
    row_count: int
    grown: float
    agreement: tuple[float, float]
    one_value: float
    factor: float


def labellers(before: Stretch, now: Stretch) -> list[OfLabeller]:
    """Return all labels together (source ``""``), and each labeller with enough."""
    found = [_labeller(NO_SOURCE, before, now)]
    names = sorted(set(now.labeller.tolist()) & set(before.labeller.tolist()))
    for name in names if len(names) > 1 else ():
        there, here = before.labeller == name, now.labeller == name
        if min(there.sum(), here.sum()) >= MIN_ROWS:
            found.append(_labeller(name, before.where(there), now.where(here)))
    return found


def _labeller(source: str, before: Stretch, now: Stretch) -> OfLabeller:
    return OfLabeller(
        source=source,
        row_count=len(now),
        grown=float(now.loss.mean() / max(before.loss.mean(), 1e-12)),
        agreement=(_agreement(before), _agreement(now)),
        one_value=_one_share(now.target) - _one_share(before.target),
        factor=_factor(before, now),
    )


def _agreement(rows: Stretch) -> float:
    """Return the correlation of answers and labels, over all outputs."""
    said = (rows.said - rows.said.mean(axis=0)).ravel()
    target = (rows.target - rows.target.mean(axis=0)).ravel()
    size = float((said @ said) * (target @ target)) ** 0.5
    return float(said @ target / size) if size > 0 else 0.0


def _one_share(target: Floats) -> float:
    _, counts = np.unique(target, axis=0, return_counts=True)
    return float(counts.max() / len(target))


def _factor(before: Stretch, now: Stretch) -> float:
    """Return how many times larger labels are beside what was answered; 1: no number.

    Answers that are all of one sign and labels likewise: else a factor says nothing.
    """
    if before.target.shape[1] != 1 or min(before.target.min(), now.target.min()) < 0:
        return 1.0
    ratios = [
        float(np.median(rows.target)) / max(float(np.median(rows.said)), 1e-12)
        for rows in (before, now)
    ]
    if min(ratios) <= 0:
        return 1.0
    return ratios[1] / ratios[0]
