"""Rows as Arrow IPC streams, with an event's other fields in the schema metadata."""

from collections.abc import Iterable
from hashlib import blake2b

import pyarrow as pa

CONTENT_TYPE = "application/vnd.apache.arrow.stream"
EVENT_METADATA_KEY = b"driftloop.event"

ID_FIELD = pa.field("id", pa.string(), nullable=False)
EVENT_TIME_FIELD = pa.field("event_time", pa.timestamp("us", tz="UTC"), nullable=False)
SOURCE_FIELD = pa.field("source", pa.string(), nullable=False)
ROW_FIELDS = (ID_FIELD, EVENT_TIME_FIELD, SOURCE_FIELD)
"""The first columns of every batch."""


class RowsError(ValueError):
    """Bytes are not one Arrow IPC stream with one record batch."""


def write_rows(rows: pa.RecordBatch, event_json: bytes) -> bytes:
    """Return an Arrow IPC stream of one batch that carries ``event_json`` too."""
    schema = rows.schema.with_metadata({EVENT_METADATA_KEY: event_json})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(rows.replace_schema_metadata(schema.metadata))
    result: bytes = sink.getvalue().to_pybytes()
    return result


def read_rows(data: bytes | memoryview) -> tuple[pa.RecordBatch, bytes]:
    """Return the batch and the event's JSON.

    Raises
    ------
    RowsError
        When the bytes are not a stream of exactly one batch with event metadata.
    """
    try:
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            batches = list(reader)
            metadata = reader.schema.metadata or {}
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise RowsError(f"not an Arrow IPC stream: {error}") from error
    if len(batches) != 1:
        raise RowsError(f"expected one record batch, found {len(batches)}")
    if EVENT_METADATA_KEY not in metadata:
        raise RowsError(f"schema metadata lacks {EVENT_METADATA_KEY.decode()}")
    batch = batches[0]
    batch.validate(full=True)
    event_json: bytes = metadata[EVENT_METADATA_KEY]
    return batch.replace_schema_metadata(None), event_json


SCOPE_BYTES = 8
PLAIN_ID_BYTES = 23
"""Longest id that is its own key; together with the scope 31 bytes."""


def row_keys(scope: str, ids: Iterable[str]) -> list[bytes]:
    """Return short keys for row ids, to be remembered by the million.

    Keys keep the order of short ids: where ids grow with time, new keys are
    neighbours, and an index takes them up many times faster than it would take
    digests. A long id keeps its first bytes before its digest.

    Parameters
    ----------
    scope : what the ids belong to; equal ids of different scopes differ.

    Examples
    --------
    >>> one, two = row_keys("bikes", ["r1", "r2"])
    >>> one < two, len(one), len(row_keys("bikes", ["x" * 1000])[0])
    (True, 10, 32)
    """
    prefix = blake2b(scope.encode(), digest_size=SCOPE_BYTES).digest()
    keys = []
    for row_id in ids:
        raw = row_id.encode()
        if len(raw) > PLAIN_ID_BYTES:
            raw = raw[:8] + blake2b(raw, digest_size=16).digest()
        keys.append(prefix + raw)
    return keys
