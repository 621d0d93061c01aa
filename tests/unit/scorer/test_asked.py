"""What is asked at a door is told as the model got it, and no more than may be."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driftloop.contracts.events import RequestsAnswered
from driftloop.models.onnx_model import Predictions
from driftloop.models.package import InputColumn
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.transport import Message, PublishError, Record
from driftloop.scorer import answer_log
from driftloop.scorer.answer_log import EVENT_BYTES, AnswerLog, events_of
from driftloop.scorer.asked import SAMPLE_ROWS, Asked
from driftloop.scorer.feeds import feeds_of
from driftloop.scorer.metrics import LEFT_OUT_ROWS

from tests.unit.scorer.door import Door
from tests.unit.scorer.packages import NAME, Factory, manifest
from tests.unit.support import wait_until

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
    assert (event.version, event.role) == (1, "champion")
    assert (event.asked_count, event.row_count) == (3, 3)
    assert event.rows.column("id").to_pylist() == ["7", "8", "9"]
    assert event.rows.column("size").to_pylist() == [pytest.approx(0.1), 4.0, 2.0]
    assert event.rows.column("colour").to_pylist() == ["red", "blue", "x"]
    assert event.rows.column("prediction").to_pylist()[2] == pytest.approx(3.0)
    assert event.rows.column("request_id").to_pylist()[2] == "9"
    assert len(set(event.rows.column("request_id").to_pylist())) == 2
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
    door.invoke({"size": 1.0, "colour": "red"}, request_id="7")
    (event,) = door.told("colour", "id")
    assert "colour" not in event.rows.schema.names
    assert event.rows.column("id").to_pylist() == [None]
    assert event.rows.column("request_id").to_pylist() == [None]  # it is the row's id


def test_scores_are_told_with_their_classes(tmp_path: Path) -> None:
    door = Door(Factory(tmp_path).loaded(1, is_binary=True))
    door.invoke({"size": 0.0, "colour": "blue"})
    (event,) = door.told()
    assert event.rows.column("score").to_pylist() == [pytest.approx(0.5)]
    field = event.rows.schema.field("score")
    assert field.metadata == {b"classes": b'["no", "yes"]'}


def test_scores_of_several_classes_are_lists() -> None:
    kept = Asked(lambda _: "all", 10_000)
    made = manifest("p", [InputColumn(name="size", type="number")], is_binary=True)
    made = made.model_copy(update={"task": "multiclass", "classes": ["a", "b", "c"]})
    said = Predictions(np.array(["a", "c"]), np.array([[0.5, 0.3, 0.2], [0, 0.5, 0.5]]))
    kept.add(("p", 1, "champion"), made, "r", None, {"size": np.zeros((2, 1))}, said)
    ((key, found),) = kept.take().items()
    (event,) = events_of(key, found, "0", ())
    assert event.rows.column("score").to_pylist() == [[0.5, 0.3, 0.2], [0, 0.5, 0.5]]


def test_no_more_than_a_sample_is_kept_where_the_pipeline_says_so(loaded: Any) -> None:
    door = Door(loaded, log="sample")
    for _ in range(2):
        door.invoke(*[{"size": 1.0, "colour": "red"}] * (SAMPLE_ROWS - 1))
    assert door.asked.take() == {}  # a sample takes its time
    (event,) = door.told()
    assert (event.row_count, event.asked_count) == (SAMPLE_ROWS, 2 * SAMPLE_ROWS - 2)
    assert event.rows.num_rows == SAMPLE_ROWS


def test_nothing_is_kept_where_the_pipeline_says_so(loaded: Any) -> None:
    door = Door(loaded, log="none")
    door.invoke({"size": 1.0, "colour": "red"})
    assert door.told() == []


def test_rows_beyond_the_memory_are_counted_and_told_with_the_next(
    loaded: Any,
) -> None:
    before = LEFT_OUT_ROWS.labels(NAME, "no_room")._value.get()
    door = Door(loaded, memory_bytes=4_000)
    for _ in range(5):
        door.invoke({"size": 1.0, "colour": "red"})
    (event,) = door.told()
    assert (event.row_count, event.asked_count) == (3, 5)
    assert LEFT_OUT_ROWS.labels(NAME, "no_room")._value.get() == before + 2
    door.invoke({"size": 1.0, "colour": "red"})  # there is room again
    (event,) = door.told()
    assert (event.row_count, event.asked_count) == (1, 1)


def test_rows_of_which_nothing_was_kept_are_told_later() -> None:
    kept = Asked(lambda _: "all", 1_000)
    made = manifest("p", [InputColumn(name="size", type="number")], is_binary=False)

    def ask(rows: int) -> None:
        values = np.zeros((rows, 1), dtype=np.float32)
        kept.add(("p", 1, "champion"), made, "r", None, {"size": values},
                 Predictions(np.zeros(rows)))  # fmt: skip

    ask(1_000)
    assert kept.take() == {}
    ask(1)
    ((key, found),) = kept.take().items()
    (event,) = events_of(key, found, "0", ())
    assert (event.row_count, event.asked_count) == (1, 1_001)


def test_a_busy_second_is_told_in_several_events(loaded: Any) -> None:
    text = "x" * (EVENT_BYTES // 3)
    door = Door(loaded, memory_bytes=4 * EVENT_BYTES)
    for _ in range(4):
        door.invoke({"size": 1.0, "colour": text})
    assert [event.row_count for event in door.told()] == [2, 2]


@pytest.mark.parametrize("is_matrix", [True, False])
def test_numbers_are_those_of_their_columns(is_matrix: bool) -> None:
    """As one matrix, as requests come, or column by column."""
    inputs = [InputColumn(name=name, type="number") for name in "abc"]
    made = manifest("p", [*inputs[:1], InputColumn(name="t", type="text"), *inputs[1:]],
                    is_binary=False)  # fmt: skip
    kept = Asked(lambda _: "all", 10_000)
    for rows, first in ((2, 0), (1, 10)):
        columns = {n: [first + 3 * r + i for r in range(rows)]
                   for i, n in enumerate("abc")}  # fmt: skip
        feeds, _ = feeds_of({**columns, "t": ["x"] * rows}, made.inputs)
        if not is_matrix:
            feeds = {name: values.copy() for name, values in feeds.items()}
        kept.add(("p", 1, "champion"), made, "r", None, feeds,
                 Predictions(np.zeros(rows)))  # fmt: skip
    ((key, found),) = kept.take().items()
    (event,) = events_of(key, found, "0", ())
    assert event.rows.select(["a", "b", "c"]).to_pydict() == {
        "a": [0, 3, 10], "b": [1, 4, 11], "c": [2, 5, 12],
    }  # fmt: skip


def test_types_are_those_of_validated_rows() -> None:
    inputs = [
        InputColumn(name="whole", type="integer", nullable=True),
        InputColumn(name="is_new", type="boolean", nullable=True),
    ]
    values = np.array([[1.0], [np.nan]], dtype=np.float32)
    kept = Asked(lambda _: "all", 10_000)
    kept.add(("p", 1, "champion"), manifest("p", inputs, is_binary=False), "r", None,
             {"whole": values, "is_new": values}, Predictions(np.zeros(2)))  # fmt: skip
    ((key, found),) = kept.take().items()
    (event,) = events_of(key, found, "0", ())
    assert event.rows.column("whole").to_pylist() == [1, None]
    assert event.rows.column("is_new").to_pylist() == [True, None]


class Broker:
    """A publisher in memory that may be away."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.is_away = False
        self.tries = 0

    def publish(self, records: Sequence[Record], timeout_s: float = 30.0) -> None:
        self.tries += 1
        if self.is_away:
            raise PublishError("away")
        self.records += records

    def close(self) -> None: ...


