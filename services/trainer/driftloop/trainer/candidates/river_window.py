"""The form of ADWIN's window as river writes it; a wrong one would end the process.

River's window is compiled code that takes its bytes on trust. What is looked at here is
all that it counts or points with: lengths, positions, its own settings.
"""

import math
from collections.abc import Sequence
from struct import Struct, error, unpack_from
from typing import Any

HEAD = Struct("<diQdd")
"""Delta, clock, buckets of a row, least window, grace period."""
SUMS = Struct("<dddd")
"""Total, variance, width, and all widths so far."""
COUNTS = Struct("<IIIIQ")
"""Four counters, and how many rows of buckets follow."""
LENGTH = Struct("<Q")
ROW_HEAD = Struct("<QQ")
"""Buckets that a row may have and has."""
TAIL = Struct("<diQII")
"""The settings once more."""
MOST_ROWS = 64
"""A row's buckets are twice as wide as those of the row before it."""


def check_window(content: bytes, settings: Sequence[Any]) -> None:
    """Return if the bytes are a window with these settings.

    Parameters
    ----------
    settings : delta, clock, buckets of a row, least window and grace period.

    Raises
    ------
    ValueError
        When they are not.
    """
    try:
        end = _checked(content, list(settings))
    except error as problem:
        raise ValueError(f"a window is not whole: {problem}") from problem
    if end != len(content):
        raise ValueError("a window has more bytes than it says")


def _checked(content: bytes, settings: list[Any]) -> int:
    if [type(one) for one in settings[1:]] != [int] * 4:
        raise ValueError("a window's settings are not numbers")
    for form, at in ((HEAD, 0), (TAIL, len(content) - TAIL.size)):
        if list(form.unpack_from(content, max(0, at))) != settings:
            raise ValueError("a window was written with other settings")
    at = HEAD.size
    if not all(map(math.isfinite, SUMS.unpack_from(content, at))):
        raise ValueError("a window has sums that are not finite")
    at += SUMS.size
    row_count = COUNTS.unpack_from(content, at)[-1]
    at += COUNTS.size
    if not 1 <= row_count <= MOST_ROWS:
        raise ValueError(f"a window has {row_count} rows of buckets")
    size = settings[2] + 1
    for _ in range(row_count):
        most, count = ROW_HEAD.unpack_from(content, at)
        at += ROW_HEAD.size
        if most != settings[2] or count > size:
            raise ValueError(f"a window has {count} buckets in a row of {most}")
        for _ in range(2):  # totals and variances
            if LENGTH.unpack_from(content, at)[0] != size:
                raise ValueError("a window's row has another length")
            at += LENGTH.size
            if not all(map(math.isfinite, unpack_from(f"<{size}d", content, at))):
                raise ValueError("a window has buckets that are not finite")
            at += 8 * size
    return at + TAIL.size
