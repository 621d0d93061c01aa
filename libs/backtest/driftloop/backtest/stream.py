"""The recorded rows, in order of event time, and when each becomes known.

Rows lie in an Arrow file that the processes of a backtest share through the page
cache. Upstream sends a batch when it is full; a label follows its row by a delay.
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
ARRIVAL = "known_at"
"""Column with the time at which a row's label became known, where data tell it."""
NEVER_KNOWN = np.iinfo(np.int64).max
SHARD = "recorded"


class Rhythm(BaseModel):
    """How the rows come.

    Attributes
    ----------
    batch_rows : of a batch; None: as many as the monitor judges together.
    batch_hours : of event time in a batch instead.
    label_delay_hours : from a row's event time to its label; None: as the data say.
    """

    batch_rows: int | None = None
    batch_hours: float | None = None
    label_delay_hours: float | None = None


@dataclass(frozen=True)
class Part:
    """What comes at one moment.

    Attributes
    ----------
    number : counts the parts.
    due_us : moment, microseconds since 1970.
    rows : (n_rows,) numbers of the rows, in order of event time.
    has_labels : observations that bring their targets along.
    """

    number: int
    kind: RowKind
    due_us: int
    rows: Ints
    has_labels: bool = False

    @property
    def due(self) -> datetime:
        return as_time(self.due_us)


@dataclass(frozen=True)
class Stream:
    """Rows of a backtest.

    Attributes
    ----------
    rows : ``id``, ``event_time``, ``source``, features and target, sorted by event
        time, then id; one chunk.
    known_us : (n_rows,) when each label becomes known, microseconds since 1970;
        :data:`NEVER_KNOWN` without a label. None: labels come with their rows.
    """

    rows: pa.Table
    target: str
    known_us: Ints | None

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

    def save(self, path: Path) -> None:
        """Write the rows where other processes map them into memory."""
        rows = self.rows
        if self.known_us is not None:
            rows = rows.append_column(ARRIVAL, pa.array(self.known_us))
        with pa.ipc.new_file(path, rows.schema) as writer:
            writer.write_table(rows, max_chunksize=max(1, rows.num_rows))

    @classmethod
    def mapped(cls, path: Path, target: str) -> "Stream":
        """Map what :meth:`save` wrote."""
        rows = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        known = None
        if ARRIVAL in rows.column_names:
            known = rows[ARRIVAL].to_numpy()
            rows = rows.drop_columns([ARRIVAL])
        return cls(rows, target, known)


def stream_of(
    rows: pa.Table, target: str, delay_hours: float | None, arrival: str | None = None
) -> Stream:
    """Return rows as a stream.

    Parameters
    ----------
    arrival : column with the time at which each label became known; a constant delay
        goes before it.
    """
    order = [("event_time", "ascending"), ("id", "ascending")]
    rows = rows.sort_by(order).combine_chunks()
    told = None
    if arrival is not None and arrival in rows.column_names:
        told = rows[arrival].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        rows = rows.drop_columns([arrival])
    stream = Stream(rows, target, None)
    if delay_hours is not None:
        known = stream.times_us + int(delay_hours * 3_600_000_000)
    elif told is not None:
        known = np.maximum(told.fill_null(0).to_numpy(), stream.times_us)
    else:
        return stream
    return Stream(rows, target, np.where(stream.is_labelled, known, NEVER_KNOWN))


def parts_of(stream: Stream, rhythm: Rhythm, window_rows: int) -> Iterator[Part]:
    """Yield what upstream sends, in order of the moments at which it comes.

    Labels that become known between the ends of two batches are sent with the latter,
    after its rows.
    """
    cuts = list(_cuts(stream, rhythm, window_rows))
    dues = _dues(stream, cuts, rhythm)
    if stream.known_us is None:
        for number, (start, end) in enumerate(cuts):
            yield Part(
                number, "observations", int(dues[number]), np.arange(start, end), True
            )
        return
    order = np.argsort(stream.known_us, kind="stable")
    known = stream.known_us[order]
    sent, number = 0, 0
    for (start, end), due in zip(cuts, dues, strict=True):
        yield Part(number, "observations", int(due), np.arange(start, end))
        upto = int(np.searchsorted(known, due, side="right"))
        number += 1
        if upto > sent:
            yield Part(number, "labels", int(due), np.sort(order[sent:upto]))
            number, sent = number + 1, upto


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
