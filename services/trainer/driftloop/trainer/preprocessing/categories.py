"""Categories: the values seen in training, and how each becomes numbers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.models.package import PreprocessingStep
from driftloop.trainer.preprocessing.wiring import (
    ML,
    NOTHING,
    Drawing,
    Floats,
    Matrix,
    Texts,
    readable,
)

ONE_HOT_CATEGORIES = 64
OTHER_CATEGORIES = 10_000
"""Told apart where the pipeline file does not say how many; the manifest lists them."""
UNKNOWN_ORDINAL = -1.0


def vocabulary(texts: Texts, most: int, min_frequency: int) -> list[str]:
    """Return the most frequent texts, sorted; an empty one is none."""
    counts = Counter(text for text in texts.tolist() if text)
    frequent = sorted(
        (text for text, count in counts.items() if count >= min_frequency),
        key=lambda text: (-counts[text], text),
    )
    return sorted(frequent[:most])


def numbers_of(texts: Texts, known: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return (n_rows,) positions in ``known``; its length for any other text."""
    wanted = pa.array(known, pa.string())
    found = pc.index_in(pa.array(texts, pa.string()), value_set=wanted)
    result: npt.NDArray[np.int64] = (
        found.fill_null(len(known)).cast(pa.int64()).to_numpy()
    )
    return result


@dataclass(frozen=True)
class OneHot:
    """A column of 0 and 1 for each known category; none for any other value."""

    categories: tuple[str, ...]

    def apply(self, texts: Texts) -> Matrix:
        numbers = numbers_of(texts, self.categories)
        return np.eye(len(self.categories) + 1, dtype=np.float32)[numbers][:, :-1]

    def wire(self, drawing: Drawing, source: str) -> str:
        if not self.categories:
            return NOTHING
        hot = drawing.node(
            "OneHotEncoder", source, domain=ML, zeros=1,
            cats_strings=list(self.categories),
        )  # fmt: skip
        return drawing.node("Reshape", hot, drawing.constant([0, -1], np.int64))

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        fitted = {name: {"categories": list(self.categories)} for name in columns}
        return PreprocessingStep(step="one_hot", columns=list(columns), fitted=fitted)


@dataclass(frozen=True)
class Ordinal:
    """A category's number; -1 for an unknown one, and missing stays missing."""

    categories: tuple[str, ...]

    def apply(self, texts: Texts) -> Matrix:
        numbers = numbers_of(texts, self.categories).astype(np.float32)
        numbers[numbers == len(self.categories)] = UNKNOWN_ORDINAL
        numbers[texts == ""] = np.nan
        return numbers.reshape(-1, 1)

    def wire(self, drawing: Drawing, source: str) -> str:
        return drawing.node(
            "LabelEncoder", source, domain=ML, default_float=UNKNOWN_ORDINAL,
            keys_strings=["", *self.categories],
            values_floats=[np.nan, *map(float, range(len(self.categories)))],
        )  # fmt: skip

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        fitted = {name: {"categories": list(self.categories)} for name in columns}
        return PreprocessingStep(step="ordinal", columns=list(columns), fitted=fitted)


@dataclass(frozen=True, eq=False)
class TargetMean:
    """What the target was where this category was, drawn towards the overall mean.

    Attributes
    ----------
    means : (n_categories + 1, n_outcomes) float32; the last row is for any value that
        training did not know.

    Source: Micci-Barreca (2001), doi 10.1145/507533.507538.
    """

    categories: tuple[str, ...]
    means: Matrix

    def apply(self, texts: Texts) -> Matrix:
        found: Matrix = self.means[numbers_of(texts, self.categories)]
        return found

    def wire(self, drawing: Drawing, source: str) -> str:
        number = drawing.node(
            "LabelEncoder", source, domain=ML, default_int64=len(self.categories),
            keys_strings=list(self.categories),
            values_int64s=list(range(len(self.categories))),
        )  # fmt: skip
        flat = drawing.node("Squeeze", number, drawing.constant([1], np.int64))
        return drawing.node("Gather", drawing.constant(self.means), flat, axis=0)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        rows = [[readable(v) for v in row] for row in self.means]
        means = dict(zip(self.categories, rows, strict=False))
        fitted = {name: {"means": means, "unknown": rows[-1]} for name in columns}
        return PreprocessingStep(
            step="target_mean", columns=list(columns), fitted=fitted
        )


def fit_target_mean(
    texts: Texts, outcomes: Floats, smoothing: float, most: int, min_frequency: int
) -> tuple[TargetMean, Matrix]:
    """Learn the means, and encode the training rows by the rows before each.

    A training row must not see its own target, nor a later one: it gets the mean of
    its category over the rows before it, drawn towards the mean of all rows before.

    Parameters
    ----------
    texts : (n_rows,) in order of event time.
    outcomes : (n_rows, n_outcomes): the target, or 0 and 1 for each class.

    Source: ordered target statistics, Prokhorenkova et al. (2018), CatBoost,
    arXiv:1706.09516, section 3.2.
    """
    # That a value is missing may tell something: it is a category too.
    known = ["", *vocabulary(texts, most, min_frequency)]
    numbers = numbers_of(texts, known)
    overall = outcomes.mean(axis=0)
    counts = np.bincount(numbers, minlength=len(known))[: len(known), None]
    sums = np.stack(
        [np.bincount(numbers, y, minlength=len(known) + 1) for y in outcomes.T], axis=1
    )[: len(known)]
    means = _drawn(sums, counts, smoothing, overall)
    fitted = TargetMean(tuple(known), np.vstack([means, overall]).astype(np.float32))
    return fitted, _before(numbers, outcomes, smoothing, len(known))


def _drawn(
    sums: npt.NDArray[Any], counts: npt.NDArray[Any], smoothing: float, towards: Floats
) -> Floats:
    weights = np.maximum(counts + smoothing, np.finfo(np.float64).tiny)
    found: Floats = (sums + smoothing * towards) / weights
    return np.where(counts > 0, found, towards)


def _before(
    numbers: npt.NDArray[np.int64], outcomes: Floats, smoothing: float, unknown: int
) -> Matrix:
    """Return each row's encoding from the rows before it."""
    earlier = np.arange(len(numbers))[:, None]
    passed = np.cumsum(outcomes, axis=0) - outcomes
    overall = np.where(earlier > 0, passed / np.maximum(earlier, 1), outcomes.mean(0))
    order = np.argsort(numbers, kind="stable")
    is_first = np.diff(numbers[order], prepend=-1) != 0
    group = np.cumsum(is_first) - 1
    starts = np.flatnonzero(is_first)
    counts = (np.arange(len(order)) - starts[group])[:, None]
    running = np.cumsum(outcomes[order], axis=0) - outcomes[order]
    sums = np.empty_like(outcomes)
    sums[order] = running - running[starts][group]
    before = np.empty((len(order), 1), dtype=np.int64)
    before[order] = counts
    before[numbers == unknown] = 0
    return _drawn(sums, before, smoothing, overall).astype(np.float32)
