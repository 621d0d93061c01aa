"""Gathers a version, writes its export, and lets the export's own runner try it."""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftloop.cli.context import CommandError, Installation, every
from driftloop.cli.edge.folder import (
    FROM_PACKAGE,
    RUNNER,
    Forced,
    Origin,
    digest_of,
    folder_files,
)
from driftloop.cli.why import parse_model
from driftloop.contracts.events import PackageRef
from driftloop.models.formats import MODEL_FILE
from driftloop.models.package import PackageRefused, read_package, read_signed
from driftloop.models.samples import SAMPLES_FILE
from driftloop.models.settings import PackageSettings
from driftloop.models.signing import KeyFileError, SignatureRefused, TrustedKeys
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.settings import load_settings

EXPORTED = frozenset({"approved", "deployed", "superseded"})
"""States of versions that were let into service."""
CHECK_S = 300
KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH", "PATH", "SYSTEMROOT")
GOES_ON = "continue.river.json"


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes
    ----------
    digest : stands for the whole folder; see ``start.py``.
    notes : what whoever starts it should know.
    """

    pipeline: str
    version: int
    folder: Path
    file_count: int
    size_bytes: int
    digest: str
    signer: str
    notes: list[str]


def find_version(installation: Installation, model: str) -> dict[str, Any]:
    """Return what the registry says of ``bikes``, ``bikes/3`` or ``bikes@champion``.

    Raises
    ------
    CommandError
        When there is none, or the name is none.
    """
    pipeline, at, alias = model.partition("@")
    if at:
        if not pipeline or not alias or "/" in model:
            raise CommandError(
                f"{model!r}: name a version as bike-demand/3, or bike-demand@champion"
            )
        path = f"/models/{pipeline}/aliases/{alias}"
    else:
        pipeline, number = parse_model(model)
        place = "aliases/champion" if number is None else f"versions/{number}"
        path = f"/models/{pipeline}/{place}"
    found: dict[str, Any] = installation.request("GET", path)
    return found


def forced_of(
    found: dict[str, Any], *, force: bool, reason: str | None
) -> Forced | None:
    """Return why a version that is not approved is exported; None: it is approved.

    Raises
    ------
    CommandError
        When it is not, and nobody said that it should be exported all the same.
    """
    if force and not (reason or "").strip():
        raise CommandError("--force needs a --reason, which the export keeps")
    if found["state"] in EXPORTED:
        return None
    name = f"{found['pipeline']}/{found['version']}"
    words = f"{name} is {found['state'].replace('_', ' ')}"
    if not force:
        raise CommandError(
            f"{words}: only versions that were approved are exported; export another "
            "one, or say --force --reason TEXT"
        )
    return Forced(words, str(reason))


def gather(
    installation: Installation, found: dict[str, Any], forced: Forced | None
) -> Origin:
    """Return a version's package, verified, with all that its export needs.

    Raises
    ------
    CommandError
        When it cannot be read, is not what it claims to be, or the runner cannot run
        what it holds.
    """
    ref = PackageRef.model_validate(found["package"])
    settings = load_settings(PackageSettings, "cli", home=installation.home)
    try:
        trusted = TrustedKeys.from_folder(settings.trusted_keys_folder)
        package = read_package(ref, installation.store, trusted, is_served=True)
        manifest, signature = read_signed(ref, installation.store, trusted)
        signer_pem = trusted.pem_of(ref.signer)
    except (PackageRefused, SignatureRefused, Reject, Retry, KeyFileError) as error:
        raise CommandError(f"the package cannot be exported: {error}") from error
    for name in (MODEL_FILE, SAMPLES_FILE):
        if name not in package.files:
            has = ", ".join(sorted(package.manifest.files))
            raise CommandError(
                f"the package has no {name} (it has {has}): at the edge a model runs "
                "on ONNX Runtime, and answers its samples before it answers anybody"
            )
    pipeline = installation.request("GET", f"/pipelines/{found['pipeline']}")
    return Origin(
        package=package,
        version=int(found["version"]),
        manifest=manifest,
        signature=signature,
        signer_pem=signer_pem,
        spec=pipeline["spec"],
        forced=forced,
    )


def write_export(origin: Origin, folder: Path, *, is_container: bool) -> Export:
    """Write an export whose runner has tried the model; nothing is left otherwise.

    Raises
    ------
    CommandError
        When the folder is there already or cannot be written, or the runner refuses
        the model, with its reason.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CommandError(f"{folder} is there already; name a new folder")
    files = folder_files(origin, is_container=is_container)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for name, content in files.items():
                path = part / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            _try(part)
            part.chmod(0o755)
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise CommandError(f"cannot write {folder}: {error}") from error
    manifest = origin.package.manifest
    return Export(
        pipeline=manifest.pipeline,
        version=origin.version,
        folder=folder,
        file_count=len(files),
        size_bytes=sum(map(len, files.values())),
        digest=digest_of(files),
        signer=origin.package.ref.signer,
        notes=_notes(origin),
    )


def _try(folder: Path) -> None:
    """Let the export check itself, in a process that has nothing of ours."""
    environment = {k: os.environ[k] for k in KEPT_ENVIRONMENT if k in os.environ}
    try:
        tried = subprocess.run(
            [sys.executable, "-I", RUNNER, "check"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=CHECK_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(
            f"the runner did not answer its samples within {CHECK_S} s"
        ) from error
    if tried.returncode:
        words = tried.stderr.strip().removeprefix("refused: ")
        raise CommandError(f"the runner cannot run this version: {words}")


def _notes(origin: Origin) -> list[str]:
    notes = []
    manifest = origin.package.manifest
    if GOES_ON in manifest.files:
        notes.append(
            "this model goes on learning at home; the export answers as the model was "
            f"when version {origin.version} was made"
        )
    left_out = sorted(set(origin.package.files) - set(FROM_PACKAGE))
    if left_out:
        notes.append(f"left out, as it is not needed to answer: {', '.join(left_out)}")
    private = sorted(origin.spec["data"].get("privacy") or {})
    if private:
        notes.append(
            f"rules for personal data ({', '.join(private)}): the runner keeps no rows"
        )
    if origin.forced is not None:
        notes.append(f"{origin.forced.state}; forced: {origin.forced.reason}")
    return notes


def edges(installation: Installation, pipeline: str | None) -> list[dict[str, Any]]:
    """Return the runners at the edge that the registry has heard of."""
    return every(installation, "/edges", pipeline=pipeline or None)
