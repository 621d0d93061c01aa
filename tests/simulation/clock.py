"""Time and chance that the simulation gives: no module of the product sees others."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class Waiting(BaseException):
    """The product sleeps: others have their turn, and the step is tried again later.

    Where it sleeps nothing is open: a transaction was rolled back, or is committed and
    its events wait in the outbox.
    """


class SimulatedClock:
    """Seconds since 1970, moved by :meth:`advance` alone."""

    def __init__(self) -> None:
        self.now = START
        self.is_patient = False
        """Whether a sleep is waited out in its place; else it gives the turn away."""
        self.is_endless: Callable[[], bool] = lambda: False
        """Whether what is waited for only ends while others have their turns."""

        self.dice = Random(0)

    def reset(self) -> None:
        self.now, self.is_patient, self.dice = START, False, Random(0)

    def uuid(self) -> UUID:
        return UUID(int=self.dice.getrandbits(128), version=4)

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def datetime(self, zone: tzinfo | None = UTC) -> datetime:
        return datetime.fromtimestamp(self.now, zone)

    def sleep(self, seconds: float) -> None:
        if not self.is_patient or self.is_endless():
            raise Waiting
        self.advance(seconds)


CLOCK = SimulatedClock()


class _Datetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return CLOCK.datetime(tz)


def _read() -> float:
    return CLOCK.now


_TIME = SimpleNamespace(
    time=_read,
    monotonic=_read,
    perf_counter=_read,
    process_time=_read,
    sleep=CLOCK.sleep,
)


@contextmanager
def simulated_time() -> Iterator[SimulatedClock]:
    """Put the clock into every module of the product that is loaded by now."""
    before: list[tuple[Any, str, Any]] = []
    for name, module in sorted(sys.modules.items()):
        if not name.startswith("driftloop."):
            continue
        if vars(module).get("time") is time:
            before.append((module, "time", time))
            module.time = _TIME  # type: ignore[attr-defined]  # in place of its own
        if vars(module).get("datetime") is datetime and _asks_for_now(module):
            before.append((module, "datetime", datetime))
            module.datetime = _Datetime  # type: ignore[attr-defined]  # as above
        if vars(module).get("uuid4") is uuid4:
            before.append((module, "uuid4", uuid4))
            module.uuid4 = CLOCK.uuid  # type: ignore[attr-defined]  # as above
    try:
        yield CLOCK
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _asks_for_now(module: Any) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and _says_now(file)


@cache
def _says_now(file: str) -> bool:
    return "datetime.now(" in Path(file).read_text("utf-8")
