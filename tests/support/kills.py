"""A process that is killed at a chosen step, in the test's own process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from driftloop.runtime.drivers.memory import MemoryBroker, MemoryPublisher
from driftloop.runtime.transport import Record


class Killed(BaseException):
    """The process is gone: nothing after this line happens."""


@dataclass
class Fuse:
    """Kills after a number of steps; a step is a place where a kill matters."""

    steps_left: int | None = None
    burnt_at: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        if self.steps_left is None:
            return
        self.steps_left -= 1
        if self.steps_left < 0:
            self.steps_left = None
            self.burnt_at.append(name)
            raise Killed(name)


class FusedPublisher(MemoryPublisher):
    def __init__(self, broker: MemoryBroker, fuse: Fuse) -> None:
        super().__init__(broker)
        self._fuse = fuse

    def publish(self, records: Sequence[Record], timeout_s: float = 30) -> None:
        self._fuse.step("before publishing")
        super().publish(records, timeout_s)
        self._fuse.step("after publishing")
