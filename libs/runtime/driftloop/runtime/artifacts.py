"""Objects addressed by their sha256: a local folder, or S3 through ``minio``.

The store mints every location from a digest; a caller never names a path. What
is read is verified on the very bytes that are returned.
"""

import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol
from urllib.parse import urlsplit

from driftloop.contracts.events import BlobRef
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.metrics import ARTIFACT_BYTES
from driftloop.runtime.settings import Settings
from driftloop.runtime.telemetry import log

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
"""Of one answer; two of them are shorter than the watchdog's patience."""
MAX_CONNECTIONS = 10
PASSING_CODES = frozenset({"OperationAborted", "RequestTimeout", "SlowDown"})
"""S3 errors that waiting cures although their status says that it is our fault.

Source: Amazon S3 API reference, "Error responses".
"""
ABSENT_CODES = frozenset({"NoSuchKey", "NoSuchObject"})
READ_BYTES = 256 * 1024
ASIDE = ".discarded"
"""What an object's name ends with while it is being removed."""
logger = log(__name__)
URI_PATTERN = re.compile(r"artifact:sha256/([0-9a-f]{64})")
DIGEST = re.compile(r"[0-9a-f]{64}")


def uri_of(digest: str) -> str:
    """Return where an object with this digest is, whatever the store.

    >>> uri_of("ab" * 32)[:20]
    'artifact:sha256/abab'
    """
    return f"artifact:sha256/{digest}"


def _name_of(uri: str, sha256: str) -> str:
    match = URI_PATTERN.fullmatch(uri)
    if match is None or match[1] != sha256:
        raise Reject(f"not an artifact of digest {sha256}: {uri!r}", field="uri")
    return f"sha256/{sha256[:2]}/{sha256}"


class AbsentError(Retry):
    """The store answers, and does not have the object (yet)."""


class Stored(NamedTuple):
    """An object that is there, and when it was put last."""

    sha256: str
    size_bytes: int
    put_at: datetime


class ArtifactStore(Protocol):
    """Content-addressed objects; nothing is ever overwritten."""

    def put(self, data: bytes) -> BlobRef:
        """Store ``data`` durably and return its reference.

        Raises
        ------
        Retry
            When the store is away or full.
        """
        ...

    def get(self, uri: str, sha256: str) -> bytes:
        """Return the object's bytes, verified.

        Raises
        ------
        Reject
            When the uri is not one of ours or the bytes differ from the digest.
        Retry
            When the store is away or does not have the object (yet).
        """
        ...

    def put_file(self, file: BinaryIO) -> BlobRef:
        """Store a file's bytes, never all of them in memory; as :meth:`put`."""
        ...

    def parts(self, uri: str, sha256: str) -> Iterator[bytes]:
        """Return the object's bytes piece by piece, for the reader to verify.

        Raises
        ------
        AbsentError
            When the store answers and does not have the object.
        Retry
            When the store is away.
        """
        ...

    def delete(self, sha256: str) -> None:
        """Remove an object; one that is not there is removed already."""
        ...

    def discard(self, sha256: str, put_before: datetime) -> bool:
        """Remove an object unless it was put since; return whether it is gone.

        Who puts an object again while this runs has it afterwards. (S3 looks and
        then removes: between the two it does not hold.)
        """
        ...

    def stored(self) -> Iterator[Stored]:
        """Return every object of the store."""
        ...


def _verified(data: bytes, uri: str, sha256: str) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise Reject(f"{uri} holds bytes of digest {found}; it was tampered with")
    return data


def _ref(data: bytes) -> BlobRef:
    digest = hashlib.sha256(data).hexdigest()
    return BlobRef(uri=uri_of(digest), sha256=digest, size_bytes=len(data))


def _ref_of_file(file: BinaryIO) -> BlobRef:
    """Read a file from its beginning; it stands at its beginning again afterwards."""
    file.seek(0)
    digest = hashlib.sha256()
    while part := file.read(READ_BYTES):
        digest.update(part)
    size = file.tell()
    file.seek(0)
    name = digest.hexdigest()
    return BlobRef(uri=uri_of(name), sha256=name, size_bytes=size)


