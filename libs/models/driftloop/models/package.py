"""A model package: files by digest, a manifest over them, a signature over that.

The manifest's bytes are canonical JSON without wall-clock times, so the same
training on the same inputs gives the same digest. The signed envelope and each
file lie in the artifact store under their own digests; what is read is verified
on the very bytes that are returned.
"""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from driftloop.contracts.events import (
    DatasetRef,
    Evaluation,
    LeftOut,
    PackageRef,
    Span,
)
from driftloop.contracts.pipeline import Task
from driftloop.models.formats import (
    MODEL_FILE,
    FormatRefused,
    check_file,
    check_size,
)
from driftloop.models.signing import SignatureRefused, Signer, TrustedKeys
from driftloop.runtime.artifacts import URI_PATTERN, ArtifactStore, uri_of
from driftloop.runtime.errors import Reject
from pydantic import BaseModel, ConfigDict, Field, ValidationError

PAYLOAD_TYPE = "application/vnd.driftloop.model-manifest.v1+json"
MAX_ENVELOPE_BYTES = 8 * 1024 * 1024
ColumnType = Literal["number", "integer", "category", "boolean", "text", "datetime"]
STATE_PREFIX = "continue."
"""Of files that a later training goes on from."""
STRINGS = frozenset({"category", "text"})
"""Types that are strings wherever they travel. A datetime is an int64 in the graph; the
others are float32."""


class PackageRefused(Reject):
    """A package is not what it claims to be; nothing of it may be loaded."""


class Part(BaseModel):
    """A part of the manifest; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(value: object) -> bool:
    return not value


class InputColumn(Part):
    """One feature, in the order of training."""

    name: str
    type: ColumnType
    nullable: bool = False
    categories: list[str] | None = Field(
        default=None, description="values seen in training; others count as unknown"
    )
    least: float | None = Field(
        default=None,
        description="of a number's or integer's values that were learned from, in "
        "single precision; absent where there was none, and for other types",
        exclude_if=_is_none,
    )
    greatest: float | None = Field(
        default=None, description="see least", exclude_if=_is_none
    )
    timezone: str | None = Field(
        default=None,
        description="of a datetime's values that are written without an offset",
        exclude_if=_is_none,
    )


class PreprocessingStep(Part):
    """One step that the graph takes before the model, with what it learned.

    Attributes
    ----------
    columns : what it reads: features, or crosses of some (``a*b``).
    fitted : by column, the constants that were fitted on training rows. Single
        precision, as in the graph.
    """

    step: str
    columns: list[str]
    fitted: dict[str, dict[str, Any]] = {}


class OutputColumn(Part):
    """One output of the graph."""

    name: Literal["prediction", "score"]
    type: Literal["number", "category"]
    description: str


class TriedCandidate(Part):
    """A candidate and its loss on validation."""

    name: str
    validation_loss: float | None = Field(description="None: it could not be used")
    detail: str = ""
    fold_losses: list[float] | None = Field(
        default=None,
        description="oldest first; None: there was one",
        exclude_if=_is_none,
    )
    trial: int | None = Field(
        default=None,
        description="of the search; None: the usual parameters",
        exclude_if=_is_none,
    )
    parameters: dict[str, int | float | str] | None = Field(
        default=None, description="that the trial had", exclude_if=_is_none
    )


class FileEntry(Part):
    """Where a file is and what it must be."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)
    uri: str


