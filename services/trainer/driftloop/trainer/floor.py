"""Is the model in service worse than it may be? Windows of labelled rows, pure."""

import math
from dataclasses import dataclass, replace

from driftloop.contracts.events import PerformanceMeasured
from driftloop.contracts.retraining import AccuracyFloorSection


@dataclass(frozen=True)
class FloorCount:
    """Where the counting of bad windows is.

    Attributes
    ----------
    version : that is judged; another one starts anew.
    row_count : of the window that fills.
    total : sum of its rows' losses, of their squares for a root of mean squares.
    bad_windows : full ones in a row, up to now.
    """

    version: int
    row_count: int = 0
    total: float = 0.0
    bad_windows: int = 0


def measured(
    count: FloorCount | None, event: PerformanceMeasured, floor: AccuracyFloorSection
) -> tuple[FloorCount | None, int | None]:
    """Count a measurement of the champion.

    Measurements come as labels do, of a few rows or of many; they are put together
    to windows of ``floor.window_rows``, so that patience means the same for all.

    Returns
    -------
    tuple
        The new count, and the version that was below the floor often enough, once.
    """
    champion = next((m for m in event.measurements if m.role == "champion"), None)
    if floor.max_loss is None or champion is None:
        return count, None
    if count is None or count.version != champion.version:
        count = FloorCount(champion.version)
    is_root = champion.metric == "rmse"
    loss = champion.value**2 if is_root else champion.value
    rows = count.row_count + event.row_count
    total = count.total + loss * event.row_count
    if rows < floor.window_rows:
        return replace(count, row_count=rows, total=total), None
    mean = math.sqrt(total / rows) if is_root else total / rows
    is_bad = not mean <= floor.max_loss  # a loss that is no number is bad too
    bad_windows = count.bad_windows + 1 if is_bad else 0
    if bad_windows >= floor.patience:
        return FloorCount(champion.version), champion.version
    return FloorCount(champion.version, bad_windows=bad_windows), None
