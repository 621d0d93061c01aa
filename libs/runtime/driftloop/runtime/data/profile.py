"""Statistics of columns: what ``driftloop datasets show`` and the reports print."""

from collections.abc import Iterable
from datetime import datetime

import numpy as np
import polars as pl
from driftloop.contracts.moments import are_moments, moment_of, moments
from driftloop.contracts.schema import ColumnKind, ColumnProfile, Frequency, Spread

BINS = 20
MAX_WHOLE_BINS = 60
"""Whole numbers of so small a range get a bin a value."""
MAX_FREQUENT = 50
"""Values of a category that are listed; the others only count as distinct."""
TECHNICAL = ("id", "event_time", "source", "revision", "extra")
"""Columns that driftloop keeps for every row."""


def kind_of(column: pl.Series) -> ColumnKind:
    """Return what a column's values are."""
    kind = column.dtype
    if isinstance(kind, pl.Struct):
        return "payload"
    if kind == pl.Boolean:
        return "boolean"
    if kind.is_integer():
        return "integer"
    if kind.is_numeric():
        return "number"
    return "time" if kind.is_temporal() else "category"


def profile_of(column: pl.Series) -> ColumnProfile:
    """Return the statistics of one column; NaN counts as null.

    >>> found = profile_of(pl.Series([1.0, 3.0, None, float("nan")]))
    >>> found.null_count, found.distinct_count, found.spread.mean
    (2, 2, 2.0)
    """
    kind = kind_of(column)
    if kind == "payload":
        return _profile_of_payloads(column)
    known = column.drop_nulls()
    if known.dtype.is_float():
        known = known.drop_nans()
    return ColumnProfile(
        type=kind,
        row_count=len(column),
        null_count=len(column) - len(known),
        distinct_count=known.n_unique(),
        spread=_spread(known, kind == "integer")
        if kind in ("number", "integer")
        else None,
        frequent=_frequent(known) if kind in ("category", "boolean") else [],
        **_ends(known),
    )


def _ends(known: pl.Series) -> dict[str, datetime]:
    """Return the first and the last of moments; one without a zone is in UTC."""
    if known.dtype == pl.Date:
        known = known.cast(pl.Datetime("us"))
    if not isinstance(known.dtype, pl.Datetime) or not len(known):
        return {}
    zone = known.dtype.time_zone
    times = known.dt.replace_time_zone("UTC") if zone is None else known
    ends = times.dt.convert_time_zone("UTC").dt.epoch("us")
    return {
        "first": moment_of(int(ends.min())),  # type: ignore[arg-type]
        "last": moment_of(int(ends.max())),  # type: ignore[arg-type]
    }


def with_moments(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with texts that are all moments, as CSV has them, as moments."""
    found = {
        column.name: column
        for column in rows.select(pl.col(pl.String))
        if are_moments(column.drop_nulls().unique().to_list())
    }
    return rows.with_columns(
        pl.Series(name, moments(column.to_list())[0]) for name, column in found.items()
    )


def payload_parts(column: pl.Series) -> dict[str, pl.Series]:
    """Return what there is to compare of references: media types and sizes."""
    return {
        f"{column.name}.{part}": column.struct.field(part)
        for part in ("media_type", "size_bytes")
    }


def _profile_of_payloads(column: pl.Series) -> ColumnProfile:
    digests = column.struct.field("sha256").drop_nulls()
    kinds, sizes = payload_parts(column).values()
    return ColumnProfile(
        type="payload",
        row_count=len(column),
        null_count=len(column) - len(digests),
        distinct_count=digests.n_unique(),
        spread=_spread(sizes.drop_nulls(), is_whole=True),
        frequent=_frequent(kinds.drop_nulls()),
    )


def profiles_of(
    rows: pl.DataFrame, left_out: Iterable[str] = TECHNICAL
) -> dict[str, ColumnProfile]:
    """Return the statistics of every column but those that are left out."""
    leave = set(left_out)
    return {c.name: profile_of(c) for c in rows if c.name not in leave}


def _spread(known: pl.Series, is_whole: bool) -> Spread | None:
    values = known.cast(pl.Float64).to_numpy()
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, first, median, third, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
    counts = [len(values)]
    if high > low:
        bins = int(high - low) + 1
        if not is_whole or bins > MAX_WHOLE_BINS:
            bins = BINS
        counts = np.histogram(values, bins, (low, high))[0].tolist()
    return Spread(
        min=float(low),
        max=float(high),
        mean=float(values.mean()),
        deviation=float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        median=float(median),
        quartiles=(float(first), float(third)),
        histogram=counts,
    )


def _frequent(known: pl.Series) -> list[Frequency]:
    counts = (
        known.cast(pl.String).alias("value").value_counts()
        .sort(["count", "value"], descending=[True, False])
        .head(MAX_FREQUENT)
    )  # fmt: skip
    return [Frequency(value=value, count=count) for value, count in counts.iter_rows()]
