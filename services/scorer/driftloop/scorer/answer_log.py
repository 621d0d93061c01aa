"""Writes what was asked and answered to Kafka, off the answering path.

About a second after an answer its rows are on ``requests-answered``. While the broker
is away they wait, as far as there is room; answers never do.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.base import Chain, Meta
from driftloop.contracts.events import RequestsAnswered, Span
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.contracts.rows import EVENT_TIME_FIELD, ID_FIELD
from driftloop.models.onnx_model import MISSING_MOMENT
from driftloop.models.package import STRINGS, ColumnType, InputColumn, Manifest
from driftloop.models.pairing import CLASSES_METADATA_KEY, as_time
from driftloop.models.samples import ARROW_TYPES
from driftloop.runtime import metrics
from driftloop.runtime.artifacts import ArtifactStore
from driftloop.runtime.envelope import encode
from driftloop.runtime.errors import Retry
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Publisher, PublishError, Record
from driftloop.scorer.asked import ROW_ID, Asked, Call, Kept, Key
from driftloop.scorer.metrics import LEFT_OUT_ROWS, LOGGED_ROWS

WRITE_S = 0.5
RETRY_S = 1.0
LAST_TIMEOUT_S = 5.0
EVENT_BYTES = 512 * 1024
"""Of values in one event, estimated: below the size from which rows travel apart."""
logger = log(__name__)

Metadata = dict[bytes, bytes] | None
Hidden = Callable[[str], Collection[str] | None]
"""Columns of a pipeline that may not be published; None: nothing of it may be."""


def events_of(
    key: Key, kept: Kept, replica: str, hidden: Collection[str]
) -> Iterator[RequestsAnswered]:
    """Yield calls as events of a bounded size; the first tells of rows left out."""
    pipeline, version, role = key
    left_out = kept.asked_count - kept.row_count
    for calls in _parts(kept.calls):
        rows = _rows(calls, kept.manifest, hidden)
        yield RequestsAnswered(
            pipeline=pipeline,
            shard=replica,
            row_count=rows.num_rows,
            span=Span(
                start=as_time(min(call.at_us for call in calls)),
                end=as_time(max(call.at_us for call in calls)),
            ),
            version=version,
            role=role,
            asked_count=rows.num_rows + left_out,
        ).with_rows(rows)
        left_out = 0


def _parts(calls: Sequence[Call]) -> Iterator[list[Call]]:
    part: list[Call] = []
    size = 0
    for call in calls:
        if part and size + call.data_bytes > EVENT_BYTES:
            yield part
            part, size = [], 0
        part.append(call)
        size += call.data_bytes
    yield part


def _rows(
    calls: Sequence[Call], manifest: Manifest, hidden: Collection[str]
) -> pa.RecordBatch:
    times: list[int] = []
    ids: list[str | None] = []
    requests: list[str | None] = []
    for call in calls:
        count = len(call.said.prediction)
        times += [call.at_us] * count
        ids += [None] * count if call.ids is None else call.ids
        requests += [call.request_id] * count
    if ROW_ID in hidden:
        ids = requests = [None] * len(times)  # a request's id may be that of its row
    moments = pa.array(times, pa.int64()).cast(EVENT_TIME_FIELD.type)
    columns: dict[str, tuple[pa.Array, Metadata]] = {
        ID_FIELD.name: (pa.array(ids, ID_FIELD.type), None),
        EVENT_TIME_FIELD.name: (moments, None),
        "request_id": (pa.array(requests, pa.string()), None),
        **_answers(calls, manifest),
    }
    # A feature that has the name of a later column comes in its place.
    columns |= {
        column.name: (_column(values, column.type), None)
        for column, values in _features(calls, manifest.inputs)
        if column.name not in hidden
    }
    fields = [
        pa.field(name, values.type, metadata=metadata)
        for name, (values, metadata) in columns.items()
    ]
    arrays = [values for values, _ in columns.values()]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _features(
    calls: Sequence[Call], inputs: Sequence[InputColumn]
) -> Iterator[tuple[InputColumn, Any]]:
    """Yield each feature with the values (n_rows,) of all calls."""
    numbers = [c for c in inputs if c.type not in STRINGS and c.type != "datetime"]
    matrix = _matrix(calls, [column.name for column in numbers])
    places = {column.name: place for place, column in enumerate(numbers)}
    for column in inputs:
        name = column.name
        if matrix is not None and name in places:
            yield column, matrix[places[name]]
        elif column.type in STRINGS:
            yield column, [v for c in calls for v in c.feeds[name].ravel().tolist()]
        else:
            yield column, np.concatenate([c.feeds[name].reshape(-1) for c in calls])


def _matrix(
    calls: Sequence[Call], names: Sequence[str]
) -> npt.NDArray[np.float32] | None:
    """Return numbers as (n_columns, n_rows), where each call has them as one matrix.

    That is how :func:`feeds.feeds_of` makes them; column by column it would take
    thirty times as long.
    """
    if not names:
        return None
    parts = []
    for call in calls:
        owner = call.feeds[names[0]].base
        if owner is None or owner is not call.feeds[names[-1]].base:
            return None
        rows = len(call.said.prediction)
        if owner.size != len(names) * rows or owner.dtype != np.float32:
            return None
        parts.append(owner.reshape(len(names), rows))
    return np.concatenate(parts, axis=1)


def _answers(
    calls: Sequence[Call], manifest: Manifest
) -> dict[str, tuple[pa.Array, Metadata]]:
    said = np.concatenate([call.said.prediction for call in calls])
    found: dict[str, tuple[pa.Array, Metadata]] = {"prediction": (pa.array(said), None)}
    parts = [call.said.score for call in calls if call.said.score is not None]
    if parts:
        score = np.concatenate(parts)
        column = pa.array(score.reshape(-1), pa.float64())
        if score.ndim == 2:
            width = score.shape[1]
            offsets = np.arange(0, score.size + 1, width, dtype=np.int32)
            column = pa.ListArray.from_arrays(pa.array(offsets), column)
        classes = json.dumps(manifest.classes).encode()
        found["score"] = (column, {CLASSES_METADATA_KEY: classes})
    return found


def _column(values: Any, kind: ColumnType) -> pa.Array:
    """Return what a model got in the type that the column has in validated rows.

    Parameters
    ----------
    values : (n_rows,), a list for texts and else an array.
    """
    if kind in STRINGS:
        return pa.array([text or None for text in values], pa.string())
    if kind == "datetime":
        is_missing = values == MISSING_MOMENT
        return pa.array(values, pa.int64(), mask=is_missing).cast(ARROW_TYPES[kind])
    wide = values.astype(np.float64)
    return pa.array(wide, mask=np.isnan(wide)).cast(ARROW_TYPES[kind], safe=False)


class AnswerLog:
    """Takes what is kept, again and again, and writes it; gives up nothing but room.

    A crash forgets what was answered since the last write.
    """

    def __init__(
        self,
        asked: Asked,
        publisher: Publisher,
        store: ArtifactStore,
        replica: str,
        hidden: Hidden,
        stopping: threading.Event,
        environment: str = PRODUCTION,
    ) -> None:
        self._asked = asked
        self._environment = environment
        self._publisher = publisher
        self._store = store
        self._replica = replica
        self._hidden = hidden
        self._stopping = stopping

    def run(self) -> None:
        """Write until the process is to stop."""
        while not self._stopping.wait(WRITE_S):
            for key, kept in self._asked.take().items():
                self._write(key, kept)

    def close(self) -> None:
        """Write what is left, once the doors are closed."""
        for key, kept in self._asked.take(is_last=True).items():
            self._write(key, kept)

    def _write(self, key: Key, kept: Kept) -> None:
        pipeline = key[0]
        hidden = self._hidden(pipeline)
        left_out = kept.asked_count - kept.row_count
        if kept.mode == "sample":
            LEFT_OUT_ROWS.labels(pipeline, "sampled").inc(left_out)
        if hidden is None:
            LEFT_OUT_ROWS.labels(pipeline, "rules_unknown").inc(kept.row_count)
        elif self._is_sent(key, kept, hidden):
            LOGGED_ROWS.labels(pipeline).inc(kept.row_count)
        else:
            LEFT_OUT_ROWS.labels(pipeline, "stopped").inc(kept.row_count)
        self._asked.release(kept.size_bytes)

    def _is_sent(self, key: Key, kept: Kept, hidden: Collection[str]) -> bool:
        """Send until the broker has it; False: the process is to stop before."""
        records: list[Record] = []
        while True:
            try:
                records = records or self._records(key, kept, hidden)
                timeout_s = LAST_TIMEOUT_S if self._stopping.is_set() else 30.0
                self._publisher.publish(records, timeout_s)
            except (PublishError, Retry) as error:
                logger.warning("answers are not written yet", error=str(error))
                if self._stopping.wait(RETRY_S):
                    return False
            else:
                for record in records:
                    metrics.EVENTS_PRODUCED.labels("scorer", record.topic).inc()
                return True

    def _records(
        self, key: Key, kept: Kept, hidden: Collection[str]
    ) -> list[Record]:  # fmt: skip
        records = []
        for event in events_of(key, kept, self._replica, hidden):
            event_id = str(uuid4())
            meta = Meta(
                event_id, datetime.now(UTC), "/driftloop/scorer", Chain(event_id)
            )
            placed = event.model_copy(update={"environment": self._environment})
            records.append(encode(placed, meta, self._store))
        return records
