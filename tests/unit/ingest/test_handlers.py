"""The data door: what arrives in any form leaves as batches, each id once."""

from collections.abc import Iterator
from datetime import datetime

import orjson
import pyarrow as pa
import pytest
from driftloop.contracts.events import BatchIngested
from driftloop.contracts.topics import consumed_by, produced_by
from driftloop.ingest.handlers import HANDLERS
from driftloop.runtime.errors import Retry
from driftloop.runtime.handlers import handler_table

from tests.unit.ingest.door import APPLIED, Desk, message, row

OBSERVATIONS, LABELS, *_ = HANDLERS


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def test_handlers_are_those_of_the_topic_table() -> None:
    table = handler_table(HANDLERS)
    assert set(table.topics) == {topic.name for topic in consumed_by("ingest")}
    assert "batch-ingested" in {topic.name for topic in produced_by("ingest")}


def test_messages_of_one_source_become_one_batch(desk: Desk) -> None:
    events, letters = desk.handle(
        OBSERVATIONS, [message(row(n), offset=n) for n in range(5)]
    )
    assert not letters
    (event,) = events
    assert (event.pipeline, event.shard, event.kind) == (
        "bikes",
        "pump",
        "observations",
    )
    assert event.row_count == event.rows.num_rows == 5
    assert event.rows["id"].to_pylist() == [f"r{n}" for n in range(5)]
    assert (
        event.span.end
        == event.watermark
        == datetime.fromisoformat("2011-01-01T00:04:00+00:00")
    )


def test_forms_and_sources_are_told_apart(desk: Desk) -> None:
    table = pa.Table.from_pylist([row(10), row(11)])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    structured = {
        "specversion": "1.0",
        "id": "e1",
        "type": "any",
        "source": "/plant/north",
        "subject": "bikes",
        "data": [row(20)],
    }
    events, letters = desk.handle(
        OBSERVATIONS,
        [
            message(row(1), offset=0, key="bikes"),
            message(
                sink.getvalue().to_pybytes(),
                offset=1,
                key=None,
                ce_subject="bikes",
                ce_source="/upstream/south",
                content__type="application/vnd.apache.arrow.stream",
            ),
            message(
                structured,
                offset=2,
                key=None,
                content__type="application/cloudevents+json",
            ),
            message(b"id,event_time,temp\nr30,2011-01-01,0.1\n", offset=3,
                    content__type="text/csv"),
        ],
    )  # fmt: skip
    assert not letters
    assert {event.shard: event.rows["id"].to_pylist() for event in events} == {
        "upstream": ["r1"],
        "south": ["r10", "r11"],
        "north": ["r20"],
        "pump": ["r30"],
    }


def test_a_batch_continues_the_chain_of_its_first_message(desk: Desk) -> None:
    events, _ = desk.handle(
        OBSERVATIONS,
        [
            message(row(1), ce_id="one", ce_chainid="c1", ce_subject="bikes"),
            message(row(2), offset=1, key="bikes/other", ce_id="two"),
        ],
    )
    assert [(e.follows.id, e.follows.chain.id) for e in events if e.follows] == [
        ("one", "c1"),
        ("two", "two"),
    ]


def test_the_same_messages_again_are_duplicates(desk: Desk) -> None:
    messages = [message([row(1), row(2)]), message(row(1), offset=1)]
    (event,), _ = desk.handle(OBSERVATIONS, messages)
    assert (event.row_count, event.duplicate_count) == (2, 1)
    assert desk.handle(OBSERVATIONS, messages) == ([], [])
    (event,), _ = desk.handle(OBSERVATIONS, [message([row(2), row(3)], offset=5)])
    assert event.rows["id"].to_pylist() == ["r3"]
    assert event.duplicate_count == 1


def test_a_changed_observation_goes_on_to_the_validator(desk: Desk) -> None:
    desk.handle(OBSERVATIONS, [message(row(1, temp=40))])
    (event,), _ = desk.handle(OBSERVATIONS, [message(row(1, temp=0.4), offset=1)])
    assert event.rows["temp"].to_pylist() == [0.4]
    assert "revision" not in event.rows.schema.names


def test_a_corrected_label_is_a_revision(desk: Desk) -> None:
    def label(value: float, offset: int) -> list[tuple[float, int]]:
        events, _ = desk.handle(
            LABELS, [message(row(1, cnt=value), offset, topic="label-arrived")]
        )
        return [
            pair
            for event in events
            for pair in zip(
                event.rows["cnt"].to_pylist(),
                event.rows["revision"].to_pylist(),
                strict=True,
            )
        ]

    assert label(3, 0) == [(3.0, 0)]
    assert label(3.0, 1) == []
    assert label(4, 2) == [(4.0, 1)]
    assert label(3, 3) == [(3.0, 2)]


