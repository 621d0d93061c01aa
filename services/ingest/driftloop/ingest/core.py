"""Rows of many messages as batches: typed, identified, each id once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.events import RowKind
from driftloop.contracts.pipeline import RESERVED_COLUMNS, PipelineSpec
from driftloop.contracts.rows import ROW_FIELDS
from driftloop.ingest.columns import row_texts, to_column, to_times
from driftloop.ingest.formats import (
    JSON_TYPE,
    MAX_COLUMNS,
    BadRow,
    Parsed,
    Row,
    row_json,
)

MAX_BATCH_ROWS = 20_000
MAX_BATCH_BYTES = 768 * 1024
"""Below the size from which rows travel by claim check, with room for the rest."""
MAX_JOINED_BYTES = 1024 * 1024
"""Of a message of columns that is merged with its neighbours."""
MAX_ID_CHARS = 256
DERIVED_ID_BYTES = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
CONTENT_BYTES = 8


class Seen(NamedTuple):
    """What is known of an id.

    Attributes
    ----------
    content : digest of the row that came last with this id.
    revision : how many times its content has changed.
    """

    content: bytes
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Typed:
    """Rows of one message in columns.

    Attributes
    ----------
    table : ``id``, ``event_time``, ``source``, then the pipeline's columns.
    contents : digest of each row's values (for labels: of the target).
    bad : rows that cannot go on, with their positions among the given rows.
    """

    table: pa.Table
    contents: list[bytes]
    bad: list[tuple[int, BadRow]]


@dataclass(frozen=True, slots=True)
class Fresh:
    """Rows that are new, by position, and what is to be remembered of them."""

    positions: list[int]
    revisions: list[int]
    added: dict[bytes, Seen] = field(default_factory=dict)
    changed: dict[bytes, Seen] = field(default_factory=dict)


def typed_rows(parsed: Parsed, spec: PipelineSpec, kind: RowKind, source: str) -> Typed:
    """Bring rows of a message into the pipeline's columns.

    A row without a readable event time, or with an id that is none, is bad. An id
    that is missing is derived from source and content. Columns that the pipeline
    file does not name are kept as JSON in ``extra``; where it names no features,
    every column goes on.
    """
    times, wrong = to_times(_values(parsed.rows, spec.data.time), spec.data.timezone)
    reasons = {at: (spec.data.time, why) for at, why in wrong.items()}
    ids = to_column(_values(parsed.rows, spec.data.id), "category").to_pylist()
    for at, given in enumerate(ids):
        if given and len(given) > MAX_ID_CHARS:
            why = f"longer than {MAX_ID_CHARS} characters"
            reasons.setdefault(at, (spec.data.id, why))
    bad = list(_bad_rows(parsed, reasons))
    columns = _columns(parsed.rows, spec, kind)
    count = len(ids)
    hashed = [*_hashed(columns, spec).items(), (spec.data.time, times)]
    texts = row_texts(hashed, count)
    final_ids = [
        given or _digest(f"{source}\0{text}", DERIVED_ID_BYTES).hex()
        for given, text in zip(ids, texts, strict=True)
    ]
    if kind == "labels":
        target = [item for item in columns.items() if item[0] == spec.data.target]
        texts = row_texts(target, count)
    table = pa.table(
        {
            "id": pa.array(final_ids, pa.string()),
            "event_time": times,
            "source": pa.repeat(source, count),
            **columns,
        }
    )
    contents = [_digest(text, CONTENT_BYTES) for text in texts]
    if reasons:
        keep = [at for at in range(count) if at not in reasons]
        table = table.take(pa.array(keep, pa.int64()))
        contents = [contents[at] for at in keep]
    return Typed(table, contents, bad)


def joined_rows(parsed: Sequence[Parsed]) -> Iterator[tuple[Parsed, list[int]]]:
    """Merge neighbouring messages of like rows, so that small ones cost little.

    Yields
    ------
    tuple
        The rows, and for each row the position of its message in ``parsed``.
    """
    for _, neighbours in groupby(enumerate(parsed), key=_likeness):
        run = list(neighbours)
        owners = [position for position, message in run for _ in message.numbers]
        if owners:
            rows = _joined([message.rows for _, message in run])
            numbers = [number for _, message in run for number in message.numbers]
            yield Parsed(rows, numbers), owners


def _likeness(message: tuple[int, Parsed]) -> object:
    """Return what neighbours share that are merged; a large table stays alone."""
    position, (rows, *_) = message
    if isinstance(rows, list):
        return None
    return rows.schema if rows.nbytes <= MAX_JOINED_BYTES else position


def _joined(several: Sequence[list[Row] | pa.Table]) -> list[Row] | pa.Table:
    tables = [rows for rows in several if isinstance(rows, pa.Table)]
    if tables:
        return pa.concat_tables(tables).combine_chunks()
    return [row for rows in several for row in rows]


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Return one table; a column whose types differ becomes text in all of them."""
    tables = [table for table in tables if table.num_rows]
    types: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for column in table.schema:
            types.setdefault(column.name, set()).add(column.type)
    mixed = {name for name, found in types.items() if len(found) > 1}
    if mixed:
        tables = [_as_text(table, mixed) for table in tables]
    return pa.concat_tables(tables, promote_options="default")


