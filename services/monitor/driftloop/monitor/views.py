"""Counts per window of event time, in a Faust windowed table: for people's eyes.

A message that is delivered again after a crash is counted again, so no verdict
rests on these numbers; those come from the service's own database.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from driftloop.contracts.events import (
    BatchRejected,
    BatchScored,
    BatchValidated,
    RowsEvent,
)
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.transport import Message
from pydantic import BaseModel, Field

TABLE = "windows"
SEPARATOR = "/"
VIEWED = frozenset({e.topic() for e in (BatchValidated, BatchRejected, BatchScored)})

Counts = dict[tuple[str, int], int]
"""(measure, start of the window in seconds since 1970) to rows."""


class Window(BaseModel):
    """Rows of one pipeline by event time.

    ``quarantined_by_field`` counts a row once for each field that it failed on.
    """

    start: datetime
    end: datetime
    validated: int = 0
    quarantined: int = 0
    quarantined_ratio: float | None = Field(
        default=None, description="of the rows that came; None: none came"
    )
    labels: int = 0
    scored: int = 0
    quarantined_by_field: dict[str, int] = {}


def counts_of(event: RowsEvent, size_s: int) -> Counts:
    """Return how many rows of a batch fall into which window."""
    if event.rows.num_rows == 0:
        return {}
    starts = _starts(event.rows, size_s)
    if isinstance(event, BatchScored):
        if event.environment != PRODUCTION:
            return {}
        return {("scored", start): n for start, n in starts.items()}
    if isinstance(event, BatchValidated):
        measure = "labels" if event.kind == "labels" else "validated"
        return {(measure, start): n for start, n in starts.items()}
    if not isinstance(event, BatchRejected) or event.kind == "labels":
        return {}
    found = {("quarantined", start): n for start, n in starts.items()}
    first = min(starts)
    for reason in event.reasons:
        key = (f"field:{reason.field}", first)
        found[key] = found.get(key, 0) + reason.row_count
    return found


def _starts(rows: pa.RecordBatch, size_s: int) -> Mapping[int, int]:
    column = rows.column("event_time").drop_null().cast(pa.int64())
    seconds = column.to_numpy(zero_copy_only=False) // 1_000_000
    starts, counts = np.unique(seconds // size_s * size_s, return_counts=True)
    return dict(zip(starts.tolist(), counts.tolist(), strict=True))


class WindowViews:
    """Feeds the windowed table and reads it.

    Parameters
    ----------
    size : event time of one window.
    kept : newest windows of a pipeline that are kept.
    """

    def __init__(self, store: ArtifactStore, size: timedelta, kept: int) -> None:
        self._store = store
        self._size_s = max(1, round(size.total_seconds()))
        self._kept = kept
        self._table: Any = None

    def configure(self, app: Any) -> Callable[[Message], None]:
        """Add the table to a ``faust.App``; return what feeds it."""
        table = app.Table(TABLE, default=int, help="rows by measure and event time")
        self._table = table.tumbling(self._size_s)
        return self.feed

    def feed(self, message: Message) -> None:
        """Count the rows of one message; runs in Faust's loop, in its stream."""
        if message.topic not in VIEWED:
            return
        try:
            event = decode(message, self._store)
        except (Reject, Retry):
            return  # the runner has told of it
        if not isinstance(event, RowsEvent):
            return
        new = set()
        for (measure, start), count in counts_of(event, self._size_s).items():
            key = f"{event.pipeline}{SEPARATOR}{measure}"
            windowed = self._table.relative_to(float(start))
            if key not in windowed:
                new.add(start)
            windowed[key] += count
        if new:
            self._forget(event.pipeline)

    def _forget(self, pipeline: str) -> None:
        """Drop the oldest windows beyond those that are kept."""
        keys = [key for key, _ in self._items() if _pipeline(key[0]) == pipeline]
        starts = sorted({key[1][0] for key in keys})
        if len(starts) > self._kept:
            oldest = starts[-self._kept]
            for key in keys:
                if key[1][0] < oldest:
                    del self._table.table[key]

    def windows(self, pipeline: str) -> list[Window]:
        """Return the pipeline's windows, oldest first; any thread may ask."""
        found: defaultdict[float, Counter[str]] = defaultdict(Counter)
        for (key, (start, _)), count in self._items():
            if _pipeline(key) == pipeline:
                found[start][key.split(SEPARATOR, 1)[1]] = count
        return [self._window(start, found[start]) for start in sorted(found)]

    def _items(self) -> Iterator[tuple[Any, int]]:
        if self._table is None:
            return
        while True:
            try:
                items = list(self._table.table.items())
            except RuntimeError:  # it grew meanwhile, in Faust's thread
                continue
            yield from items
            return

    def _window(self, start: float, counts: Mapping[str, int]) -> Window:
        rows = counts.get("validated", 0) + counts.get("quarantined", 0)
        fields = {
            name.removeprefix("field:"): count
            for name, count in sorted(counts.items())
            if name.startswith("field:")
        }
        return Window(
            start=datetime.fromtimestamp(start, UTC),
            end=datetime.fromtimestamp(start + self._size_s, UTC),
            validated=counts.get("validated", 0),
            quarantined=counts.get("quarantined", 0),
            quarantined_ratio=counts.get("quarantined", 0) / rows if rows else None,
            labels=counts.get("labels", 0),
            scored=counts.get("scored", 0),
            quarantined_by_field=fields,
        )


def _pipeline(key: str) -> str:
    return key.split(SEPARATOR, 1)[0]
