"""Rows become batches: identified, each id once."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from driftloop.contracts.pipeline import PipelineSpec, parse_pipeline
from driftloop.ingest.core import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ROWS,
    MAX_JOINED_BYTES,
    Seen,
    batches,
    behind,
    concatenated,
    fresh_rows,
    joined_rows,
    typed_rows,
)
from driftloop.ingest.formats import Parsed

SPEC = parse_pipeline(
    "{name: bikes, task: regression, data: {target: cnt, time: time, features: "
    "{temp: {}, hour: {type: integer}, sky: {type: category}}}}"
)
OPEN = parse_pipeline("{name: bikes, task: regression, data: {target: cnt}}")
TIME = "2011-01-01T00:00:00Z"


def row(**values: object) -> dict[str, object]:
    return {"id": "a", "time": TIME, "temp": 0.5, "hour": 1, "sky": "1"} | values


def parsed(*rows: dict[str, object]) -> Parsed:
    return Parsed(list(rows), range(1, len(rows) + 1))


def typed(*rows: dict[str, object], spec: PipelineSpec = SPEC) -> pa.Table:
    return typed_rows(parsed(*rows), spec, "observations", "s").table


def test_columns_come_in_the_contracts_order() -> None:
    table = typed(row(cnt=3, zeta=1, alpha={"b": 2}))
    assert table.to_pylist() == [
        {
            "id": "a",
            "event_time": datetime(2011, 1, 1, tzinfo=UTC),
            "source": "s",
            "temp": 0.5,
            "hour": 1,
            "sky": "1",
            "cnt": 3.0,
            "extra": '{"alpha":{"b":2},"zeta":1}',
        }
    ]


def test_names_that_driftloop_uses_are_kept_in_extra() -> None:
    table = typed(row(source="pump 7", reason="test", event_time="x"))
    assert table["source"].to_pylist() == ["s"]
    assert "pump 7" in table["extra"][0].as_py()


def test_a_column_that_no_row_has_is_absent() -> None:
    without = row()
    del without["temp"]
    assert "temp" not in typed(without).column_names
    assert typed(without, row(id="b"))["temp"].to_pylist() == [None, 0.5]


def test_without_declared_features_every_column_goes_on() -> None:
    table = typed(
        {"id": 1, "event_time": TIME, "x": 1, "cnt": 2, "reason": "r"}, spec=OPEN
    )
    assert table.column_names == ["id", "event_time", "source", "x", "cnt", "extra"]
    assert table["id"].to_pylist() == ["1"]


def test_labels_have_the_target_alone() -> None:
    result = typed_rows(parsed(row(cnt=3)), SPEC, "labels", "s")
    assert result.table.column_names == ["id", "event_time", "source", "cnt", "extra"]


def test_rows_without_a_time_are_bad_and_the_others_go_on() -> None:
    result = typed_rows(
        parsed(row(time=None), row(id="b"), row(id="x" * 300)),
        SPEC,
        "observations",
        "s",
    )
    assert result.table["id"].to_pylist() == ["b"]
    assert len(result.contents) == 1
    found = [(at, bad.number, bad.field) for at, bad in result.bad]
    assert found == [(0, 1, "time"), (2, 3, "id")]
    assert b'"time":null' in result.bad[0][1].content


def test_a_missing_id_is_derived_from_source_and_content() -> None:
    ids = typed(row(id=None), row(id=""), row(id=None, temp=1))["id"].to_pylist()
    assert ids[0] == ids[1] != ids[2]
    elsewhere = typed_rows(parsed(row(id=None)), SPEC, "observations", "t").table
    assert elsewhere["id"][0].as_py() != ids[0]


@pytest.mark.parametrize("other", [row(temp="0.5", hour="1"), row(sky=1, cnt=None)])
def test_the_form_of_a_row_is_no_part_of_its_content(other: dict[str, object]) -> None:
    one = typed_rows(parsed(row()), SPEC, "observations", "s").contents
    assert typed_rows(parsed(other), SPEC, "observations", "s").contents == one
    table = Parsed(pa.Table.from_pylist([row()]), [1])
    assert typed_rows(table, SPEC, "observations", "s").contents == one
    changed = typed_rows(parsed(row(temp=0.6)), SPEC, "observations", "s").contents
    assert changed != one


def test_a_label_is_the_same_whatever_else_its_row_holds() -> None:
    one = typed_rows(parsed(row(cnt=3)), SPEC, "labels", "s").contents
    assert typed_rows(parsed(row(cnt=3.0, temp=9)), SPEC, "labels", "s").contents == one
    assert typed_rows(parsed(row(cnt=4)), SPEC, "labels", "s").contents != one


def test_neighbouring_json_messages_are_joined_in_order() -> None:
    table = Parsed(pa.table({"id": ["t"]}), [1])
    one, two = parsed(row(id="a")), parsed(row(id="b"), row(id="c"))
    pieces = [
        (owners, [r["id"] for r in p.rows] if isinstance(p.rows, list) else "table")
        for p, owners in joined_rows([one, two, table, one])
    ]
    assert pieces == [([0, 1, 1], ["a", "b", "c"]), ([2], "table"), ([3], ["a"])]


def test_neighbouring_tables_of_one_schema_are_merged() -> None:
    """Another schema, or one between them, keeps them apart."""
    same, other = pa.table({"id": ["a", "b"]}), pa.table({"id": [1]})
    given = [Parsed(t, range(1, len(t) + 1)) for t in (same, same, other, same)]
    merged = [
        (p.rows["id"].to_pylist(), p.numbers, owners)
        for p, owners in joined_rows(given)
    ]
    assert merged == [
        (["a", "b", "a", "b"], [1, 2, 1, 2], [0, 0, 1, 1]),
        ([1], [1], [2]),
        (["a", "b"], [1, 2], [3, 3]),
    ]


def test_a_large_table_stays_alone() -> None:
    large = pa.table({"x": range(MAX_JOINED_BYTES // 8 + 1)})
    given = [Parsed(large, range(len(large)))] * 2
    assert [set(owners) for _, owners in joined_rows(given)] == [{0}, {1}]


def test_a_column_of_two_types_becomes_text() -> None:
    table = concatenated(
        [
            pa.table({"x": [1.0]}),
            pa.table({"x": ["warm"], "y": [1]}),
            pa.table({"x": pa.array([], pa.int64())}),
        ]
    )
    assert table.to_pylist() == [{"x": "1", "y": None}, {"x": "warm", "y": 1}]


def test_an_id_goes_on_once_and_again_when_its_content_changes() -> None:
    fresh = fresh_rows(
        [b"a", b"a", b"b", b"a", b"k", b"k"],
        [b"1", b"1", b"1", b"2", b"7", b"8"],
        {b"k": Seen(b"7", 4)},
    )
    assert fresh.positions == [0, 2, 3, 5]
    assert fresh.revisions == [0, 0, 1, 5]
    assert fresh.added == {b"a": Seen(b"2", 1), b"b": Seen(b"1")}
    assert fresh.changed == {b"k": Seen(b"8", 5)}


def test_a_repeat_of_everything_leaves_nothing() -> None:
    first = fresh_rows([b"a", b"b"], [b"1", b"1"], {})
    again = fresh_rows([b"a", b"b"], [b"1", b"1"], first.added)
    assert not again.positions
    assert not again.added | again.changed


def test_batches_stay_small_enough_to_travel() -> None:
    count = 3 * MAX_BATCH_ROWS
    table = typed(row(time=TIME)).take(pa.array([0] * count))
    cut = list(batches(table))
    assert sum(batch.num_rows for batch in cut) == count
    assert max(batch.nbytes for batch in cut) <= 1.1 * MAX_BATCH_BYTES
    assert not cut[0].schema.field("id").nullable
    assert list(batches(table.slice(0, 0))) == []


def test_late_is_older_than_the_watermark_allows() -> None:
    now = datetime(2011, 2, 1, tzinfo=UTC)
    week = timedelta(days=7)
    times = pa.array(
        [now - week - timedelta(seconds=1), now - week, now], pa.timestamp("us", "UTC")
    )
    assert behind(times, now, SPEC) == (1, 1)
    assert behind(times, None, SPEC) == (0, 0)


def test_order_is_judged_row_by_row() -> None:
    """A row is behind the newest one before it, also of its own message."""
    now = datetime(2011, 2, 1, tzinfo=UTC)
    hours = (0, 5, 4, 5, -200)
    times = pa.array(
        [now + timedelta(hours=n) for n in hours], pa.timestamp("us", "UTC")
    )
    assert behind(times, None, SPEC) == (1, 1)
    assert behind(times, now - timedelta(days=1), SPEC) == (1, 1)
    assert behind(times.take(pa.array([4, 0, 2, 1, 3])), None, SPEC) == (0, 0)
