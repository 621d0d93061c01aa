"""The files of runs and logged models: rows ``(owner, path, digest, size)``.

A path is a key of a row and never a place on a disk: bytes lie in the store under
their digest, and what is not a row of the owner cannot be asked for. So a path's
signs decide nothing here; they are checked all the same, since clients write them to
their own disks.
"""

import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from driftloop.contracts import tracking as t
from driftloop.registry.mlflow.errors import Refusal, absent, invalid
from sqlalchemy import Connection, text

ROOM = "mlflow"
"""Of the artifact store; what clients upload lies apart from signed packages."""
MAX_PATH = 1000
MAX_SEGMENT = 250
SIGNS = frozenset(" _-.,=+@&!'~()[]{}$")
"""Beside letters and digits of any script. Others mean something to a URL or a disk:
``/ \\ : ; # % ? * " < > |``, control characters."""
_FILES = text("SELECT path, sha256, size_bytes FROM mlflow_file WHERE owner = :owner")
_FILE = text(
    "SELECT path, sha256, size_bytes FROM mlflow_file "
    "WHERE owner = :owner AND path = :path"
)
_TOTAL = text("SELECT coalesce(sum(size_bytes), 0) FROM mlflow_file")
_BELOW = "FROM mlflow_file WHERE owner = :owner AND substr(path, 1, :length) = :folder"


class File(NamedTuple):
    """A file; its bytes are ``artifact:sha256/<sha256>`` in the room ``mlflow``."""

    path: str
    sha256: str
    size_bytes: int


class Entry(NamedTuple):
    """A file or a folder of a list; a folder has no size."""

    path: str
    size_bytes: int | None

    def as_json(self, path: str | None = None) -> dict[str, object]:
        """Return MLflow's ``FileInfo``, under another path if one is given."""
        found: dict[str, object] = {
            "path": self.path if path is None else path,
            "is_dir": self.size_bytes is None,
        }
        if self.size_bytes is not None:
            found["file_size"] = self.size_bytes
        return found


class Limits(NamedTuple):
    """How much one owner may keep, and all of them together."""

    file_bytes: int
    owner_bytes: int
    owner_files: int
    total_bytes: int


def files_of(connection: Connection, owner: str) -> list[File]:
    """Return every file of a run or a logged model, in the order of paths."""
    rows = connection.execute(_FILES, {"owner": owner})
    return sorted(File(row.path, row.sha256, row.size_bytes) for row in rows)


def file_of(connection: Connection, owner: str, path: str) -> File:
    """Return one file.

    Raises
    ------
    Refusal
        When the owner has none of that path.
    """
    found = find(connection, owner, path)
    if found is None:
        raise absent(f"path: {owner} has no file {path!r}")
    return found


def find(connection: Connection, owner: str, path: str) -> File | None:
    """Return one file; None: the owner has none of that path."""
    row = connection.execute(_FILE, {"owner": owner, "path": path}).first()
    return File(row.path, row.sha256, row.size_bytes) if row else None


def entries_of(files: Iterable[File], folder: str = "") -> list[Entry]:
    """Return what lies directly in a folder, in the order of paths.

    >>> found = [File("a", "", 1), File("b/c", "", 2), File("b/d/e", "", 3)]
    >>> entries_of(found)
    [Entry(path='a', size_bytes=1), Entry(path='b', size_bytes=None)]
    >>> entries_of(found, "b")
    [Entry(path='b/c', size_bytes=2), Entry(path='b/d', size_bytes=None)]
    """
    start = f"{folder}/" if folder else ""
    found: dict[str, Entry] = {}
    for file in files:
        if not file.path.startswith(start):
            continue
        name, slash, _ = file.path.removeprefix(start).partition("/")
        path = start + name
        found[path] = Entry(path, None if slash else file.size_bytes)
    return [found[path] for path in sorted(found)]


