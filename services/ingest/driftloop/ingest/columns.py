"""Values of one column as a typed Arrow array.

A value that does not fit its column's type must not be lost here: the column then
travels as text, and the validator names each row that fails. Text of a number is
its shortest form (``1``, ``0.5``), the same from JSON, CSV and Arrow.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.moments import MOMENT_TYPE, moment_problem, moments

Values = Any
"""(n_rows,) a list of Python values, or an Arrow array of any type."""
ColumnType = Literal["number", "integer", "category", "boolean", "text", "datetime"]

_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(
    r"[+-]?(\d{1,18}\.?\d{0,18}|\.\d{1,18})(e[+-]?\d{1,3})?", re.IGNORECASE | re.ASCII
)
_ARROW_TYPES = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "datetime": MOMENT_TYPE,
}


def as_text(value: Any) -> str | None:
    """Return a value in its shortest form.

    Examples
    --------
    >>> as_text(1.0), as_text(0.5), as_text(True), as_text([1]), as_text(None)
    ('1', '0.5', 'true', '[1]', None)
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return orjson.dumps(value, default=str).decode()


def to_column(
    values: Values, kind: ColumnType | None, timezone: str = "UTC"
) -> pa.Array:
    """Return a column of ``kind``, or of text when a value does not fit it.

    Parameters
    ----------
    values : (n_rows,) Python values, or an Arrow array of any type.
    kind : the pipeline file's type; None: the type that the values have.
    timezone : of moments that are written without an offset.
    """
    if kind == "datetime":
        return _moment_column(values, timezone)
    if isinstance(values, list):
        return _from_list(values, kind)
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return _from_arrow(array, kind)


def _from_list(values: list[Any], kind: ColumnType | None) -> pa.Array:
    types = set(map(type, values)) - {type(None)}
    if types == {str}:
        return _from_text(pa.array(values, pa.string()), kind)
    wanted = _ARROW_TYPES[kind] if kind else None
    try:
        if types <= {int, float} and kind == "number":
            return pa.array(values, wanted)
        if types <= {int, float} and kind == "integer":
            return pa.array([_whole(value) for value in values], wanted)
        if types <= {bool} and kind in ("boolean", None):
            return pa.array(values, pa.bool_())
        if types <= {int, float} and kind is None:
            return pa.array(values, pa.int64() if types == {int} else pa.float64())
    except (pa.ArrowInvalid, OverflowError, ValueError):
        pass  # a number that the type cannot hold
    texts = pa.array([as_text(value) for value in values], pa.string())
    return _from_text(texts, kind) if str in types else texts


def _whole(value: Any) -> int | None:
    if value is None or isinstance(value, int):
        return value
    if not value.is_integer():
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def _from_text(text: pa.Array, kind: ColumnType | None) -> pa.Array:
    """Numbers written as text, as CSV has them."""
    if kind in (None, "category", "text"):
        return text
    if kind == "boolean":
        wrong = pc.invert(pc.is_in(text, pa.array(["true", "false", None])))
        if pc.any(wrong).as_py():
            return text
    try:
        return pc.cast(text, _ARROW_TYPES[kind])
    except pa.ArrowInvalid:
        return pa.array([_shortest(value) for value in text.to_pylist()], pa.string())


def _shortest(text: str | None) -> str | None:
    """Return a number's text as it would be if its neighbours were numbers too."""
    if text is None or not _NUMBER.fullmatch(text):
        return text
    return str(int(text)) if _WHOLE.fullmatch(text) else as_text(float(text))


def _from_arrow(array: pa.Array, kind: ColumnType | None) -> pa.Array:
    found = array.type
    if pa.types.is_string(found):
        return _from_text(array, kind)
    is_number = (
        pa.types.is_integer(found)
        or pa.types.is_floating(found)
        or pa.types.is_decimal(found)
    )
    if pa.types.is_boolean(found) and kind in ("boolean", None):
        return array
    if is_number and kind in ("number", "integer", None):
        wanted = _ARROW_TYPES[kind] if kind else _widest(found)
        try:
            return pc.cast(array, wanted)
        except pa.ArrowInvalid:
            return _text_of(array)
    if pa.types.is_null(found):
        return pa.nulls(len(array), _ARROW_TYPES[kind] if kind else pa.string())
    text = _text_of(array)
    is_text = pa.types.is_large_string(found) or pa.types.is_string_view(found)
    return _from_text(text, kind) if is_text else text


def _widest(found: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_integer(found) else pa.float64()


def _text_of(array: pa.Array) -> pa.Array:
    try:
        return pc.cast(array, pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # bytes, lists, durations
        return pa.array([as_text(v) for v in array.to_pylist()], pa.string())


def to_times(values: Values, timezone: str) -> tuple[pa.Array, dict[int, str]]:
    """Return event times in UTC and, by row position, why a time is none.

    A time without a zone is in ``timezone``; where clocks go back it is the
    earlier of the two. A row named in the second result is null in the first.

    Parameters
    ----------
    values : (n_rows,) ISO 8601 text, or an Arrow array of timestamps or dates.

    Examples
    --------
    >>> times, wrong = to_times(["2011-07-01T00:00:00", "soon"], "Europe/Berlin")
    >>> times[0].as_py().isoformat(), wrong[1]
    ('2011-06-30T22:00:00+00:00', "'soon' is no time; send ISO 8601 text such as 2011-01-01T00:00:00Z")
    """  # noqa: E501 - a doctest's output is one line
    times, wrong = moments(values, timezone)
    if not times.null_count:
        return times, {}
    missing = pc.indices_nonzero(pc.is_null(times)).to_pylist()
    reasons = dict.fromkeys(missing, _MISSING_TIME)
    for position in [] if wrong is None else pc.indices_nonzero(wrong).to_pylist():
        value = _plain(values[position])
        if value != "":
            reasons[position] = moment_problem(value)
    return times, reasons


_MISSING_TIME = "missing; each row needs its event time"


def _plain(value: Any) -> Any:
    return value.as_py() if isinstance(value, pa.Scalar) else value


def _moment_column(values: Values, timezone: str) -> pa.Array:
    """Return moments; as text where one is wrong, the others in one form."""
    found, wrong = moments(values, timezone)
    if wrong is None:
        return found
    texts = pc.cast(found, pa.string()).to_pylist()
    for position in pc.indices_nonzero(wrong).to_pylist():
        texts[position] = as_text(_plain(values[position]))
    return pa.array(texts, pa.string())


def row_texts(columns: Sequence[tuple[str, pa.Array]], count: int) -> list[str]:
    """Return each row's content as one text, equal for equal rows.

    A column that is missing and one that is null read alike, and the order of
    the columns does not count: both depend on the other rows of a message.

    Parameters
    ----------
    columns : name and (n_rows,) array of each.
    """
    parts = []
    for name, column in sorted(columns, key=lambda item: item[0]):
        if column.null_count == count:
            continue
        text = pc.cast(column, pa.string())
        part = pc.binary_join_element_wise(name, text, "", "\x1f")
        parts.append(pc.fill_null(part, ""))
    if not parts:
        return [""] * count
    result: list[str] = pc.binary_join_element_wise(*parts, "").to_pylist()
    return result
