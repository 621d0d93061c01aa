"""All numbers at once against a reference: what no single column shows.

Three tests, each with a p-value without permutations:

- MMD: the difference of the means of random Fourier features, whose squared length is
  the maximum mean discrepancy of a Gaussian kernel; its studentised length is
  chi-square. Sees anything, if it is large.
- correlation: the difference of each pair's correlation by its own standard error.
  Sees what turns while each column stays as it is.
- classifier: a logistic model learns on half of the rows to tell window from
  reference; its AUC on the other half is tested. Costs most, says how far apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from driftloop.detection.binned import needed_chi_square
from driftloop.detection.judging import POWER_SCORE, Comparison, window_for
from driftloop.detection.recursion import Floats
from scipy import special

Singles = npt.NDArray[np.float32]

FREQUENCIES = 24
"""Random Fourier features are twice as many; each further one costs power and time."""
MIN_ROWS = 5 * FREQUENCIES
"""Of a window: a covariance of the features takes a few rows for each of them."""
LEAST_DISCREPANCY = 0.1
"""MMD from which a window counts as moved; the kernel's greatest is about 1.4."""
LEAST_CORRELATION = 0.2
LEAST_AUC = 0.6
CLIPPED = 4.0
"""Standard deviations beyond which a value counts as so far: outliers have no say."""
RIDGE = 1e-3
"""Of the features' mean variance, added to each: the least ones are far from normal."""
MAX_WIDTH_ROWS = 500
"""Of the reference, for the median distance that the kernel is as wide as."""
PENALTY = 1.0
"""Of the classifier's squared weights: a prior of standard deviation 1."""
NEWTON_STEPS = 8
SEED = 20261127


