"""What the monitor stores and loads beside waiting rows: state, blocks, windows.

Statements are made once: building them anew for each message costs more than
running them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from driftloop.contracts.events import (
    BatchRejected,
    BatchValidated,
    RejectReason,
    RowKind,
    Span,
)
from driftloop.monitor.columns import as_bytes, as_table
from driftloop.monitor.faults import Checked
from driftloop.monitor.state import Block, Watch
from driftloop.monitor.tables import (
    MonitorBatch,
    MonitorBlock,
    MonitorSample,
    MonitorSlice,
    MonitorWatch,
)
from sqlalchemy import BindParameter, Table, bindparam, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel

INPUTS, PREDICTIONS, ASKED = "inputs", "predictions", "asked"
LABELLED = "labelled"
"""Rows that were answered and have their label; see ``answered.py``."""
KEPT_WINDOWS = 2
"""Of slices: the one being filled and one full one before it."""
COMPARED_WINDOWS = 8
"""Of inputs and labelled rows: what an error is compared with when it rises."""
MAX_COMPARED_ROWS = 20_000
FETCHED_AT_ONCE = 50

Row = dict[str, Any]


def _table(model: type[SQLModel]) -> Table:
    table: Table = model.__table__  # type: ignore[attr-defined]  # tables have it
    return table


_WATCH, _BLOCK = _table(MonitorWatch), _table(MonitorBlock)
_BATCH, _SLICE, _SAMPLE = (
    _table(MonitorBatch),
    _table(MonitorSlice),
    _table(MonitorSample),
)
_PIPELINE: BindParameter[str] = bindparam("of_pipeline")
_KIND: BindParameter[str] = bindparam("of_kind")


def _upsert(table: Table) -> dict[str, Any]:
    """By dialect: insert a row, or replace the one with its key."""
    found: dict[str, Any] = {}
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql)):
        statement = dialect.insert(table)
        values = {
            c.name: c for c in statement.excluded if not table.c[c.name].primary_key
        }
        found[name] = statement.on_conflict_do_update(
            index_elements=list(table.primary_key.columns), set_=values
        )
    return found


_SAVE_WATCH = _upsert(_WATCH)
_SAVE_BATCH = _upsert(_BATCH)
_SAVE_SAMPLE = _upsert(_SAMPLE)
_LOAD_WATCH = select(_WATCH.c.state).where(_WATCH.c.pipeline == _PIPELINE)
_LOAD_BLOCKS = (
    select(*(_BLOCK.c[field.name] for field in fields(Block)))
    .where(_BLOCK.c.pipeline == _PIPELINE, _BLOCK.c.version == bindparam("of_version"))
    .order_by(_BLOCK.c.number.desc())
    .limit(bindparam("most"))
)
_LOAD_ALL_BLOCKS = (
    select(*(_BLOCK.c[field.name] for field in fields(Block)))
    .where(_BLOCK.c.pipeline == _PIPELINE)
    .order_by(_BLOCK.c.number.desc())
    .limit(bindparam("most"))
)
_LOAD_BATCH = select(_BATCH).where(
    _BATCH.c.pipeline == _PIPELINE, _BATCH.c.batch_id == bindparam("of_batch")
)
_NEWEST_BATCHES = (
    select(_BATCH)
    .where(_BATCH.c.pipeline == _PIPELINE, _BATCH.c.kind == _KIND, _BATCH.c.is_complete)
    .order_by(_BATCH.c.end.desc(), _BATCH.c.batch_id)
)
_FORGET_BATCHES = delete(_BATCH).where(
    _BATCH.c.pipeline == _PIPELINE,
    _BATCH.c.kind == _KIND,
    _BATCH.c.end < bindparam("before"),
)
_NEWEST_SLICES = (
    select(_SLICE)
    .where(_SLICE.c.pipeline == _PIPELINE, _SLICE.c.kind == _KIND)
    .order_by(_SLICE.c.number.desc())
)
_SLICE_SIZES = (
    select(_SLICE.c.number, _SLICE.c.row_count, _SLICE.c.is_faulty)
    .where(_SLICE.c.pipeline == _PIPELINE, _SLICE.c.kind == _KIND)
    .order_by(_SLICE.c.number.desc())
)
_ADD_SLICE = insert(_SLICE)
_MARK_SLICES = (
    update(_SLICE)
    .where(_SLICE.c.number.in_(bindparam("numbers", expanding=True)))
    .values(is_faulty=True)
)
_FORGET_SLICES = delete(_SLICE).where(
    _SLICE.c.pipeline == _PIPELINE,
    _SLICE.c.kind == _KIND,
    _SLICE.c.number < bindparam("before"),
)
_LOAD_SAMPLE = select(_SAMPLE.c.data).where(_SAMPLE.c.pipeline == _PIPELINE)
_DROP_SAMPLE = delete(_SAMPLE).where(_SAMPLE.c.pipeline == _PIPELINE)


def utc(time: datetime) -> datetime:
    """Give back the zone that SQLite drops; everything is stored in UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def load_watch(session: Session, pipeline: str) -> Watch:
    """Return a pipeline's state, locked until the transaction ends."""
    connection = session.connection()
    query = _LOAD_WATCH
    if connection.dialect.name == "postgresql":
        query = query.with_for_update()
    state = connection.execute(query, {"of_pipeline": pipeline}).scalar()
    return Watch.model_validate_json(state) if state else Watch(pipeline=pipeline)


