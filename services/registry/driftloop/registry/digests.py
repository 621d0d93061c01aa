"""Digests of tables: what two databases hold is the same, or which table differs."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, String, Table, select
from sqlmodel import SQLModel

POSITION = "position"
"""Numbers rows as they came; may have gaps, and differ where nothing else does."""


def table_of(cls: type[SQLModel]) -> Table:
    table: Table = cls.__table__  # type: ignore[attr-defined]  # SQLModel has it
    return table


def digests(
    connection: Connection,
    tables: Iterable[Table],
    left_out: Mapping[str, set[str]] | None = None,
    ordered_by: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, str]:
    """Return a digest of the rows of each table.

    Parameters
    ----------
    left_out : by table, columns that do not count; ``position`` never does.
    ordered_by : by table, columns to sort by; default: the primary key.
    """
    found = {}
    for table in tables:
        by = (ordered_by or {}).get(table.name)
        keys = [table.c[name] for name in by] if by else list(table.primary_key.columns)
        skipped = (left_out or {}).get(table.name, set()) | {POSITION}
        columns = [column for column in table.columns if column.name not in skipped]
        order = [bytewise(connection, key) for key in keys]
        digest = hashlib.sha256()
        for row in connection.execute(select(*columns).order_by(*order)):
            text = json.dumps([*row], default=str, sort_keys=True)
            digest.update(f"{text}\n".encode())
        found[table.name] = digest.hexdigest()
    return found


def overall(found: Mapping[str, str]) -> str:
    """Return one digest of many."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def bytewise(connection: Connection, column: Any) -> Any:
    """Return a column to sort by in the same order on every database."""
    is_text = isinstance(column.type, String) and connection.dialect.name != "sqlite"
    return column.collate("C") if is_text else column
