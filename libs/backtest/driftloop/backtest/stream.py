"""The recorded rows, in order of event time, and when each becomes known.

Rows lie in an Arrow file that the processes of a backtest share through the page
cache. They come as they came (see ``arrivals.py``) where the data tell it; else a
batch is sent when it is full, and a label follows its row by a delay.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.events import RowKind
from driftloop.models.pairing import as_time
from driftloop.monitor.error_drift import block_rows
from pydantic import BaseModel

Ints = npt.NDArray[np.int64]
KNOWN_AT = "driftloop known at"
BATCH, LABEL_BATCH = "driftloop batch", "driftloop label batch"
LABEL_TIME, LABELLER = "driftloop label time", "driftloop labeller"
"""Columns beside the rows'; a pipeline has no column with a space in its name."""
NEVER_KNOWN = np.iinfo(np.int64).max
WITH_ITS_ROW = -1
"""Instead of a label's batch."""
SHARD = "recorded"


class Rhythm(BaseModel):
    """How the rows come.

    Attributes
    ----------
    batch_rows : of a batch; None: as they came, or where that is not known as many as
        the monitor judges together.
    batch_hours : of event time in a batch instead.
    label_delay_hours : from a row's event time to its label; None: as the data say.
    """

    batch_rows: int | None = None
    batch_hours: float | None = None
    label_delay_hours: float | None = None

    @property
    def is_as_recorded(self) -> bool:
        """Whether nothing is asked for, so that rows come as they came."""
        return self == Rhythm()


@dataclass(frozen=True)
class Part:
    """What comes at one moment.

    Attributes
    ----------
    number : counts the parts.
    due_us : moment, microseconds since 1970.
    rows : (n_rows,) numbers of the rows, in order of event time.
    labelled : (n_labels,) numbers of the rows whose targets come with it.
    shard : who sent it.
    """

    number: int
    kind: RowKind
    due_us: int
    rows: Ints
    labelled: Ints
    shard: str = SHARD

    @property
    def due(self) -> datetime:
        return as_time(self.due_us)


@dataclass(frozen=True)
class Arrivals:
    """How recorded rows came.

    Attributes
    ----------
    batch : (n_rows,) number of the batch that brought each row; rising in time, over
        rows and labels together.
    label_batch : (n_rows,) the same of each row's label; :data:`WITH_ITS_ROW`.
    label_us : (n_rows,) event time of each label, microseconds since 1970.
    labeller : (n_rows,) source of each label, text.
    """

    batch: Ints
    label_batch: Ints
    label_us: Ints
    labeller: pa.ChunkedArray

    @property
    def came_later(self) -> npt.NDArray[np.bool_]:
        """(n_rows,) whether the label came apart from its row."""
        found: npt.NDArray[np.bool_] = self.label_batch != WITH_ITS_ROW
        return found


