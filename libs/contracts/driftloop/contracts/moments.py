"""Moments: how they are written, and how they are held.

One reading for every door. A moment is ISO 8601 text, or a timestamp or date of Arrow;
one that is written without an offset is in the pipeline's ``data.timezone``. It is held
as ``timestamp[us, UTC]``, of the years 1 to 9999. A number is none: nobody can tell
seconds from milliseconds.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
import pyarrow.compute as pc

MOMENT_TYPE = pa.timestamp("us", tz="UTC")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
"""The moments that Python, and so every door and report, can write down."""
EXAMPLE = "2011-01-01T00:00:00Z"
SHOWN_CHARACTERS = 80
_WRITTEN = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_UNIT_US = {"s": 1_000_000, "ms": 1_000, "us": 1}


def check_timezone(name: str) -> str:
    """Return the name of a time zone.

    Raises
    ------
    ValueError
        When there is none of this name.
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            "no time zone of this name; use one such as Europe/Berlin or UTC"
        ) from error
    return name


def moments(
    values: Any, timezone: str = "UTC"
) -> tuple[pa.Array, pa.BooleanArray | None]:
    """Return values as moments, and which of them are none.

    Where clocks go back, a moment without an offset is the earlier of the two.

    Parameters
    ----------
    values : (n_rows,) Python values, or an Arrow array of any type.
    timezone : of what has no offset.

    Returns
    -------
    tuple
        ``timestamp[us, UTC]``, null where a value is missing or no moment, and the
        (n_rows,) mask of the latter, true or false; None: there are none.

    Examples
    --------
    >>> found, wrong = moments(["2011-07-01T00:00:00", None, "soon"], "Europe/Berlin")
    >>> found[0].as_py().isoformat(), wrong.to_pylist()
    ('2011-06-30T22:00:00+00:00', [False, False, True])
    """
    if isinstance(values, list):
        if set(map(type, values)) <= {str, type(None)}:
            return _from_texts(pa.array(values, pa.string()), timezone)
        return _one_by_one(values, timezone)
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    kind = array.type
    if pa.types.is_timestamp(kind):
        return _from_timestamps(array, timezone)
    if pa.types.is_null(kind):
        return pa.nulls(len(array), MOMENT_TYPE), None
    if _is_text(kind):
        return _from_texts(pc.cast(array, pa.string()), timezone)
    return _one_by_one(array.to_pylist(), timezone)


def microseconds(value: Any, zone: ZoneInfo) -> int:
    """Return a moment as microseconds since 1970 in UTC.

    Parameters
    ----------
    value : ISO 8601 text, a datetime or a date.
    zone : of a value without an offset.

    Raises
    ------
    ValueError
        With the value and what to send instead.
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        elif isinstance(value, datetime):
            moment = value
        elif hasattr(value, "isoformat"):  # a date
            moment = datetime.fromisoformat(value.isoformat())
        else:
            raise TypeError
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        found = (moment - EPOCH) // MICROSECOND
    except (ValueError, TypeError, OverflowError):
        found = LAST_US + 1
    if not FIRST_US <= found <= LAST_US:
        raise ValueError(moment_problem(value))
    return found


def moment_problem(value: Any) -> str:
    """Say what is wrong with a value that is no moment, and what to send instead."""
    shown = str(value)[:SHOWN_CHARACTERS]
    return f"{shown!r} is no time; send ISO 8601 text such as {EXAMPLE}"


def moment_text(moment: datetime) -> str:
    """Return a moment as it is written everywhere.

    >>> moment_text(datetime(2011, 1, 1, tzinfo=UTC))
    '2011-01-01T00:00:00Z'
    """
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment_of(microseconds_: int) -> datetime:
    """Return the moment so many microseconds after 1970 in UTC."""
    return EPOCH + microseconds_ * MICROSECOND


def are_moments(texts: Iterable[str]) -> bool:
    """Whether texts, at least one, are all dates or moments as people write them.

    Stricter than what is accepted: ``20110101`` may well be a number.

    >>> are_moments(["2011-01-01", "2011-01-01 06:30"]), are_moments(["20110101"])
    (True, False)
    """
    found = [text.strip() for text in texts]
    if not found or not all(map(_WRITTEN.fullmatch, found)):
        return False
    return moments(found)[1] is None


def fixed_moment(value: Any) -> datetime:
    """Return a moment that stands in a pipeline file, in UTC.

    Raises
    ------
    ValueError
        When it is none, or has no offset: a file is read by people of any zone.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"is no moment with an offset; write one such as {EXAMPLE}")
    return moment_of(microseconds(value, ZoneInfo("UTC")))


_Read: TypeAlias = tuple[pa.Array, pa.BooleanArray | None]
"""See :func:`moments`."""


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    )


def _from_texts(texts: pa.Array, timezone: str) -> _Read:
    kinds = [MOMENT_TYPE, *([pa.timestamp("us")] if timezone == "UTC" else [])]
    for kind in kinds:  # all with an offset, or all without
        try:
            found = pc.cast(texts, kind).cast(pa.int64())
        except pa.ArrowInvalid:
            continue
        if _outside(found, FIRST_US, LAST_US) is None:
            return found.cast(MOMENT_TYPE), None
    return _one_by_one(texts.to_pylist(), timezone)


def _from_timestamps(array: pa.Array, timezone: str) -> _Read:
    kind = array.type
    if kind.unit == "ns":  # all of them within the years
        wrong, found = None, pc.cast(array, pa.timestamp("us", kind.tz), safe=False)
        found = found.cast(pa.int64())
    else:
        factor = _UNIT_US[kind.unit]
        numbers = array.cast(pa.int64())
        wrong = _outside(numbers, -(-FIRST_US // factor), LAST_US // factor)
        if wrong is not None:
            numbers = pc.if_else(wrong, None, numbers)
        found = pc.multiply(numbers, factor)
    if kind.tz is not None or timezone == "UTC":
        return found.cast(MOMENT_TYPE), wrong
    local = found.cast(pa.timestamp("us")).to_pylist()
    made, beyond = _one_by_one(local, timezone)
    if wrong is None or beyond is None:
        return made, beyond if wrong is None else wrong
    return made, pc.or_(wrong, beyond)


def _outside(numbers: pa.Array, first: int, last: int) -> pa.BooleanArray | None:
    ends = pc.min_max(numbers).as_py()
    if ends["min"] is None or first <= ends["min"] <= ends["max"] <= last:
        return None
    beyond = pc.or_(pc.less(numbers, first), pc.greater(numbers, last))
    return beyond.fill_null(False)


def _one_by_one(values: list[Any], timezone: str) -> _Read:
    zone = ZoneInfo(timezone)
    found: list[int | None] = []
    wrong: list[bool] = []
    for value in values:
        try:
            found.append(None if value is None else microseconds(value, zone))
        except ValueError:
            found.append(None)
        wrong.append(found[-1] is None and value is not None)
    times = pa.array(found, pa.int64()).cast(MOMENT_TYPE)
    return times, pa.array(wrong, pa.bool_()) if any(wrong) else None
