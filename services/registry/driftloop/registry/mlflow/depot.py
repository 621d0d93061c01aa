"""Bytes of clients' files: in as they come, out only when they are what came in.

What comes is written to a file without a name, so that nothing is left of an upload
whose client or whose server dies. It is a file of its owner once it lies in the store
under its digest and the event that says so is stored.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from driftloop.contracts import tracking as t
from driftloop.contracts.events import BlobRef
from driftloop.registry.mlflow import files, places
from driftloop.registry.mlflow.errors import Refusal
from driftloop.registry.mlflow.files import File, Limits
from driftloop.registry.mlflow.journal import Journal
from driftloop.registry.mlflow.places import Spot
from driftloop.runtime.artifacts import AbsentError, ArtifactStore, uri_of
from driftloop.runtime.errors import Retry
from driftloop.runtime.telemetry import log
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

WRITE_BYTES = 1024 * 1024
IDLE_TIMEOUT_S = 60.0
"""Without a byte from the client; then the upload is over."""
logger = log(__name__)


@dataclass(frozen=True)
class Depot:
    """Keeps and gives out the files of runs and logged models.

    Attributes
    ----------
    store : the room of the artifact store that is theirs.
    folder : for what is on its way; on a disk, with room for the largest file.
    """

    journal: Journal
    store: ArtifactStore
    limits: Limits
    folder: Path

    def scratch(self) -> BinaryIO:
        """Open a file without a name; it is gone once it is closed."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=self.folder)
        except OSError as error:
            raise away(error) from error

    async def receive(self, stream: AsyncIterator[bytes], file: BinaryIO) -> int:
        """Write what a client sends to a file; return how many bytes.

        Raises
        ------
        Refusal
            When it is more than a file may have, or stops to come.
        """
        size, waiting = 0, bytearray()
        try:
            while True:
                async with asyncio.timeout(IDLE_TIMEOUT_S):
                    part = await anext(stream, None)
                if part is None:
                    break
                size += len(part)
                if size > self.limits.file_bytes:
                    raise files.too_large(self.limits)
                waiting += part
                if len(waiting) >= WRITE_BYTES:
                    await run_in_threadpool(_write, file, bytes(waiting))
                    waiting.clear()
        except TimeoutError as error:
            raise Refusal(
                "INVALID_PARAMETER_VALUE",
                f"the upload stopped for {IDLE_TIMEOUT_S:.0f} s; send the file again",
            ) from error
        except ClientDisconnect as error:
            raise Refusal(
                "INVALID_PARAMETER_VALUE", "the upload broke off; send the file again"
            ) from error
        await run_in_threadpool(_write, file, bytes(waiting))
        return size

    def check(self, spot: Spot, size_bytes: int) -> None:
        """Refuse an upload before its bytes are read, as far as can be said."""
        with self.journal.reading() as connection:
            self._check(connection, spot, size_bytes)

    def _check(self, connection: Connection, spot: Spot, size_bytes: int) -> None:
        places.check_owner(connection, spot, for_writing=True)
        files.check_room(connection, spot.owner, spot.path, size_bytes, self.limits)

    def put(self, file: BinaryIO) -> BlobRef:
        """Store a file's bytes under their digest; they are nobody's yet."""
        with _faults():
            return self.store.put_file(file)

    def keep(self, by: str, spot: Spot, file: BinaryIO) -> None:
        """Store a file and say so; the same bytes again change nothing.

        Raises
        ------
        Refusal
            When the owner may not have it, or the store is away.
        """
        ref = self.put(file)

        def decide(connection: Connection) -> t.FileStored | None:
            self._check(connection, spot, ref.size_bytes)
            change = t.FileStored(
                owner=spot.owner,
                path=spot.path,
                sha256=ref.sha256,
                size_bytes=ref.size_bytes,
            )
            known = files.find(connection, spot.owner, spot.path)
            self._check_stored(ref)
            return None if known and known.sha256 == ref.sha256 else change

        self.journal.write(by, decide)

    def _check_stored(self, ref: BlobRef) -> None:
        """Refuse an object that the sweep took away since it was put."""
        with _faults():
            next(iter(self.store.parts(ref.uri, ref.sha256)), b"")

    def find(self, spot: Spot) -> File:
        """Return a file; see :func:`files.file_of`."""
        with self.journal.reading() as connection:
            places.check_owner(connection, spot, for_writing=False)
            return files.file_of(connection, spot.owner, spot.path)

    def list(self, spot: Spot) -> list[files.Entry]:
        """Return what lies in a folder; of what is no folder nothing."""
        with self.journal.reading() as connection:
            places.check_owner(connection, spot, for_writing=False)
            found = files.files_of(connection, spot.owner)
        return files.entries_of(found, spot.path)

    def delete(self, by: str, spot: Spot) -> None:
        """Remove a file, or all of a folder; what is not there is gone already."""

        def decide(connection: Connection) -> t.FilesDeleted | None:
            places.check_owner(connection, spot, for_writing=True)
            return files.deletion(connection, spot.owner, spot.path)

        self.journal.write(by, decide)

    def copy(self, sha256: str, size_bytes: int, file: BinaryIO) -> None:
        """Copy an object's bytes to a file, where they stand verified.

        Raises
        ------
        Refusal
            DATA_LOSS when they are others than were stored, or gone.
        """
        digest, size = hashlib.sha256(), 0
        with _faults():
            try:
                for part in self.store.parts(uri_of(sha256), sha256):
                    digest.update(part)
                    size += len(part)
                    file.write(part)
            except AbsentError:
                _lost(sha256, "are not in the store")
        if digest.hexdigest() != sha256 or size != size_bytes:
            _lost(sha256, "differ from what was stored")


def _write(file: BinaryIO, data: bytes) -> None:
    try:
        file.write(data)
    except OSError as error:
        raise away(error) from error


def away(error: Exception) -> Refusal:
    logger.warning("the artifact store is away", error=str(error))
    return Refusal(
        "TEMPORARILY_UNAVAILABLE", "the artifact store is away or full; try again"
    )


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (Retry, OSError) as error:
        raise away(error) from error


def _lost(sha256: str, problem: str) -> NoReturn:
    logger.error("a file's bytes are lost", sha256=sha256, problem=problem)
    raise Refusal(
        "DATA_LOSS",
        f"the bytes of digest {sha256} {problem}; nothing is given out, ask the "
        "operator to restore the artifact store",
    )
