"""Objects by name in a room of the store: for what changes and is only ours.

What is said once and for all (models, payloads, rows) is addressed by its digest, see
:mod:`artifacts`. Here a name's newest bytes count; each is replaced as a whole.
"""

import io
import re
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from driftloop.runtime.artifacts import AbsentError, open_s3, read_s3, s3_faults
from driftloop.runtime.errors import Retry
from driftloop.runtime.settings import Settings

NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


class Place(Protocol):
    """Named objects. Each method raises :class:`Retry` when the store is away."""

    def put(self, name: str, data: bytes) -> None:
        """Store or replace an object."""
        ...

    def get(self, name: str) -> bytes | None:
        """Return an object's bytes; None when there is none."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is removed already."""
        ...

    def names(self) -> list[str]:
        """Return the names of all objects, in order."""
        ...


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"no name of an object: {name!r}")
    return name


class FolderPlace:
    """Objects as files below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, data: bytes) -> None:
        path = self._root / _checked(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=path.parent, prefix=".", delete=False
            ) as file:
                file.write(data)
            Path(file.name).replace(path)
        except OSError as error:
            raise Retry(f"artifact store: {error}") from error

    def get(self, name: str) -> bytes | None:
        try:
            return (self._root / _checked(name)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Retry(f"artifact store: {error}") from error

    def delete(self, name: str) -> None:
        path = self._root / _checked(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Retry(f"artifact store: {error}") from error
        with suppress(OSError):  # not empty, or gone
            for parent in path.relative_to(self._root).parents:
                (self._root / parent).rmdir()

    def names(self) -> list[str]:
        found = [path for path in self._root.rglob("*") if path.is_file()]
        names = [path.relative_to(self._root).as_posix() for path in found]
        return sorted(name for name in names if NAME.fullmatch(name))


class S3Place:
    """Objects below a prefix of an S3 bucket."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client, self._bucket = client, bucket
        self._prefix = f"{prefix.strip('/')}/"

    def put(self, name: str, data: bytes) -> None:
        key = self._prefix + _checked(name)
        with s3_faults():
            self._client.put_object(self._bucket, key, io.BytesIO(data), len(data))

    def get(self, name: str) -> bytes | None:
        key = self._prefix + _checked(name)
        with suppress(AbsentError):
            return read_s3(self._client, self._bucket, key)
        return None

    def delete(self, name: str) -> None:
        with suppress(AbsentError), s3_faults():
            self._client.remove_object(self._bucket, self._prefix + _checked(name))

    def names(self) -> list[str]:
        with s3_faults():
            found = self._client.list_objects(
                self._bucket, prefix=self._prefix, recursive=True
            )
            keys = [str(one.object_name) for one in found]
        return sorted(key.removeprefix(self._prefix) for key in keys)


def open_place(settings: Settings, room: str) -> Place:
    """Return a room of the store that the settings name.

    Raises
    ------
    ValueError
        When an S3 address lacks its endpoint or keys.
    """
    url = settings.artifacts_url
    if url is None:
        return FolderPlace(settings.home / "artifacts" / _checked(room))
    if not url.startswith("s3://"):
        return FolderPlace(Path(url) / _checked(room))
    place = urlsplit(url)
    prefix = f"{place.path.strip('/')}/{_checked(room)}"
    return S3Place(open_s3(settings), place.netloc, prefix)
