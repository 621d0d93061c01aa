"""How much the HTTP door holds in memory at a time; beyond it senders come again.

A request that is refused with 429 has cost next to nothing, and its sender still has
the rows. One that is taken and dies of too little memory takes others with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class BusyError(Exception):
    """There is no room at the moment; the text says of what."""


@dataclass
class Admission:
    """Counts requests in work and their bytes; used from the event loop alone.

    A request that is alone is always let in: the limits of a single request are
    checked elsewhere.

    Examples
    --------
    >>> admission = Admission(max_requests=2, max_bytes=100)
    >>> with admission.place(60), admission.place(30) as second:
    ...     second.resize(50)
    Traceback (most recent call last):
    driftloop.ingest.admission.BusyError: 100 bytes of requests are in work
    """

    max_requests: int
    max_bytes: int
    requests: int = field(default=0, init=False)
    bytes: int = field(default=0, init=False)

    @contextmanager
    def place(self, size: int) -> Iterator["Place"]:
        """Hold a place for a request that begins with ``size`` bytes.

        Raises
        ------
        BusyError
            When there is no room for it.
        """
        if self.requests >= self.max_requests:
            raise BusyError(f"{self.max_requests} requests are in work")
        place = Place(self)
        self.requests += 1
        try:
            place.resize(size)
            yield place
        finally:
            self.requests -= 1
            self.bytes -= place.size


@dataclass
class Place:
    """The bytes that one request holds."""

    _admission: Admission
    size: int = 0

    def resize(self, size: int) -> None:
        """Hold ``size`` bytes from now on.

        Raises
        ------
        BusyError
            When they do not fit beside those of the other requests.
        """
        others = self._admission.bytes - self.size
        if others and size > self.size and others + size > self._admission.max_bytes:
            raise BusyError(
                f"{self._admission.max_bytes} bytes of requests are in work"
            )
        self._admission.bytes = others + size
        self.size = size
