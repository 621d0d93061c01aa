"""SQLite without the layers between, for the calls that clients make by the thousand.

Through SQLAlchemy a statement costs five times what SQLite needs for it, and a
transaction ten times as much (on the machine of ``make bench``: 60 against 11 µs, 240
against 25 µs). Statements are written as text anyway, in the form that SQLite itself
takes; so they go to it directly. What is not text goes through SQLAlchemy, on the same
connection.
"""

import functools
import re
import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, LifoQueue
from typing import Any, cast

from driftloop.runtime.database import LOCK_TIMEOUT_S, prepare_sqlite
from sqlalchemy import (
    BindParameter,
    Connection,
    Engine,
    TextClause,
    create_engine,
    event,
)
from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.pool import NullPool
from sqlalchemy.types import NullType

MAX_KEPT_READERS = 8


class Direct:
    """A database's connections for reads, and one for writes.

    A reader neither waits for a writer nor holds one up. LIKE heeds capitals, as it
    does on PostgreSQL and in MLflow. A write is on the disk once it is committed
    (``synchronous=FULL``): it is answered before the log has it, unlike what other
    services store.
    """

    def __init__(self, engine: Engine) -> None:
        options = {"timeout": LOCK_TIMEOUT_S, "check_same_thread": False}
        self._engine = create_engine(
            engine.url,
            connect_args=options,
            hide_parameters=True,
            poolclass=NullPool,  # connections are kept here
        )
        event.listen(self._engine, "connect", _prepare)
        self._writer: _Connection | None = None
        self._readers: LifoQueue[_Connection] = LifoQueue(MAX_KEPT_READERS)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One view of the tables."""
        try:
            reader = self._readers.get_nowait()
        except Empty:
            reader = _Connection(self._engine.connect())
        try:
            with reader.transaction("BEGIN"):
                yield cast("Connection", reader)
        finally:
            try:
                self._readers.put_nowait(reader)
            except Full:  # more at once than are kept
                reader.close()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction; the caller sees to it that there is one at a time."""
        if self._writer is None:
            self._writer = _Connection(self._engine.connect())
        with self._writer.transaction("BEGIN IMMEDIATE"):
            yield cast("Connection", self._writer)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        while not self._readers.empty():
            self._readers.get().close()
        self._engine.dispose()


def quick(connection: Connection) -> Connection:
    """Return a connection of the same transaction whose texts go to SQLite directly.

    On other databases, the connection itself.
    """
    if connection.dialect.name != "sqlite":
        return connection
    return cast("Connection", _Connection(connection))


def _prepare(connection: Any, _: Any) -> None:
    prepare_sqlite(connection)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA case_sensitive_like=ON")


class _Connection:
    """What of SQLAlchemy's ``Connection`` the statements here use."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)  # noqa: S101 - the dialect says so
        self._raw = raw
        self.dialect = connection.dialect

    def execute(self, statement: Any, values: Any = None) -> Any:
        """Execute a statement, for each of ``values`` if that is a list."""
        lists = _lists_in(statement)
        if lists is None or (lists and isinstance(values, list)):
            return self._connection.execute(statement, values)
        sql: str = statement.text
        try:
            if isinstance(values, list):
                return _Result(self._raw.executemany(sql, values))
            for name in lists:
                sql, values = _spread(sql, values, name)
            return _Result(self._raw.execute(sql, values or {}))
        except sqlite3.Error as error:
            raise _told(sql, error) from error

    @contextmanager
    def transaction(self, begin: str) -> Iterator[None]:
        try:
            self._raw.execute(begin)
        except sqlite3.Error as error:
            raise _told(begin, error) from error
        try:
            yield
        except BaseException:
            self._raw.rollback()
            raise
        else:
            try:
                self._raw.commit()
            except sqlite3.Error as error:
                self._raw.rollback()
                raise _told("COMMIT", error) from error
        finally:
            self._connection.rollback()  # of what SQLAlchemy may have begun in it

    def close(self) -> None:
        self._connection.close()


@functools.lru_cache(1000)
def _lists_in(statement: Any) -> tuple[str, ...] | None:
    """Return a text's parameters that stand for lists; None: SQLAlchemy has to run it.

    It has to where values are to be turned into something else, and what is not text.
    """
    if not isinstance(statement, TextClause):
        return None
    found = [p for p in statement.get_children() if isinstance(p, BindParameter)]
    if any(not isinstance(parameter.type, NullType) for parameter in found):
        return None
    return tuple(parameter.key for parameter in found if parameter.expanding)


def _spread(sql: str, values: dict[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    """Give each value of a list a parameter of its own.

    >>> _spread("x IN :ids", {"ids": [4, 5]}, "ids")
    ('x IN (:ids_0, :ids_1)', {'ids_0': 4, 'ids_1': 5})
    >>> _spread("x IN :ids", {"ids": []}, "ids")
    ('x IN (SELECT NULL WHERE 0)', {})
    """
    own = {f"{name}_{number}": value for number, value in enumerate(values[name])}
    names = ", ".join(f":{each}" for each in own) or "SELECT NULL WHERE 0"
    rest = {key: value for key, value in values.items() if key != name}
    return re.sub(rf":{name}\b", f"({names})", sql), {**rest, **own}


def _told(statement: str, error: sqlite3.Error) -> BaseException:
    """Return an error of SQLite as SQLAlchemy's; values are left out of its text."""
    return DBAPIError.instance(
        statement, None, error, sqlite3.Error, hide_parameters=True
    )


class _Result:
    """What of SQLAlchemy's ``CursorResult`` is used: rows with names."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def __iter__(self) -> Iterator[Any]:
        return map(self._make(), self._cursor)

    def all(self) -> list[Any]:
        return list(self)

    def first(self) -> Any:
        row = self._cursor.fetchone()
        return None if row is None else self._make()(row)

    def one(self) -> Any:
        row = self.first()
        if row is None:
            raise NoResultFound("No row was found when one was required")
        return row

    def scalar(self) -> Any:
        row = self._cursor.fetchone()
        return None if row is None else row[0]

    def scalar_one(self) -> Any:
        return self.one()[0]

    def scalars(self) -> Iterator[Any]:
        return (row[0] for row in self._cursor)

    def _make(self) -> Callable[[Any], Any]:
        names = tuple(column[0] for column in self._cursor.description)
        make = _ROWS.get(names)
        if make is None:
            # Of columns with the same name the first one keeps it.
            kind = namedtuple("Row", names, rename=True)  # type: ignore[misc]
            make = _ROWS[names] = kind._make
        return make


_ROWS: dict[tuple[str, ...], Callable[[Any], Any]] = {}
