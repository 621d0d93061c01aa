"""Checks that need no reference: counts, times, keys and what holds between columns."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.checks import (
    Expression,
    Freshness,
    NullRatio,
    RowCount,
    Unique,
)
from driftloop.validator.columns import Failure
from driftloop.validator.values import Mask, text_of

MIN_RATIO_ROWS = 10
"""Rows of a batch below which a ratio says too little."""
MAX_NAME = 80
"""Characters of an expression that stand for it where it has no name."""


def null_ratios(
    rule: NullRatio, rows: pa.RecordBatch, names: Sequence[str]
) -> Iterator[Failure]:
    """Find columns of which too many rows have no value; these rows are meant."""
    if rows.num_rows < MIN_RATIO_ROWS:
        return
    for name in names:
        if name not in rows.schema.names:
            continue
        column = rows.column(name)
        ratio = column.null_count / len(column)
        if ratio > rule.max_ratio:
            mask = column.is_null().to_numpy(zero_copy_only=False)
            detail = (
                f"{ratio:.0%} of the batch's rows have no value, at most "
                f"{rule.max_ratio:.0%} may; look at the source"
            )
            yield Failure("null_ratio", name, mask, detail)


def unique_texts(rule: Unique, rows: pa.RecordBatch) -> list[str | None]:
    """Return what has to be unique as one text a row; None: the row lacks a part."""
    names = [name for name in rule.columns if name in rows.schema.names]
    if len(names) < len(rule.columns):
        return [None] * rows.num_rows
    values = [map(text_of, rows.column(name).to_pylist()) for name in names]
    return [
        None if None in parts else "\x1f".join(map(str, parts))
        for parts in zip(*values, strict=True)
    ]


def repeated(
    rule: Unique, rows: pa.RecordBatch, texts: list[str | None], known: set[str]
) -> Iterator[Failure]:
    """Find rows whose key is that of a row before, here or in the dataset.

    Parameters
    ----------
    known : those of ``texts`` that the dataset has already.
    """
    seen = set(known)
    mask = np.zeros(len(texts), np.bool_)
    for at, text in enumerate(texts):
        if text is not None:
            mask[at] = text in seen
            seen.add(text)
    if mask.any():
        names = ", ".join(rule.columns)
        detail = f"{names} came before with the same value; the first row holds"
        values = rows.column(rule.columns[0]) if len(rule.columns) == 1 else None
        yield Failure("unique", names, mask, detail, values)


def row_count(rule: RowCount, rows: pa.RecordBatch, came: int) -> Iterator[Failure]:
    """Find batches that are too small or too large.

    Parameters
    ----------
    came : rows of the whole batch, also those that other checks took out.
    """
    if came < rule.min or (rule.max is not None and came > rule.max):
        wanted = f"at least {rule.min}"
        wanted += "" if rule.max is None else f" and at most {rule.max}"
        detail = f"the batch has {came} rows, {wanted} are expected"
        yield Failure("row_count", "rows", _all(rows), detail)


def freshness(
    rule: Freshness, rows: pa.RecordBatch, arrived_at: datetime
) -> Iterator[Failure]:
    """Find batches whose newest row was old when they came."""
    age = arrived_at - pc.max(rows.column("event_time")).as_py()
    if age > timedelta(hours=rule.max_age_hours):
        hours = age / timedelta(hours=1)
        detail = (
            f"the newest row was {hours:,.1f} hours old when it came, at most "
            f"{rule.max_age_hours:g} are expected; is the source behind?"
        )
        yield Failure("freshness", "event_time", _all(rows), detail)


def monotonic(rows: pa.RecordBatch, newest: datetime | None) -> Iterator[Failure]:
    """Find rows that are older than one before them of the same source.

    Parameters
    ----------
    newest : event time of the newest row of earlier batches.
    """
    column = rows.column("event_time")
    times = column.cast(pa.int64()).to_numpy()
    first = times[0]
    if newest is not None:
        first = pa.scalar(newest, column.type).cast(pa.int64()).as_py()
    before = np.maximum.accumulate(np.concatenate([[first], times[:-1]]))
    mask = times < before
    if mask.any():
        detail = "is before that of an earlier row of the source"
        yield Failure("monotonic", "event_time", mask, detail, column)


def expression(rule: Expression, frame: pl.DataFrame) -> Iterator[Failure]:
    """Find rows for which an expression is false; unknown passes, as in SQL's CHECK.

    One that cannot be computed fails for all rows, with what is wrong with it.
    """
    name = rule.name or rule.sql[:MAX_NAME]
    try:
        found = frame.select(pl.sql_expr(rule.sql)).to_series()
    except pl.exceptions.PolarsError as error:
        text = str(error).strip().splitlines()[0]
        detail = f"{rule.sql!r} cannot be computed: {text}; correct the expression"
        yield Failure("expression", name, np.ones(len(frame), np.bool_), detail)
        return
    if found.dtype != pl.Boolean:
        detail = f"{rule.sql!r} is {found.dtype}, not true or false; compare something"
        yield Failure("expression", name, np.ones(len(frame), np.bool_), detail)
        return
    wrong = (~found).fill_null(value=False).to_numpy()
    mask: Mask = np.broadcast_to(wrong, len(frame)).copy()  # an aggregate has one row
    if mask.any():
        yield Failure("expression", name, mask, f"{rule.sql} does not hold")


def _all(rows: pa.RecordBatch) -> Mask:
    return np.ones(rows.num_rows, np.bool_)
