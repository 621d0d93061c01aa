"""Rows of a request as Kafka records of a size that the broker takes."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid5

import pyarrow as pa
from driftloop.contracts.base import EVENT_NAMESPACE
from driftloop.contracts.events import LabelArrived, ObservationArrived, RowKind
from driftloop.contracts.rows import CONTENT_TYPE as ARROW_TYPE
from driftloop.ingest.core import MAX_BATCH_BYTES
from driftloop.ingest.encodings import TooLargeError
from driftloop.ingest.formats import NDJSON_TYPE, Parsed, row_json
from driftloop.runtime.envelope import Attributes
from driftloop.runtime.transport import Record

TOPICS: dict[RowKind, str] = {
    "observations": ObservationArrived.topic(),
    "labels": LabelArrived.topic(),
}
TYPES: dict[RowKind, str] = {
    "observations": ObservationArrived.type_name(),
    "labels": LabelArrived.type_name(),
}


def records_of(
    attributes: Attributes,
    parsed: Parsed,
    pipeline: str,
    kind: RowKind,
    source: str,
) -> list[Record]:
    """Return Kafka records of a request; the same request gives the same ids.

    Raises
    ------
    TooLargeError
        When a single row is larger than a message may be.
    """
    data = attributes.data or b""
    if len(data) <= MAX_BATCH_BYTES:
        pieces = [(attributes.content_type, data)]
    else:
        pieces = list(_pieces(parsed))
    digest = hashlib.sha256(data).hexdigest()
    given = attributes.get("id") or digest
    records = []
    for number, (content_type, value) in enumerate(pieces):
        name = f"{pipeline}/{kind}/{source}/{given}/{number}"
        fields = {
            "ce_specversion": "1.0",
            "ce_id": str(uuid5(EVENT_NAMESPACE, name)),
            "ce_source": f"/upstream/{source}",
            "ce_type": TYPES[kind],
            "ce_subject": pipeline,
            "ce_time": datetime.now(UTC).isoformat(),
            "content-type": content_type,
        }
        if traceparent := attributes.get("traceparent"):
            fields["traceparent"] = traceparent
        records.append(
            Record(
                TOPICS[kind],
                f"{pipeline}/{source}".encode(),
                value,
                tuple((key, text.encode()) for key, text in fields.items()),
            )
        )
    return records


def rewritten(values: dict[str, str], parsed: Parsed) -> Attributes:
    """Return the attributes of a message whose rows are not those that came."""
    if isinstance(parsed.rows, list):
        data = b"\n".join(map(row_json, parsed.rows))
        return Attributes(values, NDJSON_TYPE, data)
    return Attributes(values, ARROW_TYPE, _stream(parsed.rows))


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _pieces(parsed: Parsed) -> Iterator[tuple[str, bytes]]:
    """Cut a large request into messages that the broker takes."""
    if isinstance(parsed.rows, list):
        yield from _ndjson_pieces(parsed)
        return
    table = parsed.rows
    row_bytes = max(1, table.nbytes // table.num_rows)
    size = max(1, MAX_BATCH_BYTES // row_bytes)
    for start in range(0, table.num_rows, size):
        yield ARROW_TYPE, _stream(table.slice(start, size))


def _ndjson_pieces(parsed: Parsed) -> Iterator[tuple[str, bytes]]:
    lines: list[bytes] = []
    size = 0
    for row in parsed.rows:
        line = row_json(row)
        if len(line) > MAX_BATCH_BYTES:
            raise TooLargeError(f"a row of more than {MAX_BATCH_BYTES} bytes")
        if lines and size + len(line) > MAX_BATCH_BYTES:
            yield NDJSON_TYPE, b"\n".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield NDJSON_TYPE, b"\n".join(lines)
