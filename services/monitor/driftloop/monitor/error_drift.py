"""Whether a served model's error has risen, from blocks of labelled rows.

A block is a short run of labelled rows (one day of hourly data, say). Its level is
the mean loss divided by the loss of a guess without skill on the rows around it, so
that a season in which everything is larger is no rise by itself. Levels are
compared as logarithms: twice the error is the same step wherever it starts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from driftloop.contracts.monitoring import ErrorDetector
from driftloop.detection import levels as blocks
from driftloop.detection import online

Floats = npt.NDArray[np.float64]

BLOCKS_PER_WINDOW = 7
"""A window is judged in so many blocks; one bad block alone never alarms."""
MIN_BLOCK_ROWS = 20
MAX_BLOCK_ROWS = 500
MAX_BLOCKS = 500
"""Of one version that are looked at; older ones no longer matter."""
TOLERATED_RISE = 0.1
"""Log units: a rise below 10 % is never an alarm."""
FALSE_ALARM_BLOCKS = 1000
"""Blocks between false alarms that river's detectors are set for, at sensitivity 1."""
MAX_STEP = 1.5
"""Log units (4.5 times) that one block may count for: one alone never alarms."""
MIN_ERROR_BLOCKS = 30
"""What detectors that only know good and bad wait for; river's own default."""
FOREVER = 1.0 - 1e-12
"""Page-Hinkley's forgetting factor: none, since blocks are bounded by the caller."""
SHOWN = {
    "mixture": "Shiryaev-Roberts",
    "page_hinkley": "PageHinkley",
    "adwin": "ADWIN",
    "kswin": "KSWIN",
    "ddm": "DDM",
    "eddm": "EDDM",
    "hddm_a": "HDDM_A",
    "hddm_w": "HDDM_W",
}


@dataclass(frozen=True, slots=True)
class Rise:
    """A rise of the error that has not gone away.

    Attributes
    ----------
    since : index of the block in which the rise is estimated to have begun.
    before, recent : geometric mean of the level before ``since``, and of the last
        :data:`BLOCKS_PER_WINDOW` blocks.
    statistic, threshold : of the mixture; else of the walk of log levels (Page).
    detector : its name, as people know it.
    """

    since: int
    before: float
    recent: float
    statistic: float
    threshold: float
    detector: str = SHOWN["page_hinkley"]


