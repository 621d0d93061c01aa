"""Files of a folder, and objects of an S3 prefix, that are there and complete."""

import fnmatch
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from driftloop.contracts.rows import CONTENT_TYPE as ARROW_TYPE
from driftloop.ingest.encodings import TooLargeError, decoded
from driftloop.ingest.errors import FormatError
from driftloop.ingest.formats import CSV_TYPE, JSON_TYPE, NDJSON_TYPE, PARQUET_TYPE
from driftloop.runtime.artifacts import open_s3
from driftloop.runtime.settings import Settings

SETTLE_S = 2
"""A file that was written to more recently may not be complete."""
UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".filepart", ".swp")
"""Names under which programs write what they rename when it is complete."""
TYPES = {
    ".json": JSON_TYPE,
    ".ndjson": NDJSON_TYPE,
    ".jsonl": NDJSON_TYPE,
    ".csv": CSV_TYPE,
    ".parquet": PARQUET_TYPE,
    ".arrow": ARROW_TYPE,
    ".arrows": ARROW_TYPE,
}
CODECS = {".gz": "gzip", ".zst": "zstd"}


class SourceError(Exception):
    """A source cannot be read at the moment, or as it is; the text names the remedy."""


class Found(NamedTuple):
    """A file or object that is complete.

    Attributes
    ----------
    fingerprint : changes when the content may have.
    """

    name: str
    fingerprint: str
    size: int


class Place(Protocol):
    """What files lie in."""

    def look(self) -> list[Found]:
        """Return what is complete, by name."""
        ...

    def read(self, found: Found) -> bytes | None:
        """Return the bytes; None when they have changed meanwhile or are gone."""
        ...


def content_type_of(name: str) -> str | None:
    """Return what a file's name says that it is; None: nothing we know.

    >>> content_type_of("a/rows.csv.gz"), content_type_of("notes.txt")
    ('text/csv', None)
    """
    path = PurePosixPath(name)
    if path.suffix.lower() in CODECS:
        path = PurePosixPath(path.stem)
    return TYPES.get(path.suffix.lower())


def plain_bytes(name: str, data: bytes, limit: int) -> bytes:
    """Return a file's content without its compression.

    Raises
    ------
    FormatError
        When it is broken or larger than ``limit``.
    """
    codec = CODECS.get(PurePosixPath(name).suffix.lower())
    if codec is None:
        return data
    try:
        return decoded(data, codec, limit)
    except TooLargeError as error:
        raise FormatError(f"{error}; write several files") from error


def is_wanted(name: str, pattern: str) -> bool:
    """Whether a file's name says that it is for us, and complete.

    >>> is_wanted("day/rows.csv", "*.csv"), is_wanted("_tmp/rows.csv", "*")
    (True, False)
    """
    parts = PurePosixPath(name).parts
    return (
        not any(part[0] in "._" for part in parts)
        and not parts[-1].endswith((*UNFINISHED, "~"))
        and content_type_of(name) is not None
        and fnmatch.fnmatchcase(parts[-1], pattern)
    )


class Folder:
    """A folder of this machine.

    A file is complete when its size and time of change are those of the look before,
    and some seconds old.
    """

    def __init__(self, folder: Path, root: Path, pattern: str) -> None:
        self._folder = folder
        self._root = root
        self._pattern = pattern
        self._before: dict[str, str] = {}

    def look(self) -> list[Found]:
        try:
            if not self._folder.is_dir():
                raise SourceError(f"{self._folder} is no folder; make it")
            seen = list(self._files())
        except OSError as error:
            raise SourceError(f"{self._folder}: {error.strerror}") from error
        before, self._before = self._before, {f.name: f.fingerprint for f, _ in seen}
        newest = time.time() - SETTLE_S
        return [
            found
            for found, changed in seen
            if before.get(found.name) == found.fingerprint and changed <= newest
        ]

    def _files(self) -> Iterator[tuple[Found, float]]:
        for path in sorted(self._folder.rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            if is_wanted(name, self._pattern) and path.is_file():
                self._check_inside(path)
                stat = path.stat()
                fingerprint = f"{stat.st_size}/{stat.st_mtime_ns}"
                yield Found(name, fingerprint, stat.st_size), stat.st_mtime

    def _check_inside(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self._root):
            raise SourceError(
                f"{path} leads out of {self._root}, which ingest is allowed to read"
            )

    def read(self, found: Found) -> bytes | None:
        path = self._folder / found.name
        try:
            data = path.read_bytes()
            stat = path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error
        is_same = f"{stat.st_size}/{stat.st_mtime_ns}" == found.fingerprint
        return data if is_same and len(data) == stat.st_size else None


class Prefix:
    """Objects of an S3 bucket; one is there only when it is complete."""

    def __init__(self, client: Any, bucket: str, prefix: str, pattern: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._pattern = pattern

    def look(self) -> list[Found]:
        with _s3_faults(self._bucket):
            listed = self._client.list_objects(
                self._bucket, prefix=self._prefix, recursive=True
            )
            named = [(o.object_name[len(self._prefix) :], o) for o in listed]
        return [
            Found(name, str(o.etag), int(o.size))
            for name, o in named
            if name and is_wanted(name, self._pattern)
        ]

    def read(self, found: Found) -> bytes | None:
        with _s3_faults(self._bucket):
            response = self._client.get_object(self._bucket, self._prefix + found.name)
            try:
                data: bytes = response.read()
                etag = response.headers.get("etag", "").strip('"')
            finally:
                response.close()
                response.release_conn()
        return data if etag == found.fingerprint else None


@contextmanager
def _s3_faults(bucket: str) -> Iterator[None]:
    from minio.error import MinioException, S3Error
    from urllib3.exceptions import HTTPError

    try:
        yield
    except S3Error as error:
        raise SourceError(f"bucket {bucket}: {error.code}") from error
    except (MinioException, HTTPError, OSError) as error:
        raise SourceError(f"bucket {bucket}: {type(error).__name__}") from error


def open_place(
    folder: str, pattern: str, roots: Sequence[str], settings: Settings
) -> Place:
    """Return the folder or prefix, if the installation allows it.

    Raises
    ------
    SourceError
        When it lies below none of the roots, or S3 is not set up.
    """
    if folder.startswith("s3://"):
        url = urlsplit(folder)
        prefix = url.path.strip("/")
        inside = any(
            _is_below(f"{url.netloc}/{prefix}", root.removeprefix("s3://"))
            for root in roots
            if root.startswith("s3://")
        )
        if not inside or ".." in prefix.split("/"):
            raise _not_allowed(folder, roots)
        try:
            client = open_s3(settings)
        except ValueError as error:
            raise SourceError(str(error)) from error
        return Prefix(client, url.netloc, f"{prefix}/" if prefix else "", pattern)
    path = Path(folder).resolve()
    for root in (Path(r).resolve() for r in roots if not r.startswith("s3://")):
        if path.is_relative_to(root):
            return Folder(path, root, pattern)
    raise _not_allowed(folder, roots)


def _is_below(place: str, root: str) -> bool:
    return f"{place.strip('/')}/".startswith(f"{root.strip('/')}/")


def _not_allowed(folder: str, roots: Sequence[str]) -> SourceError:
    return SourceError(
        f"folder {folder} lies below none of the roots that ingest may read "
        f"({', '.join(roots) or 'none'}); whoever runs driftloop allows one by "
        "DRIFTLOOP_INGEST_FOLDER_ROOTS"
    )