def writer(
    door: Door, broker: Broker, store: FolderStore, hidden: Collection[str] | None = ()
) -> tuple[AnswerLog, threading.Event]:
    stopping = threading.Event()
    log = AnswerLog(door.asked, broker, store, "scorer-0", lambda _: hidden, stopping)
    return log, stopping


def told(broker: Broker, store: FolderStore) -> list[RequestsAnswered]:
    found = []
    for record in broker.records:
        message = Message(record.topic, 0, 0, record.key, record.value, record.headers)
        event = decode(message, store)
        assert isinstance(event, RequestsAnswered)
        found.append(event)
    return found


def test_answers_wait_for_a_broker_that_is_away(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_log, "WRITE_S", 0.001)
    monkeypatch.setattr(answer_log, "RETRY_S", 0.001)
    broker, store = Broker(), FolderStore(tmp_path)
    log, stopping = writer(door, broker, store, {"colour"})
    thread = threading.Thread(target=log.run)
    thread.start()
    broker.is_away = True
    door.invoke({"id": "7", "size": 1.0, "colour": "red"})
    wait_until(lambda: broker.tries > 2)
    broker.is_away = False
    wait_until(lambda: len(broker.records) == 1)
    stopping.set()
    thread.join()
    door.invoke({"id": "8", "size": 1.0, "colour": "red"})
    log.close()
    first, last = told(broker, store)
    assert first.rows.column("id").to_pylist() == ["7"]
    assert "colour" not in first.rows.schema.names
    assert last.rows.column("id").to_pylist() == ["8"]


def test_nothing_is_told_of_a_pipeline_whose_rules_are_not_known(
    door: Door, tmp_path: Path
) -> None:
    before = LEFT_OUT_ROWS.labels(NAME, "rules_unknown")._value.get()
    broker = Broker()
    log, _ = writer(door, broker, FolderStore(tmp_path), None)
    door.invoke({"id": "7", "size": 1.0, "colour": "red"})
    log.close()
    assert broker.records == []
    assert LEFT_OUT_ROWS.labels(NAME, "rules_unknown")._value.get() == before + 1