def fresh_rows(
    keys: Sequence[bytes], contents: Sequence[bytes], known: Mapping[bytes, Seen]
) -> Fresh:
    """Choose the rows that have not come before.

    A known id with the same content is a repeat and is left out. With another
    content it is a correction: it goes on, one revision up. (A corrected label
    replaces the former; a corrected observation is the validator's to judge,
    as the first may have been quarantined.)
    """
    positions, revisions = [], []
    added: dict[bytes, Seen] = {}
    changed: dict[bytes, Seen] = {}
    for position, (key, content) in enumerate(zip(keys, contents, strict=True)):
        last = changed.get(key) or added.get(key) or known.get(key)
        if last is not None and last.content == content:
            continue
        revision = 0 if last is None else last.revision + 1
        (changed if key in known else added)[key] = Seen(content, revision)
        positions.append(position)
        revisions.append(revision)
    return Fresh(positions, revisions, added, changed)


def behind(
    times: pa.Array, watermark: datetime | None, spec: PipelineSpec
) -> tuple[int, int]:
    """Count rows that are older than the newest before them.

    Parameters
    ----------
    times : (n_rows,) event times, in the order of arrival.
    watermark : newest event time of the source before these; None: there is none.

    Returns
    -------
    tuple of int
        Late rows (older by more than ``max_lateness_hours``), and the others, which
        are only out of order.
    """
    found = times.cast(pa.int64()).to_numpy(zero_copy_only=False)
    newest = np.maximum.accumulate(found)
    if watermark is not None:
        newest = np.maximum(newest, (watermark - _EPOCH) // _MICROSECOND)
    lag = newest - found
    allowed = timedelta(hours=spec.data.max_lateness_hours) // _MICROSECOND
    late = int((lag > allowed).sum())
    return late, int((lag > 0).sum()) - late


def batches(table: pa.Table, most: int | None = None) -> Iterator[pa.RecordBatch]:
    """Cut a table into record batches of a size that travels well.

    Parameters
    ----------
    most : rows that a batch may have; None: as many as travel well.
    """
    if not table.num_rows:
        return
    row_bytes = max(1, table.nbytes // table.num_rows)
    size = max(1, min(most or MAX_BATCH_ROWS, MAX_BATCH_BYTES // row_bytes))
    for start in range(0, table.num_rows, size):
        piece = table.slice(start, size).combine_chunks()
        schema = pa.schema([*ROW_FIELDS, *list(piece.schema)[len(ROW_FIELDS) :]])
        yield piece.cast(schema).to_batches()[0]


def _digest(text: str, size: int) -> bytes:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=size).digest()


def _values(rows: list[Row] | pa.Table, name: str) -> Any:
    if isinstance(rows, list):
        return [row.get(name) for row in rows]
    if name in rows.column_names:
        return rows.column(name)
    return [None] * rows.num_rows


def _bad_rows(
    parsed: Parsed, reasons: Mapping[int, tuple[str, str]]
) -> Iterator[tuple[int, BadRow]]:
    for at, (name, why) in sorted(reasons.items()):
        rows = parsed.rows
        row = rows[at] if isinstance(rows, list) else rows.slice(at, 1).to_pylist()[0]
        yield at, BadRow(parsed.numbers[at], row_json(row), JSON_TYPE, why, name)


def _columns(
    rows: list[Row] | pa.Table, spec: PipelineSpec, kind: RowKind
) -> dict[str, pa.Array]:
    """Return the pipeline's columns that are there, then ``extra``."""
    data = spec.data
    target_kind = "number" if spec.task == "regression" else "category"
    declared: dict[str, Any] = {data.target: target_kind}
    if kind == "observations":
        features = {name: feature.type for name, feature in data.features.items()}
        declared = dict.fromkeys(data.attachments, "category") | features | declared
    present = _names(rows)
    own = {data.id, data.time}
    is_open = kind == "observations" and not data.features
    if is_open:
        free = [n for n in present if n not in own | RESERVED_COLUMNS | set(declared)]
        declared = dict.fromkeys(free[:MAX_COLUMNS]) | declared
    found = {
        name: to_column(_values(rows, name), wanted, data.timezone)
        for name, wanted in declared.items()
        if name in present
    }
    extra = [name for name in present if name not in own and name not in declared]
    if extra:
        found["extra"] = _extra(rows, sorted(extra))
    return found


def _hashed(columns: dict[str, pa.Array], spec: PipelineSpec) -> dict[str, pa.Array]:
    """Return the columns that tell one row from another.

    Of an attachment that is its digest: a row is the same whether it names a media
    type or not.
    """
    bare = {
        name: pc.replace_substring_regex(columns[name], " .*$", "")
        for name in spec.data.attachments
        if name in columns
    }
    return columns | bare


def _names(rows: list[Row] | pa.Table) -> dict[str, None]:
    """Names of all columns in order of appearance."""
    if not isinstance(rows, list):
        return dict.fromkeys(rows.column_names)
    names: dict[str, None] = {}
    for row in rows:
        if not row.keys() <= names.keys():
            names |= dict.fromkeys(row)
    return names


def _extra(rows: list[Row] | pa.Table, names: list[str]) -> pa.Array:
    if not isinstance(rows, list):
        rows = rows.select(names).to_pylist()
    texts = []
    for row in rows:
        rest = {name: row[name] for name in names if row.get(name) is not None}
        texts.append(row_json(rest).decode() if rest else None)
    return pa.array(texts, pa.string())


def _as_text(table: pa.Table, names: set[str]) -> pa.Table:
    for at, name in enumerate(table.column_names):
        if name in names and not pa.types.is_string(table.schema.field(at).type):
            table = table.set_column(at, name, pc.cast(table.column(at), pa.string()))
    return table
