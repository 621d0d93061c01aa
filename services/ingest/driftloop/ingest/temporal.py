"""Times of Arrow columns as Python can hold them: microseconds, years 1 to 9999."""

from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.moments import EPOCH, FIRST_US, LAST_US
from driftloop.ingest.errors import FormatError

_FIRST_DAY = (date.min - EPOCH.date()).days
_LAST_DAY = (date.max - EPOCH.date()).days


def in_python_range(column: Any, name: str) -> Any:
    """Return a column whose values Python's own types can hold.

    Parameters
    ----------
    column : (n_rows,) Arrow array of any type; only times are changed.

    Raises
    ------
    FormatError
        When a time is outside of the years 1 to 9999.
    """
    kind = column.type
    if not pa.types.is_temporal(kind):
        return column
    try:
        if pa.types.is_timestamp(kind):
            zone = None if kind.tz is None else "UTC"
            is_finer = kind.unit == "ns"
            times = pc.cast(column, pa.timestamp("us", kind.tz), safe=not is_finer)
            _check(times.cast(pa.int64()), FIRST_US, LAST_US)
            return times.cast(pa.int64()).cast(pa.timestamp("us", zone))
        if pa.types.is_date(kind):
            days = pc.cast(column, pa.date32())
            _check(days.cast(pa.int32()), _FIRST_DAY, _LAST_DAY)
            return days
        if pa.types.is_time64(kind):
            return pc.cast(column, pa.time64("us"), safe=False)
        if pa.types.is_duration(kind):
            return pc.cast(column, pa.duration("us"), safe=kind.unit != "ns")
    except pa.ArrowInvalid as error:
        raise FormatError(
            f"column {name} has times outside of the years 1 to 9999"
        ) from error
    return column


def _check(numbers: Any, first: int, last: int) -> None:
    ends = pc.min_max(numbers).as_py()
    if ends["min"] is not None and (ends["min"] < first or ends["max"] > last):
        raise pa.ArrowInvalid("out of range")
