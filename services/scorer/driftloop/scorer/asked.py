"""What was asked at the doors and answered, until it is written to the log.

An answer only leaves references here, within a bound of memory; what is beyond the
bound is counted. Rows are made of it elsewhere (:mod:`driftloop.scorer.answer_log`).
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from driftloop.contracts.events import Role
from driftloop.contracts.pipeline import AnswersLogged
from driftloop.models.onnx_model import Predictions
from driftloop.models.package import STRINGS, Manifest
from driftloop.scorer.feeds import Columns, Feeds
from driftloop.scorer.metrics import LEFT_OUT_ROWS

ROW_ID = "id"
"""Name under which a request may say which rows it asks about."""
SAMPLE_ROWS = 500
"""Of a pipeline's version in a sample: enough to know a column's values."""
SAMPLE_S = 60.0
CALL_BYTES = 700
"""Of memory for a request beside its values: its tuple, id, answer and dictionary."""
COLUMN_BYTES = 190
"""Of memory for a column of a request beside its values: an array's own."""
VALUE_BYTES = 8

Key = tuple[str, int, Role]
"""Pipeline, version, and in which role it answered."""
Mode = Callable[[str], AnswersLogged | None]
"""How much of a pipeline is logged; None: the pipeline is not known."""


class Call(NamedTuple):
    """Rows of one request, as the model got and answered them.

    Attributes
    ----------
    at_us : microseconds since 1970.
    request_id : the caller's or, without one, ours.
    ids : of the rows, (n_rows,); None: the request names none.
    feeds : each feature as (n_rows, 1).
    data_bytes : of values, estimated.
    """

    at_us: int
    request_id: str
    ids: Sequence[str | None] | None
    feeds: Feeds
    said: Predictions
    data_bytes: int


@dataclass
class Kept:
    """Calls of one key; ``asked_count`` is of rows, with those left out."""

    mode: AnswersLogged
    manifest: Manifest
    since: float
    calls: list[Call] = field(default_factory=list)
    row_count: int = 0
    asked_count: int = 0
    size_bytes: int = 0

    def __post_init__(self) -> None:
        inputs = self.manifest.inputs
        self.texts = [column.name for column in inputs if column.type in STRINGS]
        outputs = 1 + len(self.manifest.classes)
        self.row_bytes = VALUE_BYTES * (len(inputs) + outputs)
        self.call_bytes = CALL_BYTES + COLUMN_BYTES * len(inputs)


class Asked:
    """Requests that are not written yet; thread-safe.

    Parameters
    ----------
    most_bytes : of memory for all that is kept or being written.
    """

    def __init__(self, mode: Mode, most_bytes: int) -> None:
        self._mode = mode
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: dict[Key, Kept] = {}
        self._missed: dict[Key, int] = {}
        self._held_bytes = 0

    def add(
        self,
        key: Key,
        manifest: Manifest,
        request_id: str,
        ids: Sequence[str | None] | None,
        feeds: Feeds,
        said: Predictions,
    ) -> None:
        """Keep a request that was answered, if there is room."""
        rows = len(said.prediction)
        with self._lock:
            kept = self._kept.get(key) or self._open(key, manifest)
            if kept.mode == "none":
                return
            kept.asked_count += rows
            if kept.mode == "sample" and kept.row_count + rows > SAMPLE_ROWS:
                rows = SAMPLE_ROWS - kept.row_count
                if rows <= 0:
                    return
                ids, feeds, said = _first(rows, ids, feeds, said)
            data_bytes = rows * kept.row_bytes
            for name in kept.texts:
                data_bytes += sum(map(len, feeds[name].ravel().tolist()))
            size = data_bytes + kept.call_bytes
            if self._held_bytes + size > self._most_bytes:
                LEFT_OUT_ROWS.labels(key[0], "no_room").inc(rows)
                return
            self._held_bytes += size
            kept.size_bytes += size
            kept.row_count += rows
            kept.calls.append(
                Call(time.time_ns() // 1000, request_id, ids, feeds, said, data_bytes)
            )

    def _open(self, key: Key, manifest: Manifest) -> Kept:
        # A pipeline that is not known yet is kept: when it is written, it may be known.
        kept = Kept(self._mode(key[0]) or "all", manifest, time.monotonic())
        self._kept[key] = kept
        return kept

    def take(self, *, is_last: bool = False) -> Mapping[Key, Kept]:
        """Return what is to be written now; :meth:`release` its memory after that.

        Samples are due a minute after they began, or at the end.
        """
        now = time.monotonic()
        with self._lock:
            due = {
                key: kept
                for key, kept in self._kept.items()
                if kept.mode != "sample" or is_last or now - kept.since >= SAMPLE_S
            }
            for key, kept in due.items():
                del self._kept[key]
                asked = kept.asked_count + self._missed.pop(key, 0)
                if kept.calls:
                    kept.asked_count = asked
                elif asked:
                    self._missed[key] = asked  # told with the next rows
        return {key: kept for key, kept in sorted(due.items()) if kept.calls}

    def release(self, size_bytes: int) -> None:
        """Say that taken calls are written, or given up."""
        with self._lock:
            self._held_bytes -= size_bytes


def _first(
    count: int, ids: Sequence[str | None] | None, feeds: Feeds, said: Predictions
) -> tuple[Sequence[str | None] | None, Feeds, Predictions]:
    """Return copies of the first rows, so that the rest can go."""
    score = None if said.score is None else said.score[:count].copy()
    return (
        None if ids is None else ids[:count],
        {name: values[:count].copy() for name, values in feeds.items()},
        Predictions(said.prediction[:count].copy(), score),
    )


def row_ids(
    columns: Columns, row_count: int, request_id: str | None
) -> list[str | None] | None:
    """Return which rows a request asks about; None where it does not say so.

    A column ``id`` names each row; of a single row the request's own id does too.
    """
    given = columns.get(ROW_ID)
    if given is None:
        return None if request_id is None or row_count != 1 else [request_id]
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, list | tuple) and len(given) == row_count:
        flat = [
            v[0] if isinstance(v, list | tuple) and len(v) == 1 else v for v in given
        ]
        return [str(v) if isinstance(v, str | int) else None for v in flat]
    return [request_id] if row_count == 1 else None
