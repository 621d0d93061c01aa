"""Bytes become rows; what cannot be read is named, the rest goes on."""

import io
import struct

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from driftloop.ingest import formats
from driftloop.ingest.errors import FormatError
from driftloop.ingest.formats import parse
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.support import examples

ROWS = [{"id": "a", "x": 1.5}, {"id": "b", "x": 2.5}]
TABLE = pa.table({"id": ["a", "b"], "x": [1.5, 2.5]})
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def listed(rows: object) -> list[dict[str, object]]:
    return rows.to_pylist() if isinstance(rows, pa.Table) else rows


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("", orjson.dumps(ROWS)),
        ("application/json; charset=utf-8", orjson.dumps(ROWS)),
        ("application/x-ndjson", b"\n".join(map(orjson.dumps, ROWS)) + b"\n\n"),
        (ARROW, arrow(TABLE)),
        (ARROW, arrow(TABLE.set_column(0, "id", TABLE["id"].dictionary_encode()))),
        (PARQUET, parquet(TABLE)),
        ("application/json", orjson.dumps({"source": "s", "rows_json": ROWS})),
    ],
)
def test_each_form_gives_the_same_rows(content_type: str, data: bytes) -> None:
    parsed = parse(data, content_type)
    assert listed(parsed.rows) == ROWS
    assert list(parsed.numbers) == [1, 2]
    assert not parsed.bad


def test_csv_keeps_every_cell_as_text() -> None:
    """A type guessed from one message would differ from the next one's."""
    parsed = parse(b'\xef\xbb\xbfid,x\r\na,1.50\r\n"b\nc",\r\n', "text/csv")
    assert listed(parsed.rows) == [
        {"id": "a", "x": "1.50"},
        {"id": "b\nc", "x": None},
    ]


def test_one_json_object_is_one_row() -> None:
    assert parse(b'{"id": "a"}', "application/json").rows == [{"id": "a"}]


def test_pythons_nan_is_a_value() -> None:
    rows = parse(b'{"x": NaN, "y": -Infinity}', "application/json").rows
    assert str(rows) == "[{'x': nan, 'y': -inf}]"


@pytest.mark.parametrize(
    ("content_type", "data", "numbers", "bad"),
    [
        (
            "application/x-ndjson",
            b'{"id": 1}\n{"id": 2\n\n[3]\n{"id": 4}',
            [1, 4],
            {2: b'{"id": 2', 3: b"[3]"},
        ),
        ("application/json", b'[{"id": 1}, 7, {"id": 3}]', [1, 3], {2: b"7"}),
        (
            "text/csv",
            b"id,x\n1,1\n2\n3,3\n4,4,4\n",
            [1, 3],
            {2: b"id,x\n2\n", 4: b"id,x\n4,4,4\n"},
        ),
    ],
)
def test_a_broken_row_is_set_aside_with_its_number(
    content_type: str, data: bytes, numbers: list[int], bad: dict[int, bytes]
) -> None:
    parsed = parse(data, content_type)
    assert list(parsed.numbers) == numbers
    assert {row.number: row.content for row in parsed.bad} == bad
    assert all(row.reason for row in parsed.bad)


@pytest.mark.parametrize(
    ("content_type", "data", "says"),
    [
        ("application/json", b'{"id": 1', "broken JSON"),
        ("application/json", b"\xff", "broken JSON"),
        ("application/json", b'{"x": NaN', "broken JSON"),
        ("application/json", b'{"x": NaN, "y": "\\ud800"}', "broken JSON"),
        ("application/json", b"17", "neither"),
        ("application/json", b"[" * 100_000 + b"]" * 100_000, "deeper than 16"),
        ("application/json", b"[" * 17 + b"]" * 17, "deeper than 16"),
        ("application/json", b"[" + b"{}," * 3_000_000 + b"{}]", "objects and lists"),
        ("application/json", b'{"a":' * 500 + b"1" + b"}" * 500, "deeper than 16"),
        ("text/csv", b"", "first line"),
        ("text/csv", b"a,,c\n1,2,3\n", "first line"),
        ("text/csv", b"a,a\n1,2\n", "a is there twice"),
        ("text/csv", b'a,b\n"x,1\n2,3\n', "broken CSV|cells"),
        (PARQUET, b"PAR1nonsense", "broken Parquet"),
        (ARROW, b"nonsense", "broken Arrow"),
        (ARROW, arrow(TABLE)[:-40], "broken Arrow"),
        ("text/html", b"<p>", "'text/html' is not known"),
    ],
)
def test_an_unreadable_message_is_refused(
    content_type: str, data: bytes, says: str
) -> None:
    try:
        parsed = parse(data, content_type)
    except FormatError as error:
        text = str(error)
    else:
        assert not list(parsed.numbers)
        text = parsed.bad[0].reason
    assert any(part in text for part in says.split("|")), text


def test_text_full_of_brackets_is_not_deep() -> None:
    assert parse(b'[{"a": "[[[[[[[[[[[[[[[[[[[[[[[[["}]', "").numbers


