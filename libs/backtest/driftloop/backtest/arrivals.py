"""How the rows of a dataset came: the appends that its two Delta tables recorded.

The validator appends each batch in a commit of its own, with the batch's place in
Kafka as the application transaction; other commits (compaction, deletion, a column
that was widened) have none. So the log of a table tells which files batches brought,
and the ids in them which rows. Once such a file was vacuumed, its rows are told by
their event times, as the log keeps how many rows of which times it had.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any
from urllib.parse import unquote

import numpy as np
import polars as pl
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.fs import DeltaStorageHandler
from driftloop.backtest.errors import BacktestError
from driftloop.backtest.stream import (
    BATCH,
    LABEL_BATCH,
    LABEL_TIME,
    LABELLER,
    WITH_ITS_ROW,
)
from driftloop.contracts.events import TableRef

READERS = 8
"""Files that are read side by side: what costs is the way to the store."""
CUT_OFF_US = 999
"""Delta keeps the greatest time of a file in milliseconds, rounded down."""
VALIDATOR = "driftloop-validator/"
"""How the application transactions of appends begin; see the validator's datasets."""


@dataclass(frozen=True)
class Append:
    """One batch that was added to a table.

    Attributes
    ----------
    at_ms : when, by the validator's clock.
    newest_us : event time of its newest row, microseconds since 1970.
    ids : (n_rows,) of its rows; None: its file is gone.
    """

    at_ms: int
    newest_us: int
    ids: Sequence[str] | None = field(repr=False)


def with_arrivals(
    rows: pl.DataFrame,
    labels: pl.DataFrame | None,
    tables: tuple[TableRef, TableRef | None],
    target: str,
    options: Mapping[str, str] | None,
) -> pl.DataFrame:
    """Return rows with the columns of :class:`stream.Arrivals`, if their log tells.

    Parameters
    ----------
    labels : the first label of each id, with ``event_time`` and ``source``.
    tables : of the observations and of the labels, at the versions that were read.
    """
    has_labels = labels is not None and not labels.is_empty()
    first = _appends(tables[0], options)
    then = _appends(tables[1], options) if tables[1] and has_labels else []
    if not first or (has_labels and not then):
        return rows
    numbers = _numbered(first, then)
    batch = _batch_of(rows, first, numbers[: len(first)])
    rows = rows.with_columns(pl.Series(BATCH, batch, pl.Int64))
    if labels is None or not has_labels:
        return rows.with_columns(
            pl.lit(WITH_ITS_ROW, pl.Int64).alias(LABEL_BATCH),
            pl.col("event_time").alias(LABEL_TIME),
            pl.col("source").alias(LABELLER),
        )
    told = labels.select(
        "id",
        pl.col("event_time").alias(LABEL_TIME),
        pl.col("source").alias(LABELLER),
        pl.Series(LABEL_BATCH, _batch_of(labels, then, numbers[len(first) :])),
    )
    rows = rows.join(told, on="id", how="left", maintain_order="left")
    came_with = pl.col(target).is_not_null() | pl.col(LABEL_BATCH).is_null()
    return rows.with_columns(
        pl.when(came_with).then(WITH_ITS_ROW).otherwise(LABEL_BATCH).alias(LABEL_BATCH),
        pl.coalesce(LABEL_TIME, "event_time").alias(LABEL_TIME),
        pl.coalesce(LABELLER, "source").alias(LABELLER),
    )


def _numbered(first: Sequence[Append], then: Sequence[Append]) -> list[int]:
    """Return numbers of the appends of both tables, in the order of their making."""
    times = [
        (at_ms, table)
        for table, appends in enumerate((first, then))
        for at_ms in accumulate((append.at_ms for append in appends), max)
    ]
    order = sorted(range(len(times)), key=times.__getitem__)
    found = [0] * len(times)
    for number, place in enumerate(order):
        found[place] = number
    return found


def _batch_of(
    rows: pl.DataFrame, appends: Sequence[Append], numbers: Sequence[int]
) -> list[int]:
    """Return the number of the append that brought each row."""
    known: dict[str, int] = {}
    for append, number in zip(appends, numbers, strict=True):
        for row in append.ids or ():
            known.setdefault(row, number)
    gone = [
        (append.newest_us, number)
        for append, number in zip(appends, numbers, strict=True)
        if append.ids is None
    ] or [(0, min(numbers))]
    ends = np.maximum.accumulate([newest for newest, _ in gone])
    times = rows["event_time"].dt.timestamp("us").to_numpy()
    places = np.minimum(np.searchsorted(ends, times), len(gone) - 1).tolist()
    return [
        known[row] if row in known else gone[place][1]
        for row, place in zip(rows["id"].to_list(), places, strict=True)
    ]


# ── the log of a table ──────────────────────────────────────────────────────


def _appends(ref: TableRef, options: Mapping[str, str] | None) -> list[Append]:
    """Return the appends up to a version, oldest first; empty: the log lacks some.

    Raises
    ------
    BacktestError
        When the store is away.
    """
    try:
        return _read_appends(ref, options)
    except OSError as error:
        raise BacktestError(
            f"the log of {ref.uri} cannot be read: {error}; try again when the "
            "store answers"
        ) from error


def _read_appends(ref: TableRef, options: Mapping[str, str] | None) -> list[Append]:
    handler = DeltaStorageHandler(ref.uri, dict(options) if options else None)
    files = pafs.PyFileSystem(handler)
    with ThreadPoolExecutor(READERS) as readers:
        commits = readers.map(lambda n: _commit(files, n), range(ref.version + 1))
        found = list(commits)
        if any(commit is None for commit in found):
            return []
        added = [a for commit in found if commit for a in _added(commit)]
        ids = list(readers.map(lambda a: _ids(files, a[1]), added))
    return [
        Append(at_ms, _newest_us(add), its)
        for (at_ms, add), its in zip(added, ids, strict=True)
    ]


def _commit(files: pafs.FileSystem, version: int) -> list[dict[str, Any]] | None:
    """Return the actions of a commit; None: it is not in the log any more."""
    try:
        with files.open_input_stream(f"_delta_log/{version:020d}.json") as file:
            return [json.loads(line) for line in file.read().splitlines() if line]
    except FileNotFoundError:
        return None


def _added(commit: Sequence[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what a commit added, and when, if it is an append."""
    names = [action["txn"]["appId"] for action in commit if "txn" in action]
    if not any(name.startswith(VALIDATOR) for name in names):
        return
    told = [action["commitInfo"] for action in commit if "commitInfo" in action]
    at_ms = int(told[0].get("timestamp", 0)) if told else 0
    for action in commit:
        if "add" in action:
            yield at_ms, action["add"]


def _ids(files: pafs.FileSystem, add: Mapping[str, Any]) -> list[str] | None:
    try:
        with files.open_input_file(unquote(add["path"])) as file:
            found: list[str] = pq.read_table(file, columns=["id"])["id"].to_pylist()
            return found
    except FileNotFoundError:
        return None


def _newest_us(add: Mapping[str, Any]) -> int:
    """Return the newest event time that a commit tells of a file; 0: it tells none."""
    stats = json.loads(add.get("stats") or "{}")
    told = stats.get("maxValues", {}).get("event_time")
    if told is None:
        return 0
    moment = datetime.fromisoformat(told)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1e6) + CUT_OFF_US