class FolderStore:
    """Objects as files below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes) -> BlobRef:
        return self._put(_ref(data), io.BytesIO(data))

    def put_file(self, file: BinaryIO) -> BlobRef:
        return self._put(_ref_of_file(file), file)

    def _put(self, ref: BlobRef, data: BinaryIO) -> BlobRef:
        path = self._root / _name_of(ref.uri, ref.sha256)
        try:
            if _is_touched(path):  # as old as the last time that it was put
                return ref
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                shutil.copyfileobj(data, file, READ_BYTES)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(path)
        except OSError as error:
            raise Retry(f"artifact store: {error}") from error
        ARTIFACT_BYTES.inc(ref.size_bytes)
        return ref

    def parts(self, uri: str, sha256: str) -> Iterator[bytes]:
        path = self._root / _name_of(uri, sha256)
        try:
            with path.open("rb") as file:
                while part := file.read(READ_BYTES):
                    yield part
        except FileNotFoundError as error:
            raise AbsentError(f"artifact store: {error}") from error
        except OSError as error:
            raise Retry(f"artifact store: {error}") from error

    def delete(self, sha256: str) -> None:
        try:
            (self._root / _name_of(uri_of(sha256), sha256)).unlink(missing_ok=True)
        except OSError as error:
            raise Retry(f"artifact store: {error}") from error

    def discard(self, sha256: str, put_before: datetime) -> bool:
        path = self._root / _name_of(uri_of(sha256), sha256)
        aside = path.with_name(f"{sha256}{ASIDE}")
        try:
            if path.stat().st_mtime >= put_before.timestamp():
                return False
            path.rename(aside)  # who puts it from now on writes it anew
            if aside.stat().st_mtime >= put_before.timestamp():
                _put_back(aside)  # somebody did, a moment before
                return False
            aside.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Retry(f"artifact store: {error}") from error
        return True

    def stored(self) -> Iterator[Stored]:
        for aside in (self._root / "sha256").glob(f"??/*{ASIDE}"):
            _put_back(aside)  # who discarded it was killed
        for path in sorted((self._root / "sha256").glob("??/*")):
            if not DIGEST.fullmatch(path.name):
                continue  # one that is being written
            with suppress(FileNotFoundError):
                found = path.stat()
                put_at = datetime.fromtimestamp(found.st_mtime, UTC)
                yield Stored(path.name, found.st_size, put_at)

    def get(self, uri: str, sha256: str) -> bytes:
        path = self._root / _name_of(uri, sha256)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Retry(f"artifact store: {error}") from error
        return _verified(data, uri, sha256)


def _is_touched(path: Path) -> bool:
    """Make a file as young as now; False: there is none."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    except PermissionError:
        return path.exists()
    return True


def _put_back(aside: Path) -> None:
    with suppress(FileExistsError, FileNotFoundError):
        os.link(aside, aside.with_suffix(""))
    aside.unlink(missing_ok=True)


class StoreRefusedError(RuntimeError):
    """The store is there and does not let us in: settings are wrong."""


class S3Store:
    """Objects in an S3 bucket (any server that speaks S3)."""

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def put(self, data: bytes) -> BlobRef:
        return self._put(_ref(data), io.BytesIO(data))

    def put_file(self, file: BinaryIO) -> BlobRef:
        return self._put(_ref_of_file(file), file)

    def _put(self, ref: BlobRef, data: BinaryIO) -> BlobRef:
        name = self._prefix + _name_of(ref.uri, ref.sha256)
        with s3_faults():
            self._client.put_object(self._bucket, name, data, ref.size_bytes)
        ARTIFACT_BYTES.inc(ref.size_bytes)
        return ref

    def parts(self, uri: str, sha256: str) -> Iterator[bytes]:
        name = self._prefix + _name_of(uri, sha256)
        with s3_faults():
            response = self._client.get_object(self._bucket, name)
            try:
                yield from response.stream(READ_BYTES)
            finally:
                response.close()
                response.release_conn()

    def delete(self, sha256: str) -> None:
        name = self._prefix + _name_of(uri_of(sha256), sha256)
        with suppress(AbsentError), s3_faults():
            self._client.remove_object(self._bucket, name)

    def discard(self, sha256: str, put_before: datetime) -> bool:
        name = self._prefix + _name_of(uri_of(sha256), sha256)
        try:
            with s3_faults():
                found = self._client.stat_object(self._bucket, name)
                if found.last_modified >= put_before:
                    return False
                self._client.remove_object(self._bucket, name)
        except AbsentError:
            return False
        return True

    def stored(self) -> Iterator[Stored]:
        prefix = f"{self._prefix}sha256/"
        with s3_faults():
            for found in self._client.list_objects(
                self._bucket, prefix=prefix, recursive=True
            ):
                name = str(found.object_name).rpartition("/")[2]
                if DIGEST.fullmatch(name):
                    yield Stored(name, int(found.size), found.last_modified)

    def get(self, uri: str, sha256: str) -> bytes:
        name = self._prefix + _name_of(uri, sha256)
        return _verified(read_s3(self._client, self._bucket, name), uri, sha256)

    def check(self) -> None:
        """Write and read the empty object, so that wrong settings show at the start.

        Raises
        ------
        Retry
            When the store is away.
        StoreRefusedError
            When there is no such bucket, or the keys do not open it.
        """
        try:
            ref = self.put(b"")
            self.get(ref.uri, ref.sha256)
        except Retry as error:
            if not _is_refusal(error.__cause__):
                raise
            raise StoreRefusedError(
                f"bucket {self._bucket!r}: {error}; look at DRIFTLOOP_ARTIFACTS_URL, "
                "DRIFTLOOP_S3_ENDPOINT_URL, DRIFTLOOP_S3_REGION and the two keys"
            ) from error