def test_corrections_are_counted(desk: Desk) -> None:
    def label(offset: int, **values: float) -> BatchIngested:
        rows = [row(int(name[1:]), cnt=value) for name, value in values.items()]
        (event,), _ = desk.handle(
            LABELS, [message(rows, offset, topic="label-arrived")]
        )
        return event

    first, second = label(0, r1=3, r2=3), label(1, r1=4, r2=3, r3=3)
    assert (first.revised_count, first.duplicate_count) == (0, 0)
    assert (second.revised_count, second.duplicate_count) == (1, 1)
    assert second.row_count == 2


def test_an_observation_and_its_label_are_different_rows(desk: Desk) -> None:
    desk.handle(OBSERVATIONS, [message(row(1))])
    events, _ = desk.handle(LABELS, [message(row(1, cnt=3), topic="label-arrived")])
    assert len(events) == 1


def test_bad_rows_are_dead_letters_and_good_ones_go_on(desk: Desk) -> None:
    lines = [orjson.dumps(row(1)), b'{"id": "r2"', orjson.dumps(row(3, event_time="?"))]
    events, letters = desk.handle(
        OBSERVATIONS,
        [
            message(b"\n".join(lines), content__type="application/x-ndjson", ce_id="x"),
            message(b"{", offset=1),
            message(row(4), offset=2),
        ],
    )
    (event,) = events
    assert event.rows["id"].to_pylist() == ["r1", "r4"]
    found = {(x.message.offset, x.row): x for x in letters}
    assert set(found) == {(1, None), (0, 2), (0, 3)}
    assert found[1, None].message.value == b"{"
    broken, timeless = found[0, 2], found[0, 3]
    assert "broken JSON" in str(broken.error)
    assert str(timeless.error).startswith("event_time: '?' is no time")


def test_a_dead_row_mended_and_sent_again_is_taken(desk: Desk) -> None:
    """Its headers say what it is, whatever the message was that it came in."""
    structured = {
        "specversion": "1.0",
        "id": "e1",
        "type": "any",
        "source": "/plant/north",
        "subject": "bikes",
        "data": [row(1), row(2, event_time="soon")],
    }
    whole = message(structured, key=None, content__type="application/cloudevents+json")
    _, (letter,) = desk.handle(OBSERVATIONS, [whole])
    held = letter.message
    mended = held.value.replace(b"soon", b"2011-01-01T00:00:00Z")
    again = message(mended, offset=9, key=None)
    events, letters = desk.handle(
        OBSERVATIONS,
        [type(held)(again.topic, 0, 9, held.key, mended, held.headers)],
    )
    assert not letters
    assert [(e.shard, e.rows["id"].to_pylist()) for e in events] == [("north", ["r2"])]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (message(b""), "no value"),
        (message(row(1), key=None), "names no pipeline"),
        (message(row(1), key="Bad Name/x"), "names no pipeline"),
        (message(row(1), content__type="text/html"), "is not known"),
        (message(b"[" * 5000), "deeper"),
        (message(row(1), key="bikes/a\0b"), "cannot be printed"),
        (message(row(1), key="elsewhere/x"), "'elsewhere' is not applied"),
    ],
)
def test_an_unusable_message_is_one_dead_letter(
    desk: Desk, bad: object, says: str
) -> None:
    events, letters = desk.handle(OBSERVATIONS, [bad, message(row(7), offset=1)])
    assert [event.row_count for event in events] == [1]
    assert [letter.row for letter in letters] == [None]
    assert says in str(letters[0].error)


def test_messages_wait_a_while_for_their_pipeline() -> None:
    desk = Desk(grace_s=1000)
    early = [message(row(1), key="soon/x"), message(row(2), offset=1)]
    with pytest.raises(Retry, match="'soon' is not applied|soon is not applied"):
        desk.handle(OBSERVATIONS, early)
    desk.session.rollback()
    spec = APPLIED.spec.model_copy(update={"name": "soon"})
    desk.deps.pipelines.put(
        APPLIED.model_copy(update={"pipeline": "soon", "spec": spec})
    )
    events, letters = desk.handle(OBSERVATIONS, early)
    assert [event.pipeline for event in events] == ["soon", "bikes"]
    assert not letters
    desk.close()


def test_late_rows_are_counted_against_the_stored_watermark(desk: Desk) -> None:
    desk.handle(OBSERVATIONS, [message(row(1, event_time="2011-03-01T00:00:00Z"))])
    (event,), _ = desk.handle(
        OBSERVATIONS,
        [
            message(
                [row(2, event_time="2011-02-01"), row(3, event_time="2011-02-28")], 1
            )
        ],
    )
    assert (event.late_count, event.out_of_order_count) == (1, 1)
    assert event.watermark.month == 3
    assert event.span.end.month == 2
