"""A digest of rows by what they say, whatever the tables' files look like."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def digest_of(rows: pa.Table) -> str:
    """Return the sha256 of names, types, and values in their order.

    Of each column: where it is null, then its values, nulls as zeros or empty texts,
    so that neither chunks nor unused bytes count.

    Examples
    --------
    >>> whole = pa.table({"a": [1, None, 3]})
    >>> parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    >>> digest_of(whole) == digest_of(parts), digest_of(whole) == digest_of(parts[:2])
    (True, False)
    """
    digest = hashlib.sha256()
    for name in rows.column_names:
        column = rows[name].combine_chunks()
        digest.update(f"{name}\0{column.type}\0{len(column)}\0".encode())
        for part in _parts(column):
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _parts(column: pa.Array) -> list[np.ndarray]:
    missing = pc.is_null(column).to_numpy(zero_copy_only=False)
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    elif pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return [missing, *_texts(column)]
    return [missing, pc.fill_null(column, 0).to_numpy(zero_copy_only=False)]


def _texts(column: pa.Array) -> list[np.ndarray]:
    """Return the lengths in bytes, and all texts one after the other."""
    texts = pc.fill_null(column.cast(pa.large_string()), "")
    lengths = pc.binary_length(texts).to_numpy(zero_copy_only=False)
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return [lengths]
    ends = np.frombuffer(offsets, np.int64)[
        texts.offset : texts.offset + len(texts) + 1
    ]
    return [lengths, np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]]
