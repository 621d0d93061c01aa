"""What the first accepted rows of a pipeline looked like: the reference of checks.

A :class:`Reference` is made once, of the first ``data.reference_rows`` accepted rows,
and then stays. It holds figures, not rows, so it is small and the same after any
restart: numbers are written by their shortest exact text.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.rows import ROW_FIELDS
from pydantic import BaseModel, ConfigDict

Floats = npt.NDArray[np.float64]

TAIL = 0.025
"""Share at either end that counts as unusual: the rest is 95 % of the rows."""
TO_SIGMA = 1.4826
"""From the median absolute deviation to a normal standard deviation.
Source: Rousseeuw and Croux (1993), JASA 88."""
BLOCK_ROWS = 24
"""Rows of which one median is taken: a day of hours."""
EDGES = 20
"""Bins of equal share by which distributions are compared."""
NEIGHBOURS = 2
"""Rows on either side that a spike is compared with."""
MAX_VALUES = 50
"""Most frequent values of a category that are counted one by one."""
MIN_ROWS = 20
"""Values without which nothing is said about a column."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class NumberProfile(_Frozen):
    """One column of numbers in the reference.

    Attributes
    ----------
    low, high : the middle 95 % lie between them.
    sigma : robust standard deviation; 0 where half of the values are one.
    local_sigma : the same of the difference to the median of the neighbours.
    most_sigmas : largest distance from the median, in ``sigma``.
    distinct : different values.
    longest_run : most equal values in a row.
    medians, spreads : extremes of the medians and of the interquartile ranges of
        blocks of ``BLOCK_ROWS`` rows.
    largest_step : between the medians of a block and the next.
    edges, shares : share of values not above each edge.
    """

    count: int
    null_count: int
    least: float
    low: float
    median: float
    high: float
    most: float
    sigma: float
    local_sigma: float
    most_sigmas: float
    distinct: int
    longest_run: int
    medians: tuple[float, float]
    spreads: tuple[float, float]
    largest_step: float
    edges: list[float]
    shares: list[float]


class CategoryProfile(_Frozen):
    """One column of categories or booleans: shares of its most frequent values."""

    count: int
    null_count: int
    shares: dict[str, float]


class Reference(_Frozen):
    """The profile of the first accepted rows.

    Attributes
    ----------
    ages : of moments, see :func:`age`; time that passes moves them no further.
    """

    row_count: int
    numbers: dict[str, NumberProfile] = {}
    categories: dict[str, CategoryProfile] = {}
    ages: dict[str, NumberProfile] = {}


@np.errstate(over="ignore", invalid="ignore")  # 1e308 is a value, too
def reference_of(rows: pa.Table | pa.RecordBatch) -> Reference:
    """Describe rows, column by column; columns with too few values are left out."""
    numbers, categories, ages = {}, {}, {}
    for name in rows.schema.names:
        column = rows.column(name)
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        kind = column.type
        if name in _NOT_PROFILED or len(column) - column.null_count < MIN_ROWS:
            continue
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            numbers[name] = _number(column)
        elif pa.types.is_string(kind) or pa.types.is_boolean(kind):
            categories[name] = _category(column)
        elif pa.types.is_timestamp(kind):
            ages[name] = _number(age(rows, name))
    return Reference(
        row_count=rows.num_rows, numbers=numbers, categories=categories, ages=ages
    )


_NOT_PROFILED = {field.name for field in ROW_FIELDS} | {"extra", "revision", "reason"}


DAY_US = 86_400_000_000


def age(rows: pa.Table | pa.RecordBatch, name: str) -> pa.Array:
    """Return how long before the row's event time a moment is, in days."""
    ends = []
    for column in (rows.column("event_time"), rows.column(name)):
        whole = isinstance(column, pa.ChunkedArray)
        ends.append((column.combine_chunks() if whole else column).cast(pa.int64()))
    return pc.divide(pc.subtract(*ends).cast(pa.float64()), float(DAY_US))


def floats(column: pa.Array) -> Floats:
    """Return a column as ``float64``; null is NaN."""
    values: Floats = column.to_numpy(zero_copy_only=False)
    return values.astype(np.float64, copy=False)


