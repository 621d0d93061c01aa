"""A sample of what was asked at the doors, for the monitor's skew check.

What a door makes of a request must be what training would have learned from the same
row. The monitor can compare the two, as it sees the rows that training gets.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.events import RequestsAnswered, Span
from driftloop.contracts.rows import EVENT_TIME_FIELD, ID_FIELD
from driftloop.models.onnx_model import MISSING_MOMENT, Predictions
from driftloop.models.package import STRINGS, ColumnType, InputColumn
from driftloop.models.samples import ARROW_TYPES
from driftloop.scorer.feeds import Columns, Feeds

ROW_ID = "id"
"""Name under which a request may say which rows it asks about."""
KEPT_ROWS = 500
"""Of a pipeline's version between two reports: enough to know a column's values."""

Hidden = Callable[[str], Collection[str] | None]
"""Columns of a pipeline that may not be published; None: nothing of it may be."""


@dataclass(frozen=True)
class Call:
    """Rows of one request; arrays are (n_rows, 1), ids and predictions (n_rows,)."""

    at: datetime
    ids: Sequence[str | None]
    feeds: Feeds
    prediction: npt.NDArray[Any]


@dataclass
class _Kept:
    inputs: Sequence[InputColumn]
    calls: list[Call] = field(default_factory=list)
    row_count: int = 0
    asked_count: int = 0


class Asked:
    """The first rows that were asked since the last report; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, int], _Kept] = {}

    def add(
        self,
        key: tuple[str, int],
        inputs: Sequence[InputColumn],
        ids: Sequence[str | None],
        feeds: Feeds,
        said: Predictions,
    ) -> None:
        """Keep a request while there is room; the key is pipeline and version."""
        count = len(said.prediction)
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                kept = self._kept[key] = _Kept(inputs)
            kept.asked_count += count
            room = min(KEPT_ROWS - kept.row_count, count)
            if room <= 0:
                return
            kept.row_count += room
            if room < count:  # a copy, so that the rest can go
                feeds = {name: values[:room].copy() for name, values in feeds.items()}
            kept.calls.append(
                Call(datetime.now(UTC), ids[:room], feeds, said.prediction[:room])
            )

    def drain(self, replica: str, hidden: Hidden) -> Iterator[RequestsAnswered]:
        """Return what was kept as events, and begin anew."""
        with self._lock:
            taken, self._kept = self._kept, {}
        for (pipeline, version), kept in sorted(
            taken.items(), key=lambda item: item[0]
        ):
            left_out = hidden(pipeline)
            if left_out is None or not kept.calls:
                continue
            times = [call.at for call in kept.calls]
            yield RequestsAnswered(
                pipeline=pipeline,
                shard=replica,
                row_count=kept.row_count,
                span=Span(start=min(times), end=max(times)),
                version=version,
                asked_count=kept.asked_count,
            ).with_rows(_rows(kept, left_out))


def row_ids(
    columns: Columns, row_count: int, request_id: str | None
) -> list[str | None]:
    """Return which rows a request asks about, where it says so.

    A column ``id`` names each row; of a single row the request's own id does too.
    """
    given = columns.get(ROW_ID)
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, list | tuple) and len(given) == row_count:
        flat = [
            v[0] if isinstance(v, list | tuple) and len(v) == 1 else v for v in given
        ]
        return [str(v) if isinstance(v, str | int) else None for v in flat]
    return [request_id] if row_count == 1 else [None] * row_count


def _rows(kept: _Kept, hidden: Collection[str]) -> pa.RecordBatch:
    times = [call.at for call in kept.calls for _ in call.ids]
    ids = [None if ROW_ID in hidden else name for c in kept.calls for name in c.ids]
    found = {
        ID_FIELD.name: pa.array(ids, ID_FIELD.type),
        EVENT_TIME_FIELD.name: pa.array(times, EVENT_TIME_FIELD.type),
    }
    for column in kept.inputs:
        if column.name not in hidden:
            parts = [call.feeds[column.name].reshape(-1) for call in kept.calls]
            found[column.name] = _column(np.concatenate(parts), column.type)
    said = np.concatenate([call.prediction for call in kept.calls])
    found["prediction"] = pa.array(said)
    return pa.RecordBatch.from_pydict(found)


def _column(values: npt.NDArray[Any], kind: ColumnType) -> pa.Array:
    """Return what a model got in the type that the column has in validated rows."""
    if kind in STRINGS:
        return pa.array([text or None for text in values.tolist()], pa.string())
    if kind == "datetime":
        is_missing = values == MISSING_MOMENT
        return pa.array(values, pa.int64(), mask=is_missing).cast(ARROW_TYPES[kind])
    wide = values.astype(np.float64)
    return pa.array(wide, mask=np.isnan(wide)).cast(ARROW_TYPES[kind], safe=False)
