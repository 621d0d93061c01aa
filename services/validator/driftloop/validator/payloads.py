"""References to payloads: what is stored under each, against what may be there.

A row keeps its reference only where the object is there, with the digest that the row
names. So the dataset never refers to something that is missing or is something else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from driftloop.contracts.attachments import Attachment
from driftloop.contracts.payloads import (
    REFERENCE_TYPE,
    Found,
    Reference,
    read_reference,
)
from driftloop.validator.columns import Failure
from driftloop.validator.values import text_of

CHECK = "payload"
REFUSED = "refused:"
"""How ingest marks what it could not take out of a row."""
LOST = frozenset({"missing", "digest mismatch", "no reference"})
"""Faults that leave nothing to refer to, whatever the severity."""
REMEDIES = {
    "absent": "has no payload; send a reference, or set {setting}.required: false",
    "no reference": "is no reference; send sha256:<hex> of an uploaded payload",
    "missing": "no such payload is stored for this pipeline; upload it first",
    "digest mismatch": "the store holds other bytes under this digest; it was tampered "
    "with",
    "too large": "has more than {max_bytes} bytes; send a smaller one, or change "
    "{setting}.max_bytes",
    "wrong type": "must be {media_types} by its bytes, and what the row says that it "
    "is; correct it upstream or change {setting}.media_types",
}
"""Kinds of faults, and what to do."""
INLINE = {"broken": "no reference", "too_large": "too large", "type": "wrong type"}
"""What ingest's marks mean."""


@dataclass(frozen=True, slots=True)
class Payloads:
    """Attachments of a pipeline, and what the store says of a batch's references.

    Attributes
    ----------
    found : by URI; None: nothing is stored there.
    """

    pipeline: str
    attachments: Mapping[str, Attachment]
    found: Mapping[str, Found | None]


def references(batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[Reference]:
    """Return what a batch's rows refer to, once each."""
    for name in names:
        if name in batch.schema.names:
            for text in batch.column(name).unique().to_pylist():
                reference = read_reference(text_of(text) or "")
                if reference is not None:
                    yield reference


def check_payloads(
    batch: pa.RecordBatch, payloads: Payloads
) -> tuple[dict[str, pa.Array], list[Failure]]:
    """Return each attachment's column of checked references, and what is wrong."""
    columns: dict[str, pa.Array] = {}
    failures: list[Failure] = []
    for name, attachment in payloads.attachments.items():
        given = _texts(batch, name)
        faults = [_fault(text, attachment, payloads) for text in given]
        columns[name] = _checked(given, faults, payloads)
        failures += _failures(name, attachment, given, faults)
    return columns, failures


def _texts(batch: pa.RecordBatch, name: str) -> list[str | None]:
    if name not in batch.schema.names:
        return [None] * batch.num_rows
    return [text_of(value) for value in batch.column(name).to_pylist()]


def _fault(text: str | None, allowed: Attachment, payloads: Payloads) -> str | None:
    """Return what is wrong with one value; None: nothing."""
    if text is None:
        return "absent" if allowed.required else None
    if text.startswith(REFUSED):
        return INLINE.get(text.removeprefix(REFUSED), "no reference")
    reference = read_reference(text)
    if reference is None or reference.pipeline != payloads.pipeline:
        return "no reference"
    return _object_fault(reference, payloads.found.get(reference.uri), allowed)


def _object_fault(
    reference: Reference, found: Found | None, allowed: Attachment
) -> str | None:
    """Return what is wrong with what is stored under a reference."""
    if found is None:
        return "missing"
    if found.sha256 != reference.sha256:
        return "digest mismatch"
    if found.size_bytes > allowed.max_bytes:
        return "too large"
    claim = reference.media_type or found.media_type
    is_right = found.media_type in allowed.media_types and claim == found.media_type
    return None if is_right else "wrong type"


def _checked(
    given: Sequence[str | None], faults: Sequence[str | None], payloads: Payloads
) -> pa.Array:
    rows: list[dict[str, object] | None] = []
    for text, fault in zip(given, faults, strict=True):
        reference = read_reference(text or "")
        found = payloads.found.get(reference.uri) if reference else None
        if reference is None or found is None or fault in LOST:
            rows.append(None)
            continue
        rows.append(
            {
                "sha256": found.sha256,
                "size_bytes": found.size_bytes,
                "media_type": found.media_type,
                "uri": reference.uri,
            }
        )
    return pa.array(rows, REFERENCE_TYPE)


def _failures(
    name: str,
    allowed: Attachment,
    given: Sequence[str | None],
    faults: Sequence[str | None],
) -> Iterator[Failure]:
    kinds = np.array([fault or "" for fault in faults], dtype=object)
    for kind, remedy in REMEDIES.items():
        mask = np.asarray(kinds == kind, np.bool_)
        if not mask.any() or allowed.severity == "ignore":
            continue
        shown = [f"{kind}: {_shown(text)}" if text else kind for text in given]
        detail = remedy.format(
            setting=f"data.attachments.{name}",
            max_bytes=f"{allowed.max_bytes:,}",
            media_types=" or ".join(allowed.media_types),
        )
        values = pa.array(shown, pa.string())
        yield Failure(CHECK, name, mask, detail, values, allowed.severity)


def _shown(text: str) -> str:
    reference = read_reference(text)
    if reference is not None:
        return reference.sha256
    return "sent within the row" if text.startswith(REFUSED) else text
