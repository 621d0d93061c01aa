"""References to payloads in a message's rows, before anything else is done with them.

Whatever upstream wrote (a digest, an object, or small bytes in the row itself) becomes
the text of a :class:`Reference`. Bytes are taken out and stored first, so that no
later step, dead letter or event can hold them. What is none of these goes on as
:data:`REFUSED` and a word, or as it is where it is short, for the validator to
quarantine the row.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from driftloop.contracts.attachments import MIB, Attachment
from driftloop.contracts.payloads import Reference, bare_type, measured, to_reference
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.ingest.columns import as_text
from driftloop.ingest.formats import JSON_TYPE, BadRow, Parsed
from driftloop.ingest.metrics import PAYLOADS
from driftloop.ingest.owners import NOBODY, Owners
from driftloop.runtime.payloads import PayloadStore

MAX_INLINE_BYTES = 512 * 1024
"""Of a payload within a row: with a third more as base64 it still fits a message."""
MAX_SHOWN = 120
"""Characters of a value that is no reference; a longer one may well be a payload."""
MAX_READ_BYTES = 1024 * MIB
"""Of a batch's payloads, were each as large as it may be: the validator reads them
all while it handles that batch."""
REFUSED = "refused:"
DATA_URI = re.compile(r"data:([^,;]*)((?:;[^,;]*)*),(.*)", re.DOTALL | re.IGNORECASE)
_INLINE = (b";base64,", b'"base64"')

PROBLEMS = {
    "broken": "is no base64 of a payload; send data:image/png;base64,… or a reference",
    "too_large": "is too large to be sent within a row; upload it first, and send its "
    "sha256",
    "type": "is of no media type that the pipeline file allows, or not of the one that "
    "it claims",
}


class InlineError(ValueError):
    """Bytes within a row cannot be taken; its text is a key of :data:`PROBLEMS`."""


@dataclass(frozen=True, slots=True)
class Attached:
    """Rows with references in place of payloads.

    Attributes
    ----------
    refused : position among the rows, column and key of :data:`PROBLEMS`.
    """

    parsed: Parsed
    is_changed: bool = False
    refused: list[tuple[int, str, str]] = field(default_factory=list)


def refused_rows(found: Attached) -> Iterator[BadRow]:
    """Return the rows whose payloads cannot be taken, without their content."""
    for at, name, kind in found.refused:
        yield BadRow(found.parsed.numbers[at], b"", JSON_TYPE, PROBLEMS[kind], name)


def has_attachments(spec: PipelineSpec) -> bool:
    return bool(spec.data.attachments)


def most_rows(spec: PipelineSpec) -> int | None:
    """Return how many rows a batch may have for its payloads; None: any number."""
    most = sum(each.max_bytes for each in spec.data.attachments.values())
    return max(1, MAX_READ_BYTES // most) if most else None


def may_hold_payload(value: bytes | None) -> bool:
    r"""Whether a message may hold bytes of a payload: base64, or no text at all.

    >>> may_hold_payload(b'{"photo": "data:image/png;base64,AA=="}')
    True
    >>> may_hold_payload(b'{"photo": "sha256:00"}'), may_hold_payload(b"\\xffPAR1")
    (False, True)
    """
    if value is None:
        return False
    if any(mark in value for mark in _INLINE):
        return True
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False


def attach(
    parsed: Parsed, spec: PipelineSpec, payloads: PayloadStore, owners: Owners | None
) -> Attached:
    """Return rows whose attachments are references; their bytes are stored.

    Parameters
    ----------
    parsed : rows as upstream wrote them; privacy rules come afterwards.
    owners : remembers whose payloads they are; None: they are remembered already.

    Raises
    ------
    Retry
        When the store is away.
    """
    names = [name for name in spec.data.attachments if _has(parsed.rows, name)]
    names = [name for name in names if name not in spec.data.privacy]  # dropped
    new: dict[str, list[str | None]] = {}
    refused: list[tuple[int, str, str]] = []
    for name in names:
        values = _values(parsed.rows, name)
        subjects = _subjects(parsed.rows, spec, name, owners)
        texts: list[str | None] = []
        for at, (value, subject) in enumerate(zip(values, subjects, strict=True)):
            if subject is None:  # the person was erased
                texts.append(None)
                continue
            text = _text(value, spec, spec.data.attachments[name], payloads)
            if text and text.startswith(REFUSED):
                refused.append((at, name, text.removeprefix(REFUSED)))
            texts.append(text)
        new[name] = texts
        _note(spec, owners, subjects, texts)
    changed = {n: texts for n, texts in new.items() if texts != _values(parsed.rows, n)}
    if not changed:
        return Attached(parsed, refused=refused)
    return Attached(
        parsed._replace(rows=_replaced(parsed.rows, changed)), True, refused
    )


def _text(
    value: Any, spec: PipelineSpec, allowed: Attachment, payloads: PayloadStore
) -> str | None:
    if value is None or value == "":
        return None
    try:
        inline = _inline(value)
        if inline is not None:
            return _taken_out(*inline, spec.name, allowed, payloads).text()
    except InlineError as error:
        return f"{REFUSED}{error}"
    reference = to_reference(spec.name, value)
    if reference is not None:
        return reference.text()
    shown = as_text(value) or ""
    return shown if len(shown) <= MAX_SHOWN else f"{REFUSED}broken"


def _inline(value: Any) -> tuple[bytes, str | None] | None:
    """Return bytes that stand in the row, and what the row says that they are."""
    if isinstance(value, bytes):
        return value, None
    if isinstance(value, dict) and isinstance(value.get("base64"), str):
        claim = value.get("media_type")
        return _decoded(value["base64"]), claim if isinstance(claim, str) else None
    if not isinstance(value, str) or value[:5].lower() != "data:":
        return None
    match = DATA_URI.fullmatch(value)
    if match is None or not match[2].lower().endswith(";base64"):
        raise InlineError("broken")
    return _decoded(match[3]), match[1] or None


def _decoded(text: str) -> bytes:
    if len(text) > (MAX_INLINE_BYTES + 2) // 3 * 4:
        raise InlineError("too_large")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InlineError("broken") from error


def _taken_out(
    data: bytes,
    claim: str | None,
    pipeline: str,
    allowed: Attachment,
    payloads: PayloadStore,
) -> Reference:
    if len(data) > min(MAX_INLINE_BYTES, allowed.max_bytes):
        raise InlineError("too_large")
    kind = measured(data).media_type
    if kind not in allowed.media_types or (claim and bare_type(claim) != kind):
        raise InlineError("type")
    reference = payloads.put(pipeline, data)
    PAYLOADS.labels(pipeline, "inline").inc()
    return reference


def _subjects(
    rows: list[dict[str, Any]] | pa.Table,
    spec: PipelineSpec,
    name: str,
    owners: Owners | None,
) -> Sequence[str | None]:
    column = spec.data.attachments[name].subject
    count = len(rows) if isinstance(rows, list) else rows.num_rows
    if owners is None or column is None:
        return [NOBODY] * count
    return owners.subjects(spec.name, [as_text(v) for v in _values(rows, column)])


def _note(
    spec: PipelineSpec,
    owners: Owners | None,
    subjects: Sequence[str | None],
    texts: Sequence[str | None],
) -> None:
    """Remember owners; without any subject in the file nothing is ever erased."""
    if owners is None or not any(a.subject for a in spec.data.attachments.values()):
        return
    owners.note(spec.name, _pairs(spec.name, subjects, texts))


def _pairs(
    pipeline: str, subjects: Sequence[str | None], texts: Sequence[str | None]
) -> Iterator[tuple[str, str]]:
    for subject, text in zip(subjects, texts, strict=True):
        reference = to_reference(pipeline, text)
        if reference is not None and subject is not None:
            yield subject, reference.sha256


def _has(rows: list[dict[str, Any]] | pa.Table, name: str) -> bool:
    if isinstance(rows, list):
        return any(name in row for row in rows)
    return name in rows.column_names


def _values(rows: list[dict[str, Any]] | pa.Table, name: str) -> list[Any]:
    if isinstance(rows, list):
        return [row.get(name) for row in rows]
    if name not in rows.column_names:
        return [None] * rows.num_rows
    values: list[Any] = rows.column(name).to_pylist()
    return values


def _replaced(
    rows: list[dict[str, Any]] | pa.Table, new: dict[str, list[str | None]]
) -> list[dict[str, Any]] | pa.Table:
    if isinstance(rows, list):
        return [
            row | {name: texts[at] for name, texts in new.items() if name in row}
            for at, row in enumerate(rows)
        ]
    for name, texts in new.items():
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, pa.array(texts, pa.string()))
    return rows
