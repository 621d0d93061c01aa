"""The Shiryaev-Roberts recursion over a mixture of changes, for many rows at once.

Each row gives one likelihood ratio for each of several assumed changes. The evidence
that change ``j`` has begun at some row until now is

    R_n = (1 + R_{n-1}) * ratio_n

and the whole evidence the weighted mean over the changes. While nothing has changed,
``R_n - n`` is a martingale. So an alarm at ``R_n >= A`` comes, however the rows are
spread, after at least ``A`` rows in the mean: the threshold *is* the wanted run length
between false alarms. Nothing has to be tuned.

Source: Shiryaev (1963), Theory of Probability and its Applications 8; Roberts (1966),
Technometrics 8; Pollak (1985), Annals of Statistics 13, for the bound and for the
mixture, whose delay is within a constant of the best possible one (Lorden 1971,
Annals of Mathematical Statistics 42).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MAX_EXPONENT = 690.0
"""Of an exponential that is still a number when a few hundred are added."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the recursion stands after some rows; one entry for each assumed change.

    Attributes
    ----------
    log_ratios : (n_changes,) logarithm of ``R``.
    walks : (n_changes,) Page's walk: its last zero is where that change most likely
        began.
    held : (n_changes,) rows since that zero.
    """

    log_ratios: tuple[float, ...]
    walks: tuple[float, ...]
    held: tuple[int, ...]

    @classmethod
    def none(cls, changes: int) -> "Evidence":
        """Return the state before the first row."""
        return cls((-np.inf,) * changes, (0.0,) * changes, (0,) * changes)

    def total(self, is_used: npt.NDArray[np.bool_], count: int) -> float:
        """Return the logarithm of the evidence for any of the used changes."""
        return float(mixed(np.array(self.log_ratios)[:, None], is_used, count)[0])

    def likeliest(self, is_used: npt.NDArray[np.bool_]) -> int:
        """Return which of the used changes the rows speak for most."""
        return int(np.argmax(np.where(is_used, self.log_ratios, -np.inf)))

    def only(self, is_used: npt.NDArray[np.bool_]) -> "Evidence":
        """Return the evidence for the used changes; the others begin anew."""
        if is_used.all():
            return self
        none = Evidence.none(len(self.walks))
        return Evidence(
            tuple(np.where(is_used, self.log_ratios, none.log_ratios).tolist()),
            tuple(np.where(is_used, self.walks, none.walks).tolist()),
            tuple(np.where(is_used, self.held, 0).tolist()),
        )


def log_ratios(evidence: Evidence, sums: Floats) -> Floats:
    """Return the recursion's logarithm after each row, exact also where it is huge.

    Parameters
    ----------
    sums : (n_changes, n_rows) running sums of the rows' log likelihood ratios.
    """
    start = np.array(evidence.log_ratios)[:, None]
    earlier = np.concatenate([start, np.zeros_like(start), -sums[:, :-1]], axis=1)
    found: Floats = sums + np.logaddexp.accumulate(earlier, axis=1)[:, 1:]
    return found


def most(evidence: Evidence, turns: Floats, rows: int) -> Floats:
    """Return what no row's logarithm exceeds, for each change, at less cost.

    The sum of the recursion has one term a row: none is more than the greatest climb.

    Parameters
    ----------
    turns : (n_changes, n_turns) those of ``rows`` running sums at which they may turn,
        with the first and the last: between them all lies no higher climb.
    """
    lowest = np.minimum(np.minimum.accumulate(turns, axis=1), 0.0)
    climb = np.maximum(turns[:, 0], 0.0)
    if turns.shape[1] > 1:
        climb = np.maximum(climb, (turns[:, 1:] - lowest[:, :-1]).max(axis=1))
    begun = np.array(evidence.log_ratios) + turns.max(axis=1)
    return np.asarray(np.logaddexp(begun, math.log(rows) + climb))


def last_log_ratio(evidence: Evidence, sums: Floats) -> Floats:
    """Return the recursion's logarithm after the last row alone."""
    last = sums[:, -1]
    terms = last[:, None] - sums[:, :-1]
    np.minimum(terms, MAX_EXPONENT, out=terms)
    np.exp(terms, out=terms)
    both = np.minimum([last, last + np.array(evidence.log_ratios)], MAX_EXPONENT)
    total = terms.sum(axis=1) + np.exp(both).sum(axis=0)
    return np.asarray(np.log(np.maximum(total, np.finfo(np.float64).tiny)))


def mixed(found: Floats, is_used: npt.NDArray[np.bool_], count: int) -> Floats:
    """Return the logarithm of the mean evidence of each row.

    Parameters
    ----------
    found : (n_changes, n_rows)
    count : of all changes of the mixture, used or not: the weights stay what they are
        when one comes into use.
    """
    if not is_used.any():
        return np.full(found.shape[1], -np.inf)
    mean: Floats = np.logaddexp.reduce(found[is_used], axis=0)
    return np.asarray(mean - np.log(count))


def after(evidence: Evidence, sums: Floats, last: Floats) -> Evidence:
    """Return where the recursion stands after the last of the rows.

    Parameters
    ----------
    last : (n_changes,) its logarithm there.
    """
    rows = sums.shape[1]
    walks = np.array(evidence.walks)
    at = rows - 1 - np.argmin(sums[:, ::-1], axis=1)
    lowest = sums[np.arange(len(sums)), at]
    is_new = lowest <= -walks
    end = sums[:, -1]
    return Evidence(
        tuple(last.tolist()),
        tuple(np.where(is_new, end - lowest, walks + end).tolist()),
        tuple(np.where(is_new, rows - 1 - at, np.array(evidence.held) + rows).tolist()),
    )