def save_watch(session: Session, watch: Watch) -> None:
    _save(
        session,
        _SAVE_WATCH,
        {"pipeline": watch.pipeline, "state": watch.model_dump_json()},
    )


def _save(session: Session, upsert: dict[str, Any], row: Row) -> None:
    connection = session.connection()
    connection.execute(upsert[connection.dialect.name], row)


# ── blocks ──────────────────────────────────────────────────────────────────


def add_blocks(session: Session, pipeline: str, blocks: Sequence[Block]) -> None:
    names = [field.name for field in fields(Block)]
    rows = [
        {"pipeline": pipeline} | {name: getattr(block, name) for name in names}
        for block in blocks
    ]
    if rows:
        session.connection().execute(insert(_BLOCK), rows)


def load_blocks(
    session: Session, pipeline: str, version: int, limit: int
) -> list[Block]:
    """Return the newest blocks of a version, oldest first."""
    values = {"of_pipeline": pipeline, "of_version": version, "most": limit}
    rows = session.connection().execute(_LOAD_BLOCKS, values).all()
    return [
        Block(number, version, utc(start), utc(end), row_count, loss, no_skill)
        for number, version, start, end, row_count, loss, no_skill in reversed(rows)
    ]


def load_all_blocks(session: Session, pipeline: str, limit: int) -> list[Block]:
    """Return the newest blocks of all versions, oldest first."""
    values = {"of_pipeline": pipeline, "most": limit}
    rows = session.connection().execute(_LOAD_ALL_BLOCKS, values).all()
    return [
        Block(number, version, utc(start), utc(end), row_count, loss, no_skill)
        for number, version, start, end, row_count, loss, no_skill in reversed(rows)
    ]


# ── quality ─────────────────────────────────────────────────────────────────


def note_batch(session: Session, event: BatchValidated | BatchRejected) -> None:
    """Store one half of a batch; its halves share the event that caused them."""
    batch_id = event.meta.causation_id or event.meta.id
    row: Row = {
        "pipeline": event.pipeline,
        "batch_id": batch_id,
        "kind": event.kind,
        "source": event.shard,
        "start": event.span.start,
        "end": event.span.end,
        "good_count": None,
        "bad_expected": None,
        "bad_count": 0,
        "row_count": 0,
        "is_complete": False,
        "reasons": "[]",
    }
    if isinstance(event, BatchRejected) or event.quarantined_count:
        values = {"of_pipeline": event.pipeline, "of_batch": batch_id}
        found = session.connection().execute(_LOAD_BATCH, values).mappings().first()
        row |= found or {}
    row["start"] = min(utc(row["start"]), event.span.start)
    row["end"] = max(utc(row["end"]), event.span.end)
    if isinstance(event, BatchValidated):
        row["good_count"] = event.row_count
        row["bad_expected"] = event.quarantined_count
    else:
        row["bad_count"] = event.row_count
        row["row_count"] = event.batch_row_count
        row["reasons"] = json.dumps([r.model_dump(mode="json") for r in event.reasons])
    if row["good_count"] is not None:
        row["row_count"] = row["good_count"] + row["bad_count"]
        row["is_complete"] = row["bad_count"] == row["bad_expected"]
    else:
        row["is_complete"] = row["bad_count"] == row["row_count"]
    _save(session, _SAVE_BATCH, row)


def newest_batches(
    session: Session, pipeline: str, kind: RowKind, window_rows: int
) -> list[Checked]:
    """Return the newest complete batches that make up a window, oldest first."""
    values = {"of_pipeline": pipeline, "of_kind": kind}
    found: list[Checked] = []
    total = 0
    with session.connection().execute(_NEWEST_BATCHES, values) as result:
        for row in result.yield_per(FETCHED_AT_ONCE).mappings():
            reasons = [RejectReason(**r) for r in json.loads(row["reasons"])]
            found.append(
                Checked(
                    utc(row["start"]),
                    utc(row["end"]),
                    row["row_count"],
                    reasons,
                    row["source"],
                )
            )
            total += row["row_count"]
            if total >= window_rows:
                break
    return found[::-1]


