"""What an estimate means: fine, degrading, or that nobody can tell, and why."""

from dataclasses import dataclass

from driftloop.contracts.estimates import Verdict
from driftloop.monitor.estimates.combining import Combined

MIN_KNOWN_ROWS = 60
"""Labelled rows of the version before anything is estimated."""
MIN_ALIKE_ROWS = 20.0
"""As many rows like the window's the labelled ones have to count."""
MIN_WINDOW_ROWS = 20


@dataclass(frozen=True)
class Judged:
    """A verdict and its reason, for people."""

    verdict: Verdict
    reason: str


def reason_not_to(known_count: int, window_count: int, fault: str | None) -> str | None:
    """Return why nothing can be estimated; None: one may try."""
    if fault is not None:
        return f"the values of {fault} are wrong now, so the answers are too"
    if known_count < MIN_KNOWN_ROWS:
        return (
            f"{known_count} labelled rows of this version are known; "
            f"it takes {MIN_KNOWN_ROWS}"
        )
    if window_count < MIN_WINDOW_ROWS:
        return f"{window_count} rows of the window have inputs and answers"
    return None


def reason_unlike(known_count: int, alike_count: float) -> str | None:
    """Return why the labelled rows say nothing of the window's; None: they do."""
    if alike_count >= MIN_ALIKE_ROWS:
        return None
    return (
        f"the window's rows are unlike those with labels: {known_count} of them say as "
        f"much as {alike_count:.0f} alike; it takes {MIN_ALIKE_ROWS:.0f}"
    )


def limit_of(expected: float, tolerated_rise: float) -> float:
    """Return the greatest loss that is tolerated, from the hold-out's.

    >>> limit_of(4.0, 0.25)
    5.0
    """
    return expected * (1 + tolerated_rise)


def judge(first: Combined, expected: float | None, tolerated_rise: float) -> Judged:
    """Return the verdict on the pipeline's metric, a loss.

    Degrading: even the best end of the interval is worse than the hold-out's loss by
    more than is tolerated.
    """
    text = f"{first.metric} of about {first.value:.4g} ({first.low:.4g} to "
    text += f"{first.high:.4g})"
    if expected is None or expected <= 0:
        return Judged("ok", f"{text}; there is no hold-out to compare with")
    limit = limit_of(expected, tolerated_rise)
    if first.low > limit:
        return Judged(
            "degrading",
            f"{text}, {first.value / expected:.1f} times the hold-out's {expected:.4g}",
        )
    return Judged("ok", f"{text}; the hold-out's is {expected:.4g}")
