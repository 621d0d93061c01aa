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


DAY_US = 86_400_000_000.0


def age_column(rows: pa.RecordBatch | pa.Table, name: str) -> Column:
    """Return the days from a datetime to its row's event time; null stays so."""
    then, now = (
        rows.column(column).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        for column in (name, "event_time")
    )
    return pc.divide(pc.subtract(now, then).cast(pa.float64()), DAY_US)


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


def as_bytes(rows: pa.Table | pa.RecordBatch) -> bytes:
    """Return rows as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write(rows)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def as_table(data: bytes) -> pa.Table:
    """Return what :func:`as_bytes` wrote."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()