def _is_refusal(error: BaseException | None) -> bool:
    from minio.error import S3Error

    if not isinstance(error, S3Error):
        return False
    status = error.response.status
    is_our_fault = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return is_our_fault and error.code not in PASSING_CODES


def read_s3(client: Any, bucket: str, name: str) -> bytes:
    """Return an S3 object's bytes; its faults are those of :func:`s3_faults`."""
    with s3_faults():
        response = client.get_object(bucket, name)
        try:
            data: bytes = response.read()
        finally:
            response.close()
            response.release_conn()
    return data


@contextmanager
def s3_faults() -> Iterator[None]:
    """Say what goes wrong with S3 as :class:`Retry`; what is not there, as absent."""
    from minio.error import MinioException, S3Error
    from urllib3.exceptions import HTTPError

    try:
        yield
    except S3Error as error:
        message = str(error.message).rstrip(".")
        kind = AbsentError if error.code in ABSENT_CODES else Retry
        raise kind(f"artifact store: {error.code}: {message}") from error
    except (MinioException, HTTPError, OSError) as error:
        raise Retry(f"artifact store: {error}") from error


def open_store(settings: Settings, room: str = "") -> ArtifactStore:
    """Return the store that the settings name.

    Parameters
    ----------
    room : a part of it with objects of its own; empty: the store itself.

    Raises
    ------
    ValueError
        When an S3 address lacks its endpoint or keys.
    """
    url = settings.artifacts_url
    if url is None:
        return FolderStore(settings.home / "artifacts" / room)
    if not url.startswith("s3://"):
        return FolderStore(Path(url) / room)
    place = urlsplit(url)
    return S3Store(open_s3(settings), place.netloc, f"{place.path.rstrip('/')}/{room}")


def open_s3(settings: Settings) -> Any:
    """Return a ``minio`` client.

    Raises
    ------
    ValueError
        When the endpoint or a key is not set.
    """
    from minio import Minio

    if not (
        settings.s3_endpoint_url and settings.s3_access_key and settings.s3_secret_key
    ):
        raise ValueError(
            "an address is on S3: set DRIFTLOOP_S3_ENDPOINT_URL, "
            "DRIFTLOOP_S3_ACCESS_KEY and DRIFTLOOP_S3_SECRET_KEY"
        )
    endpoint = urlsplit(settings.s3_endpoint_url)
    return Minio(
        endpoint.netloc,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
        secure=endpoint.scheme == "https",
        region=settings.s3_region,
        http_client=_http_client(),
    )


def _http_client() -> Any:
    """Return a client that gives up soon: the runner tries again, and says so."""
    from urllib3 import PoolManager, Timeout
    from urllib3.util import Retry as HttpRetry

    return PoolManager(
        timeout=Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
        retries=HttpRetry(1, backoff_factor=0.2),  # a connection that went stale
        maxsize=MAX_CONNECTIONS,
        cert_reqs="CERT_REQUIRED",
    )


def check_store(store: ArtifactStore) -> None:
    """Find wrong settings before the first message; a store that is away may come.

    Raises
    ------
    StoreRefusedError
        When there is no such bucket, or the keys do not open it.
    """
    if isinstance(store, S3Store):
        try:
            store.check()
        except Retry as error:
            logger.warning("artifact store does not answer yet", error=str(error))
