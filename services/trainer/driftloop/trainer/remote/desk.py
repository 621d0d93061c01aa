"""What a service and a node tell each other about one job, through the store.

Each try of a job has a room of its own, ``<job>/<try>``: the service writes ``order``
once and ``lease`` again and again; the node writes ``report`` and files, which are
named after their digest. Nobody else writes there, and no clock is compared with that
of another machine: a lease holds for some seconds after it was *seen* to change.
"""

import hashlib
import secrets
from collections.abc import Iterable
from typing import Any, Literal

from driftloop.runtime.places import Place, open_place
from driftloop.runtime.settings import Settings
from driftloop.runtime.telemetry import log
from pydantic import BaseModel

ROOM = "trainings"
ORDER, LEASE, REPORT = "order", "lease", "report"
logger = log(__name__)


class Order(BaseModel):
    """What a node is asked to do.

    Attributes
    ----------
    request : a :class:`request.JobRequest` as JSON.
    timeout_s : of the training, from its start.
    lease_s : the node ends when the lease has not changed for so long.
    earlier : the try whose files the job goes on from.
    files : of that try: name in the job's folder, and digest.
    trusted : public keys of packages, PEM.
    """

    request: str
    cpu_limit_s: float | None
    timeout_s: float
    lease_s: float
    earlier: str | None = None
    files: dict[str, str] = {}
    trusted: list[str] = []


class End(BaseModel):
    """How a try ended; ``fields`` are those of the child's last message.

    Attributes
    ----------
    files : of the package: name and digest.
    """

    kind: Literal["trained", "refused", "crashed", "limit", "away"]
    fields: dict[str, Any] = {}
    error: str = ""
    files: dict[str, str] = {}


class Report(BaseModel):
    """The newest that a node says; replaced as a whole.

    Attributes
    ----------
    beat : grows with each report.
    progress : the child's newest message of that type.
    files : of the job's folder, all of them in the store.
    """

    beat: int
    progress: dict[str, Any] | None = None
    progress_count: int = 0
    files: dict[str, str] = {}
    cpu_seconds: float = 0.0
    end: End | None = None


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def new_try(known: Iterable[str]) -> str:
    """Return the name of the next try: in order, and never used before.

    >>> new_try(["0001-cafe"])[:5]
    '0002-'
    """
    numbers = [int(name.partition("-")[0]) for name in known]
    return f"{max(numbers, default=0) + 1:04d}-{secrets.token_hex(4)}"


class Desk:
    """The room of one job. Each method raises ``Retry`` when the store is away."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def tries(self) -> list[str]:
        """Return the tries so far, in order."""
        return sorted({name.partition("/")[0] for name in self._place.names()})

    def put_order(self, name: str, order: Order) -> str:
        """Write a try's order; return its digest."""
        data = order.model_dump_json().encode()
        self._place.put(f"{name}/{ORDER}", data)
        return digest_of(data)

    def order(self, name: str, sha256: str) -> Order:
        """Return a try's order.

        Raises
        ------
        ValueError
            When it is not the one of this digest.
        """
        data = self._place.get(f"{name}/{ORDER}")
        if data is None or digest_of(data) != sha256:
            raise ValueError(f"the order of {name} is gone, or another one")
        return Order.model_validate_json(data)

    def renew(self, name: str, count: int) -> None:
        self._place.put(f"{name}/{LEASE}", str(count).encode())

    def lease(self, name: str) -> bytes | None:
        return self._place.get(f"{name}/{LEASE}")

    def withdraw(self, name: str) -> None:
        """End a try's lease."""
        self._place.delete(f"{name}/{LEASE}")

    def put_report(self, name: str, report: Report) -> None:
        self._place.put(f"{name}/{REPORT}", report.model_dump_json().encode())

    def report(self, name: str) -> Report | None:
        """Return a try's newest report; None: there is none that can be read."""
        data = self._place.get(f"{name}/{REPORT}")
        try:
            return None if data is None else Report.model_validate_json(data)
        except ValueError:
            logger.warning("a report cannot be read", attempt=name)
            return None

    def put_file(self, name: str, data: bytes) -> str:
        """Store a file's content; return its digest."""
        digest = digest_of(data)
        self._place.put(f"{name}/{digest}", data)
        return digest

    def drop_file(self, name: str, sha256: str) -> None:
        self._place.delete(f"{name}/{sha256}")

    def file(self, name: str, sha256: str) -> bytes | None:
        """Return a file's content; None: it is not there, or not whole."""
        data = self._place.get(f"{name}/{sha256}")
        return data if data is not None and digest_of(data) == sha256 else None

    def remove(self, kept: str | None = None) -> None:
        """Remove all tries but one.

        Their leases and orders go first, and what there is besides is looked up after
        that: a node that has written something looks for its order, so what comes too
        late for the one is removed by the other.
        """
        for name in _signs_first(self._place.names()):
            if not _is_of(name, kept):
                self._place.delete(name)
        for name in self._place.names():
            if not _is_of(name, kept):
                self._place.delete(name)

    def is_removed(self, name: str) -> bool:
        """Return whether nobody has any use for what a try leaves."""
        return self._place.get(f"{name}/{ORDER}") is None

    def clear(self, name: str) -> None:
        """Remove all that one try has left."""
        for one in self._place.names():
            if _is_of(one, name):
                self._place.delete(one)


def _is_of(name: str, attempt: str | None) -> bool:
    return attempt is not None and name.startswith(f"{attempt}/")


def _signs_first(names: Iterable[str]) -> list[str]:
    """Return those that a node looks for, leases first, and no others."""
    signs = {LEASE: 0, ORDER: 1}
    found = [name for name in names if name.rpartition("/")[2] in signs]
    return sorted(found, key=lambda name: (signs[name.rpartition("/")[2]], name))


def open_desk(settings: Settings, job_id: str) -> Desk:
    return Desk(open_place(settings, f"{ROOM}/{job_id}"))