@dataclass(frozen=True)
class Together:
    """The reference's moments; made once, used for each window.

    Attributes
    ----------
    center, scale : (n_columns,) of standardising; missing values become the center.
    frequencies : (n_columns, FREQUENCIES) of the random Fourier features.
    mean, covariance : of the reference's features.
    rows : of the reference.
    sample : (n_rows, n_columns) the reference itself, standardised.
    related, related_variance : (n_columns, n_columns) its correlations, and the
        variance that one row's worth of each has.
    """

    names: tuple[str, ...]
    center: Floats
    scale: Floats
    frequencies: Singles
    mean: Floats
    covariance: Floats
    rows: int
    sample: Singles
    related: Floats
    related_variance: Floats

    @classmethod
    def of(cls, names: Sequence[str], matrix: Floats, seed: int = SEED) -> "Together":
        """Learn the reference; the same seed gives the same test.

        Parameters
        ----------
        matrix : (n_rows, n_columns); what is not finite counts as the column's mean.
        """
        matrix = np.asarray(matrix, dtype=np.float64)
        known = np.where(np.isfinite(matrix), matrix, np.nan)
        is_known = np.isfinite(known).any(axis=0)
        known = np.where(is_known, known, 0.0)
        center = np.nanmean(known, axis=0)
        scale = np.nanstd(known, axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        sample = _standardised(matrix, center, scale)
        draw = np.random.default_rng(seed)
        normal = draw.standard_normal((matrix.shape[1], FREQUENCIES))
        frequencies = (normal / _width(sample, draw)).astype(np.float32)
        features = _features(sample, frequencies)
        related, variance = _correlations(sample)
        return cls(
            tuple(names),
            center,
            scale,
            frequencies,
            features.mean(axis=0, dtype=np.float64),
            np.cov(features, rowvar=False, dtype=np.float64),
            len(sample),
            sample,
            related,
            variance,
        )

    def standardised(self, matrix: Floats) -> Singles:
        """Return a window in the reference's units, for the tests below."""
        return _standardised(matrix, self.center, self.scale)

    def discrepancy(self, window: Singles, alpha: float = 1e-3) -> Comparison | None:
        """Test the means of random Fourier features; the effect is the MMD.

        Returns
        -------
        Comparison or None
            None: fewer than :data:`MIN_ROWS`.

        Source: Gretton et al. (2012), JMLR 13, for the MMD; Rahimi and Recht (2007) for
        the features; Chwialkowski et al. (2015), Fast Two-Sample Testing with Analytic
        Representations, for the studentised test.
        """
        rows = len(window)
        if min(rows, self.rows) < MIN_ROWS:
            return None
        features = _features(window, self.frequencies)
        apart = features.mean(axis=0, dtype=np.float64) - self.mean
        features -= features.mean(axis=0)
        # Pooled, as under equality: a window's own covariance alone is of too few rows.
        own = (features.T @ features).astype(np.float64)
        both = own + (self.rows - 1) * self.covariance
        noise = both / (rows + self.rows - 2) * (1 / rows + 1 / self.rows)
        noise[np.diag_indices_from(noise)] += (
            RIDGE * float(np.trace(noise)) / len(noise)
        )
        statistic = float(apart @ np.linalg.solve(noise, apart))
        squared = (float(apart @ apart) - float(np.trace(noise))) / FREQUENCIES
        size = len(apart)
        # Hotelling's distribution, which allows for a covariance that is estimated.
        rest = rows + self.rows - 2 - size + 1
        scaled = statistic * rest / (size * (rows + self.rows - 2))
        # The least MMD, spread over the features as the reference's noise is.
        a_row = LEAST_DISCREPANCY**2 * FREQUENCIES / float(np.trace(self.covariance))
        wanted = needed_chi_square(a_row * size, size, alpha)
        return Comparison(
            "together",
            "MMD",
            statistic,
            math.sqrt(max(squared, 0.0)),
            float(special.fdtrc(size, rest, scaled)),
            rows,
            LEAST_DISCREPANCY,
            max(window_for(wanted, self.rows), MIN_ROWS),
        )

    def correlation(self, window: Singles, alpha: float = 1e-3) -> Comparison | None:
        """Test the pair of columns whose correlation has changed most.

        The p-value holds for all pairs together; the signal names the pair.

        Source: the standard error of a correlation without assuming normal columns is
        that of Steiger and Hakstian (1982), British Journal of Mathematical and
        Statistical Psychology 35; Sidak (1967) for the pairs.
        """
        rows, columns = window.shape
        if min(rows, self.rows) < MIN_ROWS or columns < 2:
            return None
        pair, effect, score = self._turned(window)
        pairs = columns * (columns - 1) / 2
        # 1 - (1 - p) ** pairs, exact also where p is tiny
        p_value = -math.expm1(pairs * math.log1p(-min(_two_sided(score), 1 - 1e-16)))
        critical = float(-special.ndtri(alpha / pairs / 2))
        wanted = ((critical + POWER_SCORE) / LEAST_CORRELATION) ** 2
        return Comparison(
            " and ".join(self.names[i] for i in pair),
            "correlation",
            score,
            effect,
            p_value,
            rows,
            LEAST_CORRELATION,
            max(window_for(wanted, self.rows), MIN_ROWS),
            columns=tuple(self.names[i] for i in pair),
        )

    def _turned(self, window: Singles) -> tuple[tuple[int, int], float, float]:
        related, variance = _correlations(window)
        error = np.sqrt(variance / len(window) + self.related_variance / self.rows)
        apart = np.abs(related - self.related)
        scores = np.triu(apart / np.maximum(error, 1e-6), 1)
        first, second = np.unravel_index(int(np.argmax(scores)), scores.shape)
        pair = (int(first), int(second))
        return pair, float(apart[pair]), float(scores[pair])

    def classified(
        self, window: Singles, alpha: float = 1e-3, seed: int = SEED
    ) -> Comparison | None:
        """Test whether a model tells window from reference on rows it has not seen.

        The model is logistic in the columns, their squares and products (where these
        are not too many). The effect is its AUC: 0.5 is chance, 1 nothing in common.

        Source: Lopez-Paz and Oquab (2017), Revisiting Classifier Two-Sample Tests;
        DeLong et al. (1988), Biometrics 44, for the error of the AUC.
        """
        rows = len(window)
        if min(rows, self.rows) < MIN_ROWS:
            return None
        draw = np.random.default_rng(seed)
        halves = []
        for found in (self.sample, window):
            at = draw.permutation(len(found))
            halves.append((found[at[::2]], found[at[1::2]]))
        (old_known, old_asked), (new_known, new_asked) = halves
        weights = _fitted(_expanded(old_known), _expanded(new_known))
        area, error = _area_under_curve(
            _expanded(new_asked) @ weights, _expanded(old_asked) @ weights
        )
        score = (area - 0.5) / max(error, 1e-9)
        # The AUC's variance under equality is 1/12 a pooled row (Mann and Whitney).
        critical = float(-special.ndtri(alpha))
        half = ((critical + POWER_SCORE) / (LEAST_AUC - 0.5)) ** 2 / 12
        return Comparison(
            "together",
            "classifier",
            score,
            area,
            float(special.ndtr(-score)),
            rows,
            LEAST_AUC,
            max(window_for(2 * half, self.rows), MIN_ROWS),
        )


def _standardised(matrix: Floats, center: Floats, scale: Floats) -> Singles:
    apart: Floats = np.asarray(matrix) - center
    apart /= scale
    found = apart.astype(np.float32)
    np.clip(found, -CLIPPED, CLIPPED, out=found)
    if not math.isfinite(float(found.sum())):
        np.nan_to_num(found, copy=False, nan=0.0)
    return found


def _width(sample: Singles, draw: np.random.Generator) -> float:
    """Median distance of two rows of the reference: the usual width of the kernel."""
    taken = sample[draw.permutation(len(sample))[:MAX_WIDTH_ROWS]]
    half = len(taken) // 2
    apart = taken[:half] - taken[half : 2 * half]
    found = float(np.median(np.sqrt((apart**2).sum(axis=1)))) if half else 0.0
    return found or 1.0


def _features(sample: Singles, frequencies: Singles) -> Singles:
    angles = sample @ frequencies
    size = angles.shape[1]
    found: Singles = np.empty((len(angles), 2 * size), dtype=angles.dtype)
    np.cos(angles, out=found[:, :size])
    np.sin(angles, out=found[:, size:])
    return found


def _correlations(sample: Singles) -> tuple[Floats, Floats]:
    """Return correlations, and the variance of each for one row (delta method)."""
    rows = len(sample)
    centered = sample - sample.mean(axis=0)
    spread = centered.std(axis=0)
    unit = centered / np.where(spread > 0, spread, 1.0)
    squares = unit * unit
    related = (unit.T @ unit).astype(np.float64) / rows
    both = (squares.T @ squares).astype(np.float64) / rows
    cubed = ((squares * unit).T @ unit).astype(np.float64) / rows
    fourth = np.diag(both)
    variance = (
        both
        - related * (cubed + cubed.T)
        + related**2 / 4 * (fourth[:, None] + 2 * both + fourth[None, :])
    )
    return related, np.maximum(variance, 0.0)


def _two_sided(score: float) -> float:
    return float(2 * special.ndtr(-abs(score)))


MAX_PRODUCTS = 60
"""Columns up to which products are too few to slow down: at 12 there are 66."""


def _expanded(sample: Singles) -> Singles:
    columns = sample.shape[1]
    parts = [np.ones((len(sample), 1), dtype=np.float32), sample, sample * sample - 1]
    first, second = np.triu_indices(columns, 1)
    if len(first) <= MAX_PRODUCTS:
        parts.append(sample[:, first] * sample[:, second])
    found: Singles = np.concatenate(parts, axis=1)
    return found


def _fitted(old: Singles, new: Singles) -> Floats:
    """Return a logistic model's weights, both sides weighing the same (Newton)."""
    design = np.concatenate([old, new]).astype(np.float64)
    side = np.concatenate([np.zeros(len(old)), np.ones(len(new))])
    count = np.concatenate(
        [np.full(len(old), 0.5 / len(old)), np.full(len(new), 0.5 / len(new))]
    ) * min(len(old), len(new)) * 2  # fmt: skip
    weights = np.zeros(design.shape[1])
    penalty = np.full(design.shape[1], PENALTY)
    penalty[0] = 1e-6
    for _ in range(NEWTON_STEPS):
        share = special.expit(design @ weights)
        slope = design.T @ (count * (side - share)) - penalty * weights
        curve = design.T @ (design * (count * share * (1 - share))[:, None])
        step = np.linalg.solve(curve + np.diag(penalty), slope)
        weights += step
        if float(np.abs(step).max()) < 1e-4:
            break
    return weights


def _area_under_curve(positive: Floats, negative: Floats) -> tuple[float, float]:
    """Return the AUC and its standard error.

    >>> area, _ = _area_under_curve(np.array([2.0, 3.0]), np.array([0.0, 2.0]))
    >>> area
    0.875
    """
    above = _placed(positive, negative)
    below = 1 - _placed(negative, positive)
    area = float(above.mean())
    variance = 0.0
    for found in (above, below):
        if len(found) > 1:
            variance += float(found.var(ddof=1)) / len(found)
    return area, math.sqrt(variance)


def _placed(values: Floats, others: Floats) -> Floats:
    """Return the share of ``others`` below each value; ties count half."""
    ordered = np.sort(others)
    left = np.searchsorted(ordered, values, side="left")
    right = np.searchsorted(ordered, values, side="right")
    found: Floats = (left + right) / (2 * len(others))
    return found
