"""What a network sees of the matrix: filled, standardised, bounded, in parts."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from driftloop.trainer.candidates.sample import Sample
from driftloop.trainer.encoding import MATRIX
from driftloop.trainer.graph import Floats, Matrix, medians_of
from driftloop.trainer.preprocessing.wiring import Drawing

LIMIT = 10.0
"""Deviations from the mean beyond which a value counts as this far away: a network
has no idea of what it never saw, and an outlier must not own it."""
LEAST_SCALE = 1e-6
"""Of a column's mean; a smaller deviation is rounding of float32."""
EMBEDDED_CATEGORIES = 8
"""A category of more values gets a learned vector."""
MAX_BINS = 24
MAX_BINNED_COLUMNS = 128
LEAST_BIN = 1e-3
"""In deviations; a narrower bin would turn noise into steps."""
QUANTILE_ROWS = 100_000
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Bins:
    """Numbers as pieces: how much of each bin lies below the value, 0 to 1.

    Attributes
    ----------
    column, low, inverse : (n_bins,) column that a bin is of, its lower end, and one
        over its width.

    Source: piecewise linear encoding, Gorishniy, Rubachev and Babenko (2022), On
    Embeddings for Numerical Features in Tabular Deep Learning, arXiv:2203.05556,
    section 3.2; both outer bins end at 0 and 1 here.
    """

    column: Positions
    low: Matrix
    inverse: Matrix


@dataclass(frozen=True, eq=False)
class Inputs:
    """How the matrix becomes a network's input.

    Attributes
    ----------
    medians, means, scales : (width,) for missing values and to standardise; columns
        of an embedded category stay 0 and 1.
    numbers : columns that are neither embedded nor of a sequence.
    embedded : (first, end) columns of categories of many values.
    channels : (n_channels, n_steps) columns of the sequences; empty without.
    """

    medians: Matrix
    means: Matrix
    scales: Matrix
    numbers: Positions
    bins: Bins
    embedded: tuple[tuple[int, int], ...]
    channels: Positions

    def scaled(self, matrix: Matrix) -> Matrix:
        """Return (n_rows, width) without missing values, within the limit."""
        filled = np.where(np.isnan(matrix), self.medians, matrix)
        with np.errstate(over="ignore"):  # what overflows is bounded
            scaled = (filled - self.means) / self.scales
        bounded: Matrix = np.clip(scaled, np.float32(-LIMIT), np.float32(LIMIT))
        return bounded

    def wire(self, drawing: Drawing) -> str:
        """Draw the same as :meth:`scaled`."""
        is_missing = drawing.node("IsNaN", MATRIX)
        by = drawing.constant(self.medians.reshape(1, -1))
        filled = drawing.node("Where", is_missing, by, MATRIX)
        means = drawing.constant(self.means.reshape(1, -1))
        centred = drawing.node("Sub", filled, means)
        scales = drawing.constant(self.scales.reshape(1, -1))
        divided = drawing.node("Div", centred, scales)
        ends = (drawing.constant(-LIMIT), drawing.constant(LIMIT))
        return drawing.node("Clip", divided, *ends)


def learn_inputs(sample: Sample, channels: Positions | None = None) -> Inputs:
    """Learn what :class:`Inputs` keeps, of finite training values.

    Parameters
    ----------
    channels : (n_channels, n_steps); the steps of a channel are one quantity and are
        standardised alike.
    """
    matrix = sample.matrix
    finite = np.where(np.isfinite(matrix), matrix, np.float32(np.nan))
    medians = _medians(finite)
    np.copyto(finite, medians, where=np.isnan(finite))
    means = finite.mean(axis=0, dtype=np.float64)
    variances = finite.var(axis=0, dtype=np.float64)
    embedded = [(a, b) for a, b in sample.groups if b - a > EMBEDDED_CATEGORIES]
    taken = np.zeros(matrix.shape[1], dtype=bool)
    for first, end in embedded:
        taken[first:end] = True
        means[first:end], variances[first:end] = 0.0, 1.0
    channels = np.zeros((0, 0), np.int64) if channels is None else channels
    for columns in channels:
        pooled = means[columns].mean()
        spread = (variances[columns] + (means[columns] - pooled) ** 2).mean()
        means[columns], variances[columns] = pooled, spread
    taken[channels.ravel()] = True
    scales = np.sqrt(variances)
    scales = np.where(scales > LEAST_SCALE * np.abs(means), scales, 1.0)
    numbers = np.flatnonzero(~taken).astype(np.int64)
    inputs = Inputs(
        medians,
        means.astype(np.float32),
        np.maximum(scales, np.finfo(np.float32).tiny).astype(np.float32),
        numbers,
        Bins(*(np.zeros(0, np.int64), *(np.zeros(0, np.float32),) * 2)),
        tuple(embedded),
        channels,
    )
    if len(numbers) > MAX_BINNED_COLUMNS:
        return inputs
    stride = -(-len(matrix) // QUANTILE_ROWS)
    return _with_bins(inputs, inputs.scaled(matrix[::stride]))


def _medians(finite: Matrix) -> Matrix:
    with np.errstate(over="ignore"):  # the middle of two of the greatest numbers
        return np.nan_to_num(medians_of(finite))


def _with_bins(inputs: Inputs, scaled: Matrix) -> Inputs:
    columns: list[int] = []
    edges: list[tuple[float, float]] = []
    for column in inputs.numbers.tolist():
        ends = _ends(scaled[:, column].astype(np.float64))
        if len(ends) > 2:  # one bin says no more than the number itself
            columns += [column] * (len(ends) - 1)
            edges += list(pairwise(ends))
    low, high = np.array(edges, dtype=np.float64).reshape(-1, 2).T
    bins = Bins(
        np.array(columns, dtype=np.int64),
        low.astype(np.float32),
        (1 / (high - low)).astype(np.float32),
    )
    return replace(inputs, bins=bins)


def _ends(values: Floats) -> list[float]:
    """Return ends of bins that hold about as many values each."""
    different = np.unique(values)
    if len(different) > MAX_BINS + 1:
        different = np.unique(np.quantile(values, np.linspace(0, 1, MAX_BINS + 1)))
    kept = [float(different[0])]
    for end in different[1:].tolist():
        if end - kept[-1] >= LEAST_BIN:
            kept.append(end)
    return kept
