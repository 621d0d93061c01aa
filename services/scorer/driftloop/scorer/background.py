"""Work beside the answers: it comes second."""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

NICENESS = 10
"""Of a thread in the background: answers come first."""
ROWS_A_CALL = 500
"""Of a model in the background: some milliseconds, after which it rests as long."""


def give_way() -> None:
    """Give this thread a low priority, where threads have one of their own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class Breaks:
    """Rests as long as it has worked: half of a core stays for answers."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._since = time.monotonic()

    def rest(self) -> None:
        """Rest for as long as has gone by since the last rest."""
        self._stopping.wait(time.monotonic() - self._since)
        self._since = time.monotonic()


class Foreground:
    """A thread with the priority of whoever makes it, for calls of those that gave way.

    A thread that gave way cannot take its priority back, and a child that it starts
    has it too: on a busy machine that would hardly ever have its turn.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="foreground", daemon=True).start()

    def submit(
        self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]:
        """Call a function there, after the calls before it."""
        future: Future[R] = Future()

        def call() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                future.set_exception(error)

        self._calls.put(call)
        return future

    def _run(self) -> None:
        while True:
            self._calls.get()()
