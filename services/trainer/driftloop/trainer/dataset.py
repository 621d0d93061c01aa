"""Rows with known targets from the recorded versions of the Delta tables."""

from collections.abc import Collection, Mapping
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from driftloop.contracts.events import DatasetRef, Span, TableRef
from driftloop.contracts.pipeline import DataSection
from driftloop.runtime.data.vacuum import vacuumed
from driftloop.runtime.errors import Reject, Retry

LATER = "driftloop label"
"""Column of a join; no pipeline's column has a space."""
ROW_TIME = "driftloop time"
NOT_FEATURES = ("extra",)
"""Columns of the tables that belong to no pipeline; see ``runtime.datasets``."""


def read_rows(
    dataset: DatasetRef,
    span: Span,
    data: DataSection,
    storage_options: Mapping[str, str] | None,
) -> pa.Table:
    """Return labelled rows of ``span`` (both ends included), by event time and id.

    A label that came later, in its newest revision, goes before the target that
    came with the row. A label of a time beyond ``data.label_horizon_days`` after its
    row's is as if it had not come. What had come is fixed by the recorded versions:
    no training sees a label that came after the event that set it off.

    Raises
    ------
    Retry
        When a table cannot be read (yet).
    Reject
        When the version was vacuumed.
    """
    target = data.target
    rows = _with_targets(
        _table(dataset.observations, storage_options, span, without=data.attachments),
        dataset,
        data,
        storage_options,
    )
    if target not in rows.column_names:
        return rows.slice(0, 0).append_column(target, pa.array([], pa.null()))
    rows = rows.filter(pc.is_valid(rows[target]))
    if pa.types.is_floating(rows[target].type):
        rows = rows.filter(pc.is_finite(rows[target]))
    extra = [name for name in NOT_FEATURES if name in rows.column_names]
    return rows.drop_columns(extra).sort_by(
        [("event_time", "ascending"), ("id", "ascending")]
    )


def labelled_span(
    dataset: DatasetRef, data: DataSection, storage_options: Mapping[str, str] | None
) -> Span | None:
    """Return the event times of the first and the newest labelled row.

    Raises
    ------
    Retry
        When a table cannot be read (yet).
    Reject
        When the version was vacuumed.
    """
    target = data.target
    columns = ["id", "event_time", target]
    rows = _table(dataset.observations, storage_options, columns=columns)
    rows = _with_targets(rows, dataset, data, storage_options)
    if target not in rows.column_names:
        return None
    times = rows.filter(pc.is_valid(rows[target]))["event_time"]
    if not len(times):
        return None
    ends = pc.min_max(times).as_py()
    return Span(start=ends["min"], end=ends["max"])


def _with_targets(
    rows: pa.Table,
    dataset: DatasetRef,
    data: DataSection,
    storage_options: Mapping[str, str] | None,
) -> pa.Table:
    """Return the rows with the newest label of each before the target it came with."""
    if dataset.labels is None:
        return rows
    target = data.target
    labels = _table(dataset.labels, storage_options)
    horizon = timedelta(days=data.label_horizon_days)
    later = _newest_labels(_timely(labels, rows, horizon), target)
    rows = rows.join(later, "id", join_type="left outer")
    known = rows[LATER]
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
        labels.select(["id", "revision", target])
        .join(newest, ["id", "revision"], join_type="inner")
        .select(["id", target])
        .rename_columns(["id", LATER])
    )


def _table(
    ref: TableRef,
    storage_options: Mapping[str, str] | None,
    span: Span | None = None,
    columns: list[str] | None = None,
    without: Collection[str] = (),
) -> pa.Table:
    condition = None
    if span is not None:
        time = pc.field("event_time")
        kind = pa.timestamp("us", tz="UTC")
        condition = (time >= pa.scalar(span.start, kind)) & (
            time <= pa.scalar(span.end, kind)
        )
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
