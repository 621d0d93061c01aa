"""What ingest remembers: ids that have come, and how far event time is."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from driftloop.contracts.events import RowKind
from driftloop.ingest.core import Seen
from driftloop.ingest.owners import PayloadOwner
from driftloop.ingest.proposals import TABLES as PROPOSAL_TABLES
from driftloop.ingest.pull_tables import PULL_TABLES
from driftloop.ingest.vault import VAULT_TABLES
from sqlalchemy import BigInteger, Connection
from sqlmodel import Field, Session, SQLModel

LOOKUP_KEYS = 5_000
"""Ids asked for in one statement; SQLite takes at most 32,766."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SeenRow(SQLModel, table=True):
    """An id that has come, by ``row_keys``: some 30 bytes a row."""

    __tablename__ = "ingest_seen"
    __table_args__ = {"sqlite_with_rowid": False}
    key: bytes = Field(primary_key=True)
    content: bytes
    revision: int


class EventTime(SQLModel, table=True):
    """Newest event time of a source, in microseconds: its watermark."""

    __tablename__ = "ingest_event_time"
    pipeline: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    source: str = Field(primary_key=True)
    newest_us: int = Field(sa_type=BigInteger)


TABLES: tuple[type[SQLModel], ...] = (
    SeenRow,
    EventTime,
    PayloadOwner,
    *PROPOSAL_TABLES,
    *VAULT_TABLES,
    *PULL_TABLES,
)


def known_ids(session: Session, keys: Sequence[bytes]) -> dict[bytes, Seen]:
    """Return what is known of those ids that have come before."""
    wanted = list(dict.fromkeys(keys))
    connection = session.connection()
    mark = _mark(connection)
    known: dict[bytes, Seen] = {}
    for start in range(0, len(wanted), LOOKUP_KEYS):
        part = tuple(wanted[start : start + LOOKUP_KEYS])
        marks = ",".join([mark] * len(part))
        found = connection.exec_driver_sql(
            f"SELECT key, content, revision FROM ingest_seen WHERE key IN ({marks})",  # noqa: S608 - marks alone
            part,
        )
        for key, content, revision in found:
            known[key] = Seen(content, revision)
    return known


def remember_ids(
    session: Session, added: Mapping[bytes, Seen], changed: Mapping[bytes, Seen]
) -> None:
    """Write down ids as part of the session's transaction."""
    connection = session.connection()
    mark = _mark(connection)
    if added:
        connection.exec_driver_sql(
            "INSERT INTO ingest_seen (key, content, revision) "  # noqa: S608 - marks alone
            f"VALUES ({mark}, {mark}, {mark})",
            [(key, *seen) for key, seen in added.items()],
        )
    if changed:
        connection.exec_driver_sql(
            f"UPDATE ingest_seen SET content = {mark}, revision = {mark} "  # noqa: S608 - marks alone
            f"WHERE key = {mark}",
            [(*seen, key) for key, seen in changed.items()],
        )


def _mark(connection: Connection) -> str:
    """Return the driver's placeholder.

    Statements go to the driver as they are: SQLAlchemy's handling of each
    parameter would take five times as long as the database.
    """
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


def newest_time(
    session: Session, pipeline: str, kind: RowKind, source: str
) -> datetime | None:
    """Return a source's watermark; None before its first row."""
    row = session.get(EventTime, (pipeline, kind, source))
    return None if row is None else _EPOCH + timedelta(microseconds=row.newest_us)


def advance_time(
    session: Session, pipeline: str, kind: RowKind, source: str, newest: datetime
) -> None:
    """Move a source's watermark, as part of the session's transaction."""
    newest_us = (newest - _EPOCH) // timedelta(microseconds=1)
    row = session.get(EventTime, (pipeline, kind, source))
    if row is None:
        row = EventTime(
            pipeline=pipeline, kind=kind, source=source, newest_us=newest_us
        )
    row.newest_us = max(row.newest_us, newest_us)
    session.add(row)
