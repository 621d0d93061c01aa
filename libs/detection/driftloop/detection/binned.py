"""Numbers against a reference, by counts in the reference's own quantiles.

A column of the reference is cut into up to :data:`BINS` bins of equal counts (where it
has fewer values, each is a bin, and so is what lies between two of them). A window is
then a row of counts: counting is two operations and a look into a table, counts of
parts add up, and however long a window is, it takes no more memory. All tests read the
same counts, for all columns at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from driftloop.detection.judging import (
    POWER,
    POWER_SCORE,
    Comparison,
    window_for,
)
from driftloop.detection.recursion import Floats
from scipy import special

Test = Literal["KS", "PSI", "Wasserstein", "Jensen-Shannon"]
BINS = 200
"""A Kolmogorov-Smirnov distance is then known to 0.005."""
GROUPS = 10
"""Of bins, for PSI and Jensen-Shannon: deciles are what their usual limits are for."""
MIN_ROWS = 20
LEAST_EFFECTS: dict[Test, float] = {
    "KS": 0.3,
    "PSI": 0.25,
    "Wasserstein": 0.5,
    "Jensen-Shannon": 0.3,
}
"""What counts as moved. PSI: the usual limit of a significant change (Siddiqi 2006,
Credit Risk Scorecards). The others: about the same shift, half a standard deviation."""
SMOOTHING = 0.5
"""Rows added to each group, so that an empty one has a logarithm."""

CELLS = 4096
"""Of equal width between the reference's ends: a value's cell is two operations away,
and a table says its bin."""
TAIL = 1 / 400
"""Share of values beyond each end."""
MAX_SHARE = 0.03
"""Where one bin would hold more, cells do not fit the column: it is then sorted."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cut:
    """How one column's values find their bins.

    Attributes
    ----------
    edges : upper edges of all bins but the last; not used with a table.
    low, scale : of cells; those below ``low`` are the first one, before the table's.
    table : bin of each cell; empty: values are sorted and counted between edges.
    """

    edges: Floats
    low: float = 0.0
    scale: float = 0.0
    table: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))

    @property
    def size(self) -> int:
        """How many bins there are."""
        return int(self.table[-1]) + 1 if len(self.table) else len(self.edges) + 1

    def bins(self, values: Floats) -> npt.NDArray[np.intp]:
        """Return the bin of each finite value."""
        if not len(self.table):
            found: npt.NDArray[np.intp] = np.searchsorted(self.edges, values, "left")
            return found
        cells = (values - (self.low - 1 / self.scale)) * self.scale
        np.clip(cells, 0.0, CELLS + 1.0, out=cells)
        return self.table[cells.astype(np.intp)]

    def counts(self, values: Floats, size: int) -> Counts:
        """Count finite values by bin."""
        if len(self.table):
            return np.bincount(self.bins(values), minlength=size)
        found = np.zeros(size, dtype=np.int64)
        until = np.searchsorted(np.sort(values), self.edges, side="right")
        found[: len(until) + 1] = np.diff(until, prepend=0, append=len(values))
        return found


