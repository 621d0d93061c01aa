"""News of a job that goes on: not too often, and the newest."""

import math
import time
from collections.abc import Callable
from typing import Any

EVENT_S = 1.0
"""Between two events of a job's progress: each is stored and kept for a day."""
Fields = dict[str, Any]


class Throttle:
    """Lets the first report through, then the newest of each second."""

    def __init__(
        self,
        emit: Callable[[Fields], None],
        seconds: float = EVENT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._emit, self._seconds, self._clock = emit, seconds, clock
        self._held: Fields | None = None
        self._next = -math.inf

    def take(self, fields: Fields) -> None:
        """Emit it now, or keep it until its time comes or a newer one is there."""
        self._held = fields
        self.flush()

    def flush(self) -> None:
        """Emit what is held if its time has come; called a few times a second."""
        if self._held is not None and self._clock() >= self._next:
            fields, self._held = self._held, None
            self._next = self._clock() + self._seconds
            self._emit(fields)
