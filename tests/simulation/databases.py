"""Each service's SQLite file, which a kill leaves and a history begins anew.

A new file is a copy of one that was made once, and an engine is kept for all
histories: making tables and compiling statements takes longer than a whole history.
"""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from driftloop.runtime.database import open_database
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError
from sqlmodel import SQLModel

IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made below it


class Disk:
    """The database of one service."""

    def __init__(
        self, folder: Path, service: str, tables: Sequence[type[SQLModel]]
    ) -> None:
        self._file = folder / f"{service}.db"
        self.engine: Engine = open_database(f"sqlite:///{self._file}", tables)
        self.engine.dispose()
        self._new = self._file.read_bytes()
        self.is_away = False
        self.step: Callable[[str], None] = lambda _: None
        event.listen(self.engine, "begin", self._on_begin)
        event.listen(self.engine, "commit", self._on_commit)

    def reset(self) -> None:
        """Start with an empty database."""
        self.engine.dispose()
        for rest in ("-wal", "-shm"):
            self._file.with_name(self._file.name + rest).unlink(missing_ok=True)
        self._file.write_bytes(self._new)
        self.is_away = False
        self.step = lambda _: None

    def _on_begin(self, _: Connection) -> None:
        if self.is_away:
            away = sqlite3.OperationalError("the database is away")
            raise OperationalError("BEGIN", None, away)

    def _on_commit(self, _: Connection) -> None:
        self.step("before commit")


class Disks:
    """The databases of this test process, each opened once."""

    def __init__(self) -> None:
        self._disks: dict[str, Disk] = {}
        self._folder: Path | None = None

    def of(self, service: str, tables: Sequence[type[SQLModel]]) -> Disk:
        if service not in self._disks:
            self._disks[service] = Disk(self.folder, service, tables)
        return self._disks[service]

    @property
    def folder(self) -> Path:
        if self._folder is None:
            place = IN_MEMORY if IN_MEMORY.is_dir() else None
            self._folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=place))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder


DISKS = Disks()
