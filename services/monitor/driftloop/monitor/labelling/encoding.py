"""Rows as points: features on one scale, so that distances between rows mean something.

Not the trainer's encoding, which only the model's graph has: one unit is a standard
deviation of a number, or another value of a category.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.models.columns import Column, Floats, numbers, texts
from driftloop.monitor.columns import age_column
from driftloop.monitor.feature_drift import MAX_COUNTED_VALUES, Kind
from scipy.spatial.distance import cdist

MAX_SCALED = 10.0
"""Standard deviations; a wilder number is no further away."""
HALF = 0.5**0.5
"""Two rows of different categories differ in two columns: they are 1 apart."""
ROWS_AT_ONCE = 500


def points(
    basis: pa.Table, tables: list[pa.Table], kinds: Mapping[str, Kind]
) -> list[Floats]:
    """Return each table as (n_rows, width) points, scaled by the rows of ``basis``.

    Features that are not in all of them, or do not differ in ``basis``, are left out.
    A missing number is at the mean, and 1 away from all that are there.
    """
    parts: list[list[Floats]] = [[np.zeros((t.num_rows, 1))] for t in tables]
    for name, kind in kinds.items():
        wanted = {name, "event_time"} if kind == "datetime" else {name}
        if any(wanted - set(t.schema.names) for t in (basis, *tables)):
            continue
        known = values_of(basis, name, kind)
        columns = [
            known if table is basis else values_of(table, name, kind)
            for table in tables
        ]
        if kind == "category":
            made = [_marks(known, column) for column in columns]
        else:
            made = _scaled(known, columns)
        for found, one in zip(parts, made, strict=True):
            found.append(one)
    return [np.hstack(found) for found in parts]


def values_of(rows: pa.Table, name: str, kind: Kind) -> Column:
    """Return a feature's values; of a datetime its age at event time."""
    return age_column(rows, name) if kind == "datetime" else rows.column(name)


def _scaled(known: Column, columns: Sequence[Column]) -> list[Floats]:
    """Return each as (n_rows, 2): the scaled number, and whether it is missing."""
    usual = numbers(known)
    usual = usual[np.isfinite(usual)]
    spread = float(np.std(usual)) if len(usual) else 0.0
    middle = float(np.mean(usual)) if spread > 0 else 0.0
    made = []
    for column in columns:
        values = numbers(column)
        found = np.zeros((len(values), 2))
        is_there = np.isfinite(values)
        if spread > 0:
            scaled = (values[is_there] - middle) / spread
            found[is_there, 0] = np.clip(scaled, -MAX_SCALED, MAX_SCALED)
        found[:, 1] = ~is_there
        made.append(found)
    return made


def _marks(known: Column, column: Column) -> Floats:
    """Return (n_rows, n_values + 1): a mark in the value's column, or the last one."""
    counted = pc.value_counts(texts(known.drop_null())).to_pylist()
    ranked = sorted(counted, key=lambda entry: (-entry["counts"], entry["values"]))
    places = {e["values"]: n for n, e in enumerate(ranked[:MAX_COUNTED_VALUES])}
    marks = np.zeros((len(column), len(places) + 1))
    at = [places.get(value, len(places)) for value in texts(column).to_pylist()]
    marks[np.arange(len(column)), at] = HALF
    return marks


def nearest(points: Floats, others: Floats) -> Floats:
    """Return (n_points,) distances to the nearest of the others; infinite if none.

    >>> nearest(np.array([[0.0], [5.0]]), np.array([[1.0], [2.0]])).tolist()
    [1.0, 3.0]
    """
    if not len(others):
        return np.full(len(points), np.inf)
    parts = [
        cdist(points[first : first + ROWS_AT_ONCE], others).min(axis=1)
        for first in range(0, len(points), ROWS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def smallest_gaps(rows: tuple[Floats, Floats], known: tuple[Floats, Floats]) -> Floats:
    """Return (n_rows,): the least of distance times difference of answers to the known.

    Both are (n, width) points with their (n,) answers.

    >>> near, far = np.array([[1.0]]), np.array([[1.0], [4.0]])
    >>> smallest_gaps((near, np.array([5.0])), (far, np.array([9.0, 3.0]))).tolist()
    [0.0]
    """
    (points_, answers), (others, said) = rows, known
    parts = []
    for first in range(0, len(points_), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        apart = np.abs(answers[part][:, None] - said[None])
        parts.append((cdist(points_[part], others) * apart).min(axis=1))
    return np.concatenate(parts) if parts else np.zeros(0)


def usual_distance(points: Floats) -> float:
    """Return the median distance of a row to its nearest neighbour among the others.

    Rows that are there twice do not count; 1 where there is nothing to measure.

    >>> usual_distance(np.array([[0.0], [1.0], [3.0]]))
    1.0
    """
    distinct = np.unique(points, axis=0)
    if len(distinct) < 2:
        return 1.0
    found = []
    for first in range(0, len(distinct), ROWS_AT_ONCE):
        block = cdist(distinct[first : first + ROWS_AT_ONCE], distinct)
        block[np.arange(len(block)), first + np.arange(len(block))] = np.inf
        found.append(block.min(axis=1))
    return float(np.median(np.concatenate(found)))
