"""What waits on disk to be sent home: whole files, oldest first, within a bound.

A file is written beside its place, made durable and renamed, so that a process which
is killed at any moment leaves whole files only. ``open.json`` is the report that is
still being counted; a runner that finds one from before closes it. What was sent is
deleted after home has acknowledged it: a kill between the two sends it again, with the
same id.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from .errors import Refused

try:
    import fcntl
except ImportError:  # no Unix: then nothing stops two runners with one spool
    fcntl = None  # type: ignore[assignment]

OPEN = "open.json"
LOCK = "lock"
PART = ".part"
DIGITS = 20
BLOCK_BYTES = 4096
"""A file takes whole blocks of the disk, so small ones count for one."""
Kind = Literal["report", "rows"]
KINDS: tuple[Kind, ...] = ("rows", "report")
"""In the order in which they are dropped: rows are many and only wished for."""


@dataclass(frozen=True)
class Waiting:
    """A file that waits to be sent."""

    path: Path
    kind: Kind
    number: int
    report_id: str


class Spool:
    """A folder of what waits, used by one process.

    Parameters
    ----------
    most_bytes : of all that waits, without the open report.
    lost : is told what was dropped: the kind, and how many reports or rows.

    Raises
    ------
    Refused
        When the folder cannot be written, or another runner uses it.
    """

    def __init__(
        self, folder: Path, most_bytes: int, lost: Callable[[str, int], None]
    ) -> None:
        self.folder = folder
        self._most_bytes = most_bytes
        self._lost = lost
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _locked(folder / LOCK)
            for left in folder.glob(f"*{PART}"):
                left.unlink()
            self._number = max((one.number for one in self.waiting()), default=0)
        except OSError as error:
            raise Refused(f"the spool {folder} cannot be used: {error}") from error

    def waiting(self) -> list[Waiting]:
        """Return what waits, oldest first."""
        found = []
        for path in self.folder.glob("*-*-*.json"):
            number, kind, report_id = path.stem.split("-", 2)
            if number.isdecimal() and kind in KINDS:
                found.append(
                    Waiting(
                        path,
                        "rows" if kind == "rows" else "report",
                        int(number),
                        report_id,
                    )
                )
        return sorted(found, key=lambda one: one.number)

    def size_bytes(self) -> int:
        """Return how much waits."""
        return sum(_size(one.path) for one in self.waiting())

    def keep_open(self, report: dict[str, Any], rows: Sequence[Any]) -> None:
        """Write down the report that is still being counted."""
        self._write(self.folder / OPEN, {"report": report, "rows": list(rows)})

    def close_open(self) -> None:
        """Close the report that a runner has left which was stopped or killed."""
        path = self.folder / OPEN
        try:
            left = json.loads(path.read_bytes())
            report, rows = left["report"], left["rows"]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            path.unlink()  # not written by us
            return
        self.add(report, rows)

    def add(self, report: dict[str, Any], rows: Sequence[Any]) -> None:
        """Let a report wait, and the rows of its time; the oldest go if need be."""
        waiting = {(one.kind, one.report_id) for one in self.waiting()}
        parts: list[tuple[Kind, Any]] = [("report", report)]
        if rows:
            parts.append(("rows", list(rows)))
        for kind, content in parts:
            # A kill after this and before the open one is gone closes it once more.
            if (kind, report["report_id"]) in waiting:
                continue
            self._number += 1
            name = f"{self._number:0{DIGITS}d}-{kind}-{report['report_id']}.json"
            self._write(self.folder / name, content)
        (self.folder / OPEN).unlink(missing_ok=True)
        self._make_room()

    def done(self, one: Waiting) -> None:
        """Forget what home has."""
        one.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let another runner have the folder."""
        self._lock.close()

    def _make_room(self) -> None:
        waiting = self.waiting()
        left = sum(_size(one.path) for one in waiting)
        for one in self._in_order_of_loss(waiting):
            if left <= self._most_bytes:
                return
            left -= _size(one.path)
            count = _row_count(one.path) if one.kind == "rows" else 1
            one.path.unlink()
            self._lost("row" if one.kind == "rows" else "report", count)

    @staticmethod
    def _in_order_of_loss(waiting: Sequence[Waiting]) -> Iterator[Waiting]:
        for kind in KINDS:
            yield from (one for one in waiting if one.kind == kind)

    def _write(self, path: Path, content: Any) -> None:
        part = path.with_name(path.name + PART)
        with part.open("wb") as file:
            file.write(json.dumps(content, sort_keys=True).encode())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        if hasattr(os, "O_DIRECTORY"):
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _row_count(path: Path) -> int:
    try:
        return len(json.loads(path.read_bytes()))
    except ValueError:  # the disk has lost what it held
        return 1


def _size(path: Path) -> int:
    try:
        return max(1, math.ceil(path.stat().st_size / BLOCK_BYTES)) * BLOCK_BYTES
    except FileNotFoundError:  # sent meanwhile
        return 0


def _locked(path: Path) -> IO[bytes]:
    file = path.open("ab")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise Refused(
                f"another runner uses the spool {path.parent}; give each its own"
            ) from error
    return file
