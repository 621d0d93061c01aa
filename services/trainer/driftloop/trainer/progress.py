"""How far a job is, as people see it, with an estimate of the rest."""

import time
from collections.abc import Callable

from driftloop.runtime.throttle import Fields
from driftloop.trainer.checkpoints import FitProgress

MIN_ELAPSED_S = 1.0
"""Of a fit, before its pace says anything."""


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
