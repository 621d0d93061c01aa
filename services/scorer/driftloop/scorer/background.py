"""Work beside the answers: it comes second."""

import os
import sys
import threading
import time

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
