"""Ends a process whose consumer has silently stopped; the supervisor restarts it."""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from driftloop.runtime.transport import DriverStatus

logger = logging.getLogger(__name__)

EXIT_STALLED = 3
LOOK_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """What was seen to move last, and when.

    Attributes
    ----------
    mark : everything that counts as movement; compared only.
    since_s : monotonic time at which it changed last, seconds.
    """

    mark: tuple[object, ...]
    since_s: float


def observe(
    before: Progress | None, status: DriverStatus, beats: int, now_s: float
) -> Progress:
    """Note whether anything moved.

    A broker that is away, a changed assignment and nothing to read start the clock
    anew: none of them is the consumer's fault. A member without partitions has
    nothing to read, unless nobody else has them either.

    >>> idle = DriverStatus(True, frozenset({("t", 0)}), lag=0, processed=7)
    >>> stuck = DriverStatus(True, frozenset({("t", 0)}), lag=3, processed=7)
    >>> start = observe(None, idle, 0, now_s=0.0)
    >>> observe(observe(start, stuck, 0, now_s=5.0), stuck, 0, now_s=9.0).since_s
    5.0
    """
    waits = not (status.connected and (status.lag or status.stranded))
    mark = (status.processed, beats, status.assigned, status.connected)
    if before is None or waits or before.mark != mark:
        # While waiting, a mark that equals no other: the clock starts at the next look.
        return Progress((now_s,) if waits else mark, now_s)
    return before


def is_stalled(progress: Progress, now_s: float, limit_s: float) -> bool:
    """Whether nothing has moved for longer than allowed."""
    return now_s - progress.since_s > limit_s


class Watchdog:
    """Looks at a driver once a second and ends the process when it stands still.

    Parameters
    ----------
    status : the driver's.
    limit_s : longest time without progress in spite of lag, in seconds. A handler
        that takes longer than this for one step counts as stuck.
    beats : a count that the handler's work moves (messages, attempts). Without it
        only whole chunks count as progress.
    end : ends the process; does not return.
    """

    def __init__(
        self,
        status: Callable[[], DriverStatus],
        limit_s: float = 60.0,
        beats: Callable[[], int] = lambda: 0,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._status = status
        self._limit_s = limit_s
        self._beats = beats
        self._end = end
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="watchdog", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the watch, not the process."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        progress: Progress | None = None
        interval_s = min(LOOK_INTERVAL_S, self._limit_s / 4)
        while not self._stop.wait(interval_s):
            now_s, status = time.monotonic(), self._status()
            progress = observe(progress, status, self._beats(), now_s)
            if is_stalled(progress, now_s, self._limit_s):
                logger.critical(
                    "no progress in %.0f s with %d messages to read: the process ends",
                    self._limit_s,
                    status.lag or status.stranded,
                )
                logging.shutdown()
                self._end(EXIT_STALLED)
                return
