"""Rows with known targets from the recorded versions of the Delta tables."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from driftloop.contracts.events import (
    DatasetRef,
    FaultyStretch,
    LeftOut,
    Span,
    TableRef,
)
from driftloop.contracts.pipeline import DataSection
from driftloop.runtime.data.vacuum import vacuumed
from driftloop.runtime.errors import Reject, Retry

LATER = "driftloop label"
"""Column of a join; no pipeline's column has a space."""
LABELLER = "driftloop labeller"
"""Who sent the label that counts; missing where every label came with its row."""
ROW_TIME = "driftloop time"
NOT_FEATURES = ("extra",)
"""Columns of the tables that belong to no pipeline; see ``runtime.datasets``."""


def read_rows(
    dataset: DatasetRef,
    span: Span,
    data: DataSection,
    storage_options: Mapping[str, str] | None,
    faults: Sequence[FaultyStretch] = (),
) -> tuple[pa.Table, list[LeftOut]]:
    """Return labelled rows of ``span`` (both ends included), by event time and id.

    A label that came later, in its newest revision, goes before the target that
    came with the row. A label of a time beyond ``data.label_horizon_days`` after its
    row's is as if it had not come. What had come is fixed by the recorded versions:
    no training sees a label that came after the event that set it off.

    Parameters
    ----------
    faults : whose rows are left out; what each took is the second that is returned,
        of rows up to the dataset's newest, which may be later than the span's end.

    Raises
    ------
    Retry
        When a table cannot be read (yet).
    Reject
        When the version was vacuumed.
    """
    target = data.target
    rows = _with_targets(
        _table(
            dataset.observations,
            storage_options,
            (span.start, None if faults else span.end),
            without=data.attachments,
        ),
        dataset,
        data,
        storage_options,
    )
    if target not in rows.column_names:
        return rows.slice(0, 0).append_column(target, pa.array([], pa.null())), []
    rows = rows.filter(pc.is_valid(rows[target]))
    if pa.types.is_floating(rows[target].type):
        rows = rows.filter(pc.is_finite(rows[target]))
    rows, left_out = without_faults(rows, faults)
    if faults:
        end = pa.scalar(span.end, rows["event_time"].type)
        rows = rows.filter(pc.less_equal(rows["event_time"], end))
    extra = [n for n in (*NOT_FEATURES, LABELLER) if n in rows.column_names]
    rows = rows.drop_columns(extra).sort_by(
        [("event_time", "ascending"), ("id", "ascending")]
    )
    return rows, left_out


def without_faults(
    rows: pa.Table, faults: Sequence[FaultyStretch]
) -> tuple[pa.Table, list[LeftOut]]:
    """Return labelled rows that no fault spoils, and what each fault took.

    A fault of labels goes by who sent the label, and by the time of its row.
    """
    found = []
    for fault in faults:
        spoilt = _spoilt(rows, fault)
        count = pc.sum(spoilt).as_py() or 0
        found.append(LeftOut(**fault.model_dump(), row_count=count))
        rows = rows.filter(pc.invert(spoilt)) if count else rows
    return rows, found


def _spoilt(rows: pa.Table, fault: FaultyStretch) -> pa.ChunkedArray:
    """Return which rows a fault spoils; (n_rows,) without a null."""
    times = rows["event_time"]
    spoilt = pc.greater_equal(times, pa.scalar(fault.start, times.type))
    if fault.end is not None:
        until = pc.less_equal(times, pa.scalar(fault.end, times.type))
        spoilt = pc.and_(spoilt, until)
    if not fault.sources:
        return spoilt
    is_label = fault.faulty == "labels" and LABELLER in rows.column_names
    by = rows[LABELLER if is_label else "source"]
    whose = pc.is_in(by, value_set=pa.array(fault.sources, by.type))
    return pc.and_(spoilt, whose)


