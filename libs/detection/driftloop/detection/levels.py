"""Whether a level has risen, from blocks of rows: for any loss, and for rows in runs.

A level is a mean loss over a block, positive; levels are compared as logarithms: twice
as much is the same step wherever it starts. Their noise is measured, not assumed:
blocks that resemble their neighbours, as those of one season do, are no evidence. The
recursion is that of :mod:`driftloop.detection.recursion`, with a normal likelihood.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from driftloop.detection.recursion import Floats

RISES = (0.2, 0.35, 0.6, 1.0)
"""Assumed rises in log units. Half of the least is tolerated for ever: 10 %."""
FALSE_ALARM_BLOCKS = 4000
"""Blocks between false alarms that the threshold is set for, at sensitivity 1."""
PRIOR_BLOCKS = 7
"""Weight of the reference, and of the noise assumed, in blocks."""
PRIOR_NOISE = 0.3
"""Standard deviation of log levels assumed before any was seen."""
MAX_NOISE_STEP = 1.0
"""A greater step from block to block (2.7 times) is a change, not noise."""
BLOCKS_TO_ALARM = 3
"""One terrible block, or two, are no rise: none counts for more than its part."""
MIN_LEVEL = 1e-6


@dataclass(frozen=True, slots=True)
class LevelRise:
    """A rise.

    Attributes
    ----------
    at, since : block of the alarm, and the one at which the rise most likely began.
    before : mean log level before ``since``, above the reference.
    statistic, threshold : logarithms of the evidence and of what makes an alarm.
    """

    at: int
    since: int
    before: float
    statistic: float
    threshold: float


def log_levels(levels: Sequence[float], reference: float) -> Floats:
    """Return the logarithms of levels above the reference."""
    found = np.log(np.maximum(np.asarray(levels, dtype=np.float64), MIN_LEVEL))
    return np.asarray(found - math.log(max(reference, MIN_LEVEL)))


def noise_of(steps: Floats) -> float:
    """Return the variance of log levels about their slow course.

    From differences of neighbours, which a trend leaves alone.
    """
    between = np.clip(np.diff(steps), -MAX_NOISE_STEP, MAX_NOISE_STEP)
    squares = float(np.sum(between**2)) / 2
    rows = PRIOR_BLOCKS + len(between)
    return (PRIOR_NOISE**2 * PRIOR_BLOCKS + squares) / rows


def first_rise(
    levels: Sequence[float], reference: float, sensitivity: float = 1.0
) -> LevelRise | None:
    """Return the first rise above what was before it, or None.

    Parameters
    ----------
    levels : (n_blocks,) oldest first.
    reference : level before them, with the weight of :data:`PRIOR_BLOCKS`; afterwards
        the mean of the blocks themselves counts.
    sensitivity : above 1 alarms earlier and more often falsely.

    Examples
    --------
    >>> first_rise([0.3] * 20, reference=0.3) is None
    True
    >>> rise = first_rise([0.3] * 10 + [0.6] * 10, reference=0.3)
    >>> rise.since, rise.at
    (10, 12)
    """
    if not len(levels):
        return None
    steps = log_levels(levels, reference)
    variance, threshold = noise_of(steps), math.log(FALSE_ALARM_BLOCKS) / sensitivity
    most, limit = threshold / BLOCKS_TO_ALARM, math.exp(threshold)
    ratios, walks = [0.0] * len(RISES), [0.0] * len(RISES)
    held, held_total = [0] * len(RISES), [0.0] * len(RISES)
    known, total = float(PRIOR_BLOCKS), 0.0
    for number, step in enumerate(steps.tolist()):
        likeliest = max(range(len(RISES)), key=ratios.__getitem__)
        # The mean before is that of all blocks so far but those under suspicion.
        is_suspect = sum(ratios) / len(RISES) > math.sqrt(limit)
        apart = (held[likeliest], held_total[likeliest]) if is_suspect else (0, 0.0)
        mean = (total - apart[1]) / (known - apart[0])
        for at, rise in enumerate(RISES):
            gained = min(rise * (step - mean - rise / 2) / variance, most)
            ratios[at] = (1 + ratios[at]) * math.exp(gained)
            walks[at] += gained
            held[at], held_total[at] = held[at] + 1, held_total[at] + step
            if walks[at] <= 0:
                walks[at], held[at], held_total[at] = 0.0, 0, 0.0
        total, known = total + step, known + 1
        evidence = sum(ratios) / len(RISES)
        if evidence >= limit:
            likeliest = max(range(len(RISES)), key=ratios.__getitem__)
            since = number + 1 - held[likeliest]
            before = float(steps[:since].sum()) / (PRIOR_BLOCKS + since)
            return LevelRise(number, since, before, math.log(evidence), threshold)
    return None
