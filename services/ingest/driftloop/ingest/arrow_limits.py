"""What an Arrow stream declares about itself, read before any of it is decoded.

A compressed buffer begins with its length after decompression, and Arrow allocates
that length. So the lengths are added up first.

**Source**: Arrow columnar format, "Encapsulated message format" and ``Message.fbs``;
the offsets below are positions in FlatBuffers' vtables.
"""

import struct
from typing import Any

import pyarrow as pa

_HEADER_TYPE, _HEADER = 6, 8
_BATCH_BUFFERS, _BATCH_COMPRESSION = 8, 10
_DICTIONARY_BATCH = 2
_RECORD_BATCH = 3
_DICTIONARY_DATA = 6
_BUFFER = struct.Struct("<qq")
_LENGTH = struct.Struct("<q")
_STORED = -1


def declared_bytes(stream: pa.Buffer) -> int:
    """Return how many bytes the buffers of a stream have after decompression.

    Raises
    ------
    pyarrow.ArrowInvalid
        When the stream is broken.
    """
    total = 0
    try:
        for message in pa.ipc.MessageReader.open_stream(stream):
            total += _message_bytes(message)
    except struct.error as error:
        raise pa.ArrowInvalid("a buffer lies outside of its message") from error
    return total


def _message_bytes(message: Any) -> int:
    meta = memoryview(message.metadata)
    root = _indirect(meta, 0)
    kind_at, header_at = _field(meta, root, _HEADER_TYPE), _field(meta, root, _HEADER)
    kind = meta[kind_at] if kind_at else 0
    if not header_at or kind not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return 0
    batch = _indirect(meta, header_at)
    if kind == _DICTIONARY_BATCH:
        data_at = _field(meta, batch, _DICTIONARY_DATA)
        if not data_at:
            return 0
        batch = _indirect(meta, data_at)
    buffers_at = _field(meta, batch, _BATCH_BUFFERS)
    if not buffers_at:
        return 0
    is_compressed = bool(_field(meta, batch, _BATCH_COMPRESSION))
    body = memoryview(message.body) if message.body is not None else memoryview(b"")
    start = _indirect(meta, buffers_at)
    (count,) = struct.unpack_from("<I", meta, start)
    total = 0
    for number in range(count):
        offset, length = _BUFFER.unpack_from(meta, start + 4 + number * _BUFFER.size)
        if is_compressed and length:
            (declared,) = _LENGTH.unpack_from(body, offset)
            length = length if declared == _STORED else declared
        total += max(0, length)
    return total


def _indirect(data: memoryview, at: int) -> int:
    (offset,) = struct.unpack_from("<I", data, at)
    return int(at + offset)


def _field(data: memoryview, table: int, vtable_offset: int) -> int:
    """Return where a table's field is; 0 when it is left out."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    (size,) = struct.unpack_from("<H", data, vtable)
    if vtable_offset >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + vtable_offset)
    return table + offset if offset else 0
