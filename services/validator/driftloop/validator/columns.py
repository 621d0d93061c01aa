"""Checks on one column of a batch, each on all rows at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.checks import Severity
from driftloop.contracts.pipeline import Feature
from driftloop.validator.values import Mask, text_of, typed

HARMLESS = frozenset({"range", "values", "pattern"})
"""Checks that a row may fail and still go on, typed as it has to be."""

ARROW_TYPES = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a contract and where in the pipeline file it is described."""

    name: str
    feature: Feature
    setting: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Rows that one check on one field found wrong.

    Attributes
    ----------
    mask : (n_rows,) of the rows that were checked.
    values : (n_rows,) of the field; None: there are none to show.
    """

    check: str
    field: str
    mask: Mask
    detail: str
    values: pa.Array | None = None
    severity: Severity = "quarantine"
    verdict: Literal["failed", "not_enough_data"] = "failed"


def check_column(
    batch: pa.RecordBatch, column: Column
) -> tuple[pa.Array, list[Failure]]:
    """Return a column in its type and the rows that fail a check on it."""
    feature, count = column.feature, batch.num_rows
    kind = ARROW_TYPES[feature.type]
    if column.name not in batch.schema.names:
        empty = pa.nulls(count, kind)
        if feature.nullable:
            return empty, []
        every = np.ones(count, np.bool_)
        detail = (
            f"the column is not there; send it, or set {column.setting}.nullable: true"
        )
        severity = _severity("missing", feature)
        failure = Failure("missing", column.name, every, detail, severity=severity)
        return empty, [failure]
    given = batch.column(column.name)
    array, wrong_type = typed(given, feature.type)
    failures = [
        Failure(which, column.name, mask, detail, given, _severity(which, feature))
        for which, mask, detail in _problems(array, wrong_type, column)
        if mask is not None and mask.any()
    ]
    if feature.type == "number" and feature.nullable:
        array = pc.if_else(pc.is_nan(array), None, array)
    return array, failures


def _severity(check: str, feature: Feature) -> Severity:
    if feature.severity == "warn" and check not in HARMLESS:
        return "quarantine"
    return feature.severity


def _problems(
    array: pa.Array, wrong_type: Mask | None, column: Column
) -> Iterator[tuple[str, Mask | None, str]]:
    feature, setting = column.feature, column.setting
    if wrong_type is not None:
        yield (
            "type",
            wrong_type,
            f"must be of type {feature.type}; correct it upstream or change "
            f"{setting}.type",
        )
    if not feature.nullable:
        yield (
            "null",
            _nulls(array, wrong_type),
            f"has no value; send one, or set {setting}.nullable: true",
        )
    if feature.type in ("number", "integer"):
        yield from _number_problems(array, column)
    if feature.pattern is not None:
        yield (
            "pattern",
            _not_matching(array, feature.pattern),
            f"must match {feature.pattern}; correct it upstream or change "
            f"{setting}.pattern",
        )
    if feature.values is not None:
        shown = ", ".join(map(str, feature.values[:10]))
        where = setting if setting == "data.classes" else f"{setting}.values"
        yield (
            "values",
            _not_allowed(array, feature),
            f"must be one of {shown}; correct it upstream or add it to {where}",
        )


def _nulls(array: pa.Array, wrong_type: Mask | None) -> Mask | None:
    """Rows without a value: null, or NaN, which is how some systems write it."""
    if pa.types.is_floating(array.type):
        if not array.null_count and not np.isnan(array.to_numpy().min(initial=0)):
            return None  # the least value of some with a NaN is NaN
        missing = pc.is_null(array, nan_is_null=True)
    elif array.null_count:
        missing = pc.is_null(array)
    else:
        return None
    mask: Mask = missing.to_numpy(zero_copy_only=False)
    return mask if wrong_type is None else mask & ~wrong_type


def _number_problems(
    array: pa.Array, column: Column
) -> Iterator[tuple[str, Mask | None, str]]:
    low, high = column.feature.min, column.feature.max
    if array.null_count == len(array):
        return
    values = array.to_numpy(zero_copy_only=False)  # a null is NaN here
    least, most = values.min(), values.max()  # NaN, if there is one, in both
    is_float = values.dtype == np.float64
    if (
        (low is None or least >= low)
        and (high is None or most <= high)
        and np.isfinite(least)
        and np.isfinite(most)
    ):
        return
    if is_float:
        detail = "is infinite; send a finite number or none"
        yield "non_finite", np.isinf(values), detail
    outside = np.zeros(len(values), np.bool_)
    if low is not None:
        outside |= values < low
    if high is not None:
        outside |= values > high
    between = " and ".join(
        f"{word} {limit:g}"
        for word, limit in (("at least", low), ("at most", high))
        if limit is not None
    )
    detail = (
        f"must be {between}; correct the unit or the sensor upstream, or change "
        f"{column.setting}.min and max"
    )
    yield "range", outside & np.isfinite(values), detail


def _not_allowed(array: pa.Array, feature: Feature) -> Mask | None:
    assert feature.values is not None  # noqa: S101 - the caller has looked
    texts = pa.array([text_of(value) for value in feature.values], pa.string())
    allowed = typed(texts, feature.type)[0].drop_null()
    found = pc.is_in(array, value_set=allowed)
    if pc.all(found).as_py():
        return None
    mask: Mask = pc.and_(pc.is_valid(array), pc.invert(found)).to_numpy(
        zero_copy_only=False
    )
    return mask


def _not_matching(array: pa.Array, pattern: str) -> Mask | None:
    """Rows whose text does not match as a whole; Rust's regex, in linear time."""
    texts = pl.Series(pl.from_arrow(array))
    wrong = ~texts.str.contains(f"^(?:{pattern})$")
    if not wrong.any():
        return None
    mask: Mask = wrong.fill_null(value=False).to_numpy()
    return mask
