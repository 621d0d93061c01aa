"""An outbox for loops that tell something again and again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from driftloop.contracts.base import Event
from sqlalchemy.exc import OperationalError, ProgrammingError

AWAY = OperationalError("select", {}, Exception("the server has gone"))
BUG = ProgrammingError("select", {}, Exception("no such table"))


class Outbox:
    """Keeps what is told; begins with faults, and stops the loop at the last unit."""

    def __init__(self, units: int, *faults: Exception) -> None:
        self.told: list[Event] = []
        self.stopping = threading.Event()
        self._left = units
        self._faults = list(faults)

    @contextmanager
    def unit(self, _: object) -> Iterator[tuple[None, list[Event]]]:
        self._left -= 1
        if not self._left:
            self.stopping.set()
        if self._faults:
            raise self._faults.pop()
        yield None, self.told
