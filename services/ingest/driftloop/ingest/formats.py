"""Bytes of an upstream message as rows: JSON, NDJSON, CSV, Parquet, Arrow.

Limits come before parsing, so that a small message cannot become a large one. A
row that cannot be read is set aside with its reason; the others go on.
"""

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from driftloop.contracts.rows import CONTENT_TYPE as ARROW_TYPE
from driftloop.ingest.arrow_limits import declared_bytes
from driftloop.ingest.errors import FormatError
from driftloop.ingest.temporal import in_python_range

MAX_DEPTH = 16
"""Nesting of a JSON message; rows are flat, a list of them in an event is three."""
MAX_CONTAINERS = 2_000_000
"""Objects and lists of a JSON message: each takes some 60 bytes, however empty."""
MAX_ROWS = 500_000
"""Rows of one message."""
MAX_COLUMNS = 1_000
MAX_DECODED_BYTES = 256 * 1024 * 1024
"""Of one Parquet or Arrow message after its encoding and compression."""

MIN_VALUE_BYTES = 4
"""Of a decoded value: a 32-bit number, or the index of a text."""

JSON_TYPE = "application/json"
NDJSON_TYPE = "application/x-ndjson"
CSV_TYPE = "text/csv"
PARQUET_TYPE = "application/vnd.apache.parquet"

_VIEW_WORDS = 4
"""A view is 16 bytes, the first four of them its length (Arrow columnar format)."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

Row = dict[str, Any]
_FIRST = (1,)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot go on.

    Attributes
    ----------
    number : its place in the message, from 1.
    content : the row alone, in ``content_type``.
    field : upstream's name of the column at fault, where it is one.
    """

    number: int
    content: bytes
    content_type: str
    reason: str
    field: str | None = None


class Parsed(NamedTuple):
    """Rows of one message, with the number of each in it.

    A named tuple, as there is one for each row where upstream sends single rows.

    Attributes
    ----------
    source : where the message itself says it comes from.
    """

    rows: list[Row] | pa.Table
    numbers: Sequence[int]
    bad: tuple[BadRow, ...] = ()
    source: str | None = None


def parse(data: bytes, content_type: str) -> Parsed:
    """Return the rows of a message.

    Raises
    ------
    FormatError
        When nothing of it can be read, or a limit is exceeded.
    """
    name = content_type.partition(";")[0].strip().lower()
    reader = _READERS.get(name)
    if reader is None:
        raise FormatError(
            f"content type {name!r} is not known; use one of {', '.join(KNOWN_TYPES)}"
        )
    return reader(data)


def is_known(content_type: str) -> bool:
    """Whether :func:`parse` reads this content type."""
    return content_type.partition(";")[0].strip().lower() in _READERS


def check_depth(data: bytes) -> None:
    """Refuse JSON of too many levels or too many objects, without parsing it.

    Raises
    ------
    FormatError
        Names the limit.

    Examples
    --------
    >>> check_depth(b'[{"a": "[[[[[[[[[[[[[[[[[[[["}]')
    >>> check_depth(b"[" * 17 + b"]" * 17)
    Traceback (most recent call last):
    driftloop.ingest.formats.FormatError: JSON nested deeper than 16 levels
    """
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", data).translate(None, _NOT_BRACKETS)
    if len(brackets) > 2 * MAX_CONTAINERS:
        raise FormatError(
            f"more than {MAX_CONTAINERS} objects and lists; send several messages"
        )
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
    openings = brackets.count(b"[") + brackets.count(b"{")
    if openings > MAX_DEPTH or b"{}" in brackets or b"[]" in brackets:
        raise FormatError(f"JSON nested deeper than {MAX_DEPTH} levels")


