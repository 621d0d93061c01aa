"""Values of a request become the arrays that a model takes, or an error in words.

Pure. Values of a category may be text, numbers or booleans: they become the text
that a person would write, as in training.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from driftloop.contracts.moments import microseconds
from driftloop.models.onnx_model import MISSING_MOMENT
from driftloop.models.package import STRINGS, InputColumn

Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]
"""Each feature's values, flat or as lists of one value each."""
Feeds = dict[str, npt.NDArray[Any]]
"""Each feature as (n_rows, 1): float32, Python strings for a category, int64 for a
datetime."""


FLOAT32_MAX = float(np.finfo(np.float32).max)


class BadRequest(ValueError):  # noqa: N818 - says what happened
    """The caller sent something that is not right; the text says what would be."""


def feeds_of(columns: Columns, inputs: Sequence[InputColumn]) -> tuple[Feeds, int]:
    """Return what a model takes, and the number of rows.

    Parameters
    ----------
    columns : feature to its values, flat or as lists of one value each; columns
        that are no features are ignored.

    Raises
    ------
    BadRequest
        Names the first feature that is missing, of another length or of a wrong
        type.
    """
    missing = [c.name for c in inputs if c.name not in columns]
    if missing:
        raise BadRequest(f"missing: {', '.join(missing)}")
    numbers = [c for c in inputs if c.type not in STRINGS and c.type != "datetime"]
    feeds = _matrix_feeds(columns, numbers)
    if feeds is None:
        feeds = {c.name: _numbers(columns[c.name], c) for c in numbers}
    for column in inputs:
        if column.type in STRINGS:
            feeds[column.name] = _texts(columns[column.name], column)
        elif column.type == "datetime":
            feeds[column.name] = _moments(columns[column.name], column)
    lengths = {name: len(values) for name, values in feeds.items()}
    row_count = lengths[inputs[0].name]
    for name, length in lengths.items():
        if length != row_count:
            raise BadRequest(
                f"{name} has {length} values, {inputs[0].name} has {row_count}"
            )
    return feeds, row_count


def _matrix_feeds(columns: Columns, numbers: Sequence[InputColumn]) -> Feeds | None:
    """Convert all numbers at once, for speed; None when they need a closer look."""
    if not numbers:
        return {}
    try:
        matrix = np.array([columns[c.name] for c in numbers])
    except (ValueError, TypeError, OverflowError):
        return None
    if matrix.dtype.kind not in "fiub" or matrix.ndim not in (2, 3):
        return None
    if matrix.ndim == 3 and matrix.shape[2] != 1:
        return None
    with np.errstate(over="ignore"):
        single = matrix.astype(np.float32).reshape(len(numbers), -1, 1)
    if not np.isfinite(single).all():
        return None
    return {c.name: single[position] for position, c in enumerate(numbers)}


def _flat(values: Any, name: str) -> list[Any]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise BadRequest(f"{name}: expected a list of values")
    if any(isinstance(value, list | tuple) for value in values):
        if not all(isinstance(v, list | tuple) and len(v) == 1 for v in values):
            raise BadRequest(f"{name}: expected one value a row")
        return [value[0] for value in values]
    return list(values)


def _numbers(values: Any, column: InputColumn) -> npt.NDArray[np.float32]:
    result: list[float] = []
    for row, value in enumerate(_flat(values, column.name)):
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


def _moments(values: Any, column: InputColumn) -> npt.NDArray[np.int64]:
    """Read moments as the data door does: a number is none, whatever its unit."""
    zone = ZoneInfo(column.timezone or "UTC")
    result = np.empty((len(values), 1), dtype=np.int64)
    for row, value in enumerate(_flat(values, column.name)):
        if value is None and column.nullable:
            result[row, 0] = MISSING_MOMENT
            continue
        try:
            result[row, 0] = microseconds(value, zone)
        except ValueError as error:
            raise BadRequest(f"{column.name}: row {row}: {error}") from error
    return result


def _texts(values: Any, column: InputColumn) -> npt.NDArray[np.object_]:
    result = np.empty((len(values), 1), dtype=object)
    for row, value in enumerate(_flat(values, column.name)):
        result[row, 0] = value if type(value) is str else _text(value, row, column)
    return result


def _text(value: Any, row: int, column: InputColumn) -> str:
    if value is None and column.nullable:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return repr(value)
    raise BadRequest(f"{column.name}: row {row} is {value!r:.40}; expected text")
