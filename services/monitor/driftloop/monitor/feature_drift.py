"""Whether columns moved: a window of rows against a reference, column by column.

With enough rows any season is significant, so a column counts as moved only when
the effect is large as well. Effects of KS and chi-square are distances of distributions
from 0 (equal) to 1 (nothing in common); those of the other tests are told where they
are made (:mod:`driftloop.detection`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.monitoring import FeatureTest
from driftloop.detection.binned import LEAST_EFFECTS, Binned
from driftloop.detection.categories import MAX_VALUES, compared
from driftloop.detection.judging import Comparison, false_discovery
from driftloop.detection.together import Together
from driftloop.models.columns import Column, Floats, numbers, texts
from driftloop.monitor.columns import age_column
from scipy import special

Kind = Literal["number", "integer", "category", "boolean", "datetime"]

MIN_EFFECT = 0.3
"""Distance from which a column counts as moved. A window is shorter than a
reference, so a distance of 0.2 is common where nothing has changed but the week."""
ALL_COLUMNS = "together"
"""What tests of all columns at once name as theirs."""
MIN_ROWS = 20
ASSUMED_ALPHA = 0.001
"""That the needed rows of a KS or chi-square test are reckoned for."""
MAX_TESTED_ROWS = 5000
"""Of a column; evenly taken from more. The distance is then known to about 0.02."""
MAX_COUNTED_VALUES = MAX_VALUES
"""More values of a category than this are counted as one, ``other``."""


@dataclass(frozen=True, slots=True)
class Movement:
    """How far one column's window is from its reference.

    Attributes
    ----------
    column : for tests of several, what they say of them (``temp and humidity``).
    detector : ``KS``, ``chi-square``, or another one of the pipeline's tests.
    effect : Kolmogorov-Smirnov's D, total variation for categories, or that test's own.
    p_value : after :func:`corrected` adjusted for the number of tests.
    is_moved : significant and large.
    least_effect : from which it is large.
    columns : that it is about; empty: ``column`` alone.
    """

    column: str
    detector: str
    effect: float
    p_value: float
    row_count: int
    is_moved: bool = False
    least_effect: float = MIN_EFFECT
    columns: tuple[str, ...] = ()


def movements(
    reference: pa.RecordBatch | pa.Table,
    window: pa.RecordBatch | pa.Table,
    kinds: Mapping[str, Kind],
    alpha: float,
    tests: Sequence[FeatureTest] = ("KS",),
) -> list[Movement]:
    """Compare each column that both have; columns with too few values are left out.

    Parameters
    ----------
    kinds : type of each column to compare.
    alpha : false discovery rate over columns and tests.
    tests : of numbers; categories are always compared.
    """
    found: list[Movement | None] = []
    columns: dict[str, tuple[Floats, Floats]] = {}
    for name, kind in kinds.items():
        if name not in reference.schema.names or name not in window.schema.names:
            continue
        if kind == "datetime":
            if "KS" in tests:
                moved = moved_number(name, ages(reference, name), ages(window, name))
                found.append(moved)
            continue
        before, now = reference.column(name), window.column(name)
        if kind in ("number", "integer"):
            columns[name] = both = numbers(before), numbers(now)
            if "KS" in tests:
                there, here = (values[np.isfinite(values)] for values in both)
                found.append(moved_number(name, there, here))
        else:
            found.append(moved_category(name, before, now))
    found += _by_other_tests(columns, alpha, tests)
    return corrected([m for m in found if m is not None], alpha)


def _by_other_tests(
    columns: Mapping[str, tuple[Floats, Floats]],
    alpha: float,
    tests: Sequence[FeatureTest],
) -> list[Movement]:
    """Return what the tests but KS find in number columns."""
    single = [test for test in LEAST_EFFECTS if test in tests and test != "KS"]
    joint = {"MMD", "correlation", "classifier"} & {*tests}
    if not columns or not (single or joint):
        return []
    names = list(columns)
    reference, window = (
        _thinned(np.column_stack([columns[name][side] for name in names]))
        for side in (0, 1)
    )
    found: list[Comparison | None] = []
    if single:
        binned = Binned.of(names, reference)
        found += binned.compare(binned.counts(window), single, alpha)
    if joint:
        together = Together.of(names, reference)
        standard = together.standardised(window)
        if "MMD" in joint:
            found.append(together.discrepancy(standard, alpha))
        if "correlation" in joint:
            found.append(together.correlation(standard, alpha))
        if "classifier" in joint:
            found.append(together.classified(standard, alpha))
    return [
        Movement(
            comparison.signal,
            comparison.test,
            comparison.effect,
            comparison.p_value,
            comparison.row_count,
            least_effect=comparison.least_effect,
            columns=comparison.columns,
        )
        for comparison in found
        if comparison is not None
    ]


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
    distance = ks_distance(reference, window)
    size = (len(reference) * len(window) / (len(reference) + len(window))) ** 0.5
    p_value = float(special.kolmogorov((size + 0.12 + 0.11 / size) * distance))
    return Movement(name, "KS", distance, p_value, len(window))


def ks_distance(reference: Floats, window: Floats) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples, each in order.

    >>> ks_distance(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.5
    """
    # The distance is greatest just before or just after a value of the window.
    ends = np.append(np.flatnonzero(window[1:] != window[:-1]), len(window) - 1)
    values, until = window[ends], ends + 1
    earlier = np.append(0, until[:-1])
    after = reference.searchsorted(values, "right") / len(reference)
    before = reference.searchsorted(values, "left") / len(reference)
    return max(
        float(np.abs(after - until / len(window)).max()),
        float(np.abs(before - earlier / len(window)).max()),
    )


def moved_category(name: str, reference: Column, window: Column) -> Movement | None:
    """Chi-square test of homogeneity; the effect is the total variation distance."""
    found = compared(name, _counts(reference), _counts(window), ASSUMED_ALPHA)
    if found is None:
        return None
    return Movement(name, found.test, found.effect, found.p_value, found.row_count)


def _counts(column: Column) -> dict[str, int]:
    counted = pc.value_counts(texts(column.drop_null()))
    return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}


def corrected(found: list[Movement], alpha: float) -> list[Movement]:
    """Adjust the p-values for the number of columns and say which columns moved.

    Source: Benjamini and Hochberg (1995), JRSS B 57.
    """
    p_values = false_discovery([m.p_value for m in found])
    return [
        replace(
            movement,
            p_value=float(p_value),
            is_moved=bool(p_value < alpha and movement.effect >= movement.least_effect),
        )
        for movement, p_value in zip(found, p_values, strict=True)
    ]
