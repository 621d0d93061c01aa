"""A row that is asked at a door and comes in the stream: both must read it alike.

The door is the scorer's own HTTP interface; the monitor's own handlers compare.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from driftloop.contracts.events import AlertRaised, BatchValidated, Span
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.package import InputColumn
from driftloop.scorer import feeds

from tests.unit.monitor.story import InProcess, Shop, day
from tests.unit.scorer.door import Door
from tests.unit.scorer.packages import NAME, Factory

RECORDS = [
    {"id": f"r{at}", "size": at / 7, "colour": "red" if at % 2 else "dark blue"}
    for at in range(30)
]


@pytest.fixture
def door(tmp_path: Any) -> Door:
    return Door(Factory(tmp_path).loaded(1, 1.0))


@pytest.fixture
def monitor() -> Any:
    spec = PipelineSpec.model_validate(
        {
            "name": NAME,
            "task": "regression",
            "data": {
                "target": "y",
                "features": {"size": {}, "colour": {"type": "category"}},
            },
        }
    )
    found = InProcess(spec)
    found.take(Shop(NAME).deployed())
    yield found
    found.close()


def streamed() -> BatchValidated:
    times = pa.array([day(0)] * len(RECORDS), pa.timestamp("us", "UTC"))
    rows = pa.Table.from_pylist(RECORDS).add_column(1, "event_time", times)
    rows = rows.add_column(2, "source", pa.array(["till"] * len(RECORDS)))
    return BatchValidated(
        pipeline=NAME, shard="till", row_count=len(RECORDS), watermark=day(0),
        span=Span(start=day(0), end=day(0)),
    ).with_rows(rows.combine_chunks().to_batches()[0])  # fmt: skip


def conditions(monitor: InProcess) -> list[str]:
    return [alert.condition for alert in monitor.of(AlertRaised)]


def test_a_door_that_reads_rightly_is_silent(door: Door, monitor: InProcess) -> None:
    door.invoke(*RECORDS)
    (asked,) = door.told()
    assert asked.row_count == len(RECORDS)
    monitor.take(asked)
    monitor.take(streamed())
    assert conditions(monitor) == []


def test_a_door_that_misreads_a_column_is_found(
    door: Door, monitor: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is in the door's own code: it cuts a text at its first blank."""
    right = feeds._texts

    def wrong(values: Any, column: InputColumn) -> Any:
        found = right(values, column)
        found[:, 0] = [text.split(" ")[0] for text in found[:, 0]]
        return found

    monkeypatch.setattr(feeds, "_texts", wrong)
    door.invoke(*RECORDS)
    monitor.take(door.told()[0])
    monitor.take(streamed())
    assert conditions(monitor) == ["serving_skew:v1:values:colour"]


def test_callers_that_send_another_unit_are_found(
    door: Door, monitor: InProcess
) -> None:
    """The door is right; upstream's two programs differ, as they do in real life."""
    door.invoke(*[record | {"size": record["size"] * 100} for record in RECORDS])
    monitor.take(door.told()[0])
    monitor.take(streamed())
    assert conditions(monitor) == ["serving_skew:v1:values:size"]
