"""Small payloads of every kind, and a pipeline that takes some of them."""

import base64
import hashlib
import struct
import zlib
from pathlib import Path

from driftloop.contracts.pipeline import parse_pipeline
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.payloads import PayloadStore

MARKER = b"PLANTED-MARKER-4711"
"""Within payloads of tests; nobody but the store may ever hold it."""
SPEC = parse_pipeline(
    """
name: shop
task: regression
data:
  target: price
  features:
    weight: {min: 0, max: 100}
  attachments:
    photo: {media_types: [image/png, image/jpeg], max_bytes: 100000}
    note: {media_types: [text/plain], max_bytes: 2000, subject: customer_id}
"""
)


def png(extra: bytes = b"") -> bytes:
    """Return a picture of one pixel, with a comment."""

    def chunk(name: bytes, data: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + sum_

    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
            chunk(b"tEXt", b"Comment\0" + MARKER + extra),
            chunk(b"IDAT", zlib.compress(b"\0\0")),
            chunk(b"IEND", b""),
        ]
    )


def data_uri(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def row(number: int, **values: object) -> dict[str, object]:
    given = {
        "id": f"r{number}",
        "event_time": f"2024-05-01T00:{number % 60:02d}:00Z",
        "weight": 1.5,
        "customer_id": f"c{number}",
    }
    return given | values


def store_in(folder: Path) -> PayloadStore:
    return PayloadStore(lambda room: FolderStore(folder / "artifacts" / room))


SEEN_AS = ("PLANTED-MARKER", base64.b64encode(png())[60:90].decode())
"""How the marker would show, plain or as base64."""
