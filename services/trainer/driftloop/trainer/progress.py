"""How far a job is, as people see it: not too often, with an estimate of the rest."""

import math
import time
from collections.abc import Callable
from typing import Any

from driftloop.trainer.checkpoints import FitProgress

EVENT_S = 1.0
"""Between two ``training-progressed`` of a job: each is stored and kept for a day."""
MIN_ELAPSED_S = 1.0
"""Of a fit, before its pace says anything."""
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


class Estimate:
    """Seconds to the end of a job, by the pace of the fit that runs now.

    The pace is that of this process and this fit: what an earlier try did before its
    checkpoint took none of this one's time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fit: tuple[str, str] | None = None
        self._started = self._first_ratio = 0.0

    def of(self, step: str, done_ratio: float, fit: FitProgress | None) -> float | None:
        """Return the estimate; None while nothing can be said."""
        if fit is None:
            self._fit = None
            return None
        now = self._clock()
        if self._fit != (step, fit.candidate):
            self._fit = (step, fit.candidate)
            self._started, self._first_ratio = now, done_ratio
        elapsed, done = now - self._started, done_ratio - self._first_ratio
        if elapsed < MIN_ELAPSED_S or done <= 0:
            return None
        return elapsed / done * (1 - done_ratio)


def fields_of(
    step: str,
    done_ratio: float,
    detail: str,
    fit: FitProgress | None,
    estimate: Estimate,
) -> Fields:
    """Return the fields of ``training-progressed`` that a child knows."""
    fields: Fields = {"step": step, "done_ratio": done_ratio, "detail": detail}
    eta_s = estimate.of(step, done_ratio, fit)
    if fit is not None:
        fields |= {
            "candidate": fit.candidate,
            "iteration": fit.iteration,
            "iteration_count": fit.iteration_count,
            "loss": fit.loss,
            "resumed_from": fit.resumed_from,
            "eta_seconds": eta_s,
        }
    return fields
