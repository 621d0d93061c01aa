"""A limit from the pipeline's own past, for a stated rate of false alarms; pure.

The limit is an order statistic of what was usual. Of values that are exchangeable a new
one is above the k-th smallest of n, k = ceil((n + 1)(1 - rate)), with a probability of
at most ``rate``, whatever their distribution. A trend would break that, so it is taken
away (Theil and Sen's line, which a few faults do not bend), and the limit stands above
where the line has got to. A line is nearer to the values that it was fitted to than to
the next one: distances are widened by as much, as for a line of least squares.

**Source**: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005),
ch. 2; Sen, JASA 63 (1968) 1379; for the widening, Hoaglin and Welsch, The American
Statistician 32 (1978) 17. ``tests/unit/monitor/test_adaptive.py`` measures the rate.
"""

import math
from collections.abc import Sequence

import numpy as np
from driftloop.monitor.faults import Checked
from numpy.typing import ArrayLike, NDArray

HISTORY_RATIO = 2.0
"""Of the fewest windows that a rate can be promised from; more make it steadier."""
FEWEST = 4
"""A line through three values leaves nothing to judge it by."""
LEAST_SHARE, MOST_SHARE = 0.02, 0.5
"""Below the first nobody calls bad rows a fault, above the second everybody does."""


def fewest(rate: float) -> int:
    """Return how many values a rate can be promised from.

    >>> fewest(0.05)
    19
    """
    return math.ceil(1 / rate - 1 - 1e-9)


def wanted(rate: float) -> int:
    """Return how many values to look at."""
    return math.ceil(HISTORY_RATIO / rate)


def limit(history: ArrayLike, rate: float) -> float | None:
    """Return what the next value exceeds with a probability of at most ``rate``.

    Parameters
    ----------
    history : (n,) earlier values, oldest first, each of a time of its own.

    Returns
    -------
    float | None
        None: the history is too short to promise that.

    >>> limit(range(19), 0.05) is None, limit([0.0] * 9, 0.05)
    (False, None)
    """
    values: NDArray[np.float64] = np.asarray(history, dtype=np.float64)
    n = len(values)
    if n < max(FEWEST, fewest(rate)):
        return None
    places = np.arange(n, dtype=np.float64)
    slope = _trend(values)
    rest = values - slope * places
    if slope:
        middle = np.median(rest)
        rest = middle + (rest - middle) * _widening(places)
    k = math.ceil((n + 1) * (1 - rate) - 1e-9)
    return float(np.sort(rest)[k - 1] + slope * n)


def _trend(values: NDArray[np.float64]) -> float:
    """Return the rise by value: the median of those between all pairs."""
    earlier, later = np.triu_indices(len(values), 1)
    return float(np.median((values[later] - values[earlier]) / (later - earlier)))


def _widening(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much farther the next value is from a line than each fitted one."""
    n, away = len(places), places - places.mean()
    spread = (away**2).sum()
    fitted = 1 / n + away**2 / spread
    following = 1 / n + (n - places.mean()) ** 2 / spread
    widened: NDArray[np.float64] = np.sqrt((1 + following) / (1 - fitted))
    return widened


def share_limit(history: Sequence[float], rate: float, fixed: float) -> float:
    """Return the least share of bad rows that is a fault.

    Parameters
    ----------
    fixed : holds until the history is long enough.
    """
    found = limit(history, rate)
    if found is None:
        return fixed
    return min(max(math.nextafter(found, math.inf), LEAST_SHARE), MOST_SHARE)


def windows_of(batches: Sequence[Checked], rows: int) -> list[list[Checked]]:
    """Cut batches into windows that share none, from the newest back, oldest first.

    The last one is the present window; an oldest one that is not full is left out.
    """
    found: list[list[Checked]] = []
    window: list[Checked] = []
    for batch in reversed(batches):
        window.insert(0, batch)
        if sum(each.row_count for each in window) >= rows:
            found.insert(0, window)
            window = []
    return found
