"""Windows of scored rows in the database: kept until labels land, and after."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pyarrow as pa
from driftloop.monitor.columns import as_bytes, as_table
from driftloop.monitor.estimates.combining import Combined
from driftloop.monitor.store import utc
from driftloop.monitor.tables import MonitorSlice, MonitorWindow
from pydantic import BaseModel, ConfigDict
from sqlalchemy import BindParameter, Table, bindparam, delete, insert, select, update
from sqlmodel import Session

_WINDOW: Table = MonitorWindow.__table__  # type: ignore[attr-defined]  # tables have it
_SLICE: Table = MonitorSlice.__table__  # type: ignore[attr-defined]
LANDED = "landed"
"""Kind of the slices with labels that no window has taken in yet."""
MAX_OPEN = 200
"""Windows that wait for labels; from more every second one is dropped."""
MAX_SETTLED = 300
"""Windows whose figures are kept for people."""


class Realised(BaseModel):
    """A metric as it was measured, with its variance by chance."""

    model_config = ConfigDict(frozen=True)

    value: float
    chance: float


class Note(BaseModel):
    """What was said of a window, and what came of it.

    Attributes
    ----------
    reason : why the verdict.
    """

    model_config = ConfigDict(frozen=True)

    verdict: str
    reason: str
    estimates: list[Combined] = []
    realised: dict[str, Realised] = {}
    labelled_count: int = 0


@dataclass(frozen=True)
class Window:
    """A row of :class:`tables.MonitorWindow`.

    Attributes
    ----------
    number : counts the pipeline's windows; of the rows that judged a version, minus
        the version.
    data : the kept rows; None: no longer.
    """

    number: int
    version: int
    start: datetime
    end: datetime
    row_count: int
    kept_count: int
    is_settled: bool
    note: Note
    data: bytes | None

    @property
    def rows(self) -> pa.Table:
        if self.data is None:
            raise ValueError(f"window {self.number} keeps no rows")
        return as_table(self.data)

    def with_rows(self, rows: pa.Table) -> "Window":
        return replace(self, data=as_bytes(rows))


_PIPELINE: BindParameter[str] = bindparam("of_pipeline")
_MOST: BindParameter[int] = bindparam("most")
_FIGURES = [c for c in _WINDOW.c if c.name != "data"]
_ADD = insert(_WINDOW)
_SAVE = (
    update(_WINDOW)
    .where(_WINDOW.c.pipeline == _PIPELINE, _WINDOW.c.number == bindparam("of_number"))
    .values(
        {
            c.name: bindparam(c.name)
            for c in _WINDOW.c
            if c.name not in ("pipeline", "number")
        }
    )
)
_OPENED = (
    select(_WINDOW)
    .where(_WINDOW.c.pipeline == _PIPELINE, _WINDOW.c.is_settled.is_(False))
    .order_by(_WINDOW.c.number)
)
_KNOWN = (
    select(_WINDOW)
    .where(
        _WINDOW.c.pipeline == _PIPELINE,
        _WINDOW.c.is_settled.is_(True),
        _WINDOW.c.data.is_not(None),
        _WINDOW.c.number > 0,
    )
    .order_by(_WINDOW.c.number.desc())
)
_HOLDOUT = select(_WINDOW).where(
    _WINDOW.c.pipeline == _PIPELINE, _WINDOW.c.number == bindparam("of_number")
)
_DROP_HOLDOUTS = delete(_WINDOW).where(
    _WINDOW.c.pipeline == _PIPELINE, _WINDOW.c.number < 0
)
_SETTLED = (
    select(*_FIGURES)
    .where(
        _WINDOW.c.pipeline == _PIPELINE,
        _WINDOW.c.version == bindparam("of_version"),
        _WINDOW.c.is_settled.is_(True),
    )
    .order_by(_WINDOW.c.number.desc())
    .limit(_MOST)
)
_NEWEST = (
    select(*_FIGURES)
    .where(_WINDOW.c.pipeline == _PIPELINE, _WINDOW.c.number > 0)
    .order_by(_WINDOW.c.number.desc())
    .limit(_MOST)
)
_EMPTY = (
    update(_WINDOW)
    .where(
        _WINDOW.c.pipeline == _PIPELINE,
        _WINDOW.c.is_settled.is_(True),
        _WINDOW.c.data.is_not(None),
        _WINDOW.c.number < bindparam("oldest"),
        _WINDOW.c.number > 0,
    )
    .values(data=None)
)
_FORGET = delete(_WINDOW).where(
    _WINDOW.c.pipeline == _PIPELINE,
    _WINDOW.c.is_settled.is_(True),
    _WINDOW.c.number > 0,
    _WINDOW.c.number < bindparam("oldest"),
    _WINDOW.c.number < bindparam("kept"),
)
_DROP = delete(_WINDOW).where(
    _WINDOW.c.pipeline == _PIPELINE,
    _WINDOW.c.number.in_(bindparam("numbers", expanding=True)),
)
_DROP_LANDED = delete(_SLICE).where(
    _SLICE.c.pipeline == _PIPELINE, _SLICE.c.kind == LANDED
)
_LANDED = (
    select(_SLICE.c.data)
    .where(_SLICE.c.pipeline == _PIPELINE, _SLICE.c.kind == LANDED)
    .order_by(_SLICE.c.number)
)


def add(session: Session, pipeline: str, window: Window) -> None:
    """Let a window wait for its labels."""
    values = _values(window) | {"pipeline": pipeline, "number": window.number}
    session.connection().execute(_ADD, values)


def save(session: Session, pipeline: str, window: Window) -> None:
    """Store a window as it is now."""
    values = {"of_pipeline": pipeline, "of_number": window.number}
    session.connection().execute(_SAVE, values | _values(window))


def _values(window: Window) -> dict[str, Any]:
    return {
        "version": window.version,
        "start": window.start,
        "end": window.end,
        "row_count": window.row_count,
        "kept_count": window.kept_count,
        "is_settled": window.is_settled,
        "note": window.note.model_dump_json(),
        "data": window.data,
    }


def _window(row: Any) -> Window:
    return Window(
        number=row["number"],
        version=row["version"],
        start=utc(row["start"]),
        end=utc(row["end"]),
        row_count=row["row_count"],
        kept_count=row["kept_count"],
        is_settled=bool(row["is_settled"]),
        note=Note.model_validate_json(row["note"]),
        data=row.get("data"),
    )


def opened(session: Session, pipeline: str) -> list[Window]:
    """Return the windows that wait for labels, oldest first."""
    found = session.connection().execute(_OPENED, {"of_pipeline": pipeline})
    return [_window(row) for row in found.mappings()]


def known(session: Session, pipeline: str, row_count: int) -> list[Window]:
    """Return the newest windows with labels that hold so many rows, newest first."""
    found: list[Window] = []
    total = 0
    with session.connection().execute(_KNOWN, {"of_pipeline": pipeline}) as result:
        for row in result.mappings():
            found.append(_window(row))
            total += found[-1].note.labelled_count
            if total >= row_count:
                break
    return found


def holdout(session: Session, pipeline: str, version: int) -> Window | None:
    """Return the rows that judged a version, as a window; None: not known."""
    values = {"of_pipeline": pipeline, "of_number": -version}
    row = session.connection().execute(_HOLDOUT, values).mappings().first()
    return None if row is None else _window(row)


def drop_holdouts(session: Session, pipeline: str) -> None:
    """Drop the rows that judged other versions."""
    session.connection().execute(_DROP_HOLDOUTS, {"of_pipeline": pipeline})


def settled(session: Session, pipeline: str, version: int, limit: int) -> list[Window]:
    """Return the newest settled windows of a version, without rows, oldest first."""
    values = {"of_pipeline": pipeline, "of_version": version, "most": limit}
    rows = session.connection().execute(_SETTLED, values).mappings().all()
    return [_window(row) for row in reversed(rows)]


def newest(session: Session, pipeline: str, limit: int) -> list[Window]:
    """Return the newest windows, without rows, oldest first."""
    values = {"of_pipeline": pipeline, "most": limit}
    rows = session.connection().execute(_NEWEST, values).mappings().all()
    return [_window(row) for row in reversed(rows)]


def forget(session: Session, pipeline: str, oldest: int, newest_: int) -> None:
    """Drop rows of settled windows before ``oldest``, and figures of very old ones."""
    connection = session.connection()
    kept = newest_ - MAX_SETTLED
    connection.execute(_EMPTY, {"of_pipeline": pipeline, "oldest": oldest})
    values = {"of_pipeline": pipeline, "oldest": oldest, "kept": kept}
    connection.execute(_FORGET, values)


def drop(session: Session, pipeline: str, numbers: Sequence[int]) -> None:
    """Drop windows that no longer wait."""
    if numbers:
        values = {"of_pipeline": pipeline, "numbers": list(numbers)}
        session.connection().execute(_DROP, values)


def drop_landed(session: Session, pipeline: str) -> None:
    """Drop the labels that were taken in."""
    session.connection().execute(_DROP_LANDED, {"of_pipeline": pipeline})


def landed(session: Session, pipeline: str) -> pa.Table | None:
    """Return the labels that were not taken in yet, oldest first; None: none."""
    found = session.connection().execute(_LANDED, {"of_pipeline": pipeline})
    parts = [as_table(data) for data in found.scalars()]
    return pa.concat_tables(parts, promote_options="permissive") if parts else None
