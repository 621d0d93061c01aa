"""Versions' packages: their bill of materials, and the same package made again."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from driftloop.cli.context import CommandError, Installation
from driftloop.cli.packages.child import Progress, train
from driftloop.cli.packages.comparison import MANIFEST_FILE, Comparison, compare
from driftloop.cli.why import parse_model
from driftloop.contracts.events import PackageRef
from driftloop.models.package import (
    Manifest,
    Package,
    PackageRefused,
    payload_of,
    read_package,
)
from driftloop.models.settings import PackageSettings
from driftloop.models.signing import KeyFileError, TrustedKeys
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.settings import load_settings


def version_of(
    installation: Installation, model: str, number: int | None = None
) -> dict[str, Any]:
    """Return what the registry says of a version; of the champion if none is named."""
    pipeline, named = parse_model(model)
    number = named if number is None else number
    place = "aliases/champion" if number is None else f"versions/{number}"
    found: dict[str, Any] = installation.request("GET", f"/models/{pipeline}/{place}")
    return found


def bom(installation: Installation, model: str, number: int | None) -> bytes:
    """Return a version's bill of materials, as its package has it."""
    found = version_of(installation, model, number)
    path = f"/models/{found['pipeline']}/versions/{found['version']}/bom"
    return installation.fetch("GET", path).content


def package_of(installation: Installation, ref: PackageRef) -> Package:
    """Return a package, verified as by those who serve it.

    Raises
    ------
    CommandError
        When it cannot be read or is not what it claims to be.
    """
    settings = load_settings(PackageSettings, "cli", home=installation.home)
    try:
        trusted = TrustedKeys.from_folder(settings.trusted_keys_folder)
        return read_package(ref, installation.store, trusted)
    except (PackageRefused, Reject, Retry, KeyFileError) as error:
        raise CommandError(f"the package cannot be read: {error}") from error


def reproduce(
    package: Package, home: Path, progress: Progress, keep: Path | None = None
) -> Comparison:
    """Train a package's request again and compare; nothing is stored or published.

    Parameters
    ----------
    keep : new folder for the result; None: it is thrown away.

    Raises
    ------
    CommandError
        When it cannot be made again, with the reason.
    """
    request = package.manifest.request
    if request is None:
        raise CommandError(
            "its package does not say what was asked of its training: it was made by a "
            "driftloop from before packages could be reproduced"
        )
    if keep is not None and keep.exists():
        raise CommandError(f"{keep} is there already; name a new folder")
    with _workplace(home) as place:
        answer = train(_asked(package.manifest, request), home, place, progress)
        folder = place / "package"
        files = {name: (folder / name).read_bytes() for name in answer["files"]}
        again = Manifest.model_validate(answer["manifest"])
        if keep is not None:
            (folder / MANIFEST_FILE).write_bytes(payload_of(again, files))
            _keep(folder, keep)
    return compare(package.ref.digest, package.manifest, again, files)


def _asked(manifest: Manifest, request: str) -> str:
    """Return the request, with the trials that were made where time ended a search."""
    asked = json.loads(request)
    if asked["spec"]["train"].get("search", {}).get("minutes") is None:
        return request
    searched = Counter(one.name for one in manifest.tried if one.trial is not None)
    return json.dumps(asked | {"searched": searched})


@contextmanager
def _workplace(home: Path) -> Iterator[Path]:
    """Return a folder of our own, on the disk that the trainer's are on."""
    try:
        folder = TemporaryDirectory(prefix="reproduce-", dir=home)
    except OSError as error:
        raise CommandError(f"no place to work in {home}: {error}") from error
    with folder as name:
        yield Path(name).resolve()


def _keep(folder: Path, keep: Path) -> None:
    try:
        keep.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, keep)
    except OSError as error:
        raise CommandError(f"cannot write {keep}: {error}") from error
