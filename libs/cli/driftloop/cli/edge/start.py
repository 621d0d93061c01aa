"""Starts an exported model: every file is what was exported, or nothing is loaded.

This is ``runner.py`` of an exported folder. It needs the standard library alone; ONNX
Runtime and numpy are loaded after it has found each file to be the one that
``model.json`` lists. DRIFTLOOP_EDGE_DIGEST, where it is set, has to be the sha256 of
``model.json`` itself, as the export has printed it: then nobody can have changed both.
"""

import os
import sys

sys.dont_write_bytecode = True
_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - see below
# A file beside this one must not stand in for a module: nothing is found here by name.
sys.path[:] = [p for p in sys.path if p and os.path.abspath(p) != _HERE]  # noqa: PTH100

import hashlib  # noqa: E402 - what is above decides from where
import importlib.util  # noqa: E402
import json  # noqa: E402
from http import HTTPStatus  # noqa: E402
from http.client import HTTPConnection  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

LIST = "model.json"
PACKAGE = "driftloop_edge"
DIGEST_VARIABLE = "DRIFTLOOP_EDGE_DIGEST"
PORT_VARIABLE = "DRIFTLOOP_EDGE_PORT"
ALIVE_S = 4.0
EXIT_REFUSED = 1
MAX_LIST_BYTES = 32 * 1024 * 1024


class Changed(Exception):  # noqa: N818 - says what happened
    """A file is not what was exported; nothing was loaded."""


def checked_files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of an export, by name.

    Raises
    ------
    Changed
        Names the file that is missing, changed, or one too many.
    """
    data = _read(folder, LIST)
    if len(data) > MAX_LIST_BYTES:
        raise Changed(f"{LIST} has {len(data)} bytes; it is none of ours")
    wanted = os.environ.get(DIGEST_VARIABLE)
    found = hashlib.sha256(data).hexdigest()
    if wanted and wanted != found:
        raise Changed(f"{LIST} has digest {found}; {DIGEST_VARIABLE} says {wanted}")
    try:
        listed: dict[str, Any] = json.loads(data)["files"]
        files = {LIST: data} | {
            name: _same(folder, name, entry["sha256"]) for name, entry in listed.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Changed(f"{LIST} is not the list of an export: {error!r}") from error
    for path in sorted((folder / PACKAGE).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in files:
            raise Changed(f"{name} is not part of the export; remove it")
    return files


def _same(folder: Path, name: str, sha256: str) -> bytes:
    data = _read(folder, name)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise Changed(f"{name} was changed: its digest is {found}, not {sha256}")
    return data


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    if ".." in Path(name).parts or Path(name).is_absolute() or path.is_symlink():
        raise Changed(f"{name} leads out of the folder")
    try:
        return path.read_bytes()
    except OSError as error:
        raise Changed(f"{name} cannot be read: {error.strerror or error}") from error


def _loaded(folder: Path) -> Any:
    """Return the runner's main module, from its folder and from nowhere else."""
    place = folder / PACKAGE
    spec = importlib.util.spec_from_file_location(
        PACKAGE, place / "__init__.py", submodule_search_locations=[str(place)]
    )
    if spec is None or spec.loader is None:
        raise Changed(f"{PACKAGE} cannot be loaded")
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    return importlib.import_module(f"{PACKAGE}.main")


def is_alive(port: str) -> bool:
    """Whether a runner on this machine is ready; for the check of a container."""
    connection = HTTPConnection("127.0.0.1", int(port), timeout=ALIVE_S)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def main() -> int:
    """Check, then do what the command line asks; return the exit code."""
    folder = Path(_HERE)
    if sys.argv[1:] == ["alive"]:
        return 0 if is_alive(os.environ.get(PORT_VARIABLE) or "7003") else 1
    try:
        files = checked_files(folder)
        runner = _loaded(folder)
    except Changed as error:
        sys.stderr.write(f"refused, and nothing was loaded: {error}\n")
        return EXIT_REFUSED
    except ImportError as error:
        sys.stderr.write(f"{error}; run: pip install -r requirements.txt\n")
        return EXIT_REFUSED
    code: int = runner.main(folder, files, sys.argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
