"""Whether a served model's error has risen, from blocks of labelled rows.

A block is a short run of labelled rows (one day of hourly data, say). Its level is
the mean loss divided by the loss of a guess without skill on the rows around it, so
that a season in which everything is larger is no rise by itself. Levels are
compared as logarithms: twice the error is the same step wherever it starts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BLOCKS_PER_WINDOW = 7
"""A window is judged in so many blocks; one bad block alone never alarms."""
MIN_BLOCK_ROWS = 20
MAX_BLOCK_ROWS = 500
MAX_BLOCKS = 500
"""Of one version that are looked at; older ones no longer matter."""
TOLERATED_RISE = 0.1
"""Page-Hinkley's allowance in log units: a rise below 10 % is never an alarm."""
FALSE_ALARM_BLOCKS = 1000
"""Blocks between false alarms that the threshold is set for, at sensitivity 1."""
PRIOR_NOISE = 0.3
"""Standard deviation of log levels assumed before any was seen."""
MAX_STEP = 1.5
"""Log units (4.5 times) that one block may count for: one alone never alarms."""
MAX_NOISE_STEP = 1.0
"""A greater step from block to block (2.7 times) is a change, not noise."""
MIN_LEVEL = 1e-6
FOREVER = 1.0 - 1e-12
"""Page-Hinkley's forgetting factor: none, since blocks are bounded by the caller."""


@dataclass(frozen=True, slots=True)
class Rise:
    """A rise of the error that has not gone away.

    Attributes
    ----------
    since : index of the block in which the rise is estimated to have begun.
    before, recent : geometric mean of the level before ``since``, and of the last
        :data:`BLOCKS_PER_WINDOW` blocks.
    statistic, threshold : of the Page-Hinkley test, in log units.
    """

    since: int
    before: float
    recent: float
    statistic: float
    threshold: float


def block_rows(window_rows: int) -> int:
    """Return how many labelled rows make a block.

    >>> block_rows(168)
    24
    """
    return min(max(MIN_BLOCK_ROWS, window_rows // BLOCKS_PER_WINDOW), MAX_BLOCK_ROWS)


def error_rise(
    levels: Sequence[float], reference: float, sensitivity: float = 1.0
) -> Rise | None:
    """Test whether the error rose, now and not only for a moment.

    The detector (river's Page-Hinkley) starts from ``reference`` with the weight of
    one window and then follows the model's own best: a reference measured on a hard
    stretch does not hide a later rise.

    Parameters
    ----------
    levels : (n_blocks,) levels of one version, oldest first.
    reference : level before ``levels``: the hold-out's, or that of the blocks before
        the last verdict.
    sensitivity : above 1 alarms earlier and more often falsely.

    Returns
    -------
    Rise or None
        None also when there are fewer blocks than a rise takes.

    Source: Page (1954), Biometrika 41; threshold for a given run length between
    false alarms from the exponential tail of a random walk with negative drift
    (Siegmund 1985, Sequential Analysis, ch. 2).

    Examples
    --------
    >>> error_rise([0.3] * 20, reference=0.3) is None
    True
    >>> error_rise([0.3] * 10 + [0.6] * 10, reference=0.3).since
    10
    """
    if not levels:
        return None
    # Brings scikit-learn along: half of the time that a start of the monitor takes.
    from river.drift import PageHinkley

    steps = np.log(np.maximum(np.asarray(levels, dtype=np.float64), MIN_LEVEL))
    steps -= math.log(max(reference, MIN_LEVEL))
    threshold = _threshold(steps, sensitivity)
    detector = PageHinkley(
        min_instances=1,
        delta=TOLERATED_RISE,
        threshold=threshold,
        alpha=FOREVER,
        mode="up",
    )
    for _ in range(BLOCKS_PER_WINDOW):
        detector.update(0.0)
    for index, step in enumerate(np.minimum(steps, MAX_STEP)):
        detector.update(float(step))
        if detector.drift_detected:
            return _lasting(steps, index, threshold, reference)
    return None


def _threshold(steps: Floats, sensitivity: float) -> float:
    """Alarm threshold for the noise of ``steps``, in log units.

    The noise is taken from differences of neighbours, which a slow trend leaves
    alone.
    """
    between = np.clip(np.diff(steps), -MAX_NOISE_STEP, MAX_NOISE_STEP)
    squares = float(np.sum(between**2)) / 2
    variance = (PRIOR_NOISE**2 * BLOCKS_PER_WINDOW + squares) / (
        BLOCKS_PER_WINDOW + len(between)
    )
    run_length = math.log(FALSE_ALARM_BLOCKS)
    return variance * run_length / (2 * TOLERATED_RISE) / sensitivity


def _lasting(
    steps: Floats, alarm: int, threshold: float, reference: float
) -> Rise | None:
    """Return the rise found at ``alarm`` unless the error has come down again."""
    primed = np.concatenate([np.zeros(BLOCKS_PER_WINDOW), np.minimum(steps, MAX_STEP)])
    means = np.cumsum(primed) / np.arange(1, len(primed) + 1)
    walk = np.cumsum(primed - means - TOLERATED_RISE)
    end = BLOCKS_PER_WINDOW + alarm
    lowest = int(np.argmin(walk[: end + 1]))
    before = float(np.mean(primed[: lowest + 1]))
    recent = float(np.mean(steps[-BLOCKS_PER_WINDOW:]))
    if recent < before + TOLERATED_RISE:
        return None
    return Rise(
        since=max(lowest + 1 - BLOCKS_PER_WINDOW, 0),
        before=reference * math.exp(before),
        recent=reference * math.exp(recent),
        statistic=float(walk[end] - walk[: end + 1].min()),
        threshold=threshold,
    )