@dataclass(frozen=True)
class Stream:
    """Rows of a backtest.

    Attributes
    ----------
    rows : ``id``, ``event_time``, ``source``, features and target, sorted by event
        time, then id; one chunk.
    known_us : (n_rows,) when each label becomes known, microseconds since 1970;
        :data:`NEVER_KNOWN` without a label. None: labels come with their rows.
    arrivals : None: the rows come in the rhythm that is asked for.
    """

    rows: pa.Table
    target: str
    known_us: Ints | None
    arrivals: Arrivals | None = None

    @cached_property
    def times_us(self) -> Ints:
        found: Ints = self.rows["event_time"].cast(pa.int64()).to_numpy()
        return found

    @cached_property
    def is_labelled(self) -> npt.NDArray[np.bool_]:
        """(n_rows,) whether there is a target at all."""
        column = self.rows[self.target]
        found = pc.is_valid(column)
        if pa.types.is_floating(column.type):
            found = pc.and_(found, pc.fill_null(pc.is_finite(column), False))
        result: npt.NDArray[np.bool_] = found.to_numpy()
        return result

    def taken(self, numbers: Ints) -> pa.Table:
        """Return rows by number; a slice where they follow each other."""
        if len(numbers) and numbers[-1] - numbers[0] + 1 == len(numbers):
            return self.rows.slice(int(numbers[0]), len(numbers))
        return self.rows.take(pa.array(numbers))

    def sent(self, part: Part) -> pa.Table:
        """Return a part's rows as they were sent: with the labels that it brings."""
        rows, came = self.taken(part.rows), self.arrivals
        if part.kind == "labels":
            rows = rows.select(["id", "event_time", "source", self.target])
            if came is None:
                return rows
            kind = rows.schema.field("event_time").type
            times = pa.array(came.label_us[part.rows], pa.int64()).cast(kind)
            rows = rows.set_column(1, "event_time", times)
            return rows.set_column(2, "source", came.labeller.take(pa.array(part.rows)))
        if not len(part.labelled):
            return without(rows, self.target)
        if len(part.labelled) < len(part.rows):
            place = rows.column_names.index(self.target)
            is_there = pa.array(np.isin(part.rows, part.labelled))
            column = pc.if_else(is_there, rows[self.target], None)
            rows = rows.set_column(place, self.target, column)
        return rows

    def span_us(self, part: Part) -> tuple[int, int]:
        """Return the first and the last event time of what is sent."""
        if part.kind == "labels" and self.arrivals is not None:
            times = self.arrivals.label_us[part.rows]
            return int(times.min()), int(times.max())
        return int(self.times_us[part.rows[0]]), int(self.times_us[part.rows[-1]])

    def is_timely(self, horizon_us: int) -> npt.NDArray[np.bool_]:
        """(n_rows,) whether each label is of a time soon enough after its row's."""
        if self.arrivals is None:
            return np.ones(self.rows.num_rows, dtype=bool)
        late_us = self.arrivals.label_us - self.times_us
        return ~self.arrivals.came_later | (late_us <= horizon_us)

    def save(self, path: Path) -> None:
        """Write the rows where other processes map them into memory."""
        rows = self.rows
        if self.known_us is not None:
            rows = rows.append_column(KNOWN_AT, pa.array(self.known_us))
        if came := self.arrivals:
            rows = rows.append_column(BATCH, pa.array(came.batch))
            rows = rows.append_column(LABEL_BATCH, pa.array(came.label_batch))
            rows = rows.append_column(LABEL_TIME, pa.array(came.label_us))
            rows = rows.append_column(LABELLER, came.labeller)
        with pa.ipc.new_file(path, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=max(1, rows.num_rows))

    @classmethod
    def mapped(cls, path: Path, target: str) -> "Stream":
        """Map what :meth:`save` wrote."""
        rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        known = came = None
        if KNOWN_AT in rows.column_names:
            known = rows[KNOWN_AT].to_numpy()
            rows = rows.drop_columns([KNOWN_AT])
        if BATCH in rows.column_names:
            rows, came = _parted(rows)
        return cls(rows, target, known, came)


def stream_of(rows: pa.Table, target: str, rhythm: Rhythm) -> Stream:
    """Return rows as a stream.

    Parameters
    ----------
    rows : may have the columns :data:`LABEL_TIME`, the times at which labels became
        known (a constant delay goes before them), and all those of
        :class:`Arrivals`, which count where no other rhythm is asked for.
    """
    order = [("event_time", "ascending"), ("id", "ascending")]
    rows = rows.sort_by(order).combine_chunks()
    if BATCH in rows.column_names and rhythm.is_as_recorded:
        rows, came = _parted(rows)
        stream = Stream(rows, target, None, came)
        dues = _recorded_dues(stream, came)
        known = dues[np.where(came.came_later, came.label_batch, came.batch)]
        known = np.where(stream.is_labelled, known, NEVER_KNOWN)
        return Stream(rows, target, known, came)
    told = rows[LABEL_TIME] if LABEL_TIME in rows.column_names else None
    more = (BATCH, LABEL_BATCH, LABEL_TIME, LABELLER)
    rows = rows.drop_columns([name for name in more if name in rows.column_names])
    stream = Stream(rows, target, None)
    if rhythm.label_delay_hours is not None:
        known = stream.times_us + int(rhythm.label_delay_hours * 3_600_000_000)
    elif told is not None:
        known = np.maximum(_filled(_as_us(told), 0), stream.times_us)
        if (known == stream.times_us).all():
            return stream
    else:
        return stream
    return Stream(rows, target, np.where(stream.is_labelled, known, NEVER_KNOWN))


def _parted(rows: pa.Table) -> tuple[pa.Table, Arrivals]:
    """Part rows from the columns that say how they came."""
    came = Arrivals(
        rows[BATCH].to_numpy(),
        _filled(rows[LABEL_BATCH], WITH_ITS_ROW),
        _filled(_as_us(rows[LABEL_TIME]), 0),
        rows[LABELLER],
    )
    return rows.drop_columns([BATCH, LABEL_BATCH, LABEL_TIME, LABELLER]), came


