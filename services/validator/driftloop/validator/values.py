"""Columns in the type that the contract wants, and the rows where that fails."""

from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.moments import MOMENT_TYPE, moment_text, moments

Mask = npt.NDArray[np.bool_]
ColumnType = Literal["number", "integer", "category", "boolean", "text", "datetime"]

TRUE = ("true", "1")
FALSE = ("false", "0")


def text_of(value: Any) -> str | None:
    """Return a value as a category: its shortest text.

    Examples
    --------
    >>> text_of(True), text_of(1), text_of(2.0), text_of("a")
    ('true', '1', '2', 'a')
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return moment_text(value) if isinstance(value, datetime) else str(value)


def text_series(array: pa.Array) -> pl.Series:
    """Return a column of text for Polars, whose own texts are views, too: no copy."""
    return pl.Series(pl.from_arrow(pc.cast(array, pa.string_view())))


def typed(
    array: pa.Array, kind: ColumnType, timezone: str = "UTC"
) -> tuple[pa.Array, Mask | None]:
    """Return the column as ``kind`` and the rows whose value is of no such type.

    Parameters
    ----------
    array : (n_rows,) of any Arrow type; text is parsed.
    timezone : of moments without an offset.

    Returns
    -------
    tuple
        The typed column, null where the type is wrong, and the (n_rows,) mask of
        these rows; None: there are none.
    """
    found = array.type
    if found == _TARGETS[kind]:
        return array, None
    if kind in ("category", "text"):
        return _texts(array), None
    if kind == "datetime":
        moments_, none = moments(array, timezone)
        return moments_, None if none is None else none.to_numpy(zero_copy_only=False)
    is_number = pa.types.is_integer(found) or pa.types.is_floating(found)
    if pa.types.is_null(found) or (kind == "number" and is_number):
        return pc.cast(array, _TARGETS[kind], safe=False), None
    text = pl.Series(_texts(array).to_pylist(), dtype=pl.String).str.strip_chars()
    parsed = _PARSERS[kind](text)
    wrong = (text.is_not_null() & parsed.is_null()).to_numpy()
    if kind == "integer":  # NaN, the null of systems whose integers cannot be null
        wrong = wrong & ~text.str.to_lowercase().eq_missing("nan").to_numpy()
    result = parsed.to_arrow().cast(_TARGETS[kind])
    return result, (wrong if wrong.any() else None)


def _texts(array: pa.Array) -> pa.Array:
    return pa.array([text_of(value) for value in array.to_pylist()], pa.string())


def _number(text: pl.Series) -> pl.Series:
    return text.cast(pl.Float64, strict=False)


def _integer(text: pl.Series) -> pl.Series:
    """Whole numbers; ``2.0`` is one."""
    exact = text.cast(pl.Int64, strict=False)
    as_float = _number(text)
    is_whole = as_float.is_finite() & (as_float == as_float.round())
    whole = as_float.set(~is_whole.fill_null(value=False), None)
    return exact.fill_null(whole.cast(pl.Int64, strict=False))


def _boolean(text: pl.Series) -> pl.Series:
    lower = text.str.to_lowercase()
    known = lower.is_in([*TRUE, *FALSE])
    return lower.is_in(TRUE).set(~known.fill_null(value=False), None)


_PARSERS = {"number": _number, "integer": _integer, "boolean": _boolean}
_TARGETS = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "datetime": MOMENT_TYPE,
}
