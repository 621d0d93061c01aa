"""Ages of moments in Arrow rows, and rows as bytes."""

import pyarrow as pa
import pyarrow.compute as pc
from driftloop.models.columns import Column

DAY_US = 86_400_000_000.0


def age_column(rows: pa.RecordBatch | pa.Table, name: str) -> Column:
    """Return the days from a datetime to its row's event time; null stays so."""
    then, now = (
        rows.column(column).cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        for column in (name, "event_time")
    )
    return pc.divide(pc.subtract(now, then).cast(pa.float64()), DAY_US)


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
