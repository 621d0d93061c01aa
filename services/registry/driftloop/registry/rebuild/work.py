"""Builds a registry's database anew from the log, beside the one that is there.

The same handlers read the log as when it was new, so what they store is the same; what
they say is in the log already and is not said again. The database that is there bounds
what is read: up to where it has read, and up to its last write, so the two can be
compared while the registry works on.
"""

import json
import sqlite3
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driftloop.registry.digests import overall
from driftloop.registry.every_table import EVERY_TABLE
from driftloop.registry.rebuild.reading import (
    SERVICE,
    Reading,
    RebuildRefusedError,
    Tell,
)
from driftloop.registry.rebuild.state import Snapshot, one_view, snapshot_of
from driftloop.registry.rebuild.swap import swap
from driftloop.registry.settings import RegistrySettings
from driftloop.runtime.alone import alone_on, file_of
from driftloop.runtime.database import open_database
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError


@dataclass(frozen=True)
class Report:
    """What came out.

    Attributes
    ----------
    database : the new one's file; for other databases ``None``.
    event_count : read from the log.
    state : digest of all that follows from the log.
    compared : with the database that is there.
    differing : tables whose rows are others there.
    left_count : trained models that the log says no verdict about yet; the registry
        judges them when it starts.
    kept : the file of the database that was replaced.
    """

    database: str | None
    event_count: int
    seconds: float
    state: str
    compared: str
    differing: list[str]
    left_count: int
    replaced: bool = False
    kept: str | None = None

    @property
    def is_good(self) -> bool:
        return self.replaced or not self.differing


def rebuild(
    settings: RegistrySettings, into: str | None, is_to_replace: bool, tell: Tell
) -> Report:
    """Build a database from the log; compare it; put it in the other's place if asked.

    Parameters
    ----------
    into : URL of the new, empty database; None: a file beside the one that is there.

    Raises
    ------
    RebuildRefusedError
        When there is no place for the new one, or no way to replace the old one.
    DatabaseInUseError
        When a registry works on the database that is to be replaced.
    LogSilentError
        When the broker is away.
    """
    url = settings.database_url_for(SERVICE)
    file = file_of(url)
    if into is None and file is None:
        raise RebuildRefusedError(
            "the registry's database is no SQLite file: create an empty database and "
            "name it with --into URL"
        )
    if is_to_replace and (file is None or into is not None):
        raise RebuildRefusedError(
            "--replace changes one SQLite file for another; with other databases, let "
            "DRIFTLOOP_REGISTRY_DATABASE_URL name the new one and start the registry"
        )
    started = time.monotonic()
    with ExitStack() as stack:
        if is_to_replace:
            stack.enter_context(alone_on(url))
        new = into or f"sqlite:///{file}.rebuilt"
        stack.enter_context(alone_on(new))
        live, compared = _live(url, file)
        engine = _open(new, is_ours=into is None)
        stack.callback(engine.dispose)
        work = Reading(settings, engine, live)
        work.read_log(tell)
        built = work.finish()
        differing = built.differing(live) if live else []
        report = Report(
            database=str(file_of(new) or "") or None,
            event_count=work.event_count,
            seconds=round(time.monotonic() - started, 3),
            state=overall(built.digests),
            compared=("differs" if differing else "same") if live else compared,
            differing=differing,
            left_count=work.left_count,
        )
        engine.dispose()
        if not is_to_replace:
            return report
        assert file is not None  # noqa: S101 - checked above
        kept = swap(file, Path(f"{file}.rebuilt"))
        where = str(kept) if kept else None
        return replace(report, database=str(file), replaced=True, kept=where)


def _live(url: str, file: Path | None) -> tuple[Snapshot | None, str]:
    """Return what the database that is there holds; or why that is not known."""
    if file is not None and not file.exists():
        return None, "there is none"
    try:
        with one_view(url) as connection:
            return snapshot_of(connection), ""
    except (DBAPIError, sqlite3.Error, json.JSONDecodeError) as error:
        origin = getattr(error, "orig", error)
        return None, f"cannot be read: {origin}"


def _open(url: str, *, is_ours: bool) -> Engine:
    file = file_of(url)
    if file is not None and is_ours:  # what an earlier run has left
        for suffix in ("", "-wal", "-shm"):
            Path(f"{file}{suffix}").unlink(missing_ok=True)
    engine = open_database(url, EVERY_TABLE, SERVICE)
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def on_connect(connection: Any, _: Any) -> None:
            # Nobody misses it after a power cut; `swap` puts the file on the disk.
            connection.execute("PRAGMA synchronous=OFF")

        engine.dispose()
    with engine.connect() as connection:
        found = snapshot_of(connection)
    if found.ends or found.revision or found.unsent:
        engine.dispose()
        raise RebuildRefusedError("--into names a database that is not empty")
    return engine
