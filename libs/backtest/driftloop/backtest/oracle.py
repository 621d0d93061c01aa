"""The best course in hindsight, which no policy can know.

Candidates are trainings by the pipeline's own settings at given moments, each on what
was known by then. A course is a choice of them: a version answers from its training
until the next one's, and each training costs what the pipeline says it costs. The
course with the least sum of losses and costs is found by dynamic programming over the
moments; the course of each policy of the backtest is a candidate as a whole, too. So
nothing in a report is better than the oracle, and it is a bound for these moments and
settings, not for all that could be.

Source: the offline comparator of prequential evaluation; Bellman (1957), Dynamic
Programming, for the recursion over the last decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Course:
    """What the oracle would have done.

    Attributes
    ----------
    chosen : numbers of the candidates, in order; empty: ``of`` says whose course it is.
    losses : (n_rows,) of what it would have answered; NaN before the first candidate.
    total : sum of the losses of the rows that count, and of the costs.
    of : the policy whose own course nothing else was better than.
    """

    chosen: tuple[int, ...]
    losses: Floats
    total: float
    of: str | None = None


def best_course(
    starts: Sequence[int],
    losses: Sequence[Floats],
    counted: npt.NDArray[np.bool_],
    training_cost: float,
) -> Course:
    """Return the cheapest choice of trainings; the first candidate is always in it.

    Parameters
    ----------
    starts : (n_candidates,) number of the first row that each can answer, ascending.
    losses : of each candidate, of all rows from its start on.
    counted : (n_rows,) rows whose losses count.
    training_cost : of each after the first, in the unit of the losses.

    Examples
    --------
    >>> flat, good = np.array([1.0, 1, 5, 5]), np.array([1.0, 1])
    >>> best_course([0, 2], [flat, good], np.ones(4, bool), training_cost=3.0).chosen
    (0, 1)
    >>> best_course([0, 2], [flat, good], np.ones(4, bool), training_cost=9.0).chosen
    (0,)
    """
    count = len(counted)
    sums = [
        np.concatenate([[0.0], np.cumsum(np.where(counted[start:], each, 0.0))])
        for start, each in zip(starts, losses, strict=True)
    ]

    def spent(candidate: int, until: int) -> float:
        return float(sums[candidate][until - starts[candidate]])

    best, before = [0.0], [-1]
    for later in range(1, len(starts)):
        ways = [best[k] + spent(k, starts[later]) for k in range(later)]
        cheapest = int(np.argmin(ways))
        best.append(ways[cheapest] + training_cost)
        before.append(cheapest)
    totals = [best[k] + spent(k, count) for k in range(len(starts))]
    last = int(np.argmin(totals))
    chosen = [last]
    while before[chosen[-1]] >= 0:
        chosen.append(before[chosen[-1]])
    order = tuple(reversed(chosen))
    found = np.full(count, np.nan)
    for place, candidate in enumerate(order):
        start = starts[candidate]
        end = starts[order[place + 1]] if place + 1 < len(order) else count
        found[start:end] = losses[candidate][: end - start]
    return Course(order, found, totals[last])


def hindsight(
    course: Course,
    policies: Mapping[str, tuple[Floats, float]],
    counted: npt.NDArray[np.bool_],
) -> Course:
    """Return the course, or a policy's own where that was cheaper.

    Parameters
    ----------
    policies : losses and the costs of trainings, in the unit of the losses, by name.
    """
    best = course
    for name, (losses, costs) in policies.items():
        total = float(np.sum(losses[counted])) + costs
        if total < best.total:
            best = Course((), losses, total, name)
    return best
