"""Cutting a file into what upstream would send, and going on after a break."""

import gzip
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from driftloop.cli.publish import (
    MAX_PART_BYTES,
    MAX_TOGETHER,
    Pace,
    Part,
    Progress,
    PublishFileError,
    files_of,
    plan,
    read_file,
    record_of,
    send,
    with_event_time,
)
from driftloop.contracts.pipeline import parse_pipeline

SPEC = parse_pipeline(
    "{name: bikes, task: regression, data: {time: time, target: cnt}}"
)
DAY = timedelta(days=1)


def frame(hours: int = 48) -> pl.DataFrame:
    start = datetime(2011, 1, 1)  # noqa: DTZ001 - as upstream writes it
    times = [(start + timedelta(hours=n)).isoformat() for n in range(hours)]
    return pl.DataFrame(
        {"id": [str(n) for n in range(hours)], "time": times, "cnt": range(hours)}
    )


def test_each_row_is_in_one_message() -> None:
    parts = list(plan(frame(), SPEC, DAY, None))
    assert [part.rows.height for part in parts] == [24, 24]
    assert pl.concat([part.rows for part in parts])["id"].to_list() == [
        str(n) for n in range(48)
    ]


def test_labels_come_later_and_rows_without_target() -> None:
    parts = list(plan(frame(), SPEC, DAY, timedelta(hours=6)))
    assert [(part.topic, part.rows.height) for part in parts] == [
        ("observation-arrived", 24),
        ("label-arrived", 24),
        ("observation-arrived", 24),
        ("label-arrived", 24),
    ]
    assert "cnt" not in parts[0].rows.columns
    assert set(parts[1].rows.columns) == {"id", "time", "cnt"}
    assert all(a.due <= b.due for a, b in pairwise(parts))


def test_rows_out_of_order_are_sent_in_event_time() -> None:
    shuffled = frame().sample(fraction=1.0, shuffle=True, seed=1)
    ordered = [part.rows["id"].to_list() for part in plan(frame(), SPEC, DAY, None)]
    sent = [part.rows["id"].to_list() for part in plan(shuffled, SPEC, DAY, None)]
    assert sent == ordered


def test_a_repeat_has_the_same_ids_and_another_file_has_not() -> None:
    [first, *_] = plan(frame(), SPEC, DAY, None)
    ids = [
        dict(record_of(first, "bikes", "s", digest).headers)["ce_id"]
        for digest in ("a", "a", "b")
    ]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("written", "due"),
    [
        ("2011-01-01T00:00:00", "2011-01-01T00:00:00+00:00"),
        ("2011-01-01T00:00:00Z", "2011-01-01T00:00:00+00:00"),
        ("2011-01-01T02:00:00+02:00", "2011-01-01T00:00:00+00:00"),
    ],
)
def test_times_with_and_without_zone(tmp_path: Path, written: str, due: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"id,time,cnt\n1,{written},3")
    timed = with_event_time(read_file(path), SPEC)
    assert timed["due_at"][0] == datetime.fromisoformat(due)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("id,time\n1,2011-01-01", "target|cnt"),
        ("id,cnt\n1,2", "'time'"),
        ("id,time,cnt\n1,yesterday,3", "row 1: time is 'yesterday'"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    with pytest.raises(PublishFileError, match=says):
        list(plan(read_file(path), SPEC, DAY, DAY))


def test_an_unknown_format_is_explained(tmp_path: Path) -> None:
    with pytest.raises(PublishFileError, match=r"rows\.xls: .*\.csv"):
        read_file(tmp_path / "rows.xls")


def test_files_of_each_kind_are_read_alike(tmp_path: Path) -> None:
    rows = frame(3)
    rows.write_parquet(tmp_path / "rows.parquet")
    text = {".csv": rows.write_csv().encode(), ".ndjson": rows.write_ndjson().encode()}
    for suffix, content in text.items():
        (tmp_path / f"rows{suffix}").write_bytes(content)
        (tmp_path / f"rows{suffix}.gz").write_bytes(gzip.compress(content))
        packed = pa.compress(content, codec="zstd", asbytes=True)
        (tmp_path / f"rows{suffix}.zst").write_bytes(packed)
    found = files_of(tmp_path)
    assert len(found) == 7
    for path in found:
        got = read_file(path).with_columns(pl.col("id").cast(pl.String))
        assert got.equals(rows), path.name


def test_a_folder_is_read_by_name_without_what_is_hidden(tmp_path: Path) -> None:
    names = ["b.csv", "a/z.csv.gz", ".hidden.csv", "_SUCCESS.csv", "c.txt", ".d/e.csv"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in files_of(tmp_path)]
    assert found == ["a/z.csv.gz", "b.csv"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PublishFileError, match=r"no files .* \.gz"):
        files_of(tmp_path / "empty")


def test_a_stretch_too_large_for_a_message_becomes_several() -> None:
    wide = frame(48).with_columns(text=pl.lit("x" * 100_000))
    parts = list(plan(wide, SPEC, DAY, None))
    assert len(parts) == 10
    records = [record_of(part, "bikes", "s", "d") for part in parts]
    assert max(len(record.value or b"") for record in records) <= MAX_PART_BYTES
    ids = [row_id for part in parts for row_id in part.rows["id"]]
    assert ids == [str(n) for n in range(48)]
    assert len({part.number for part in parts}) == len(parts)


def test_a_broken_run_goes_on_where_it_was(tmp_path: Path) -> None:
    parts = list(plan(frame(), SPEC, DAY, None))
    progress = Progress(tmp_path, "file")
    assert progress.next_part() == 0
    progress.sent(parts[0])
    assert Progress(tmp_path, "file").next_part() == 1
    assert Progress(tmp_path, "another").next_part() == 0
    assert not progress.is_complete()
    progress.complete()
    assert Progress(tmp_path, "file").is_complete()
    progress.done()
    assert (progress.next_part(), progress.is_complete()) == (0, False)


def test_pace_follows_event_time_and_rows() -> None:
    start = datetime(2011, 1, 1, tzinfo=UTC)
    part = Part(1, "observation-arrived", start + DAY, frame())
    assert Pace(speed=DAY.total_seconds()).wait_s(part, start, 0, 0.25) == 0.75
    assert Pace(rows_per_second=10).wait_s(part, start, 20, 0.5) == 1.5
    assert Pace().wait_s(part, start, 10**6, 0) == 0


@pytest.mark.parametrize(
    ("pace", "calls"),
    [(Pace(), [MAX_TOGETHER, 6]), (Pace(rows_per_second=1e9), [1] * 70)],
)
def test_without_a_pace_many_messages_go_out_at_once(
    pace: Pace, calls: list[int]
) -> None:
    taken: list[int] = []

    class Taking:
        def publish(self, records, timeout_s=30.0) -> None:
            taken.append(len(records))

        def close(self) -> None: ...

    sent: list[int] = []
    parts = list(plan(frame(70), SPEC, timedelta(hours=1), None))
    send(
        parts,
        lambda p: record_of(p, "b", "s", "d"),
        Taking(),
        pace,
        lambda part: sent.append(part.number),
    )
    assert taken == calls
    assert sent == list(range(70))


def test_a_part_counts_as_sent_only_when_acknowledged() -> None:
    class Failing:
        def publish(self, records, timeout_s=30.0) -> None:
            raise TimeoutError

        def close(self) -> None: ...

    sent: list[Part] = []
    parts = list(plan(frame(), SPEC, DAY, None))
    with pytest.raises(TimeoutError):
        send(
            parts, lambda p: record_of(p, "b", "s", "d"), Failing(), Pace(), sent.append
        )
    assert sent == []
