"""What values of a column are right, inferred from values that came.

A proposal for a person to review, and generous on purpose: what has not come yet is
not wrong for that.
"""

import math
from collections.abc import Mapping
from typing import Any

from driftloop.contracts.pipeline import Feature
from driftloop.contracts.schema import ColumnProfile, SchemaColumn

RANGE_MARGIN = 0.5
"""Of the range that came, on either side; a range of one sign keeps its sign."""
MAX_VALUES = 50
MIN_REPEATS = 2.0
"""Rows a value on average, from which a category's values are listed: names and
free text have fewer."""
DIGITS = 4
_TYPES: dict[str, Any] = {
    "number": "number", "integer": "integer", "boolean": "boolean", "time": "datetime",
}  # fmt: skip


def feature_of(profile: ColumnProfile, with_rules: bool = True) -> Feature:
    """Return the rules that a column's values keep.

    Parameters
    ----------
    with_rules : whether to infer a range and allowed values too, not the type alone.

    Examples
    --------
    >>> import polars as pl
    >>> from driftloop.runtime.data.profile import profile_of
    >>> found = feature_of(profile_of(pl.Series([10.0, 30.0, None])))
    >>> found.min, found.max, found.nullable
    (0.0, 40.0, True)
    >>> feature_of(profile_of(pl.Series(["a", "b", "a", "b"]))).values
    ['a', 'b']
    >>> hours = feature_of(profile_of(pl.Series(range(24))))
    >>> hours.min, hours.max
    (0.0, 23.0)
    """
    low, high = _range(profile) if with_rules else (None, None)
    kind: str = profile.type
    return Feature(
        type=_TYPES.get(kind, "category"),
        min=low,
        max=high,
        values=_values(profile) if with_rules else None,
        nullable=profile.null_count > 0,
    )


def schema_of(
    profiles: Mapping[str, ColumnProfile], with_rules: bool = True
) -> dict[str, SchemaColumn]:
    """Return a schema for the columns that hold any value, but for payloads.

    Moments have no range: time goes on. Times of the day and durations are left out.
    """
    return {
        name: SchemaColumn(feature=feature_of(profile, with_rules), profile=profile)
        for name, profile in profiles.items()
        if profile.type != "payload"
        and (profile.type != "time" or profile.first is not None)
        and profile.null_count < profile.row_count
    }


def _range(profile: ColumnProfile) -> tuple[float | None, float | None]:
    spread = profile.spread
    if spread is None:
        return None, None
    if profile.type == "integer" and (
        profile.distinct_count == spread.max - spread.min + 1 <= MAX_VALUES
    ):
        return spread.min, spread.max  # codes such as 1 to 12, without a gap
    margin = RANGE_MARGIN * (spread.max - spread.min)
    low, high = spread.min - margin, spread.max + margin
    if spread.min >= 0:
        low = max(low, 0.0)
    if spread.max <= 0:
        high = min(high, 0.0)
    if profile.type == "integer":
        return math.floor(low), math.ceil(high)
    # rounding may not cut off what has come
    return min(_rounded(low), spread.min), max(_rounded(high), spread.max)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _values(profile: ColumnProfile) -> list[str | int | bool] | None:
    known = profile.row_count - profile.null_count
    is_list = (
        profile.type == "category"
        and 0 < profile.distinct_count <= MAX_VALUES
        and known / profile.distinct_count >= MIN_REPEATS
    )
    return sorted(f.value for f in profile.frequent) if is_list else None