def test_too_many_rows_are_refused_before_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(formats, "MAX_ROWS", 1)
    for content_type, data in (
        ("application/json", orjson.dumps(ROWS)),
        ("application/x-ndjson", b"\n".join(map(orjson.dumps, ROWS))),
        ("text/csv", b"id\na\nb\n"),
        (PARQUET, parquet(TABLE)),
        (ARROW, arrow(TABLE)),
    ):
        with pytest.raises(FormatError, match="more than 1 rows"):
            parse(data, content_type)


@pytest.mark.parametrize("write", [arrow, parquet])
def test_a_small_message_cannot_become_a_large_one(write: object) -> None:
    """100,000 times one text of 10,000 characters: 1 GB from some kilobytes."""
    text = pa.DictionaryArray.from_arrays(
        pa.array([0] * 100_000, pa.int8()), pa.array(["x" * 10_000])
    )
    data = write(pa.table({"t": text}))
    assert len(data) < 1_000_000
    with pytest.raises(FormatError, match="when decoded"):
        parse(data, ARROW if write is arrow else PARQUET)


def packed(codec: str) -> bytes:
    """Write 60 million zeros: 480 MB from some 10 kilobytes."""
    table = pa.table({"t": pa.array([0] * 400_000, pa.int64())})
    wide = pa.table({f"t{n}": table["t"] for n in range(150)})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(sink, wide.schema, options=options) as writer:
        writer.write_table(wide)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_arrow_is_measured_before_it_is_decoded(codec: str) -> None:
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    data = packed(codec)
    assert pa.total_allocated_bytes() - before < 1_000_000
    assert len(data) < 10_000_000
    peak = pool.max_memory()
    with pytest.raises(FormatError, match="when decoded"):
        parse(data, ARROW)
    assert pool.max_memory() == peak
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.ipc.new_stream(sink, TABLE.schema, options=options) as writer:
        writer.write_table(TABLE)
    assert listed(parse(sink.getvalue().to_pybytes(), ARROW).rows) == ROWS


def test_repeated_numbers_of_parquet_are_measured_as_numbers() -> None:
    column = pa.array([1] * 400_000, pa.int64())
    data = parquet(pa.table({f"t{n}": column for n in range(200)}))
    assert len(data) < 1_000_000
    with pytest.raises(FormatError, match="when decoded"):
        parse(data, PARQUET)


def test_a_list_in_parquet_is_refused_as_its_length_is_not_told() -> None:
    data = parquet(pa.table({"id": ["a"], "tags": [[1, 2]]}))
    with pytest.raises(FormatError, match="column tags is a list"):
        parse(data, PARQUET)


def test_times_that_python_cannot_hold_are_refused() -> None:
    """Instead of failing where a row is shown."""
    far = pa.array([2**60], pa.int64()).cast(pa.timestamp("us"))
    for column in (far, pa.array([2**30], pa.int32()).cast(pa.date32())):
        with pytest.raises(FormatError, match="column t has times outside"):
            parse(arrow(pa.table({"t": column})), ARROW)
    fine = pa.array([1_000_000_001], pa.int64()).cast(pa.timestamp("ns", "Asia/Tokyo"))
    (row,) = listed(parse(arrow(pa.table({"t": fine})), ARROW).rows)
    assert str(row["t"]) == "1970-01-01 00:00:01+00:00"


def test_views_of_one_text_are_measured_as_texts() -> None:
    view = pa.array(["x" * 100, "short", None], pa.string_view())
    rows = listed(parse(arrow(pa.table({"t": view})), ARROW).rows)
    assert rows == [{"t": "x" * 100}, {"t": "short"}, {"t": None}]
    text = pa.py_buffer(b"x" * 10_000)
    one = struct.pack("<i4sii", 10_000, b"xxxx", 0, 0)
    many = pa.Array.from_buffers(
        pa.string_view(), 100_000, [None, pa.py_buffer(one * 100_000), text]
    )
    data = arrow(pa.table({"t": many}))
    assert len(data) < 2_000_000
    with pytest.raises(FormatError, match="when decoded"):
        parse(data, ARROW)


def test_types_that_say_more_than_they_hold_are_refused() -> None:
    ends = pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["a"]))
    with pytest.raises(FormatError, match="column t .* cast it"):
        parse(arrow(pa.table({"t": ends})), ARROW)


FILES = {ARROW: arrow(TABLE), PARQUET: parquet(TABLE)}


@pytest.mark.parametrize("content_type", [ARROW, PARQUET])
@settings(max_examples=examples(150))
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8))))
def test_a_damaged_file_is_rows_or_an_error_that_says_so(
    content_type: str, changes: list[tuple[float, bytes]]
) -> None:
    data = bytearray(FILES[content_type])
    for place, replacement in changes:
        at = int(place * (len(data) - 1))
        data[at : at + len(replacement)] = replacement
    try:
        parsed = parse(bytes(data), content_type)
    except FormatError:
        return
    assert len(parsed.numbers) == len(listed(parsed.rows))
