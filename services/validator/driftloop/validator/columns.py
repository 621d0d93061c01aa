"""Checks on one column of a batch, each on all rows at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce
from math import isfinite, isnan, nan
from operator import or_
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.checks import Severity
from driftloop.contracts.moments import EPOCH, EXAMPLE, MICROSECOND, MOMENT_TYPE
from driftloop.contracts.pipeline import Feature, limit_text
from driftloop.validator.values import ColumnType, Mask, text_of, text_series, typed

HARMLESS = frozenset({"range", "values", "pattern"})
"""Checks that a row may fail and still go on, typed as it has to be."""

Ends = tuple[float, float]
"""The least and the most of numbers; NaN, both, where a value is none."""
NO_ENDS = (nan, nan)
FEW_VALUES = 8
"""Up to so many, comparing with each is quicker than looking up."""

_FORMS = {"datetime": f" (ISO 8601 text such as {EXAMPLE})"}
"""How a value of a type is written, where that has to be said."""

ARROW_TYPES = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "datetime": MOMENT_TYPE,
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a contract and where in the pipeline file it is described.

    Attributes
    ----------
    timezone : of its moments without an offset.
    """

    name: str
    feature: Feature
    setting: str
    timezone: str = "UTC"


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
    at = batch.schema.get_field_index(column.name)
    if at < 0:
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
    given = batch.column(at)
    array, wrong_type = typed(given, feature.type, column.timezone)
    ends = _ends(array) if feature.type in ("number", "integer") else NO_ENDS
    failures = [
        Failure(which, column.name, mask, detail, given, _severity(which, feature))
        for which, mask, detail in _problems(array, wrong_type, ends, column)
        if mask is not None and mask.any()
    ]
    if feature.type == "number" and feature.nullable and isnan(ends[0]):
        array = pc.if_else(pc.is_nan(array), None, array)
    return array, failures


def _ends(array: pa.Array) -> Ends:
    if array.null_count or not len(array):
        return NO_ENDS
    values = array.to_numpy()
    return float(values.min()), float(values.max())  # NaN, if there is one, in both


def _severity(check: str, feature: Feature) -> Severity:
    if feature.severity == "warn" and check not in HARMLESS:
        return "quarantine"
    return feature.severity


def _problems(
    array: pa.Array, wrong_type: Mask | None, ends: Ends, column: Column
) -> Iterator[tuple[str, Mask | None, str]]:
    feature, setting = column.feature, column.setting
    if wrong_type is not None:
        yield (
            "type",
            wrong_type,
            f"must be of type {feature.type}{_FORMS.get(feature.type, '')}; correct it "
            f"upstream or change {setting}.type",
        )
    if not feature.nullable:
        yield (
            "null",
            _nulls(array, wrong_type, ends),
            f"has no value; send one, or set {setting}.nullable: true",
        )
    if feature.type in ("number", "integer"):
        yield from _number_problems(array, ends, column)
    if feature.type == "datetime":
        yield from _moment_problems(array, column)
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


def _nulls(array: pa.Array, wrong_type: Mask | None, ends: Ends) -> Mask | None:
    """Rows without a value: null, or NaN, which is how some systems write it."""
    if pa.types.is_floating(array.type):
        if not isnan(ends[0]):
            return None
        missing = pc.is_null(array, nan_is_null=True)
    elif array.null_count:
        missing = pc.is_null(array)
    else:
        return None
    mask: Mask = missing.to_numpy(zero_copy_only=False)
    return mask if wrong_type is None else mask & ~wrong_type


def _number_problems(
    array: pa.Array, ends: Ends, column: Column
) -> Iterator[tuple[str, Mask | None, str]]:
    low, high = column.feature.number_limits
    is_below = low is not None and not ends[0] >= low  # or may be: NaN
    is_above = high is not None and not ends[1] <= high
    is_finite = all(map(isfinite, ends))
    if array.null_count == len(array) or (is_finite and not is_below and not is_above):
        return
    values = array.to_numpy(zero_copy_only=False)  # a null is NaN here
    outside = np.zeros(len(values), np.bool_)
    if is_below:
        outside |= values < low
    if is_above:
        outside |= values > high
    if not is_finite:
        infinite = np.isinf(values)
        yield "non_finite", infinite, "is infinite; send a finite number or none"
        outside &= ~infinite
    detail = (
        f"must be {_between(column.feature)}; correct the unit or the sensor upstream, "
        f"or change {column.setting}.min and max"
    )
    yield "range", outside, detail


def _moment_problems(
    array: pa.Array, column: Column
) -> Iterator[tuple[str, Mask | None, str]]:
    """Rows whose moment is out of its range; a missing one is not."""
    low, high = column.feature.moment_limits
    outside = np.zeros(len(array), np.bool_)
    values = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if low is not None:
        outside |= values < (low - EPOCH) // MICROSECOND
    if high is not None:
        outside |= values > (high - EPOCH) // MICROSECOND
    if outside.any() and array.null_count:
        outside &= array.is_valid().to_numpy(zero_copy_only=False)
    detail = (
        f"must be {_between(column.feature)}; correct it upstream, or change "
        f"{column.setting}.min and max"
    )
    yield "range", outside, detail


def _between(feature: Feature) -> str:
    return " and ".join(
        f"{word} {limit_text(limit)}"
        for word, limit in (("at least", feature.min), ("at most", feature.max))
        if limit is not None
    )


def _not_allowed(array: pa.Array, feature: Feature) -> Mask | None:
    assert feature.values is not None  # noqa: S101 - the caller has looked
    texts = tuple(text_of(value) for value in feature.values if value is not None)
    if feature.type == "category" and 0 < len(texts) <= FEW_VALUES:
        given = text_series(array)
        found = reduce(or_, (given == text for text in texts))  # null: null
        return None if found.all() else (~found).fill_null(value=False).to_numpy()
    is_in = pc.is_in(array, options=_lookup(texts, feature.type))
    if pc.all(is_in).as_py():
        return None
    mask: Mask = pc.and_(pc.is_valid(array), pc.invert(is_in)).to_numpy(
        zero_copy_only=False
    )
    return mask


@lru_cache(maxsize=1024)
def _lookup(texts: tuple[str | None, ...], kind: ColumnType) -> pc.SetLookupOptions:
    allowed = typed(pa.array(texts, pa.string()), kind)[0].drop_null()
    return pc.SetLookupOptions(value_set=allowed)


def _not_matching(array: pa.Array, pattern: str) -> Mask | None:
    """Rows whose text does not match as a whole; Rust's regex, in linear time."""
    texts = text_series(array)
    wrong = ~texts.str.contains(f"^(?:{pattern})$")
    if not wrong.any():
        return None
    mask: Mask = wrong.fill_null(value=False).to_numpy()
    return mask
