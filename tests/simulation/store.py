"""Objects in memory that outlive a kill; the store may be away, or damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import BinaryIO

from driftloop.contracts.events import BlobRef
from driftloop.runtime.artifacts import AbsentError, Stored, uri_of
from driftloop.runtime.errors import Reject, Retry


class SimulatedStore:
    """An :class:`artifacts.ArtifactStore`.

    Parameters
    ----------
    step : called before and after each put; may kill who puts.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.is_away = False
        self.step: Callable[[str], None] = lambda _: None

    def _ask(self) -> None:
        if self.is_away:
            raise Retry("artifact store: away")

    def put(self, data: bytes) -> BlobRef:
        self._ask()
        self.step("before storing an artifact")
        digest = hashlib.sha256(data).hexdigest()
        self.objects.setdefault(digest, data)
        self.step("after storing an artifact")
        return BlobRef(uri=uri_of(digest), sha256=digest, size_bytes=len(data))

    def put_file(self, file: BinaryIO) -> BlobRef:
        file.seek(0)
        return self.put(file.read())

    def get(self, uri: str, sha256: str) -> bytes:
        self._ask()
        if uri != uri_of(sha256):
            raise Reject(f"not an artifact of digest {sha256}: {uri!r}", field="uri")
        if sha256 not in self.objects:
            raise AbsentError(f"artifact store: {sha256} is not there")
        data = self.objects[sha256]
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Reject(f"{uri} was tampered with")
        return data

    def parts(self, uri: str, sha256: str) -> Iterator[bytes]:
        yield self.get(uri, sha256)

    def delete(self, sha256: str) -> None:
        self.objects.pop(sha256, None)

    def discard(self, sha256: str, put_before: datetime) -> bool:
        raise NotImplementedError("nothing is collected in a simulation")

    def stored(self) -> Iterator[Stored]:
        raise NotImplementedError("nothing is collected in a simulation")