def _load(data: bytes) -> Any:
    """JSON, with Python's ``NaN`` and ``Infinity``: the contract judges them."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if b"NaN" in data or b"Infinity" in data:
            try:
                value = json.loads(data)
                orjson.dumps(value)  # no half characters, no endless integers
            except (ValueError, TypeError, RecursionError):
                pass
            else:
                return value
        raise FormatError(f"broken JSON: {error}") from error


def _json(data: bytes) -> Parsed:
    check_depth(data)
    value = _load(data)
    source = None
    if isinstance(value, dict) and isinstance(value.get("rows_json"), list):
        source = value.get("source")  # an event of our own schema
        value = value["rows_json"]
    if isinstance(value, dict):
        if len(value) <= MAX_COLUMNS:
            return Parsed([value], _FIRST)
        value = [value]
    if not isinstance(value, list):
        raise FormatError("neither a JSON object nor a list of objects")
    _check_rows(len(value))
    return _objects(enumerate(value, 1), source if isinstance(source, str) else None)


def _objects(items: Any, source: str | None, bad: Sequence[BadRow] = ()) -> Parsed:
    rows, numbers, refused = [], [], list(bad)
    for number, item in items:
        if not isinstance(item, dict):
            reason = "not a JSON object"
        elif len(item) > MAX_COLUMNS:
            reason = f"more than {MAX_COLUMNS} columns"
        else:
            rows.append(item)
            numbers.append(number)
            continue
        refused.append(BadRow(number, row_json(item), JSON_TYPE, reason))
    refused.sort(key=lambda row: row.number)
    return Parsed(rows, numbers, tuple(refused), source)


def _ndjson(data: bytes) -> Parsed:
    items, bad = [], []
    number = 0
    for line in data.split(b"\n"):
        text = line.strip()
        if not text:
            continue
        number += 1
        _check_rows(number)
        try:
            check_depth(text)
            items.append((number, _load(text)))
        except FormatError as error:
            bad.append(BadRow(number, text, NDJSON_TYPE, str(error)))
    return _objects(items, None, bad)


def _csv(data: bytes) -> Parsed:
    header, names = _header(data)
    bad: list[BadRow] = []

    def set_aside(row: Any) -> str:
        reason = f"{row.actual_columns} cells, the header has {row.expected_columns}"
        content = header + b"\n" + row.text.encode() + b"\n"
        bad.append(BadRow(row.number - 1, content, CSV_TYPE, reason))
        return "skip"

    try:
        table = pacsv.read_csv(
            pa.BufferReader(data),
            read_options=pacsv.ReadOptions(use_threads=False),  # keeps row numbers
            parse_options=pacsv.ParseOptions(
                newlines_in_values=True, invalid_row_handler=set_aside
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise FormatError(f"broken CSV: {error}") from error
    total = table.num_rows + len(bad)
    _check_rows(total)
    skipped = {row.number for row in bad}
    numbers = [n for n in range(1, total + 1) if n not in skipped]
    return Parsed(table, numbers, tuple(bad))


def _header(data: bytes) -> tuple[bytes, list[str]]:
    first = data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].rstrip(b"\r")
    try:
        names = next(csv.reader([first.decode()]), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"broken CSV header: {error}") from error
    if not names or not all(names):
        raise FormatError("CSV needs a first line that names every column")
    _check_names(names)
    return first, names


def _parquet(data: bytes) -> Parsed:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        meta = file.metadata
        _check_rows(meta.num_rows)
        if meta.num_columns > MAX_COLUMNS:
            raise FormatError(f"more than {MAX_COLUMNS} columns")
        for column in file.schema_arrow:
            _check_flat(column.type, column.name)
        _check_bytes(_declared_bytes(file))
        texts = [f.name for f in file.schema_arrow if _is_text(f.type)]
        # As a dictionary a repeated text stays small until it has been measured.
        table = pq.read_table(pa.BufferReader(data), read_dictionary=texts)
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FormatError(f"broken Parquet: {error}") from error
    return _table(table)


def _check_flat(kind: pa.DataType, name: str) -> None:
    if pa.types.is_nested(kind) and not pa.types.is_struct(kind):
        raise FormatError(
            f"column {name} is a list, whose length a Parquet file does not tell "
            "beforehand; write it as JSON text, or send Arrow or JSON"
        )
    for at in range(kind.num_fields):
        _check_flat(kind.field(at).type, name)


def _declared_bytes(file: pq.ParquetFile) -> int:
    """Return what a flat Parquet file takes when read.

    A repeated number takes next to nothing in the file and all its room when read.
    Nothing is asked of single column chunks: where a damaged file lacks one, that
    ends the process.
    """
    meta = file.metadata
    groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
    values = int(meta.num_rows) * int(meta.num_columns)
    encoded = sum(int(group.total_byte_size) for group in groups)
    return max(encoded, values * MIN_VALUE_BYTES)


def _arrow(data: bytes) -> Parsed:
    try:
        _check_bytes(declared_bytes(pa.py_buffer(data)))
        with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
            batches, count = [], 0
            for batch in reader:
                count += batch.num_rows
                _check_rows(count)
                batch.validate(full=True)
                batches.append(batch)
            table = pa.Table.from_batches(batches, reader.schema)
            _check_names(table.column_names)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise FormatError(f"broken Arrow stream: {error}") from error
    return _table(table)


def _table(table: pa.Table) -> Parsed:
    _check_names(table.column_names)
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_dictionary(column.type):
            _check_bytes(sum(map(_decoded_bytes, column.chunks)))
            columns.append(column.cast(column.type.value_type))
        elif pa.types.is_string_view(column.type):
            _check_bytes(sum(map(_viewed_bytes, column.chunks)))
            columns.append(column.cast(pa.string()))
        else:
            columns.append(in_python_range(column, name))
    for column, name in zip(columns, table.column_names, strict=True):
        _check_type(column.type, name)
    plain = pa.Table.from_arrays(columns, names=table.column_names)
    _check_bytes(plain.nbytes)
    return Parsed(plain, range(1, plain.num_rows + 1))


def _decoded_bytes(chunk: pa.DictionaryArray) -> int:
    if not _is_text(chunk.type.value_type):
        return 8 * len(chunk)
    lengths = pc.take(pc.binary_length(chunk.dictionary), chunk.indices)
    return pc.sum(lengths.cast(pa.int64())).as_py() or 0


def _viewed_bytes(chunk: pa.Array) -> int:
    """Sum of the lengths that views declare; many may show the same text."""
    views = chunk.buffers()[1]
    if views is None:
        return 0
    words = memoryview(views).cast("i")
    first, last = chunk.offset * _VIEW_WORDS, (chunk.offset + len(chunk)) * _VIEW_WORDS
    return sum(words[first:last:_VIEW_WORDS])


def _check_type(kind: pa.DataType, name: str) -> None:
    """Refuse types that can say more than they hold, at any level."""
    is_repeating = (
        pa.types.is_run_end_encoded(kind)
        or pa.types.is_dictionary(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )
    if is_repeating:
        raise FormatError(f"column {name} is of type {kind}; cast it to a plain type")
    for at in range(kind.num_fields):
        _check_type(kind.field(at).type, name)
        if pa.types.is_temporal(kind.field(at).type):
            raise FormatError(
                f"column {name} has times inside of other values; write them as text"
            )


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string, pa.types.is_large_string,
            pa.types.is_binary, pa.types.is_large_binary,
        )
    )  # fmt: skip


def _check_rows(count: int) -> None:
    if count > MAX_ROWS:
        raise FormatError(f"more than {MAX_ROWS} rows; send several messages")


def _check_bytes(count: int) -> None:
    if count > MAX_DECODED_BYTES:
        raise FormatError(
            f"more than {MAX_DECODED_BYTES} bytes when decoded; send several messages"
        )


def _check_names(names: Sequence[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise FormatError(f"more than {MAX_COLUMNS} columns")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise FormatError(f"column {', '.join(twice)} is there twice")


def row_json(row: Any) -> bytes:
    """Return any row as JSON; what JSON cannot say is written as text."""
    try:
        return orjson.dumps(row, default=str)
    except TypeError:  # an integer of more than 64 bits
        return json.dumps(row, default=str).encode()


_READERS: dict[str, Callable[[bytes], Parsed]] = {
    "": _json,
    JSON_TYPE: _json,
    NDJSON_TYPE: _ndjson,
    "application/ndjson": _ndjson,
    "application/jsonl": _ndjson,
    CSV_TYPE: _csv,
    PARQUET_TYPE: _parquet,
    "application/x-parquet": _parquet,
    ARROW_TYPE: _arrow,
}
KNOWN_TYPES = (JSON_TYPE, NDJSON_TYPE, CSV_TYPE, PARQUET_TYPE, ARROW_TYPE)
