"""Changes one SQLite database for another."""

import os
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path


def swap(live: Path, new: Path) -> Path | None:
    """Put a new database in the place of one that nobody uses; return where that is.

    A reader of the name finds the old or the new file, also after a power cut.
    """
    _into_one_file(new)
    with new.open("rb") as content:
        os.fsync(content.fileno())
    kept = None
    if live.exists():
        kept = live.with_name(f"{live.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        with suppress(sqlite3.DatabaseError):
            _into_one_file(live)
        os.link(live, kept)
        for suffix in ("-wal", "-shm"):  # left by one that cannot be read any more
            beside = Path(f"{live}{suffix}")
            if beside.exists():
                beside.replace(f"{kept}{suffix}")
    new.replace(live)
    folder = os.open(live.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return kept


def _into_one_file(database: Path) -> None:
    """Bring what lies in an SQLite database's write-ahead log into its file."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
    finally:
        connection.close()