def block_rows(window_rows: int) -> int:
    """Return how many labelled rows make a block.

    >>> block_rows(168)
    24
    """
    return min(max(MIN_BLOCK_ROWS, window_rows // BLOCKS_PER_WINDOW), MAX_BLOCK_ROWS)


def error_rise(
    levels: Sequence[float],
    reference: float,
    sensitivity: float = 1.0,
    detector: ErrorDetector = "page_hinkley",
) -> Rise | None:
    """Test whether the error rose, now and not only for a moment.

    The detector starts from ``reference`` with the weight of one window and then
    follows the model's own mean: a reference measured on a hard stretch does not hide
    a later rise.

    Parameters
    ----------
    levels : (n_blocks,) levels of one version, oldest first.
    reference : level before ``levels``: the hold-out's, or that of the blocks before
        the last verdict.
    sensitivity : above 1 alarms earlier and more often falsely.
    detector : one of river's, or ``mixture`` (:mod:`driftloop.detection.levels`).

    Returns
    -------
    Rise or None
        None also when there are fewer blocks than a rise takes.

    Examples
    --------
    >>> error_rise([0.3] * 20, reference=0.3) is None
    True
    >>> error_rise([0.3] * 10 + [0.6] * 10, reference=0.3).since
    10
    """
    if not levels:
        return None
    steps = blocks.log_levels(levels, reference)
    if detector == "mixture":
        found = blocks.first_rise(levels, reference, sensitivity)
    else:
        found = _by_river(steps, sensitivity, detector)
    if found is None:
        return None
    recent = float(np.mean(steps[-BLOCKS_PER_WINDOW:]))
    if recent < found.before + TOLERATED_RISE:
        return None  # it has come down again
    return Rise(
        since=found.since,
        before=reference * math.exp(found.before),
        recent=reference * math.exp(recent),
        statistic=found.statistic,
        threshold=found.threshold,
        detector=SHOWN[detector],
    )


def _by_river(
    steps: Floats, sensitivity: float, detector: online.Name
) -> blocks.LevelRise | None:
    """Return the first rise that one of river's detectors finds, or None.

    Each gets the log levels in the form that it knows: numbers, numbers from 0 to 1, or
    whether the level is above what is usual by more than noise.
    """
    primed = np.concatenate([np.zeros(BLOCKS_PER_WINDOW), np.minimum(steps, MAX_STEP)])
    noise = blocks.noise_of(steps)
    values: npt.NDArray[Any] = primed
    if detector in online.ON_RATIOS:
        values = np.clip(primed / MAX_STEP + 0.25, 0.0, 1.0)
    elif detector in online.ON_ERRORS:
        values = primed > max(TOLERATED_RISE, math.sqrt(noise))
    means = np.cumsum(primed) / np.arange(1, len(primed) + 1)
    walk = np.cumsum(primed - means - TOLERATED_RISE)
    for alarm in online.alarms(
        detector, values, _SETTINGS[detector](noise, sensitivity)
    ):
        lowest = int(np.argmin(walk[: alarm + 1]))
        before, since = (
            float(np.mean(primed[: lowest + 1])),
            primed[lowest + 1 : alarm + 1],
        )
        if alarm < BLOCKS_PER_WINDOW or not len(since) or since.mean() <= before:
            continue  # what it found is no rise
        return blocks.LevelRise(
            at=alarm - BLOCKS_PER_WINDOW,
            since=max(lowest + 1 - BLOCKS_PER_WINDOW, 0),
            before=before,
            statistic=float(walk[alarm] - walk[: alarm + 1].min()),
            threshold=_page_threshold(noise, sensitivity),
        )
    return None


def _page_threshold(noise: float, sensitivity: float) -> float:
    """Return Page-Hinkley's threshold in log units.

    Source: Page (1954), Biometrika 41; threshold for a given run length between
    false alarms from the exponential tail of a random walk with negative drift
    (Siegmund 1985, Sequential Analysis, ch. 2).
    """
    return noise * math.log(FALSE_ALARM_BLOCKS) / (2 * TOLERATED_RISE) / sensitivity


def _confidence(sensitivity: float) -> float:
    return min(sensitivity / FALSE_ALARM_BLOCKS, 0.5)


_SETTINGS: Mapping[str, Callable[[float, float], dict[str, Any]]] = {
    "page_hinkley": lambda noise, sensitivity: {
        "min_instances": 1,
        "delta": TOLERATED_RISE,
        "threshold": _page_threshold(noise, sensitivity),
        "alpha": FOREVER,
        "mode": "up",
    },
    "adwin": lambda _, sensitivity: {
        "delta": _confidence(sensitivity),
        "clock": 1,
        "grace_period": BLOCKS_PER_WINDOW,
    },
    "kswin": lambda _, sensitivity: {
        "alpha": _confidence(sensitivity),
        "window_size": 4 * BLOCKS_PER_WINDOW,
        "stat_size": BLOCKS_PER_WINDOW,
    },
    "ddm": lambda _, sensitivity: {
        "warm_start": MIN_ERROR_BLOCKS,
        "drift_threshold": 3.0 / sensitivity,
        "warning_threshold": 2.0 / sensitivity,
    },
    "eddm": lambda _, __: {"warm_start": MIN_ERROR_BLOCKS},
    "hddm_a": lambda _, sensitivity: {"drift_confidence": _confidence(sensitivity)},
    "hddm_w": lambda _, sensitivity: {"drift_confidence": _confidence(sensitivity)},
}
"""From the noise of log levels and the sensitivity; what is not named is river's."""
