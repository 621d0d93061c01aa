"""Examples as events, and messages as a broker would deliver them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.generate import read_examples
from driftloop.contracts.rows import ROW_FIELDS
from driftloop.contracts.topics import TOPICS, Topic
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.transport import Message, Record

ROOT = Path(__file__).parents[2]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``topic`` once for each line of the table."""
    if "topic" in metafunc.fixturenames:
        metafunc.parametrize("topic", TOPICS, ids=lambda topic: topic.name)


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def example(topic: Topic) -> dict[str, Any]:
    return read_examples(ROOT)[topic.name]


def arrow_rows(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    fixed = {field.name: field for field in ROW_FIELDS}
    columns = []
    fields = []
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name == "event_time":
            values = [datetime.fromisoformat(value) for value in values]
        column = pa.array(values, fixed[name].type if name in fixed else None)
        columns.append(column)
        fields.append(fixed.get(name, pa.field(name, column.type)))
    return pa.record_batch(columns, schema=pa.schema(fields))


@pytest.fixture
def event(topic: Topic, example: dict[str, Any]) -> Event:
    fields = {name: value for name, value in example.items() if name != "rows"}
    parsed = topic.event.model_validate_json(json.dumps(fields))
    return (
        parsed.with_rows(arrow_rows(example["rows"])) if "rows" in example else parsed
    )


@pytest.fixture
def meta() -> Meta:
    return Meta(
        id="0a6a3ac1-3f0b-5f51-9a0e-7f6f2f0f5a11",
        time=datetime(2012, 4, 1, 12, 30, tzinfo=UTC),
        source="/driftloop/example",
        chain=Chain("c-1", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        causation_id="cause-1",
    )


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "artifacts")


def delivered(record: Record) -> Message:
    """Return a record as it comes back from partition 2, offset 7."""
    return Message(
        topic=record.topic,
        partition=2,
        offset=7,
        key=record.key,
        value=record.value,
        headers=record.headers,
        timestamp_ms=1_333_283_400_000,
    )


@pytest.fixture
def deliver() -> Any:
    return delivered