def texts(column: pa.Array) -> pa.Array:
    """Return a column of categories or booleans as text."""
    return pc.cast(column, pa.string())


def _number(column: pa.Array) -> NumberProfile:
    values = floats(column.drop_null())
    ordered = np.sort(values)
    low, median, high = _at(ordered, TAIL, 0.5, 1 - TAIL)
    sigma = _sigma(values - median)
    local = values - neighbours(values, np.arange(len(values)))
    medians, spreads = block_figures(blocks_of(values))
    steps = np.abs(np.diff(medians))
    edges = np.unique(_at(ordered, *(np.arange(1, EDGES) / EDGES)))
    shares = np.searchsorted(ordered, edges, side="right") / len(ordered)
    return NumberProfile(
        count=len(values),
        null_count=column.null_count,
        least=float(ordered[0]),
        low=low,
        median=median,
        high=high,
        most=float(ordered[-1]),
        sigma=sigma,
        local_sigma=_sigma(local),
        most_sigmas=_most_sigmas(ordered, median, sigma),
        distinct=len(np.unique(ordered)),
        longest_run=int(np.diff(run_starts(values), append=len(values)).max()),
        medians=(float(medians.min()), float(medians.max())),
        spreads=(float(spreads.min()), float(spreads.max())),
        largest_step=float(steps.max(initial=0.0)),
        edges=edges.tolist(),
        shares=shares.tolist(),
    )


def _most_sigmas(ordered: Floats, median: float, sigma: float) -> float:
    farthest = max(median - ordered[0], ordered[-1] - median)
    return float(farthest / sigma) if sigma else 0.0


def _sigma(values: Floats) -> float:
    return TO_SIGMA * float(np.median(np.abs(values)))


def _at(ordered: Floats, *shares: float) -> list[float]:
    last = len(ordered) - 1
    return [float(ordered[round(share * last)]) for share in shares]


def _category(column: pa.Array) -> CategoryProfile:
    counted = pc.value_counts(texts(column.drop_null())).to_pylist()
    counted.sort(key=lambda entry: (-entry["counts"], entry["values"]))
    count = len(column) - column.null_count
    shares = {e["values"]: e["counts"] / count for e in counted[:MAX_VALUES]}
    return CategoryProfile(count=count, null_count=column.null_count, shares=shares)


def run_starts(values: Floats) -> npt.NDArray[np.intp]:
    """Return where each run of equal values starts.

    >>> run_starts(np.array([1.0, 1.0, 2.0, 2.0, 1.0])).tolist()
    [0, 2, 4]
    """
    return np.flatnonzero(np.append(True, values[1:] != values[:-1]))


def neighbours(values: Floats, at: npt.NDArray[np.intp]) -> Floats:
    """Return the median of the values around some, themselves left out.

    >>> neighbours(np.array([1.0, 2.0, 50.0, 2.0, 1.0]), np.array([0, 2])).tolist()
    [2.0, 1.0]
    """
    last = len(values) - 1
    steps = np.arange(1, NEIGHBOURS + 1)
    near = np.abs(at[:, None] + np.concatenate([-steps, steps]))
    near = np.abs(last - np.abs(last - near))  # reflected at both ends
    return block_figures(values[near])[0]


def blocks_of(values: Floats) -> Floats:
    """Return consecutive blocks of rows, (n_blocks, BLOCK_ROWS); the rest is left."""
    count = len(values) // BLOCK_ROWS
    if not count:
        return values.reshape(1, -1)
    return values[: count * BLOCK_ROWS].reshape(count, BLOCK_ROWS)


def block_figures(blocks: Floats) -> tuple[Floats, Floats]:
    """Return each block's median and interquartile range.

    Parameters
    ----------
    blocks : (..., n_rows); NaN, which is no value, is left out; both are NaN for
        a block of nothing else.
    """
    ordered = np.sort(blocks, axis=-1)  # NaN comes last
    last = np.maximum(np.isfinite(ordered).sum(axis=-1) - 1, 0)
    q1, median, q3 = (
        np.take_along_axis(ordered, np.rint(share * last).astype(int)[..., None], -1)
        for share in (0.25, 0.5, 0.75)
    )
    return median[..., 0], (q3 - q1)[..., 0]