def labelled_span(
    dataset: DatasetRef,
    data: DataSection,
    storage_options: Mapping[str, str] | None,
    faults: Sequence[FaultyStretch] = (),
) -> Span | None:
    """Return the event times of the first and the newest labelled row.

    The newest one is of those that no fault spoils.

    Raises
    ------
    Retry
        When a table cannot be read (yet).
    Reject
        When the version was vacuumed.
    """
    target = data.target
    columns = ["id", "event_time", "source", target]
    rows = _table(dataset.observations, storage_options, columns=columns)
    rows = _with_targets(rows, dataset, data, storage_options)
    if target not in rows.column_names:
        return None
    rows = rows.filter(pc.is_valid(rows[target]))
    start = pc.min(rows["event_time"]).as_py()
    end = pc.max(without_faults(rows, faults)[0]["event_time"]).as_py()
    return None if end is None else Span(start=start, end=end)


def _with_targets(
    rows: pa.Table,
    dataset: DatasetRef,
    data: DataSection,
    storage_options: Mapping[str, str] | None,
) -> pa.Table:
    """Return the rows with the newest label of each before the target it came with.

    With the column :data:`LABELLER` where there is a table of labels.
    """
    if dataset.labels is None:
        return rows
    target = data.target
    labels = _table(dataset.labels, storage_options)
    horizon = timedelta(days=data.label_horizon_days)
    later = _newest_labels(_timely(labels, rows, horizon), target)
    rows = rows.join(later, "id", join_type="left outer")
    known = rows[LATER]
    sent = pc.if_else(pc.is_valid(known), rows[LABELLER], rows["source"])
    rows = rows.drop_columns([LABELLER]).append_column(LABELLER, sent)
    if target in rows.column_names:
        known = pc.coalesce(known, rows[target])
        rows = rows.drop_columns([target])
    return rows.drop_columns([LATER]).append_column(target, known)


def _timely(labels: pa.Table, rows: pa.Table, horizon: timedelta) -> pa.Table:
    """Return the labels of these rows that are not of a time too long after them."""
    times = rows.select(["id", "event_time"]).rename_columns(["id", ROW_TIME])
    found = labels.join(times, "id", join_type="inner")
    lag = pc.subtract(found["event_time"], found[ROW_TIME])
    most = pa.scalar(horizon, lag.type)
    return found.filter(pc.less_equal(lag, most))


def _newest_labels(labels: pa.Table, target: str) -> pa.Table:
    """Return ``id`` and the target in its highest revision, each id once."""
    newest = labels.group_by("id").aggregate([("revision", "max")])
    newest = newest.rename_columns(["id", "revision"])
    return (
        labels.select(["id", "revision", target, "source"])
        .join(newest, ["id", "revision"], join_type="inner")
        .select(["id", target, "source"])
        .rename_columns(["id", LATER, LABELLER])
    )


def _table(
    ref: TableRef,
    storage_options: Mapping[str, str] | None,
    between: tuple[datetime, datetime | None] | None = None,
    columns: list[str] | None = None,
    without: Collection[str] = (),
) -> pa.Table:
    condition = None
    if between is not None:
        time, kind = pc.field("event_time"), pa.timestamp("us", tz="UTC")
        start, end = between
        condition = time >= pa.scalar(start, kind)
        if end is not None:
            condition &= time <= pa.scalar(end, kind)
    try:
        table = DeltaTable(
            ref.uri,
            version=ref.version,
            storage_options=dict(storage_options) if storage_options else None,
        )
        rows = table.to_pyarrow_dataset()
        named = columns or rows.schema.names
        wanted = [n for n in named if n in rows.schema.names and n not in without]
        return rows.to_table(columns=wanted, filter=condition)
    except FileNotFoundError as error:
        text = vacuumed(ref, storage_options)
        if text is None:
            raise Retry(f"dataset {ref.uri} version {ref.version}: {error}") from error
        raise Reject(text) from error
    except (DeltaError, OSError) as error:
        raise Retry(f"dataset {ref.uri} version {ref.version}: {error}") from error