@dataclass(frozen=True)
class Binned:
    """The reference's bins; made once, used for each window.

    Attributes
    ----------
    cuts : of each column.
    shares : (n_columns, n_bins) of the reference's values.
    rows : (n_columns,) finite values of the reference.
    groups : (n_columns, n_bins) number of each bin's group, from 0.
    widths : (n_columns, n_bins) from the mean value of a bin to the next one's, in
        standard deviations of the reference.
    """

    names: tuple[str, ...]
    cuts: tuple[Cut, ...]
    shares: Floats
    rows: Counts
    groups: npt.NDArray[np.intp]
    widths: Floats

    @classmethod
    def of(cls, names: Sequence[str], matrix: Floats) -> "Binned":
        """Cut a reference into bins.

        Parameters
        ----------
        matrix : (n_rows, n_columns); what is not finite is left out.
        """
        columns = [c[np.isfinite(c)] for c in np.asarray(matrix, dtype=np.float64).T]
        cuts = tuple(_cut(np.sort(column)) for column in columns)
        found = [cut.bins(column) for cut, column in zip(cuts, columns, strict=True)]
        size = max((cut.size for cut in cuts), default=1)
        counts = np.array([np.bincount(bins, minlength=size) for bins in found])
        rows = counts.sum(axis=1)
        shares = counts / np.maximum(rows, 1)[:, None]
        middle = np.cumsum(shares, axis=1) - shares / 2
        groups = np.minimum((GROUPS * middle).astype(np.intp), GROUPS - 1)
        widths = np.zeros(counts.shape)
        for place, (bins, values) in enumerate(zip(found, columns, strict=True)):
            spread = float(np.std(values)) if len(values) else 0.0
            if spread > 0:
                at = np.flatnonzero(counts[place])
                sums = np.bincount(bins, values, minlength=size)
                widths[place, at[:-1]] = np.diff(sums[at] / counts[place, at]) / spread
        return cls(tuple(names), cuts, shares, rows, groups, widths)

    @cached_property
    def areas(self) -> tuple[Floats, Floats]:
        """Mean and variance of the scaled area between equal columns' functions."""
        return _bridge_areas(self)

    def counts(self, matrix: Floats) -> Counts:
        """Count a window's values; counts of parts of a window add up.

        Returns
        -------
        (n_columns, n_bins)
        """
        matrix = np.asarray(matrix, dtype=np.float64)
        size = self.shares.shape[1]
        if self._tables is None or not math.isfinite(float(matrix.sum())):
            columns = np.ascontiguousarray(matrix.T)
            pairs = zip(self.cuts, columns, strict=True)
            return np.array([cut.counts(c[np.isfinite(c)], size) for cut, c in pairs])
        low, scale, starts, table = self._tables
        cells = matrix - low
        cells *= scale
        np.maximum(cells, 0.0, out=cells)
        np.minimum(cells, CELLS + 1.0, out=cells)
        cells += starts
        found = np.bincount(
            table[cells.astype(np.intp)].ravel(), minlength=size * len(low)
        )
        return found.reshape(len(low), size)

    @cached_property
    def _tables(
        self,
    ) -> tuple[Floats, Floats, Floats, npt.NDArray[np.intp]] | None:
        """All columns' tables as one, for a look of all values at once."""
        if not self.cuts or not all(len(cut.table) for cut in self.cuts):
            return None
        scale: Floats = np.array([cut.scale for cut in self.cuts], np.float64)
        low: Floats = np.array([cut.low - 1 / cut.scale for cut in self.cuts])
        starts = np.arange(len(self.cuts), dtype=np.float64) * (CELLS + 2)
        size = self.shares.shape[1]
        table = [cut.table + at * size for at, cut in enumerate(self.cuts)]
        return low, scale, starts, np.concatenate(table)

    def compare(
        self, counts: Counts, tests: Sequence[Test] = ("KS", "PSI"), alpha: float = 1e-3
    ) -> list[Comparison]:
        """Compare a window's counts with the reference, by each test, column by column.

        Parameters
        ----------
        alpha : that the needed rows are reckoned for; p-values are not yet adjusted.
        """
        rows = counts.sum(axis=1)
        shares = counts / np.maximum(rows, 1)[:, None]
        enough = np.flatnonzero(np.minimum(rows, self.rows) >= MIN_ROWS).tolist()
        found = []
        for test in tests:
            with np.errstate(all="ignore"):  # of columns with too few values
                values = [c.tolist() for c in _TESTS[test](self, shares, rows)]
            least = LEAST_EFFECTS[test]
            wanted = _NEEDED[test](least, alpha)
            for at in enough:
                statistic, effect, p_value = (column[at] for column in values)
                needed = window_for(wanted, int(self.rows[at]))
                found.append(
                    Comparison(
                        self.names[at], test, statistic, effect, p_value, int(rows[at]),
                        least, needed,
                    )
                )  # fmt: skip
        return found