def _as_us(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times.cast(pa.timestamp("us", "UTC"))


def _filled(column: pa.ChunkedArray, value: int) -> Ints:
    found: Ints = column.cast(pa.int64()).fill_null(value).to_numpy()
    return found


def _recorded_dues(stream: Stream, came: Arrivals) -> Ints:
    """Return (n_batches,) when each recorded batch came: no clock goes back."""
    count = 1 + int(max(came.batch.max(), came.label_batch.max()))
    newest = np.full(count, np.iinfo(np.int64).min)
    np.maximum.at(newest, came.batch, stream.times_us)
    later = came.came_later
    np.maximum.at(newest, came.label_batch[later], came.label_us[later])
    found: Ints = np.maximum.accumulate(newest)
    return found


def parts_of(stream: Stream, rhythm: Rhythm, window_rows: int) -> Iterator[Part]:
    """Yield what upstream sends, in order of the moments at which it comes.

    Labels that become known between the ends of two batches are sent with the latter,
    after its rows.
    """
    if stream.arrivals is not None:
        yield from _recorded(stream, stream.arrivals)
        return
    cuts = list(_cuts(stream, rhythm, window_rows))
    dues = _dues(stream, cuts, rhythm)
    if stream.known_us is None:
        for number, (start, end) in enumerate(cuts):
            rows = np.arange(start, end)
            yield Part(number, "observations", int(dues[number]), rows, rows)
        return
    order = np.argsort(stream.known_us, kind="stable")
    known = stream.known_us[order]
    sent, number = 0, 0
    for (start, end), due in zip(cuts, dues, strict=True):
        rows = np.arange(start, end)
        yield Part(number, "observations", int(due), rows, rows[:0])
        upto = int(np.searchsorted(known, due, side="right"))
        number += 1
        if upto > sent:
            labels = np.sort(order[sent:upto])
            yield Part(number, "labels", int(due), labels, labels)
            number, sent = number + 1, upto


def _recorded(stream: Stream, came: Arrivals) -> Iterator[Part]:
    """Yield the batches as they came, rows and labels."""
    dues, labelled = _recorded_dues(stream, came), stream.is_labelled
    sources = stream.rows["source"]
    later = np.flatnonzero(came.came_later & labelled)
    batches: dict[int, tuple[RowKind, Ints]] = {}
    for number, rows in _groups(came.batch):
        batches[number] = "observations", rows
    for number, places in _groups(came.label_batch[later]):
        batches[number] = "labels", later[places]
    for number, (kind, rows) in sorted(batches.items()):
        if kind == "labels":
            shard, labels = came.labeller[int(rows[0])].as_py(), rows
        else:
            shard = sources[int(rows[0])].as_py()
            labels = rows[~came.came_later[rows] & labelled[rows]]
        yield Part(number, kind, int(dues[number]), rows, labels, shard or SHARD)


def _groups(numbers: Ints) -> Iterator[tuple[int, Ints]]:
    """Yield each number and the places that have it, both rising."""
    if not len(numbers):
        return
    order = np.argsort(numbers, kind="stable")
    found, starts = np.unique(numbers[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, starts[1:]), strict=True)


def _cuts(
    stream: Stream, rhythm: Rhythm, window_rows: int
) -> Iterator[tuple[int, int]]:
    """Yield the first row of each batch, and the one after its last."""
    count = stream.rows.num_rows
    if rhythm.batch_hours is None:
        size = rhythm.batch_rows or block_rows(window_rows)
        for start in range(0, count, size):
            yield start, min(start + size, count)
        return
    width = max(1, int(rhythm.batch_hours * 3_600_000_000))
    buckets = stream.times_us // width
    starts = [0, *(np.flatnonzero(np.diff(buckets)) + 1).tolist(), count]
    yield from pairwise(starts)


def _dues(stream: Stream, cuts: list[tuple[int, int]], rhythm: Rhythm) -> Ints:
    """Return when each batch is sent: with its last row, or at the end of its hours."""
    ends = np.array([stream.times_us[end - 1] for _, end in cuts], dtype=np.int64)
    if rhythm.batch_hours is None:
        return ends
    width = max(1, int(rhythm.batch_hours * 3_600_000_000))
    found: Ints = (ends // width + 1) * width
    return found


def only_batch(rows: pa.Table) -> pa.RecordBatch:
    """Return the rows as one record batch."""
    batches: list[pa.RecordBatch] = rows.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], rows.schema)


def without(rows: pa.Table, column: str) -> pa.Table:
    return rows.drop_columns([column]) if column in rows.column_names else rows