class Manifest(Part):
    """What ``model.json`` says: the model's schema, origin and worth.

    Attributes
    ----------
    classes : labels in the order of the score's columns; empty for regression.
    environment : ``name==version`` of each library that shaped the model.
    preprocessing : steps of the graph before the model, in order; a feature that no
        step names goes in as it is.
    parent_digest : package of the champion at training time.
    continued_from : version of that champion, where the training went on from its
        state: then the model has learned older rows too than ``train_span`` names.
    request : all that its training was asked, as the trainer takes it: JSON as text,
        since the order of the features counts, which canonical JSON does not keep, and
        a reader that serves the model need not understand it.
    rows_sha256 : of the labelled rows that it was made from and judged on.
    learned_span : of the rows that the served model was fitted on once more after the
        hold-out had judged it; None: ``train_span``.
    left_out : faults whose rows were neither learned nor judged on.
    files : filled in by :func:`write_package`.
    """

    schema_version: Literal[1] = 1
    pipeline: str
    task: Task
    target: str
    inputs: list[InputColumn] = Field(min_length=1)
    outputs: list[OutputColumn] = Field(min_length=1)
    preprocessing: list[PreprocessingStep] = []
    classes: list[str] = []
    algorithm: str
    parameters: dict[str, Any] = {}
    evaluation: Evaluation
    tried: list[TriedCandidate] = []
    dataset: DatasetRef
    train_span: Span
    holdout_span: Span
    train_row_count: int = Field(ge=1)
    seed: int
    code_version: str
    environment: list[str]
    parent_digest: str | None = None
    continued_from: int | None = Field(default=None, exclude_if=_is_none)
    job_id: str
    cause_event_id: str
    cause_reason: str
    request: str | None = Field(
        default=None, description="None: from before packages could be reproduced"
    )
    rows_sha256: str | None = None
    learned_span: Span | None = Field(default=None, exclude_if=_is_none)
    left_out: list[LeftOut] = Field(default=[], exclude_if=_is_empty)
    files: dict[str, FileEntry] = {}

    @property
    def learned_until(self) -> datetime:
        """Time of the newest row that the served model may have learned."""
        return (self.learned_span or self.train_span).end


@dataclass(frozen=True)
class Package:
    """A verified package.

    Attributes
    ----------
    ref : what was asked for.
    files : name to bytes, exactly as the manifest lists them, or those to serve.
    """

    ref: PackageRef
    manifest: Manifest
    files: dict[str, bytes]


def canonical_json(content: Any) -> bytes:
    """Return JSON that is equal for equal content.

    >>> canonical_json({"b": 1, "a": "é"}).decode()
    '{"a":"é","b":1}'
    """
    return json.dumps(
        content,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()


def signed_bytes(payload: bytes) -> bytes:
    """Return what is signed for a payload: its type and length are part of it.

    Source: DSSE v1, pre-authentication encoding (secure-systems-lab/dsse).

    >>> signed_bytes(b"{}").split()[0]
    b'DSSEv1'
    """
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def payload_of(manifest: Manifest, files: dict[str, bytes]) -> bytes:
    """Return ``model.json``: the manifest with its files; its sha256 is the digest.

    Raises
    ------
    FormatRefused
        When a file may not be in a package or is not what its name says.
    """
    if MODEL_FILE not in files:
        raise FormatRefused(f"{MODEL_FILE} is missing")
    entries = {}
    for name, data in sorted(files.items()):
        check_file(name, data)
        digest = hashlib.sha256(data).hexdigest()
        entries[name] = FileEntry(
            sha256=digest, size_bytes=len(data), uri=uri_of(digest)
        )
    complete = manifest.model_copy(update={"files": entries})
    return canonical_json(complete.model_dump(mode="json"))


def write_package(
    manifest: Manifest, files: dict[str, bytes], signer: Signer, store: ArtifactStore
) -> PackageRef:
    """Store the files, the manifest over them and its signature.

    Returns
    -------
    PackageRef
        The same for the same arguments; storing again changes nothing.

    Raises
    ------
    FormatRefused
        When a file may not be in a package or is not what its name says.
    Retry
        When the store is away.
    """
    payload = payload_of(manifest, files)
    for data in files.values():
        store.put(data)
    signature = signer.sign(signed_bytes(payload))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": signer.key_id, "sig": base64.b64encode(signature).decode()}
        ],
    }
    blob = store.put(canonical_json(envelope))
    return PackageRef(
        uri=blob.uri, digest=hashlib.sha256(payload).hexdigest(), signer=signer.key_id
    )


def read_package(
    ref: PackageRef,
    store: ArtifactStore,
    trusted: TrustedKeys,
    *,
    is_served: bool = False,
) -> Package:
    """Return the verified package.

    Parameters
    ----------
    is_served : leave out what only a later training needs, which may be large.

    Raises
    ------
    PackageRefused
        When the signer is not trusted, the signature or a digest does not fit, or
        a file is missing, extra or not what its name says. Says which.
    Retry
        When the store is away or does not have an object (yet).
    """
    try:
        payload = _verified_payload(ref, store, trusted)
        manifest = Manifest.model_validate_json(payload)
        _check_list(manifest)
        files = {
            name: _read_file(name, entry, store)
            for name, entry in manifest.files.items()
            if not (is_served and name.startswith(STATE_PREFIX))
        }
    except PackageRefused:
        raise
    except ValidationError as error:
        raise PackageRefused(f"the manifest is not valid: {error}") from error
    except (Reject, SignatureRefused, FormatRefused) as error:
        raise PackageRefused(f"package {ref.digest[:12]}: {error}") from error
    return Package(ref, manifest, files)