def forget_batches(
    session: Session, pipeline: str, before: datetime, window_rows: int
) -> None:
    """Drop what is behind ``before``, but for the newest window of either kind."""
    kinds: tuple[RowKind, ...] = ("observations", "labels")
    for kind in kinds:
        window = newest_batches(session, pipeline, kind, window_rows)
        first = min([before, *(batch.start for batch in window)])
        values = {"of_pipeline": pipeline, "of_kind": kind, "before": first}
        session.connection().execute(_FORGET_BATCHES, values)


# ── windows ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Slice:
    """A row of :class:`tables.MonitorSlice`."""

    number: int
    start: datetime
    end: datetime
    row_count: int
    is_faulty: bool
    data: bytes


def add_slice(
    session: Session, pipeline: str, kind: str, span: Span, rows: pa.RecordBatch
) -> None:
    """Store rows of a window."""
    row = {
        "pipeline": pipeline,
        "kind": kind,
        "start": span.start,
        "end": span.end,
        "row_count": rows.num_rows,
        "is_faulty": False,
        "data": as_bytes(rows),
    }
    session.connection().execute(_ADD_SLICE, row)


def newest_slices(
    session: Session, pipeline: str, kind: str, row_count: int
) -> list[Slice]:
    """Return the newest slices that hold ``row_count`` good rows, oldest first.

    Slices marked faulty are among them, and not counted.
    """
    values = {"of_pipeline": pipeline, "of_kind": kind}
    found: list[Slice] = []
    total = 0
    with session.connection().execute(_NEWEST_SLICES, values) as result:
        for row in result.yield_per(FETCHED_AT_ONCE).mappings():
            found.append(
                Slice(
                    number=row["number"],
                    start=utc(row["start"]),
                    end=utc(row["end"]),
                    row_count=row["row_count"],
                    is_faulty=bool(row["is_faulty"]),
                    data=row["data"],
                )
            )
            total += 0 if row["is_faulty"] else row["row_count"]
            if total >= row_count:
                break
    return found[::-1]


def mark_faulty(session: Session, slices: Sequence[Slice]) -> None:
    """Leave these slices out of windows: their values are wrong."""
    numbers = [row.number for row in slices]
    session.connection().execute(_MARK_SLICES, {"numbers": numbers})


def rows_of(slices: Sequence[Slice]) -> pa.Table:
    """Return the rows of some slices, oldest first."""
    return pa.concat_tables(
        [as_table(row.data) for row in slices], promote_options="permissive"
    )


def kept_rows(kind: str, window_rows: int) -> int:
    """Return how many good rows of a kind are kept at least.

    >>> kept_rows(LABELLED, 168), kept_rows(ASKED, 168), kept_rows(INPUTS, 5000)
    (1344, 336, 20000)
    """
    two = KEPT_WINDOWS * window_rows
    if kind not in (INPUTS, LABELLED):
        return two
    return max(two, min(COMPARED_WINDOWS * window_rows, MAX_COMPARED_ROWS))


def kept_slices(
    session: Session, pipeline: str, kind: str, window_rows: int
) -> list[Slice]:
    """Return all that is kept of a kind, oldest first."""
    return newest_slices(session, pipeline, kind, kept_rows(kind, window_rows))


def forget_slices(session: Session, pipeline: str, window_rows: int) -> None:
    """Drop slices that are behind the windows in use."""
    connection = session.connection()
    for kind in (INPUTS, PREDICTIONS, ASKED, LABELLED):
        values = {"of_pipeline": pipeline, "of_kind": kind}
        total, most = 0, kept_rows(kind, window_rows)
        for number, count, is_faulty in connection.execute(_SLICE_SIZES, values):
            total += 0 if is_faulty else count
            if total >= most:
                connection.execute(_FORGET_SLICES, values | {"before": number})
                break


# ── reference sample ────────────────────────────────────────────────────────


def save_sample(session: Session, pipeline: str, version: int, rows: pa.Table) -> None:
    row = {"pipeline": pipeline, "version": version, "data": as_bytes(rows)}
    _save(session, _SAVE_SAMPLE, row)


def drop_sample(session: Session, pipeline: str) -> None:
    session.connection().execute(_DROP_SAMPLE, {"of_pipeline": pipeline})


def load_sample(session: Session, pipeline: str) -> pa.Table | None:
    """Return what the version in service learned from; None: not known."""
    data = (
        session.connection().execute(_LOAD_SAMPLE, {"of_pipeline": pipeline}).scalar()
    )
    return None if data is None else as_table(data)
