"""Values of a request become the arrays that the graph takes, or an error in words.

A number, integer or boolean is float32 (missing: NaN), a category or text a Python
string (missing: the empty one), a datetime the microseconds since 1970 in UTC as int64
(missing: the least int64), each of shape (n_rows, 1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from .errors import BadRequest, Refused

STRINGS = frozenset({"category", "text"})
DATETIME = "datetime"
FLOAT32_MAX = float(np.finfo(np.float32).max)
MISSING_MOMENT = np.iinfo(np.int64).min
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST_US = (datetime.min.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
LAST_US = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MICROSECOND
MOMENT_EXAMPLE = "2011-01-01T00:00:00Z"
SHOWN_CHARACTERS = 80

Columns = Mapping[str, Sequence[Any]]
Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]


@dataclass(frozen=True)
class Column:
    """One input of the model, as ``model.json`` has it."""

    name: str
    type: str
    nullable: bool = False
    categories: Sequence[str] | None = None
    least: float | None = None
    greatest: float | None = None
    timezone: str | None = None

    @property
    def zone(self) -> tzinfo:
        """The zone of its values that are written without an offset.

        Raises
        ------
        Refused
            When this machine does not know it.
        """
        if self.timezone in (None, "UTC"):
            return UTC
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise Refused(
                f"{self.name}: this machine does not know the time zone "
                f"{self.timezone}; run: pip install tzdata"
            ) from error


class Moment(int):
    """Microseconds since 1970 in UTC, which a caller has sent as a number."""


def feeds_of(
    columns: Columns, inputs: Sequence[Column], first: int = 0
) -> tuple[Feeds, int]:
    """Return what the graph takes, and the number of rows.

    Parameters
    ----------
    columns : feature to its values, flat or as lists of one value each; columns that
        are no features are ignored.
    first : number of the first row, for what errors say.

    Raises
    ------
    BadRequest
        Names the first column that is missing, of another length or of a wrong type.
    """
    missing = [column.name for column in inputs if column.name not in columns]
    if missing:
        raise BadRequest(f"missing: {', '.join(missing)}")
    numbers = [c for c in inputs if c.type not in STRINGS and c.type != DATETIME]
    feeds = _matrix(columns, numbers)
    if feeds is None:
        feeds = {c.name: _numbers(columns[c.name], c, first) for c in numbers}
    for column in inputs:
        if column.type in STRINGS:
            feeds[column.name] = _texts(columns[column.name], column, first)
        elif column.type == DATETIME:
            feeds[column.name] = _moments(columns[column.name], column, first)
    row_count = len(feeds[inputs[0].name])
    for name, values in feeds.items():
        if len(values) != row_count:
            raise BadRequest(
                f"{name} has {len(values)} values, {inputs[0].name} has {row_count}"
            )
    return feeds, row_count


def _matrix(columns: Columns, numbers: Sequence[Column]) -> Feeds | None:
    """Convert all numbers at once, for speed; None when they need a closer look."""
    if not numbers:
        return {}
    try:
        matrix = np.array([columns[column.name] for column in numbers])
    except (ValueError, TypeError, OverflowError):
        return None
    is_flat = matrix.ndim == 2 or (matrix.ndim == 3 and matrix.shape[2] == 1)
    if matrix.dtype.kind not in "fiub" or not is_flat:
        return None
    with np.errstate(over="ignore"):
        single = matrix.astype(np.float32).reshape(len(numbers), -1, 1)
    if not np.isfinite(single).all():
        return None
    return {column.name: single[at] for at, column in enumerate(numbers)}


def flat(values: Any, name: str) -> list[Any]:
    """Return values that may each be in a list of their own.

    Raises
    ------
    BadRequest
        When it is no list, or a row has several values.
    """
    if not isinstance(values, list | tuple):
        raise BadRequest(f"{name}: expected a list of values")
    if any(isinstance(value, list | tuple) for value in values):
        if not all(isinstance(v, list | tuple) and len(v) == 1 for v in values):
            raise BadRequest(f"{name}: expected one value a row")
        return [value[0] for value in values]
    return list(values)


def _numbers(values: Any, column: Column, first: int) -> Array:
    result: list[float] = []
    for row, value in enumerate(flat(values, column.name), first):
        if value is None and column.nullable:
            result.append(np.nan)
            continue
        if not isinstance(value, int | float):
            raise BadRequest(
                f"{column.name}: row {row} is {value!r:.40}; expected a number"
                + (" or null" if column.nullable else "")
            )
        if not abs(value) <= FLOAT32_MAX:  # NaN is not less either
            raise BadRequest(f"{column.name}: row {row} is no number or too great")
        result.append(value)
    return np.array(result, dtype=np.float32).reshape(-1, 1)


def _moments(values: Any, column: Column, first: int) -> Array:
    zone = column.zone
    found = flat(values, column.name)
    result = np.empty((len(found), 1), dtype=np.int64)
    for at, value in enumerate(found):
        if value is None and column.nullable:
            result[at, 0] = MISSING_MOMENT
            continue
        try:
            result[at, 0] = microseconds(value, zone)
        except ValueError as error:
            raise BadRequest(f"{column.name}: row {first + at}: {error}") from error
    return result


def microseconds(value: Any, zone: tzinfo) -> int:
    """Return a moment as microseconds since 1970 in UTC; a plain number is none.

    Raises
    ------
    ValueError
        With the value and what to send instead.
    """
    if isinstance(value, Moment):
        return int(value)
    try:
        if not isinstance(value, str):
            raise TypeError
        moment = datetime.fromisoformat(value.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=zone)
        found = (moment - EPOCH) // MICROSECOND
    except (ValueError, TypeError, OverflowError):
        found = LAST_US + 1
    if not FIRST_US <= found <= LAST_US:
        shown = str(value)[:SHOWN_CHARACTERS]
        raise ValueError(
            f"{shown!r} is no time; send ISO 8601 text such as {MOMENT_EXAMPLE}"
        )
    return found


def moment_text(microseconds_: int) -> str:
    """Return a moment as ISO 8601 text in UTC."""
    moment = EPOCH + microseconds_ * MICROSECOND
    return moment.isoformat().replace("+00:00", "Z")


def _texts(values: Any, column: Column, first: int) -> Array:
    found = flat(values, column.name)
    result = np.empty((len(found), 1), dtype=object)
    for at, value in enumerate(found):
        result[at, 0] = (
            value if type(value) is str else _text(value, first + at, column)
        )
    return result


def _text(value: Any, row: int, column: Column) -> str:
    """Return what a person would write, as in training."""
    if value is None and column.nullable:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return repr(value)
    raise BadRequest(f"{column.name}: row {row} is {value!r:.40}; expected text")
