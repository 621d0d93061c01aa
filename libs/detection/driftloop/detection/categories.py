"""Categories against a reference, by counts.

The effect is the total variation distance: the share of rows that would have to take
another value, from 0 (equal) to 1 (nothing in common).
"""

from collections.abc import Mapping

import numpy as np
from driftloop.detection.binned import MIN_ROWS, needed_chi_square
from driftloop.detection.judging import Comparison, window_for
from scipy import special

LEAST_EFFECT = 0.3
MAX_VALUES = 50
"""More values of a category than this are counted as one."""


def compared(
    name: str,
    reference: Mapping[str, int],
    window: Mapping[str, int],
    alpha: float = 1e-3,
) -> Comparison | None:
    """Chi-square test of homogeneity, from counts of each value.

    Returns
    -------
    Comparison or None
        None: one of the two has fewer than ``MIN_ROWS``.

    Source: Pearson (1900), Philosophical Magazine 50. Needed rows take the least
    chi-square that goes with the distance (Cauchy-Schwarz).

    Examples
    --------
    >>> found = compared("kind", {"a": 50, "b": 50}, {"a": 100, "b": 0})
    >>> found.effect, found.p_value < 1e-12
    (0.5, True)
    """
    rows, reference_rows = sum(window.values()), sum(reference.values())
    if min(rows, reference_rows) < MIN_ROWS:
        return None
    ranked = sorted(
        reference.keys() | window.keys(),
        key=lambda v: (-reference.get(v, 0) - window.get(v, 0), v),
    )
    table = np.array(
        [[counts.get(v, 0) for v in ranked] for counts in (reference, window)],
        dtype=np.float64,
    )
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] > MAX_VALUES:
        rest = table[:, MAX_VALUES:].sum(axis=1, keepdims=True)
        table = np.hstack([table[:, :MAX_VALUES], rest])
    shares = table / table.sum(axis=1, keepdims=True)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    freedom = table.shape[1] - 1
    p_value = float(special.chdtrc(freedom, statistic)) if freedom else 1.0
    wanted = needed_chi_square(4 * LEAST_EFFECT**2, max(freedom, 1), alpha)
    return Comparison(
        name,
        "chi-square",
        statistic,
        float(np.abs(shares[0] - shares[1]).sum() / 2),
        p_value,
        rows,
        LEAST_EFFECT,
        window_for(wanted, reference_rows),
    )
