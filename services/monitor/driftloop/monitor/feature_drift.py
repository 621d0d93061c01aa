"""Whether columns moved: a window of rows against a reference, column by column.

With enough rows any season is significant, so a column counts as moved only when
the effect is large as well. Effects are distances of distributions from 0 (equal)
to 1 (nothing in common).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.models.columns import Column, Floats, numbers, texts
from driftloop.monitor.columns import age_column
from scipy import special

Kind = Literal["number", "integer", "category", "boolean", "datetime"]

MIN_EFFECT = 0.3
"""Distance from which a column counts as moved. A window is shorter than a
reference, so a distance of 0.2 is common where nothing has changed but the week."""
MIN_ROWS = 20
MAX_TESTED_ROWS = 5000
"""Of a column; evenly taken from more. The distance is then known to about 0.02."""
MAX_COUNTED_VALUES = 50
"""More values of a category than this are counted as one, ``other``."""


@dataclass(frozen=True, slots=True)
class Movement:
    """How far one column's window is from its reference.

    Attributes
    ----------
    detector : ``KS`` or ``chi-square``.
    effect : Kolmogorov-Smirnov's D, or total variation for categories.
    p_value : after :func:`corrected` adjusted for the number of columns.
    is_moved : significant and large.
    """

    column: str
    detector: str
    effect: float
    p_value: float
    row_count: int
    is_moved: bool = False


def movements(
    reference: pa.RecordBatch | pa.Table,
    window: pa.RecordBatch | pa.Table,
    kinds: Mapping[str, Kind],
    alpha: float,
) -> list[Movement]:
    """Compare each column that both have; columns with too few values are left out.

    Parameters
    ----------
    kinds : type of each column to compare.
    alpha : false discovery rate over the columns.
    """
    found = []
    for name, kind in kinds.items():
        if name not in reference.schema.names or name not in window.schema.names:
            continue
        if kind == "datetime":
            found.append(moved_number(name, ages(reference, name), ages(window, name)))
            continue
        before, now = reference.column(name), window.column(name)
        if kind in ("number", "integer"):
            found.append(moved_number(name, finite(before), finite(now)))
        else:
            found.append(moved_category(name, before, now))
    return corrected([m for m in found if m is not None], alpha)


def _thinned(values: Floats) -> Floats:
    return values[:: -(-len(values) // MAX_TESTED_ROWS)]


def finite(column: Column) -> Floats:
    """Return the finite values of a column."""
    values = numbers(column)
    return values[np.isfinite(values)]


def ages(rows: pa.RecordBatch | pa.Table, name: str) -> Floats:
    """Return the known times in days from a datetime to its row's event time.

    Moments move on with the world; how old they are does not, unless it drifts.
    """
    if "event_time" not in rows.schema.names:
        return np.zeros(0)
    known = pc.and_(
        pc.is_valid(rows.column(name)), pc.is_valid(rows.column("event_time"))
    )
    return numbers(age_column(rows, name).filter(known))


def moved_number(name: str, reference: Floats, window: Floats) -> Movement | None:
    """Two-sample Kolmogorov-Smirnov test, asymptotic p-value.

    Source: Smirnov (1948), Annals of Mathematical Statistics 19; the small-sample
    correction of the scale is Stephens's (1970), JRSS B 32.

    >>> moved_number("x", np.arange(100.0), np.arange(100.0) + 50).effect
    0.5
    """
    if min(len(reference), len(window)) < MIN_ROWS:
        return None
    reference, window = np.sort(_thinned(reference)), np.sort(_thinned(window))
    # The distance is greatest just before or just after a value of the window.
    steps = np.arange(len(window) + 1) / len(window)
    is_other = window[1:] != window[:-1]
    last, first = np.append(is_other, True), np.insert(is_other, 0, True)
    after = np.searchsorted(reference, window[last], side="right") / len(reference)
    before = np.searchsorted(reference, window[first], side="left") / len(reference)
    distance = max(
        float(np.max(np.abs(after - steps[1:][last]))),
        float(np.max(np.abs(before - steps[:-1][first]))),
    )
    size = (len(reference) * len(window) / (len(reference) + len(window))) ** 0.5
    p_value = float(special.kolmogorov((size + 0.12 + 0.11 / size) * distance))
    return Movement(name, "KS", distance, p_value, len(window))


def moved_category(name: str, reference: Column, window: Column) -> Movement | None:
    """Chi-square test of homogeneity; the effect is the total variation distance."""
    counts = _counts(reference), _counts(window)
    if min(sum(c.values()) for c in counts) < MIN_ROWS:
        return None
    ranked = sorted(
        counts[0].keys() | counts[1].keys(),
        key=lambda v: (-counts[0].get(v, 0) - counts[1].get(v, 0), v),
    )
    table = np.array([[c.get(v, 0) for v in ranked] for c in counts], dtype=np.float64)
    if len(ranked) > MAX_COUNTED_VALUES:
        rest = table[:, MAX_COUNTED_VALUES:].sum(axis=1, keepdims=True)
        table = np.hstack([table[:, :MAX_COUNTED_VALUES], rest])
    shares = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    if table.shape[1] == 1:
        p_value = 1.0
    else:
        from scipy import stats  # not above: a third of the service's start

        p_value = float(stats.chi2_contingency(table, correction=False).pvalue)
    return Movement(name, "chi-square", distance, p_value, int(table[1].sum()))


def _counts(column: Column) -> dict[str, int]:
    counted = pc.value_counts(texts(column.drop_null()))
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}


def corrected(found: list[Movement], alpha: float) -> list[Movement]:
    """Adjust the p-values for the number of columns and say which columns moved.

    Source: Benjamini and Hochberg (1995), JRSS B 57.
    """
    if not found:
        return []
    from scipy import stats

    p_values = stats.false_discovery_control([m.p_value for m in found])
    return [
        replace(
            movement,
            p_value=float(p_value),
            is_moved=bool(p_value < alpha and movement.effect >= MIN_EFFECT),
        )
        for movement, p_value in zip(found, p_values, strict=True)
    ]
