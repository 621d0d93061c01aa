"""What is asked at a door is told as the model got it, and no more than may be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from driftloop.models.onnx_model import Predictions
from driftloop.models.package import InputColumn
from driftloop.scorer import answering
from driftloop.scorer.asked import KEPT_ROWS, Asked

from tests.unit.scorer.door import Door
from tests.unit.scorer.packages import NAME, Factory

INFER = f"/v2/models/{NAME}/infer"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return Factory(tmp_path_factory.mktemp("home")).loaded(1, 1.0)


@pytest.fixture
def door(loaded: Any) -> Door:
    return Door(loaded)


def test_rows_are_told_with_their_ids_and_answers(door: Door) -> None:
    door.invoke({"id": 7, "size": 0.1, "colour": "red"}, {"id": "8", "size": 4.0,
                "colour": "blue"})  # fmt: skip
    reply = door.client.post(
        INFER,
        json={
            "id": "9",
            "inputs": [
                {"name": "size", "shape": [1], "datatype": "FP64", "data": [2.0]},
                {"name": "colour", "shape": [1], "datatype": "BYTES", "data": ["x"]},
            ],
        },
    )
    assert reply.status_code == 200
    (event,) = door.told()
    assert (event.version, event.asked_count, event.row_count) == (1, 3, 3)
    assert event.rows.column("id").to_pylist() == ["7", "8", "9"]
    assert event.rows.column("size").to_pylist() == [pytest.approx(0.1), 4.0, 2.0]
    assert event.rows.column("colour").to_pylist() == ["red", "blue", "x"]
    assert event.rows.column("prediction").to_pylist()[2] == pytest.approx(3.0)
    assert door.told() == []


def test_an_id_may_be_an_input_of_open_inference(door: Door) -> None:
    body = {
        "inputs": [
            {"name": "id", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
            {"name": "size", "shape": [2], "datatype": "FP64", "data": [1, 2]},
            {"name": "colour", "shape": [2], "datatype": "BYTES", "data": ["x", "y"]},
        ]
    }
    assert door.client.post(INFER, json=body).status_code == 200
    assert door.told()[0].rows.column("id").to_pylist() == ["a", "b"]


def test_columns_with_a_privacy_rule_are_left_out(door: Door) -> None:
    door.invoke({"id": "7", "size": 1.0, "colour": "red"})
    (event,) = door.told("colour", "id")
    assert event.rows.schema.names == ["id", "event_time", "size", "prediction"]
    assert event.rows.column("id").to_pylist() == [None]


def test_nothing_is_told_of_a_pipeline_whose_rules_are_not_known(door: Door) -> None:
    door.invoke({"id": "7", "size": 1.0, "colour": "red"})
    assert list(door.asked.drain("scorer-0", lambda _: None)) == []


def test_no_more_than_a_sample_is_kept(door: Door) -> None:
    for _ in range(2):
        door.invoke(*[{"size": 1.0, "colour": "red"}] * (KEPT_ROWS - 1))
    (event,) = door.told()
    assert (event.row_count, event.asked_count) == (KEPT_ROWS, 2 * KEPT_ROWS - 2)
    assert event.rows.num_rows == KEPT_ROWS


def test_types_are_those_of_validated_rows() -> None:
    inputs = [
        InputColumn(name="whole", type="integer", nullable=True),
        InputColumn(name="is_new", type="boolean", nullable=True),
    ]
    values = np.array([[1.0], [np.nan]], dtype=np.float32)
    kept = Asked()
    kept.add(("p", 1), inputs, [None, None], {"whole": values, "is_new": values},
             Predictions(np.zeros(2)))  # fmt: skip
    (event,) = kept.drain("0", lambda _: ())
    assert event.rows.column("whole").to_pylist() == [1, None]
    assert event.rows.column("is_new").to_pylist() == [True, None]


def test_what_was_asked_is_published_with_the_figures(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[Any] = []
    stopping = threading.Event()

    class Outbox:
        @contextmanager
        def unit(self, _: Any) -> Iterator[tuple[None, list[Any]]]:
            events: list[Any] = []
            yield None, events
            published.extend(events)
            stopping.set()

    monkeypatch.setattr(answering, "DRAIN_S", 0.001)
    monkeypatch.setattr(answering, "REPORT_S", 0.0)
    door.invoke({"id": "7", "size": 1.0, "colour": "red"})
    report = answering.traffic_reporter(
        answering.Traffic(), door.asked, Outbox(), "scorer-0", lambda _: {"colour"},
        stopping,
    )  # fmt: skip
    report()  # ends once something was published
    (event,) = published
    assert (event.shard, event.row_count) == ("scorer-0", 1)
    assert "colour" not in event.rows.schema.names
