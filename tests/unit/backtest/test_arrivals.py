"""Rows of a dataset come in a backtest as the validator recorded that they came."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from driftloop.backtest.sources import read_rows
from driftloop.backtest.stream import Part, Rhythm, Stream, parts_of, stream_of
from driftloop.contracts.events import RowKind
from driftloop.validator.datasets import Datasets, Position

from tests.unit.backtest import town

US = pa.timestamp("us", "UTC")
FIELDS: dict[RowKind, list[tuple[str, pa.DataType]]] = {
    "observations": [("a", pa.float64()), ("b", pa.float64()), ("y", pa.float64())],
    "labels": [("y", pa.float64()), ("revision", pa.int64())],
}
SCHEMAS = {
    kind: pa.schema(
        [("id", pa.string()), ("event_time", US), ("source", pa.string()), *fields]
    )
    for kind, fields in FIELDS.items()
}


def at(hour: float) -> datetime:
    return town.START + timedelta(hours=hour, microseconds=123_456)


class Recorder:
    """Appends batches as the validator does; each call is one batch."""

    def __init__(self, home: Path) -> None:
        folder = home / "datasets" / "town"
        self.tables = {kind: folder / kind for kind in FIELDS}
        self.datasets = Datasets(lambda _, kind: str(self.tables[kind]))
        self._offsets = iter(range(10**6))

    def rows(self, *numbers: int, y: float | None = None, source: str = "town") -> None:
        self._append(
            "observations",
            [
                {"id": f"r{n}", "event_time": at(n), "source": source,
                 "a": float(n), "b": 1.0, "y": y}
                for n in numbers
            ],
        )  # fmt: skip

    def labels(
        self, *numbers: int, hour: float | None = None, source: str = "lab",
        revision: int = 0,
    ) -> None:  # fmt: skip
        self._append(
            "labels",
            [
                {"id": f"r{n}", "event_time": at(n if hour is None else hour),
                 "source": source, "y": 2.0 * n + revision, "revision": revision}
                for n in numbers
            ],
        )  # fmt: skip

    def _append(self, kind: RowKind, rows: list[dict[str, Any]]) -> None:
        batch = pa.RecordBatch.from_pylist(rows, SCHEMAS[kind])
        position = Position("batch-ingested", 0, next(self._offsets))
        self.datasets.append("town", kind, batch, position, SCHEMAS)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


def stream(home: Path, rhythm: Rhythm | None = None, version: str = "latest") -> Stream:
    rows, refused = read_rows(f"town@{version}", town.spec(), home)
    assert refused == 0
    return stream_of(rows, "y", rhythm or Rhythm())


def parts(found: Stream, rhythm: Rhythm | None = None) -> list[Part]:
    return list(parts_of(found, rhythm or Rhythm(), town.WINDOW))


def told(found: Stream) -> list[tuple[str, str, list[str]]]:
    return [
        (part.kind[:3], part.shard, found.sent(part)["id"].to_pylist())
        for part in parts(found)
    ]


def test_batches_come_as_they_came(recorder: Recorder, tmp_path: Path) -> None:
    """Of any size, out of order, labels between them, one of them before its row."""
    recorder.rows(0, 1, 2)
    recorder.labels(0, 1)
    recorder.rows(5)
    recorder.rows(3, 4, source="other")
    recorder.labels(6, 4, hour=9)
    recorder.rows(6, 7)
    found = stream(tmp_path)
    assert told(found) == [
        ("obs", "town", ["r0", "r1", "r2"]),
        ("lab", "lab", ["r0", "r1"]),
        ("obs", "town", ["r5"]),
        ("obs", "other", ["r3", "r4"]),
        ("lab", "lab", ["r4", "r6"]),
        ("obs", "town", ["r6", "r7"]),
    ]
    dues = [part.due_us for part in parts(found)]
    assert dues == sorted(dues)


def test_labels_are_sent_as_they_were(recorder: Recorder, tmp_path: Path) -> None:
    """With their own time and source; a row that brought its own keeps it."""
    recorder.rows(0, 1)
    recorder.rows(2, y=7.0)
    recorder.labels(0, 1, hour=30, source="clinic")
    found = stream(tmp_path)
    first, second, third = parts(found)
    assert "y" not in found.sent(first).column_names
    assert found.sent(second)["y"].to_pylist() == [7.0]
    sent = found.sent(third)
    assert sent["source"].to_pylist() == ["clinic", "clinic"]
    assert sent["event_time"].to_pylist() == [at(30), at(30)]
    assert found.span_us(third) == (third.due_us, third.due_us)
    hours = 3_600_000_000
    assert found.is_timely(29 * hours).tolist() == [False, True, True]


def test_rows_with_and_without_labels_in_one_batch(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder._append(
        "observations",
        [
            {"id": f"r{n}", "event_time": at(n), "source": "s", "a": 0.0, "b": 0.0,
             "y": y}
            for n, y in enumerate([1.0, None, 3.0])
        ],
    )  # fmt: skip
    recorder.labels(1)
    found = stream(tmp_path)
    first, second = parts(found)
    assert found.sent(first)["y"].to_pylist() == [1.0, None, 3.0]
    assert first.labelled.tolist() == [0, 2]
    assert found.sent(second)["y"].to_pylist() == [2.0]


def test_a_version_ends_where_it_ended(recorder: Recorder, tmp_path: Path) -> None:
    recorder.rows(0, 1)
    recorder.labels(0)
    recorder.rows(2)
    older = stream(tmp_path, version="1.1")
    assert told(older) == told(stream(tmp_path))[:2]


@pytest.mark.parametrize("is_vacuumed", [False, True])
def test_compaction_and_vacuum_leave_the_order(
    recorder: Recorder, tmp_path: Path, is_vacuumed: bool
) -> None:
    """Once files of single batches are gone, event times tell what they held."""
    sizes = np.random.default_rng(4).integers(1, 5, 70)
    ends = np.cumsum(sizes).tolist()
    starts = [0, *ends[:-1]]
    for start, end in zip(starts, ends, strict=True):
        recorder.rows(*range(start, end))
        recorder.labels(*range(start, end))
    wanted = told(stream(tmp_path))
    assert len(wanted) == 140
    recorder.datasets.compact("town")
    if is_vacuumed:
        for place in recorder.tables.values():
            table = DeltaTable(str(place))
            gone = table.vacuum(0, dry_run=False, enforce_retention_duration=False)
            assert len(gone) > 35
    assert told(stream(tmp_path)) == wanted


def test_rows_whose_labels_all_came_with_them(
    recorder: Recorder, tmp_path: Path
) -> None:
    """No table of labels, or one that is empty in this version."""
    recorder.rows(0, 1, y=1.0)
    recorder.rows(2, y=2.0)
    wanted = [("obs", "town", ["r0", "r1"]), ("obs", "town", ["r2"])]
    assert told(stream(tmp_path)) == wanted
    recorder.labels(0)
    found = stream(tmp_path, version="2.0")
    assert told(found) == wanted
    assert [part.labelled.tolist() for part in parts(found)] == [[0, 1], [2]]


def test_another_rhythm_goes_before_the_recorded_one(
    recorder: Recorder, tmp_path: Path
) -> None:
    for number in range(10):
        recorder.rows(number)
        recorder.labels(number, hour=number + 1)
    delayed = Rhythm(batch_rows=5, label_delay_hours=2)
    found = stream(tmp_path, delayed)
    kinds = [(part.kind, len(part.rows)) for part in parts(found, delayed)]
    assert kinds == [
        ("observations", 5), ("labels", 3), ("observations", 5), ("labels", 5),
    ]  # fmt: skip


def test_the_stream_is_the_same_in_another_process(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.rows(0, 1, 2)
    recorder.labels(1, hour=8)
    recorder.rows(3)
    found = stream(tmp_path)
    found.save(tmp_path / "rows.arrow")
    mapped = Stream.mapped(tmp_path / "rows.arrow", "y")
    assert told(mapped) == told(found)
    assert [p.due_us for p in parts(mapped)] == [p.due_us for p in parts(found)]


def test_a_log_that_lacks_commits_tells_nothing(
    recorder: Recorder, tmp_path: Path
) -> None:
    """Then rows come in the usual rhythm, as of a table of somebody else."""
    recorder.rows(0, 1)
    recorder.rows(2)
    log = recorder.tables["observations"] / "_delta_log"
    DeltaTable(str(recorder.tables["observations"])).create_checkpoint()
    (log / f"{1:020d}.json").unlink()
    found = stream(tmp_path)
    assert found.arrivals is None
    assert [len(part.rows) for part in parts(found)] == [3]