def checked_path(path: str, field: str = "path") -> str:
    """Return a file's path if it is one that every client can keep on its disk.

    >>> checked_path("model/MLmodel")
    'model/MLmodel'
    >>> checked_path("../x")
    Traceback (most recent call last):
    driftloop.registry.mlflow.errors.Refusal: path: '../x' has a part '..'; write ...
    """
    if len(path) > MAX_PATH:
        raise invalid(f"{field}: {len(path)} characters, at most {MAX_PATH}")
    for segment in path.split("/"):
        if not _is_name(segment):
            raise invalid(
                f"{field}: {path!r} has a part {segment!r}; write names of letters, "
                "digits, spaces and -_.,=+@&!'~()[]{}$ with '/' between them, none "
                f"empty, '.', '..', longer than {MAX_SEGMENT}, or with a space or dot "
                "at its end"
            )
    return path


def _is_name(segment: str) -> bool:
    return (
        0 < len(segment) <= MAX_SEGMENT
        and all(_is_allowed(sign) for sign in segment)
        and segment not in {".", ".."}
        and not segment.startswith((" ", "~"))
        and not segment.endswith((" ", "."))
    )


def _is_allowed(sign: str) -> bool:
    return sign.isalnum() or sign in SIGNS or unicodedata.category(sign)[0] == "M"


def check_room(
    connection: Connection, owner: str, path: str, size_bytes: int, limits: Limits
) -> None:
    """Refuse a file that is too large, too many, or where a folder is.

    Raises
    ------
    Refusal
        Names the limit, or the file that is in the way.
    """
    if size_bytes > limits.file_bytes:
        raise too_large(limits)
    parents = path.split("/")[:-1]
    for count in range(1, len(parents) + 1):
        parent = "/".join(parents[:count])
        if connection.execute(_FILE, {"owner": owner, "path": parent}).first():
            raise invalid(f"path: {parent!r} is a file of {owner}, and no folder")
    folder = f"{path}/"
    values = {"owner": owner, "folder": folder, "length": len(folder)}
    if connection.execute(text(f"SELECT 1 {_BELOW} LIMIT 1"), values).first():
        raise invalid(f"path: {path!r} is a folder of {owner}; name a file in it")
    others = connection.execute(
        text(
            "SELECT count(*), coalesce(sum(size_bytes), 0) FROM mlflow_file "
            "WHERE owner = :owner AND path <> :path"
        ),
        {"owner": owner, "path": path},
    ).one()
    if others[0] >= limits.owner_files:
        raise invalid(
            f"{owner} has {others[0]} files, the most that are kept; delete some, or "
            "pack many into one"
        )
    if int(others[1]) + size_bytes > limits.owner_bytes:
        raise invalid(
            f"{owner} would have {int(others[1]) + size_bytes} bytes of files, at most "
            f"{limits.owner_bytes}; delete some, or set "
            "DRIFTLOOP_REGISTRY_MLFLOW_OWNER_MAX_BYTES"
        )
    _check_total(connection, owner, path, size_bytes, limits)


def _check_total(
    connection: Connection, owner: str, path: str, size_bytes: int, limits: Limits
) -> None:
    """Refuse a file for which all owners together have no room.

    Equal files count each, as each owner may delete only their own.
    """
    kept = int(connection.execute(_TOTAL).scalar_one())
    before = find(connection, owner, path)
    kept += size_bytes - (before.size_bytes if before else 0)
    if kept > limits.total_bytes:
        raise Refusal(
            "QUOTA_EXCEEDED",
            f"all runs and logged models together would have {kept} bytes of files, at "
            f"most {limits.total_bytes}; delete some, or set "
            "DRIFTLOOP_REGISTRY_MLFLOW_TOTAL_MAX_BYTES",
        )


def too_large(limits: Limits) -> Refusal:
    return invalid(
        f"the file has more than {limits.file_bytes} bytes; split it, or set "
        "DRIFTLOOP_REGISTRY_MLFLOW_FILE_MAX_BYTES"
    )


def deletion(connection: Connection, owner: str, path: str) -> t.FilesDeleted | None:
    """Return the change that removes a file or folder; None: it is not there."""
    folder = f"{path}/" if path else ""
    values = {"owner": owner, "folder": folder, "length": len(folder)}
    is_there = connection.execute(text(f"SELECT 1 {_BELOW} LIMIT 1"), values).first()
    is_file = connection.execute(_FILE, {"owner": owner, "path": path}).first()
    return t.FilesDeleted(owner=owner, path=path) if is_there or is_file else None
