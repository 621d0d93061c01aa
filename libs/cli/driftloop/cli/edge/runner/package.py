"""The exported package: what ``model.json`` says has to be what was signed."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .columns import Column
from .errors import Refused
from .signature import is_signed, key_id, key_in, signed_bytes

FORMAT = 1
MODEL, LIST, MANIFEST = "model.onnx", "model.json", "manifest.json"
SAMPLES, SIGNATURE, SIGNER = "samples.json", "signature.json", "signer.pem"
SIGNED_PARTS = ("pipeline", "task", "target", "inputs", "outputs", "classes")
"""Of ``model.json``; they have to be those of the signed manifest."""


@dataclass(frozen=True)
class Home:
    """What rows that are sent home need, as the pipeline's file has it.

    Attributes
    ----------
    private : columns with personal data; rows are not kept where there are any.
    """

    id_column: str
    time_column: str
    private: Sequence[str]


@dataclass(frozen=True)
class Package:
    """A verified package.

    Attributes
    ----------
    digest : of the signed manifest.
    signer : id of the key that signed it.
    samples : as in ``samples.json``.
    tolerance : ``relative`` and ``absolute``.
    forced : why a version was exported that is not approved; None: it was.
    """

    pipeline: str
    version: int
    digest: str
    signer: str
    inputs: Sequence[Column]
    classes: Sequence[str]
    outputs: Sequence[Mapping[str, Any]]
    samples: Mapping[str, Any]
    tolerance: Mapping[str, float]
    home: Home
    model: bytes
    forced: str | None


def open_package(files: Mapping[str, bytes], signer: str | None = None) -> Package:
    """Return the package that an export holds.

    Parameters
    ----------
    files : by name, each with the digest that ``model.json`` lists.
    signer : id of the only key that is believed; None: that in the folder.

    Raises
    ------
    Refused
        When the signature does not fit, or names what is not as it was signed.
    """
    try:
        listed = json.loads(files[LIST])
        manifest = json.loads(files[MANIFEST])
        envelope = json.loads(files[SIGNATURE])
        samples = json.loads(files[SAMPLES])
        if listed["format"] != FORMAT:
            raise Refused(f"{LIST}: format {listed['format']!r}, not {FORMAT}")
        by = _check_signature(files, envelope, signer)
        _check_manifest(files, listed, manifest)
        if listed["samples"] != samples:
            raise Refused(f"{LIST} has other samples than {SAMPLES}")
        forced = listed["forced"]
        home = listed["home"]
        return Package(
            pipeline=listed["pipeline"],
            version=int(listed["version"]),
            digest=listed["package"]["digest"],
            signer=by,
            inputs=[Column(**column) for column in listed["inputs"]],
            classes=listed["classes"],
            outputs=listed["outputs"],
            samples=samples,
            tolerance=listed["tolerance"],
            home=Home(home["id_column"], home["time_column"], home["private"]),
            model=files[MODEL],
            forced=None if forced is None else f"{forced['state']}: {forced['reason']}",
        )
    except KeyError as error:
        raise Refused(f"the export lacks {error}") from error
    except (ValueError, TypeError) as error:
        raise Refused(f"the export is not right: {error}") from error


def _check_signature(
    files: Mapping[str, bytes], envelope: Mapping[str, str], wanted: str | None
) -> str:
    """Return the id of the key that signed the manifest."""
    key = key_in(files[SIGNER])
    found = key_id(key)
    if wanted is not None and wanted != found:
        raise Refused(f"signed by key {found}; only {wanted} is believed")
    try:
        signature = base64.b64decode(envelope["sig"], validate=True)
    except binascii.Error as error:
        raise Refused(f"{SIGNATURE}: {error}") from error
    data = signed_bytes(envelope["payloadType"], files[MANIFEST])
    if envelope["keyid"] != found or not is_signed(key, data, signature):
        raise Refused(f"the signature by {found} does not fit {MANIFEST}")
    return found


def _check_manifest(
    files: Mapping[str, bytes], listed: Mapping[str, Any], manifest: Mapping[str, Any]
) -> None:
    digest = hashlib.sha256(files[MANIFEST]).hexdigest()
    if listed["package"]["digest"] != digest:
        raise Refused(f"{MANIFEST} has digest {digest}, {LIST} says another")
    for part in SIGNED_PARTS:
        if listed[part] != manifest[part]:
            raise Refused(f"{LIST}: {part!r} is not what was signed in {MANIFEST}")
    for name, entry in manifest["files"].items():
        data = files.get(name)
        if data is None:
            continue  # what only a training needs is not exported
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise Refused(f"{name} is not what was signed in {MANIFEST}")
    for name in (MODEL, SAMPLES):
        if name not in manifest["files"]:
            raise Refused(f"{MANIFEST} does not list {name}")
