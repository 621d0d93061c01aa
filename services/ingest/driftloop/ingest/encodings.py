"""Bodies that travel compressed: gzip and zstd, decoded up to a limit."""

import pyarrow as pa
from driftloop.ingest.errors import FormatError

ENCODINGS = ("gzip", "zstd")
"""Names of ``Content-Encoding`` (RFC 9110, RFC 8878)."""
PLAIN = "identity"
READ_BYTES = 1024 * 1024


class TooLargeError(ValueError):
    """What was decoded exceeds the limit; the rest was not decoded."""


def decoded(data: bytes, encoding: str, limit: int) -> bytes:
    """Return a body without its encoding.

    Decodes piece by piece and stops at the limit, so that a small body cannot
    become a large one in memory.

    Parameters
    ----------
    encoding : one of :data:`ENCODINGS`.
    limit : bytes that the result may have.

    Raises
    ------
    FormatError
        When the bytes are not in this encoding, or end too early.
    TooLargeError
        When the result would be longer than ``limit``.

    Examples
    --------
    >>> import gzip
    >>> decoded(gzip.compress(b"rows"), "gzip", 4)
    b'rows'
    >>> decoded(gzip.compress(b"rows"), "gzip", 3)
    Traceback (most recent call last):
    driftloop.ingest.encodings.TooLargeError: more than 3 bytes when decoded
    """
    parts: list[bytes] = []
    size = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), encoding) as stream:
            while part := stream.read(READ_BYTES):
                size += len(part)
                if size > limit:
                    raise TooLargeError(f"more than {limit} bytes when decoded")
                parts.append(part)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"broken {encoding}: {error}") from error
    return b"".join(parts)