def read_manifest(
    ref: PackageRef, store: ArtifactStore, trusted: TrustedKeys
) -> Manifest:
    """Return what a package says of itself, verified; its files are not read.

    Raises
    ------
    PackageRefused
        When the signer is not trusted, or the signature or digest does not fit.
    Retry
        When the store is away or does not have the object (yet).
    """
    try:
        payload = _verified_payload(ref, store, trusted)
        return Manifest.model_validate_json(payload)
    except PackageRefused:
        raise
    except ValidationError as error:
        raise PackageRefused(f"the manifest is not valid: {error}") from error
    except (Reject, SignatureRefused) as error:
        raise PackageRefused(f"package {ref.digest[:12]}: {error}") from error


def read_file(
    ref: PackageRef, name: str, store: ArtifactStore, trusted: TrustedKeys
) -> bytes | None:
    """Return one file of a package, verified; None when the package lacks it.

    Raises
    ------
    PackageRefused
        When the signer is not trusted, or the signature or a digest does not fit.
    Retry
        When the store is away or does not have an object (yet).
    """
    try:
        payload = _verified_payload(ref, store, trusted)
        entry = Manifest.model_validate_json(payload).files.get(name)
        return None if entry is None else _read_file(name, entry, store)
    except PackageRefused:
        raise
    except ValidationError as error:
        raise PackageRefused(f"the manifest is not valid: {error}") from error
    except (Reject, SignatureRefused, FormatRefused) as error:
        raise PackageRefused(f"package {ref.digest[:12]}: {error}") from error


def read_signed(
    ref: PackageRef, store: ArtifactStore, trusted: TrustedKeys
) -> tuple[bytes, bytes]:
    """Return the manifest's bytes and the signature over them, verified.

    Raises
    ------
    PackageRefused
        When the signer is not trusted, or the signature or digest does not fit.
    Retry
        When the store is away or does not have the object (yet).
    """
    try:
        return _verified(ref, store, trusted)
    except PackageRefused:
        raise
    except (Reject, SignatureRefused) as error:
        raise PackageRefused(f"package {ref.digest[:12]}: {error}") from error


def _verified_payload(
    ref: PackageRef, store: ArtifactStore, trusted: TrustedKeys
) -> bytes:
    return _verified(ref, store, trusted)[0]


def _verified(
    ref: PackageRef, store: ArtifactStore, trusted: TrustedKeys
) -> tuple[bytes, bytes]:
    match = URI_PATTERN.fullmatch(ref.uri)
    if match is None:
        raise PackageRefused(f"not an artifact: {ref.uri!r}", field="uri")
    data = store.get(ref.uri, match[1])
    if len(data) > MAX_ENVELOPE_BYTES:
        raise PackageRefused(f"the envelope has {len(data)} bytes")
    try:
        envelope = json.loads(data)
        kind = envelope["payloadType"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = {
            entry["keyid"]: base64.b64decode(entry["sig"], validate=True)
            for entry in envelope["signatures"]
        }
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise PackageRefused(f"not a signed envelope: {error!r}") from error
    if kind != PAYLOAD_TYPE:
        raise PackageRefused(f"the envelope holds {kind!r}, not a model manifest")
    if ref.signer not in signatures:
        raise PackageRefused(f"the envelope has no signature by {ref.signer!r}")
    trusted.verify(ref.signer, signed_bytes(payload), signatures[ref.signer])
    found = hashlib.sha256(payload).hexdigest()
    if found != ref.digest:
        raise PackageRefused(f"the manifest has digest {found}, not {ref.digest}")
    return payload, signatures[ref.signer]


def _check_list(manifest: Manifest) -> None:
    if MODEL_FILE not in manifest.files:
        raise PackageRefused(f"the manifest lists no {MODEL_FILE}")
    for name, entry in manifest.files.items():
        check_size(name, entry.size_bytes)


def _read_file(name: str, entry: FileEntry, store: ArtifactStore) -> bytes:
    try:
        data = store.get(entry.uri, entry.sha256)
    except Reject as error:
        raise PackageRefused(f"{name}: {error}") from error
    if len(data) != entry.size_bytes:
        raise PackageRefused(
            f"{name}: {len(data)} bytes where the manifest says {entry.size_bytes}"
        )
    check_file(name, data)
    return data
