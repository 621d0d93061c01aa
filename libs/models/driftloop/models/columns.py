"""Columns of Arrow rows as numpy values or as the text of labels."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Column: TypeAlias = pa.Array | pa.ChunkedArray
Floats = npt.NDArray[np.float64]


def numbers(column: Column) -> Floats:
    """Return (n_rows,) float64; null and NaN are NaN, booleans 0 and 1."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    result: Floats = column.cast(pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return result


def texts(column: Column) -> Column:
    """Return the labels as text: 1, 1.0 and "1" are one label.

    >>> texts(pa.array([1.0, None, 0.5])).to_pylist()
    ['1', None, '0.5']
    """
    if pa.types.is_floating(column.type):
        whole = pc.all(pc.equal(column, pc.round(column)), min_count=0).as_py()
        column = column.cast(pa.int64()) if whole else column
    found = column.cast(pa.string())
    if pa.types.is_floating(column.type):
        found = pc.replace_substring_regex(found, r"\.0$", "")
    return found
