"""Parts of the hold-out on which a model may have become worse than the other one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.measures import SliceResult
from driftloop.contracts.moments import moment_of
from driftloop.models.onnx_model import (
    MISSING_MOMENT,
    category_array,
    moment_array,
    number_array,
)
from driftloop.models.package import InputColumn
from driftloop.trainer import losses
from driftloop.trainer.losses import Floats

MIN_ROWS = 30
"""Fewer say nothing about a mean; the registry's own limit for the whole hold-out."""
MAX_SLICES = 100
FEW_VALUES = 12
"""An integer of no more different values is a code: its values are slices."""
BINS = 4
"""Quartiles of a number, or a datetime, that a file names."""
MISSING = "missing"
CONFIDENCE = 0.95
"""Of the intervals that are told, both sides together; the gate has its own."""


@dataclass(frozen=True)
class Slice:
    """Rows that share a value or a range.

    Attributes
    ----------
    rows : (n_rows,) bool.
    """

    column: str
    value: str
    rows: npt.NDArray[np.bool_]


def slices_of(
    rows: pa.Table, columns: Sequence[InputColumn], wanted: Sequence[str] | None
) -> list[Slice]:
    """Return the slices with enough rows, the greatest first where there are many.

    Parameters
    ----------
    wanted : names of columns; None: categories, booleans, integers of few values.
    """
    found = [
        part
        for column in columns
        if wanted is None or column.name in wanted
        for part in _parts(rows, column, is_named=wanted is not None)
        if MIN_ROWS <= part.rows.sum() < rows.num_rows
    ]
    return sorted(found, key=lambda part: -int(part.rows.sum()))[:MAX_SLICES]


def _parts(rows: pa.Table, column: InputColumn, *, is_named: bool) -> Iterator[Slice]:
    labels = labels_of(rows, column, is_named=is_named)
    if labels is None:
        return
    for value in dict.fromkeys(sorted(labels.tolist())):
        yield Slice(column.name, value, labels == value)


def labels_of(
    rows: pa.Table, column: InputColumn, *, is_named: bool
) -> npt.NDArray[np.str_] | None:
    """Return (n_rows,) the slice that each row is in; None: not to be sliced.

    Parameters
    ----------
    is_named : whether a number is cut into ranges.
    """
    values = rows.column(column.name).combine_chunks()
    if column.type == "datetime":
        return _stretches(moment_array(values)) if is_named else None
    texts = category_array(values).astype(str)
    if column.type == "text" and not is_named:
        return None  # mostly each row's own
    if column.type in ("category", "boolean", "text"):
        return np.where(texts == "", MISSING, texts)
    if column.type == "integer" and len(set(texts.tolist())) <= FEW_VALUES:
        return np.where(texts == "", MISSING, texts)
    return _ranges(number_array(values).astype(np.float64)) if is_named else None


def _ranges(numbers: Floats) -> npt.NDArray[np.str_]:
    """Return the range that each number is in: quarters of the known ones."""
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return np.full(len(numbers), MISSING)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
    names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)] or [
        f"{edges[0]:.4g}"
    ]
    place = np.clip(np.searchsorted(edges[1:-1], numbers, "right"), 0, len(names) - 1)
    return np.where(np.isfinite(numbers), np.array(names)[place], MISSING)


def _stretches(moments: npt.NDArray[np.int64]) -> npt.NDArray[np.str_]:
    """Return the stretch of days that each moment is in: quarters of the known ones."""
    is_there = moments != MISSING_MOMENT
    known = np.sort(moments[is_there])
    if not len(known):
        return np.full(len(moments), MISSING)
    places = (np.linspace(0, 1, BINS + 1) * (len(known) - 1)).astype(np.int64)
    edges = np.unique(known[places])
    days = [str(moment_of(int(edge)).date()) for edge in edges]
    names = [f"{low} to {high}" for low, high in pairwise(days)] or [days[0]]
    place = np.clip(np.searchsorted(edges[1:-1], moments, "right"), 0, len(names) - 1)
    return np.where(is_there, np.array(names)[place], MISSING)


def compare_slices(
    parts: Sequence[Slice], candidate: Floats, other: Floats, metric: str
) -> list[SliceResult]:
    """Return both models' losses on each slice, the surest to be worse first.

    A paired comparison on each slice's rows as on the whole hold-out, one-sided, its
    p-values by Holm's method over all slices: with ``n`` slices on which nothing
    changed, one of them is called worse as seldom as one alone would be.

    Parameters
    ----------
    candidate, other : (n_rows,) losses in order of time.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure,
    Scandinavian Journal of Statistics 6(2).
    """
    compared = [
        losses.paired_comparison(other[part.rows], candidate[part.rows])
        for part in parts
    ]
    worse = holm([found.p_value for found in compared])
    better = holm(
        [
            losses.paired_comparison(candidate[part.rows], other[part.rows]).p_value
            for part in parts
        ]
    )
    results = [
        SliceResult(
            column=part.column,
            value=part.value,
            row_count=int(part.rows.sum()),
            candidate=losses.metric_value(metric, candidate[part.rows]),
            other=losses.metric_value(metric, other[part.rows]),
            p_value=worse[number],
            p_better=better[number],
        )
        for number, part in enumerate(parts)
    ]
    return sorted(results, key=lambda r: (r.p_value, r.other - r.candidate))


def intervals_of(
    parts: Sequence[Slice], candidate: Floats, metric: str
) -> list[dict[str, Any]]:
    """Return the loss with its interval, of the whole hold-out and of each slice.

    Parameters
    ----------
    candidate : (n_rows,) losses in order of time.
    """
    stretches: list[tuple[str | None, str | None, Floats]] = [(None, None, candidate)]
    stretches += [(part.column, part.value, candidate[part.rows]) for part in parts]
    result: list[dict[str, Any]] = []
    for column, value, found in stretches:
        low, high = losses.interval(metric, found, CONFIDENCE)
        result.append(
            {
                "column": column,
                "value": value,
                "row_count": len(found),
                "loss": losses.metric_value(metric, found),
                "low": low,
                "high": high,
                "confidence": CONFIDENCE,
            }
        )
    return result


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that allow for being several; the same order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
