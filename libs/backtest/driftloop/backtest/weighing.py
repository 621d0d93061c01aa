"""Which policy is better, and how sure that is.

Policies answer the same rows, so their losses are compared row by row; losses of
neighbours resemble each other, so whole blocks of rows are drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from driftloop.contracts.retraining import CostSection

Floats = npt.NDArray[np.float64]
DRAWS = 2000
CONFIDENCE = 0.95
MIN_BLOCKS = 20
"""In a stretch of rows, however long a block should be: fewer show no spread."""
AS_GOOD = 0.01
"""Of the best one's total: policies this near are equally good in practice."""


@dataclass(frozen=True)
class Weighed:
    """What a policy came to, on the rows that all policies answered.

    Attributes
    ----------
    losses : (n_rows,) in the unit whose mean decides.
    costs : of trainings and rollouts, in the unit of the losses; 0: none is known.
    """

    name: str
    losses: Floats
    trainings: int
    costs: float = 0.0

    @property
    def total(self) -> float:
        return float(np.sum(self.losses)) + self.costs


@dataclass(frozen=True)
class Difference:
    """How much worse a policy is than the best one, a row, costs included.

    Attributes
    ----------
    low, high : interval of the mean difference.
    is_clear : the interval does not hold 0.
    """

    name: str
    best: str
    mean: float
    low: float
    high: float
    is_clear: bool


@dataclass(frozen=True)
class Recommendation:
    """What to do.

    Attributes
    ----------
    name : of the policy.
    is_clear : it is better than each other one by more than chance.
    alike : those that it cannot be told apart from.
    """

    name: str
    is_clear: bool
    alike: tuple[str, ...]
    differences: tuple[Difference, ...]


def cost_in_loss(cost: CostSection, trainings: int, rollouts: int) -> float:
    """Return what trainings and rollouts cost, in losses of a row.

    >>> cost_in_loss(CostSection(loss_unit_value=0.5, training=10, rollout=5), 2, 1)
    50.0
    """
    if cost.loss_unit_value is None:
        return 0.0
    spent = cost.training * trainings + cost.rollout * rollouts
    return spent / cost.loss_unit_value


def interval(
    differences: Floats, block_rows: int, confidence: float, seed: int
) -> tuple[float, float]:
    """Return the interval of a mean of an autocorrelated series, by drawn blocks.

    Parameters
    ----------
    differences : (n_rows,) in order of event time.
    block_rows : of a block; longer than rows resemble each other.

    Source: circular block bootstrap; Politis and Romano (1992), in LePage and Billard
    (eds.), Exploring the Limits of Bootstrap, 263-270.

    >>> interval(np.ones(100), 10, 0.95, seed=0)
    (1.0, 1.0)
    """
    count = len(differences)
    size = max(1, min(block_rows, count // MIN_BLOCKS))
    around = np.concatenate([[0.0], np.cumsum(np.tile(differences, 2))])
    sums = around[size : size + count] - around[:count]
    draw = np.random.default_rng(seed)
    blocks = math.ceil(count / size)
    starts = draw.integers(0, count, size=(DRAWS, blocks))
    means = sums[starts].sum(axis=1) / (blocks * size)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def recommend(
    policies: Sequence[Weighed], block_rows: int, seed: int = 0
) -> Recommendation:
    """Return the best policy, or one as good in practice that trains less.

    Best is the least sum of losses and costs. The confidence of all comparisons
    together is :data:`CONFIDENCE` (Bonferroni).
    """
    best = min(policies, key=lambda policy: (policy.total, policy.trainings))
    others = [policy for policy in policies if policy is not best]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(others))
    found = []
    for other in others:
        count = len(best.losses)
        constant = (other.costs - best.costs) / count
        rows = other.losses - best.losses
        low, high = interval(rows, block_rows, confidence, seed)
        found.append(
            Difference(
                other.name,
                best.name,
                float(np.mean(rows)) + constant,
                low + constant,
                high + constant,
                is_clear=low + constant > 0,
            )
        )
    alike = [d.name for d in found if not d.is_clear]
    near = [policy for policy in policies if policy is best or policy.name in alike]
    as_good = [p for p in near if p.total <= best.total * (1 + AS_GOOD)]
    chosen = min(as_good, key=lambda policy: (policy.trainings, policy.total))
    names = tuple(policy.name for policy in near if policy is not chosen)
    return Recommendation(chosen.name, not alike, names, tuple(found))
