"""A service's own database, and the tables that make its effects exact.

Everything here is a read model of the log: it may be dropped and built anew.
SQLite serves one process. On PostgreSQL the replicas of a service share a database:
a transaction that handles messages holds its partition's watermark until it ends.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from driftloop.runtime.schema import bring_up_to_date, mark, todays_form
from driftloop.runtime.transport import Record
from sqlalchemy import (
    URL,
    BigInteger,
    Connection,
    DateTime,
    Engine,
    Integer,
    bindparam,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from sqlmodel import Field, Session, SQLModel, create_engine, select

LOCK_TIMEOUT_S = 30
"""Waiting for another transaction; shorter than the watchdog's patience."""
CACHE_KIB = 32 * 1024
"""Of SQLite's pages a connection; 2 MiB by default, which a table of ids outgrows."""
IDLE_TRANSACTION_TIMEOUT_S = 60
"""PostgreSQL ends a transaction that is silent for so long: its process is frozen or
cut off, and others wait for its locks. No handler may be silent as long."""
CONNECT_TIMEOUT_S = 10
POSTGRESQL_OPTIONS = {
    "lock_timeout": f"{LOCK_TIMEOUT_S}s",
    "idle_in_transaction_session_timeout": f"{IDLE_TRANSACTION_TIMEOUT_S}s",
    "timezone": "UTC",
    # The server notices a vanished machine, and frees its locks, after half a minute.
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""What each connection asks for; ``options`` in the URL override them."""

# SQLite numbers rows by itself only in a column of the type INTEGER (of 64 bits).
_LONG = BigInteger().with_variant(Integer, "sqlite")


class Inbox(SQLModel, table=True):
    """Ids of events whose effects are stored: a repeat is a no-op."""

    __tablename__ = "runtime_inbox"
    event_id: str = Field(primary_key=True)
    source: str = Field(primary_key=True)
    handled_at: datetime


class Outbox(SQLModel, table=True):
    """Events stored with their effects and not yet known to be published."""

    __tablename__ = "runtime_outbox"
    position: int | None = Field(default=None, primary_key=True, sa_type=_LONG)
    event_id: str = Field(index=True)
    replica: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: str


@dataclass(frozen=True, slots=True)
class Unsent:
    """An event for the outbox, without the table's class: that takes ten times as long.

    Attributes
    ----------
    replica : the one that publishes it.
    """

    record: Record
    event_id: str
    replica: str

    @classmethod
    def of(cls, row: Outbox) -> "Unsent":
        headers = tuple(
            (name, value.encode("latin-1")) for name, value in json.loads(row.headers)
        )
        record = Record(row.topic, row.key, row.value, headers)
        return cls(record, row.event_id, row.replica)

    def values(self) -> dict[str, Any]:
        """Return the columns."""
        record = self.record
        headers = [(name, value.decode("latin-1")) for name, value in record.headers]
        return {
            "event_id": self.event_id,
            "replica": self.replica,
            "topic": record.topic,
            "key": record.key,
            "value": record.value,
            "headers": json.dumps(headers),
        }


class Watermark(SQLModel, table=True):
    """First offset of a partition whose effects are not stored yet."""

    __tablename__ = "runtime_watermark"
    topic: str = Field(primary_key=True)
    partition: int = Field(primary_key=True)
    next_offset: int = Field(sa_type=_LONG)


class Reread(SQLModel, table=True):
    """Where a partition ended when this database was begun.

    What lies before may have been handled already, with a database that is lost.
    """

    __tablename__ = "runtime_reread"
    topic: str = Field(primary_key=True)
    partition: int = Field(primary_key=True)
    until: int = Field(sa_type=_LONG)


class Attempt(SQLModel, table=True):
    """How often a message has ended the process: a bug must not block for ever."""

    __tablename__ = "runtime_attempt"
    topic: str = Field(primary_key=True)
    partition: int = Field(primary_key=True)
    offset: int = Field(primary_key=True, sa_type=_LONG)
    count: int


class Owner(SQLModel, table=True):
    """The one service, or part of one, that this database belongs to."""

    __tablename__ = "runtime_owner"
    service: str = Field(primary_key=True)


RUNTIME_TABLES: tuple[type[SQLModel], ...] = (
    Inbox, Outbox, Watermark, Reread, Attempt, Owner,
)  # fmt: skip


class WrongDatabaseError(ValueError):
    """A service was pointed at the database of another one."""


def open_database(
    url: str,
    tables: Sequence[type[SQLModel]] = (),
    owner: str | None = None,
    part: str = "",
) -> Engine:
    """Open a database; a new one gets its tables, an older one today's form.

    SQLite (its file is created too) runs in WAL mode with immediate write
    transactions, so that two threads wait for each other instead of failing;
    ``synchronous=NORMAL`` may lose the last transactions at a power cut, which the
    log then repeats.

    Parameters
    ----------
    owner : name of the service; services must not share a database, as they would
        take each other's watermarks for their own.
    part : of the service, where it has parts; each needs a database of its own.

    Raises
    ------
    WrongDatabaseError
        When the database belongs to another service, or to another part of it.
    NewerDatabaseError
        When a later release has written it.
    sqlalchemy.exc.OperationalError
        When the server is away or refuses the user.
    """
    parsed = make_url(url)
    options: dict[str, Any] = {"hide_parameters": True}  # in the texts of errors
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        options["connect_args"] = {
            "timeout": LOCK_TIMEOUT_S,
            "check_same_thread": False,
        }
    else:
        parsed = _postgresql_url(parsed)
        options["pool_pre_ping"] = True
    engine = create_engine(parsed, **options)
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine)
    wanted = [cls.__table__ for cls in (*RUNTIME_TABLES, *tables)]  # type: ignore[attr-defined]  # SQLModel tables have it
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":  # replicas may start at once
                connection.execute(_LOCK_NAME, {"name": "driftloop/tables"})
            is_new = not inspect(connection).has_table(Owner.__tablename__)
            if is_new or owner is None:
                SQLModel.metadata.create_all(connection, tables=wanted)
            if owner is not None:
                _claim(connection, owner, part)
                if is_new:
                    mark(connection, todays_form(owner))
                else:
                    bring_up_to_date(connection, owner)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _postgresql_url(url: URL) -> URL:
    """Return the URL with our driver and limits; what it says itself is kept."""
    if url.drivername in {"postgres", "postgresql"}:
        url = url.set(drivername="postgresql+psycopg")
    limits = " ".join(
        f"-c {name}={value}" for name, value in POSTGRESQL_OPTIONS.items()
    )
    own = url.query.get("options", "")
    own = own if isinstance(own, str) else " ".join(own)
    query = {"connect_timeout": str(CONNECT_TIMEOUT_S), **url.query}
    return url.set(query=query | {"options": f"{limits} {own}".rstrip()})


def _claim(connection: Connection, service: str, part: str) -> None:
    claimant = f"{service}-{part}" if part else service
    connection.execute(_OWN, {"service": claimant})
    owners = set(connection.execute(_OWNERS).scalars())
    if owners != {claimant}:
        other = ", ".join(sorted(owners - {claimant}))
        raise WrongDatabaseError(
            f"this database belongs to the service {other}, {claimant} needs its own: "
            f"set DRIFTLOOP_{service.upper()}_DATABASE_URL, or put {{service}} into "
            "DRIFTLOOP_DATABASE_URL"
        )


def is_passing(error: Exception) -> bool:
    """Whether it is the database that failed, for now: away, locked, restarted."""
    return isinstance(error, OperationalError | NoConnectionError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: Any) -> None:
        prepare_sqlite(connection)

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def prepare_sqlite(connection: Any) -> None:
    """Set up a new connection of the driver."""
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA secure_delete=FAST")  # what is deleted is overwritten
    cursor.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    cursor.close()


def reading_engine(engine: Engine) -> Engine:
    """Return an engine for reads; to be disposed of by itself.

    What one transaction reads is of one moment, however many statements it takes. On
    SQLite a reader neither waits for a writer nor holds one up: the service's own
    engine begins each transaction as a writer, and a handler may take long.
    """
    if engine.dialect.name != "sqlite":
        return engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
    reader = create_engine(
        engine.url,
        hide_parameters=True,
        connect_args={"timeout": LOCK_TIMEOUT_S, "check_same_thread": False},
    )

    @event.listens_for(reader, "connect")
    def on_connect(connection: Any, _: Any) -> None:
        prepare_sqlite(connection)
        connection.execute("PRAGMA query_only=ON")

    @event.listens_for(reader, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return reader


# Statements of the hot path, as text: compiled once, the same on SQLite and PostgreSQL.
_NEXT_OFFSET = text(
    "SELECT next_offset FROM runtime_watermark "
    "WHERE topic = :topic AND partition = :partition"
)
_LOCK_NEXT_OFFSET = text(f"{_NEXT_OFFSET.text} FOR UPDATE")
_START = text(
    "INSERT INTO runtime_watermark (topic, partition, next_offset) "
    "VALUES (:topic, :partition, 0) ON CONFLICT DO NOTHING"
)
LOCK_OF_NAME = "hashtextextended(:name, 0)"
"""Key of a PostgreSQL advisory lock for the parameter ``name``."""
_LOCK_NAME = text(f"SELECT pg_advisory_xact_lock({LOCK_OF_NAME})")
_OWN = text(
    "INSERT INTO runtime_owner (service) VALUES (:service) ON CONFLICT DO NOTHING"
)
_OWNERS = text("SELECT service FROM runtime_owner")
_ADVANCE = text(
    "INSERT INTO runtime_watermark (topic, partition, next_offset) "
    "VALUES (:topic, :partition, :next_offset) "
    "ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset "
    "WHERE excluded.next_offset > runtime_watermark.next_offset"
)
_ANY = text("SELECT count(*) FROM runtime_watermark")
_ANY_REREAD = text("SELECT count(*) FROM runtime_reread")
_BEGIN = text(
    "INSERT INTO runtime_reread (topic, partition, until) "
    "VALUES (:topic, :partition, :until) ON CONFLICT DO NOTHING"
)
_REREADING = text(
    "SELECT count(*) FROM runtime_reread r LEFT JOIN runtime_watermark w "
    "ON w.topic = r.topic AND w.partition = r.partition "
    "WHERE COALESCE(w.next_offset, 0) < r.until"
)
_REMEMBER = text(
    "INSERT INTO runtime_inbox (event_id, source, handled_at) "
    "VALUES (:event_id, :source, :handled_at) ON CONFLICT DO NOTHING"
).bindparams(bindparam("handled_at", type_=DateTime()))
_STORE = text(
    "INSERT INTO runtime_outbox (event_id, replica, topic, key, value, headers) "
    "VALUES (:event_id, :replica, :topic, :key, :value, :headers)"
)
_FORGET = text("DELETE FROM runtime_outbox WHERE event_id = :event_id")


def next_offset(connection: Connection, topic: str, partition: int) -> int | None:
    """First offset not handled yet; None: nothing of this partition was."""
    found: int | None = connection.execute(
        _NEXT_OFFSET, {"topic": topic, "partition": partition}
    ).scalar()
    return found


def take_next_offset(connection: Connection, topic: str, partition: int) -> int:
    """Return the first offset not handled yet, and hold it to the transaction's end.

    So an earlier owner of the partition that was frozen, or thrown out of its
    consumer group in the middle of its work, cannot handle the same messages beside
    the new one. (An SQLite transaction holds the whole database anyway.)
    """
    if connection.dialect.name == "sqlite":
        return next_offset(connection, topic, partition) or 0
    key = {"topic": topic, "partition": partition}
    found = connection.execute(_LOCK_NEXT_OFFSET, key).scalar()
    if found is None:
        connection.execute(_START, key)
        found = connection.execute(_LOCK_NEXT_OFFSET, key).scalar_one()
    return int(found)


def advance(connection: Connection, topic: str, partition: int, offset: int) -> None:
    """Move a partition's watermark forward (never back)."""
    connection.execute(
        _ADVANCE, {"topic": topic, "partition": partition, "next_offset": offset}
    )


def is_empty(connection: Connection) -> bool:
    """Whether nothing has been handled with this database, nor was it begun."""
    return not any(connection.execute(each).scalar() for each in (_ANY, _ANY_REREAD))


def begin(connection: Connection, ends: Mapping[tuple[str, int], int]) -> None:
    """Note where partitions end, in a database that is empty."""
    rows = [
        {"topic": topic, "partition": partition, "until": end}
        for (topic, partition), end in ends.items()
    ]
    if rows:
        connection.execute(_BEGIN, rows)


def is_rereading(connection: Connection) -> bool:
    """Whether there is still to be read what was there when the database was begun."""
    return bool(connection.execute(_REREADING).scalar())


def remember(connection: Connection, source: str, event_id: str) -> bool:
    """Note that an event's effects are part of this transaction.

    Returns
    -------
    bool
        False when they were stored before: the event is a repeat.
    """
    now = datetime.now(UTC)
    values = {"event_id": event_id, "source": source, "handled_at": now}
    return bool(connection.execute(_REMEMBER, values).rowcount)


def seen(session: Session, source: str, event_id: str) -> bool:
    """Whether an event's effects are stored already."""
    return session.get(Inbox, (event_id, source)) is not None


def store_unsent(connection: Connection, rows: Sequence[Unsent]) -> None:
    """Store events to be published after the commit."""
    connection.execute(_STORE, [row.values() for row in rows])


def forget(connection: Connection, event_ids: Collection[str]) -> None:
    """Delete events that the broker has acknowledged."""
    if event_ids:
        connection.execute(_FORGET, [{"event_id": each} for each in event_ids])


def unsent(session: Session, replica: str) -> list[Unsent]:
    """Events of this replica that may not have been published, oldest first."""
    query = select(Outbox).where(Outbox.replica == replica).order_by("position")
    return [Unsent.of(row) for row in session.exec(query)]
