"""Rows of an SQL table by high-water mark: what is new since the last look.

Rows are read in the order of the cursor column and the row id, a page at a time. A
look begins at the last value itself (``>=``), as more rows may have come with it, and
leaves out those whose ids are known.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from driftloop.contracts.sources import SqlTable
from driftloop.ingest.folders import SourceError
from driftloop.runtime.settings import SECRETS_DIR
from sqlalchemy import Engine, MetaData, Table, and_, create_engine, or_, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

PAGE_ROWS = 2_000
SECRET_PREFIX = "driftloop_source_"  # noqa: S105 - of a name
TIE_BYTES = 8
Row = dict[str, Any]
_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "Decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
}


class Page(NamedTuple):
    """New rows, and the position after them.

    Attributes
    ----------
    mark : type and value of the cursor of the last row.
    ties : digests of the ids that were seen with that value.
    """

    rows: list[Row]
    mark: list[str]
    ties: frozenset[str]


def source_url(name: str) -> str:
    """Return the URL that a secret holds.

    Raises
    ------
    SourceError
        When there is no such secret; says where it belongs.
    """
    key = SECRET_PREFIX + name
    folder = os.environ.get(SECRETS_DIR)
    if folder and (Path(folder) / key).is_file():
        return (Path(folder) / key).read_text(encoding="utf-8").strip()
    url = os.environ.get(key.upper())
    if not url:
        raise SourceError(
            f"there is no secret {name!r}; whoever runs driftloop puts the URL into "
            f"{key.upper()}, or into the file {key} in the folder {SECRETS_DIR}"
        )
    return url


def open_source(name: str) -> Engine:
    """Connect to the database of a secret; its parameters stay out of errors.

    Raises
    ------
    SourceError
        When the secret is missing or holds no URL of a known database.
    """
    try:
        url = make_url(source_url(name))
        if url.drivername in {"postgres", "postgresql"}:
            url = url.set(drivername="postgresql+psycopg")
        return create_engine(url, hide_parameters=True, pool_size=1)
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        raise SourceError(
            f"secret {name!r} holds no SQLAlchemy URL such as postgresql://user@host/db"
        ) from error


def tie_of(row_id: Any) -> str:
    return blake2b(str(row_id).encode(), digest_size=TIE_BYTES).hexdigest()


def new_pages(
    engine: Engine,
    source: SqlTable,
    id_column: str,
    mark: Sequence[str] | None,
    ties: frozenset[str],
) -> Iterator[Page]:
    """Read what is new since ``mark``.

    Parameters
    ----------
    id_column : tells rows of the same cursor value apart; the pipeline's ``data.id``.

    Raises
    ------
    SourceError
        When the database is away or refuses, or a column is missing.
    """
    try:
        with engine.connect() as connection:
            table = _table(connection, source, id_column)
            cursor, row_id = table.c[source.cursor], table.c[id_column]
            place: Any = None
            last = None if mark is None else _value(mark)
            while True:
                query = select(table).where(cursor.is_not(None), row_id.is_not(None))
                if place is not None:
                    at, after = place
                    query = query.where(
                        or_(cursor > at, and_(cursor == at, row_id > after))
                    )
                elif last is not None:
                    query = query.where(cursor >= last)
                query = query.order_by(cursor, row_id).limit(PAGE_ROWS)
                found = [dict(row) for row in connection.execute(query).mappings()]
                if not found:
                    return
                place = (found[-1][source.cursor], found[-1][id_column])
                page = _page(found, source.cursor, id_column, last, ties)
                last, ties = _value(page.mark), page.ties
                if page.rows:
                    yield page
                if len(found) < PAGE_ROWS:
                    return
    except SQLAlchemyError as error:
        raise SourceError(_told(error)) from error


def _table(connection: Any, source: SqlTable, id_column: str) -> Table:
    schema, _, name = source.table.rpartition(".")
    table = Table(name, MetaData(), schema=schema or None, autoload_with=connection)
    for column in (source.cursor, id_column):
        if column not in table.c:
            raise SourceError(
                f"table {source.table} has no column {column!r}; it has "
                f"{', '.join(table.c.keys())}"
            )
    return table


def _page(
    found: list[Row], cursor: str, id_column: str, last: Any, ties: frozenset[str]
) -> Page:
    end = found[-1][cursor]
    known = ties if end == last else frozenset()
    now = {tie_of(row[id_column]) for row in found if row[cursor] == end}
    rows = [
        row
        for row in found
        if row[cursor] != last or tie_of(row[id_column]) not in ties
    ]
    return Page(rows, [type(end).__name__, _text(end)], known | now)


def _text(value: Any) -> str:
    if type(value).__name__ not in _READERS:
        raise SourceError(
            f"the cursor has values of type {type(value).__name__}; use a number, a "
            "text or a time"
        )
    return value.isoformat() if isinstance(value, date) else str(value)


def _value(mark: Sequence[str]) -> Any:
    kind, text = mark
    return _READERS[kind](text)


def _told(error: SQLAlchemyError) -> str:
    """Return what a database says, without statement, parameters or URL."""
    original = getattr(error, "orig", None)
    text = str(original or error).splitlines()[0]
    return f"{type(original or error).__name__}: {text[:200]}"
