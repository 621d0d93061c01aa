"""Payloads of pipelines in the artifact store, each pipeline's in a room of its own.

Ingest puts them there before it publishes a row that refers to one; whoever got a
reference in an event reads it. So a process that is killed leaves at most a payload
that nobody refers to, and never a reference without its payload.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import BinaryIO

from driftloop.contracts.payloads import Found, Meter, Reference
from driftloop.runtime.artifacts import (
    AbsentError,
    ArtifactStore,
    Stored,
    open_store,
    uri_of,
)
from driftloop.runtime.errors import Reject
from driftloop.runtime.settings import Settings

ROOM = "payloads"
READERS = 8
"""Payloads read at a time."""


class PayloadStore:
    """The payloads of all pipelines; any thread may use it."""

    def __init__(self, open_room: Callable[[str], ArtifactStore]) -> None:
        self._open = open_room
        self._rooms: dict[str, ArtifactStore] = {}

    def _room(self, pipeline: str) -> ArtifactStore:
        if pipeline not in self._rooms:
            self._rooms[pipeline] = self._open(f"{ROOM}/{pipeline}")
        return self._rooms[pipeline]

    def put(self, pipeline: str, data: bytes) -> Reference:
        """Store bytes durably; the same ones are stored once.

        Raises
        ------
        Retry
            When the store is away or full.
        """
        return Reference(pipeline, self._room(pipeline).put(data).sha256)

    def put_file(self, pipeline: str, file: BinaryIO) -> Reference:
        """Store a file's bytes; as :meth:`put`."""
        return Reference(pipeline, self._room(pipeline).put_file(file).sha256)

    def parts(self, reference: Reference) -> Iterator[bytes]:
        """Return a payload piece by piece, verified once the last one is read.

        Raises
        ------
        AbsentError
            When it is not there.
        Reject
            When its bytes are not those of the digest.
        Retry
            When the store is away.
        """
        meter = Meter()
        for part in self._raw(reference):
            meter.update(part)
            yield part
        if meter.found().sha256 != reference.sha256:
            raise Reject(f"{reference.uri} holds other bytes; it was tampered with")

    def _raw(self, reference: Reference) -> Iterator[bytes]:
        digest = reference.sha256
        return self._room(reference.pipeline).parts(uri_of(digest), digest)

    def look(self, reference: Reference, max_bytes: int) -> Found | None:
        """Return what is stored under a reference; None: nothing.

        Its ``sha256`` is that of the bytes that are there. Of a payload of more than
        ``max_bytes`` no more than that, and a little, is read.

        Raises
        ------
        Retry
            When the store is away.
        """
        meter = Meter()
        try:
            with closing(self._raw(reference)) as parts:  # type: ignore[type-var]  # generators
                for part in parts:
                    meter.update(part)
                    if meter.size_bytes > max_bytes:
                        break
        except AbsentError:
            return None
        return meter.found()

    def look_at_all(
        self, references: Iterable[Reference], max_bytes: int
    ) -> dict[str, Found | None]:
        """Return by URI what is stored; each payload is read once.

        Raises
        ------
        Retry
            When the store is away.
        """
        wanted = {reference.uri: reference for reference in references}
        if not wanted:
            return {}
        look = partial(self.look, max_bytes=max_bytes)
        with ThreadPoolExecutor(min(READERS, len(wanted)), "payloads") as threads:
            return dict(zip(wanted, threads.map(look, wanted.values()), strict=True))

    def delete(self, pipeline: str, sha256: str) -> None:
        """Remove a payload for good; one that is not there is removed already."""
        self._room(pipeline).delete(sha256)

    def stored(self, pipeline: str) -> Iterator[Stored]:
        """Return every payload of a pipeline."""
        return self._room(pipeline).stored()


def open_payloads(settings: Settings) -> PayloadStore:
    """Return the payloads in the store that the settings name."""
    return PayloadStore(partial(open_store, settings))