def _cut(values: Floats) -> Cut:
    """Return how sorted values are cut into bins of equal counts, as far as can be."""
    if not len(values):
        return Cut(np.zeros(0))
    distinct = values[np.flatnonzero(np.append(True, values[1:] != values[:-1]))]
    if len(distinct) <= BINS:
        # A bin for each value, and one for what lies between two of them.
        edges = np.stack([np.nextafter(distinct, -np.inf), distinct], axis=1).ravel()
    else:
        places = (np.arange(1, BINS) * len(values)) // BINS - 1
        edges = np.unique(values[places])
        edges = edges[edges < values[-1]]
    end = int(TAIL * len(values))
    low, high = float(values[end]), float(values[-1 - end])
    if high <= low:
        return Cut(edges)
    tabled = Cut(edges, low, CELLS / (high - low), np.arange(CELLS + 2))
    cells = tabled.bins(values)
    if len(distinct) <= BINS:
        of_distinct = tabled.bins(distinct)
        if (np.diff(of_distinct) < 1).any():
            return Cut(edges)
        every = np.arange(CELLS + 2)
        table = 2 * np.searchsorted(of_distinct, every, side="left")
        return replace(tabled, table=table + np.isin(every, of_distinct))
    until = np.cumsum(np.bincount(cells, minlength=CELLS + 2))
    before = np.concatenate([[0], until[:-1]])
    numbers = np.minimum(before * BINS // len(values), BINS - 1)
    table = np.unique(numbers, return_inverse=True)[1]
    largest = np.bincount(table[cells]).max() / len(values)
    return Cut(edges) if largest > MAX_SHARE else replace(tabled, table=table)


Found = tuple[Floats, Floats, Floats]


def _sizes(binned: Binned, rows: Counts) -> Floats:
    found: Floats = binned.rows * rows / np.maximum(binned.rows + rows, 1)
    return found


def _kolmogorov_smirnov(binned: Binned, shares: Floats, rows: Counts) -> Found:
    """Greatest difference of the distribution functions, at the bins' edges.

    Source: Smirnov (1948), Annals of Mathematical Statistics 19; Stephens (1970), JRSS
    B 32, for small samples. Looking at edges only makes the p-value larger, not less.
    """
    distance = np.abs(np.cumsum(shares - binned.shares, axis=1)).max(axis=1)
    size = np.sqrt(np.maximum(_sizes(binned, rows), 1e-9))
    p_value = special.kolmogorov((size + 0.12 + 0.11 / size) * distance)
    return distance, distance, p_value


def _grouped(binned: Binned, shares: Floats, rows: Counts) -> tuple[Floats, Floats]:
    """Return the window's and the reference's shares by group of bins.

    The window's are drawn a little to the reference's, so that none is zero where the
    reference's is not.
    """
    columns = len(shares)
    flat = (binned.groups + np.arange(columns)[:, None] * GROUPS).ravel()
    now, before = (
        np.bincount(flat, found.ravel(), columns * GROUPS).reshape(columns, GROUPS)
        for found in (shares, binned.shares)
    )
    extra = SMOOTHING * (before > 0).sum(axis=1, keepdims=True)
    size = rows[:, None]
    drawn: Floats = (now * size + before * extra) / (size + extra)
    return drawn, np.asarray(before, dtype=np.float64)


def _freedom(before: Floats) -> Floats:
    found: Floats = np.maximum((before > 0).sum(axis=1) - 1.0, 1.0)
    return found


def _stability(binned: Binned, shares: Floats, rows: Counts) -> Found:
    """Return the population stability index over deciles, in nats.

    Source: Yurdakul (2018), Statistical Properties of Population Stability Index.
    """
    now, before = _grouped(binned, shares, rows)
    both = special.rel_entr(now, before) + special.rel_entr(before, now)
    index = both.sum(axis=1)
    size = _sizes(binned, rows)
    return index, index, special.chdtrc(_freedom(before), size * index)


def _jensen_shannon(binned: Binned, shares: Floats, rows: Counts) -> Found:
    """Jensen-Shannon distance over deciles, from 0 to 1.

    Source: Lin (1991), IEEE Transactions on Information Theory 37; close to equality it
    is an eighth of chi-square.
    """
    now, before = _grouped(binned, shares, rows)
    middle = (now + before) / 2
    both = special.rel_entr(now, middle) + special.rel_entr(before, middle)
    divergence = np.maximum(both.sum(axis=1) / 2, 0.0)
    size = _sizes(binned, rows)
    p_value = special.chdtrc(_freedom(before), 8 * size * divergence)
    return divergence, np.sqrt(divergence / math.log(2)), p_value


def _wasserstein(binned: Binned, shares: Floats, rows: Counts) -> Found:
    """Wasserstein-1 distance in standard deviations of the reference.

    The area between the distribution functions. Under equality it is that of the
    absolute value of a Brownian bridge; mean and variance of that area are exact, its
    tail that of the gamma distribution with both. A value beyond the reference's ends
    counts as the mean of its last bin.

    Source: del Barrio, Gine and Matran (1999), Annals of Probability 27, for the limit;
    the moments are those of absolute values of a bivariate normal.
    """
    gaps = np.abs(np.cumsum(shares - binned.shares, axis=1))
    distance = (gaps * binned.widths).sum(axis=1)
    size = np.sqrt(np.maximum(_sizes(binned, rows), 1e-9))
    mean, variance = binned.areas
    scaled = size * distance * mean / variance
    p_value = special.gammaincc(mean**2 / variance, scaled)
    return distance, distance, np.where(variance > 0, p_value, 1.0)


def _bridge_areas(binned: Binned) -> tuple[Floats, Floats]:
    means, variances = [], []
    for shares, widths in zip(binned.shares, binned.widths, strict=True):
        at = np.flatnonzero(widths)
        below, width = np.cumsum(shares)[at], widths[at]
        below = np.clip(below, 1e-12, 1 - 1e-12)
        spread = np.sqrt(below * (1 - below))
        least, most = np.minimum.outer(below, below), np.maximum.outer(below, below)
        related = least * (1 - most) / np.outer(spread, spread)
        related = np.clip(related, 0.0, 1.0)
        shared = np.sqrt(1 - related**2) + related * np.arcsin(related) - 1
        covariance = 2 / np.pi * np.outer(spread, spread) * shared
        means.append(math.sqrt(2 / math.pi) * float(width @ spread))
        variances.append(float(width @ covariance @ width))
    return np.array(means), np.array(variances)


def needed_distance(least: float, alpha: float) -> float:
    """Return the pooled rows that find a Kolmogorov-Smirnov distance of ``least``."""
    critical = math.sqrt(-math.log(alpha / 2) / 2)
    return float(((critical + POWER_SCORE / 2) / least) ** 2)


def _needed_shift(least: float, alpha: float) -> float:
    """Pooled rows for a shift of so many standard deviations (of a normal column)."""
    critical = float(-special.ndtri(alpha / 2))
    return float(((critical + POWER_SCORE) / least) ** 2)


@cache
def needed_chi_square(scaled: float, freedom: int, alpha: float) -> float:
    """Return the rows that bring a chi-square statistic of ``scaled`` a row to power.

    >>> round(needed_chi_square(0.09, 1, 0.05))  # Cohen's w 0.3
    87
    """
    critical = float(special.chdtri(freedom, alpha))
    return float(special.chndtrinc(critical, freedom, 1 - POWER)) / scaled


def _needed_stability(least: float, alpha: float) -> float:
    return needed_chi_square(least, GROUPS - 1, alpha)


def _needed_jensen_shannon(least: float, alpha: float) -> float:
    return needed_chi_square(8 * math.log(2) * least**2, GROUPS - 1, alpha)


_TESTS = {
    "KS": _kolmogorov_smirnov,
    "PSI": _stability,
    "Wasserstein": _wasserstein,
    "Jensen-Shannon": _jensen_shannon,
}
_NEEDED = {
    "KS": needed_distance,
    "PSI": _needed_stability,
    "Wasserstein": _needed_shift,
    "Jensen-Shannon": _needed_jensen_shannon,
}
