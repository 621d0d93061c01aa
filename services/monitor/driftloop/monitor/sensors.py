"""Whether one column suddenly speaks another language than the rows before it.

A unit or an offset that changes upstream moves a column from one row to the next,
while the world moves slowly or moves many columns at once. Columns with a range
rule are caught earlier, by the validator.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from driftloop.models.columns import Floats
from driftloop.monitor.feature_drift import MIN_ROWS, Kind, finite

MIN_SCALE_GAP = 2.0
"""Factor between the nearest usual values before and after that only a unit makes;
hourly weather stays below 1.3."""
MIN_SHIFT_GAP = 2.0
"""Gap between the values before and after, in interquartile ranges of before."""
TAIL = 0.025
"""Share at either end that is not looked at: single outliers are no new unit."""
MAX_SHARE_OF_ONE = 0.5
"""A column that often holds one value for long is not stuck when it does again."""
MIN_DISTINCT = 10
"""Below so many values a column is a code, and codes jump by nature."""
MAX_COLUMNS_RATIO = 0.5
"""When more columns than this jump at once, the world did, or the upstream."""


@dataclass(frozen=True, slots=True)
class Jump:
    """A column whose values changed from one block to the next.

    Attributes
    ----------
    amount : factor for ``scale``; difference for ``shift``, in the column's unit;
        0 for ``stuck``.
    """

    column: str
    kind: Literal["scale", "shift", "stuck"]
    amount: float
    before: float
    now: float
    row_count: int


def jumps(
    before: pa.Table | pa.RecordBatch,
    now: pa.Table | pa.RecordBatch,
    kinds: Mapping[str, Kind],
) -> list[Jump]:
    """Return the number columns that jumped; none when too many did.

    Parameters
    ----------
    before : rows just before, at least a few hundred for a good spread.
    now : the newest rows.
    """
    columns = [name for name, kind in kinds.items() if kind in ("number", "integer")]
    found = []
    for name in columns:
        if name in before.schema.names and name in now.schema.names:
            jump = jumped(name, finite(before.column(name)), finite(now.column(name)))
            if jump is not None:
                found.append(jump)
    if len(found) > max(1, MAX_COLUMNS_RATIO * len(columns)):
        return []
    return found


def jumped(name: str, before: Floats, now: Floats) -> Jump | None:
    """Return how a column's values jumped, or None.

    >>> rows = np.linspace(0.2, 0.8, 100)
    >>> jumped("temp", rows, rows[::4] * 41).kind
    'scale'
    >>> jumped("temp", rows, rows[50:80]) is None
    True
    """
    if min(len(before), len(now)) < MIN_ROWS:
        return None
    before, now = np.sort(before), np.sort(now)
    starts = np.flatnonzero(np.append(True, before[1:] != before[:-1]))
    if len(starts) < MIN_DISTINCT:
        return None
    low, q1, middle, q3, high = _at(before, TAIL, 0.25, 0.5, 0.75, 1 - TAIL)
    now_low, now_middle, now_high = _at(now, TAIL, 0.5, 1 - TAIL)
    count = len(now)
    if now[0] == now[-1]:
        longest = np.diff(np.append(starts, len(before))).max()
        is_usual = longest >= MAX_SHARE_OF_ONE * len(before)
        is_stuck = not (is_usual or low <= now_middle <= high)
        return (
            Jump(name, "stuck", 0.0, before=middle, now=now_middle, row_count=count)
            if is_stuck
            else None
        )
    if min(low, now_low) > 0:
        if max(now_low / high, low / now_high) >= MIN_SCALE_GAP:
            return Jump(
                name,
                "scale",
                now_middle / middle,
                before=middle,
                now=now_middle,
                row_count=count,
            )
    elif max(now_low - high, low - now_high) >= MIN_SHIFT_GAP * (q3 - q1) > 0:
        return Jump(
            name,
            "shift",
            now_middle - middle,
            before=middle,
            now=now_middle,
            row_count=count,
        )
    return None


def _at(ordered: Floats, *shares: float) -> list[float]:
    """Return the values at these shares of an ordered column."""
    last = len(ordered) - 1
    return [float(ordered[round(share * last)]) for share in shares]
