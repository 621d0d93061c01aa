"""Whether a rise is that of a season which the version in service has learned.

Two references, whichever is there: the blocks of labelled rows of the same season in
earlier years (of whatever version), and the rows that the version in service learned
from, where they cover the whole year. Both answer the same question: by how much is the
error usually higher in this season than in the weeks before it?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
from driftloop.monitor.causes.stretch import Mask, Stretch
from driftloop.monitor.state import Block

YEAR = timedelta(days=365.25)
MAX_YEARS = 3
MIN_BLOCKS = 2
MIN_ROWS = 30
MIN_COVERED = 300
"""Days of the year on which the version's sample has to have rows near by."""
NEAR_DAYS = 10


@dataclass(frozen=True)
class Season:
    """What the same season brought before.

    Attributes
    ----------
    reference : in words, for people.
    grown : the error of then beside that of the weeks before it.
    """

    reference: str
    grown: float


def year_before(
    blocks: Sequence[Block],
    levels: Sequence[float],
    rise: tuple[datetime, datetime],
    begin: datetime,
) -> Season | None:
    """Return how the error changed in the same weeks of earlier years.

    Parameters
    ----------
    blocks : of any version, with their levels.
    rise : start and end of the stretch with a higher error.
    begin : of the weeks before it that the rise is seen against.
    """
    since, end = rise
    for years in range(1, MAX_YEARS + 1):
        back = years * YEAR
        there = [
            level
            for block, level in zip(blocks, levels, strict=True)
            if since - back <= block.end and block.start <= end - back
        ]
        before = [
            level
            for block, level in zip(blocks, levels, strict=True)
            if begin - back <= block.start and block.end < since - back
        ]
        if min(len(there), len(before)) >= MIN_BLOCKS:
            grown = float(np.exp(np.mean(np.log(there)) - np.mean(np.log(before))))
            weeks = f"{since - back:%Y-%m-%d} to {end - back:%Y-%m-%d}"
            return Season(f"the same weeks of an earlier year ({weeks})", grown)
    return None


def of_sample(known: Stretch, before: Stretch, now: Stretch) -> Season | None:
    """Return how the error of now's season differs in what the version learned from."""
    if not known.is_labelled:
        return None
    days = _days(known)
    if len(np.unique(days)) == 0 or _covered(days) < MIN_COVERED:
        return None
    here, there = _near(days, _days(now)), _near(days, _days(before))
    if min(here.sum(), there.sum()) < MIN_ROWS:
        return None
    grown = float(known.loss[here].mean() / max(known.loss[there].mean(), 1e-12))
    return Season("the same season in the rows that the version learned from", grown)


def _days(rows: Stretch) -> npt.NDArray[np.int64]:
    """Return the days of the year of rows, 0 to 365."""
    times = rows.times_us.astype("datetime64[us]")
    year = times.astype("datetime64[Y]")
    found: npt.NDArray[np.int64] = (
        (times - year).astype("timedelta64[D]").astype(np.int64)
    )
    return found


def _covered(days: npt.NDArray[np.int64]) -> int:
    seen = np.zeros(366, dtype=np.bool_)
    for day in np.unique(days):
        seen[np.arange(day - NEAR_DAYS, day + NEAR_DAYS + 1) % 366] = True
    return int(seen.sum())


def _near(days: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> Mask:
    """Whether each day of the year is one of those wanted, or beside one."""
    near = np.zeros(366, dtype=np.bool_)
    for day in np.unique(wanted):
        near[np.arange(day - NEAR_DAYS, day + NEAR_DAYS + 1) % 366] = True
    found: Mask = near[days]
    return found
