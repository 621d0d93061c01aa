"""References to payloads, and what bytes are, told from the bytes themselves.

A payload lies in a room of its pipeline alone. Its URI is minted from pipeline and
digest, so a row can name a digest and never a place, and no row of one pipeline
reaches a payload of another, a model or anything else in the store.

Media types are a closed list with fixed signatures, as a guess that changes with a
library's version would give a replay another outcome.
"""

import codecs
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
from driftloop.contracts.base import NAME_PATTERN

HEAD_BYTES = 64
"""Of a payload; enough for every signature below."""
SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)
URI = re.compile(rf"payload:({NAME_PATTERN[1:-1]})/sha256/([0-9a-f]{{64}})")
CLAIM = re.compile(r"[a-z0-9!#$&^_.+-]{1,60}/[a-z0-9!#$&^_.+-]{1,60}")
"""A media type as a row may claim it (RFC 6838, section 4.2)."""

REFERENCE_TYPE = pa.struct(
    [
        pa.field("sha256", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("media_type", pa.string()),
        pa.field("uri", pa.string()),
    ]
)
"""A checked reference, as datasets hold it; its digest pins the very bytes."""


def payload_uri(pipeline: str, digest: str) -> str:
    """Return where a pipeline's payload of this digest is, whatever the store.

    >>> payload_uri("bikes", "ab" * 32)[:28]
    'payload:bikes/sha256/ababab'
    """
    return f"payload:{pipeline}/sha256/{digest}"


class Reference(NamedTuple):
    """What a row says of its payload.

    Attributes
    ----------
    media_type : what the row claims that it is; None: nothing.
    """

    pipeline: str
    sha256: str
    media_type: str | None = None

    @property
    def uri(self) -> str:
        return payload_uri(self.pipeline, self.sha256)

    def text(self) -> str:
        """Return how it travels in ``batch-ingested``: the URI, then the claim."""
        return self.uri if self.media_type is None else f"{self.uri} {self.media_type}"


def read_reference(text: str) -> Reference | None:
    """Return what :meth:`Reference.text` wrote; None: it is something else.

    >>> read_reference("payload:bikes/sha256/" + "ab" * 32 + " image/png").media_type
    'image/png'
    >>> read_reference("photo.png")
    """
    uri, _, claim = text.partition(" ")
    match = URI.fullmatch(uri)
    if match is None or (claim and not CLAIM.fullmatch(claim)):
        return None
    return Reference(match[1], match[2], claim or None)


def to_reference(pipeline: str, value: Any) -> Reference | None:
    """Return the reference that upstream wrote; None: it is none.

    Parameters
    ----------
    value : a digest, also with ``sha256:`` before it; the URI of this pipeline's
        payload; or an object with ``sha256`` and perhaps ``media_type``.

    >>> to_reference("bikes", "sha256:" + "AB" * 32).uri == "payload:bikes/sha256/" + (
    ...     "ab" * 32)
    True
    >>> to_reference("bikes", "payload:other/sha256/" + "ab" * 32)
    """
    claim = None
    if isinstance(value, dict):
        claim, value = value.get("media_type"), value.get("sha256")
        if claim is not None:
            claim = bare_type(claim) if isinstance(claim, str) else ""
            if not CLAIM.fullmatch(claim):
                return None
    if not isinstance(value, str):
        return None
    if match := SHA256.fullmatch(value.strip()):
        return Reference(pipeline, match[1].lower(), claim)
    found = read_reference(value.strip())
    if found is None or found.pipeline != pipeline:
        return None
    return found if claim is None else found._replace(media_type=claim)


def bare_type(content_type: str) -> str:
    """Return a media type without parameters, in its usual spelling.

    >>> bare_type("Image/JPG; q=1"), bare_type("audio/x-wav")
    ('image/jpeg', 'audio/wav')
    """
    name = content_type.partition(";")[0].strip().lower()
    return ALIASES.get(name, name)


ALIASES = {
    "image/jpg": "image/jpeg", "image/x-ms-bmp": "image/bmp",
    "audio/x-wav": "audio/wav", "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav", "audio/x-flac": "audio/flac",
    "audio/mp3": "audio/mpeg", "application/ogg": "audio/ogg",
}  # fmt: skip

SUFFIXES = {
    "image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif",
    "image/webp": ".webp", "image/bmp": ".bmp", "image/tiff": ".tiff",
    "audio/wav": ".wav", "audio/flac": ".flac", "audio/ogg": ".ogg",
    "audio/mpeg": ".mp3", "application/pdf": ".pdf", "text/plain": ".txt",
}  # fmt: skip


def _is_mpeg_audio(head: bytes) -> bool:
    """Whether an ID3 tag or a frame of layer III begins here.

    Source: ISO/IEC 11172-3, section 2.4.1.3; the fields of a frame's header.
    """
    if head.startswith(b"ID3"):
        return True
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer == 1 and bitrate not in (0, 15) and rate != 3


def _is_riff(form: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(b"RIFF") and head[8:12] == form


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(signatures)


_SIGNATURES: dict[str, Callable[[bytes], bool]] = {
    "image/png": _starts(b"\x89PNG\r\n\x1a\n"),
    "image/jpeg": _starts(b"\xff\xd8\xff"),
    "image/gif": _starts(b"GIF87a", b"GIF89a"),
    "image/webp": _is_riff(b"WEBP"),
    "image/bmp": lambda head: head.startswith(b"BM") and head[6:10] == b"\0\0\0\0",
    "image/tiff": _starts(b"II*\0", b"MM\0*"),
    "audio/wav": _is_riff(b"WAVE"),
    "audio/flac": _starts(b"fLaC"),
    "audio/ogg": _starts(b"OggS"),
    "audio/mpeg": _is_mpeg_audio,
    "application/pdf": _starts(b"%PDF-"),
}
_NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True, slots=True)
class Found:
    """What a payload's bytes are.

    Attributes
    ----------
    media_type : None: none of those that are known.
    """

    sha256: str
    size_bytes: int
    media_type: str | None


class Meter:
    """Reads a payload piece by piece and says what it is; keeps only its head.

    Examples
    --------
    >>> meter = Meter()
    >>> meter.update(b"fLaC....")
    >>> meter.found().media_type, meter.found().size_bytes
    ('audio/flac', 8)
    """

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._head = b""
        self._text: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder(
            "utf-8"
        )()
        self.size_bytes = 0

    def update(self, part: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(part)
        self.size_bytes += len(part)
        if len(self._head) < HEAD_BYTES:
            self._head += part[: HEAD_BYTES - len(self._head)]
            if self._kind():
                self._text = None
        self._read_text(part)

    def _read_text(self, part: bytes, final: bool = False) -> None:
        if self._text is None:
            return
        try:
            text = self._text.decode(part, final)
        except UnicodeDecodeError:
            self._text = None
            return
        if _NOT_TEXT.search(text):
            self._text = None

    def _kind(self) -> str | None:
        return next((n for n, is_it in _SIGNATURES.items() if is_it(self._head)), None)

    def found(self) -> Found:
        """Return what it was; nothing may be added after that."""
        kind = self._kind()
        self._read_text(b"", final=True)
        if kind is None and self._text is not None and self.size_bytes:
            kind = "text/plain"
        return Found(self._hash.hexdigest(), self.size_bytes, kind)


def measured(data: bytes) -> Found:
    r"""Return what bytes in memory are.

    >>> measured(b"caf\\xc3\\xa9").media_type, measured(b"\\xff\\xfe").media_type
    ('text/plain', None)
    """
    meter = Meter()
    meter.update(data)
    return meter.found()
