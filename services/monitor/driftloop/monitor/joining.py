"""Predictions meet their labels by id, whichever comes first, exactly once.

A pair leaves the tables in the transaction that reports it; what never meets is
dropped behind the horizon. One statement handles many rows, and goes to the database
driver as it is: SQLAlchemy's handling of each parameter would take longer than all
the rest.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from driftloop.models.pairing import EPOCH, Label, Pair, Prediction
from sqlalchemy import Connection
from sqlmodel import Session

IDS_A_QUERY = 5_000
"""SQLite takes at most 32,766 parameters."""

W = TypeVar("W", Prediction, Label)
V = TypeVar("V", Prediction, Label)


def meet_predictions(
    session: Session, pipeline: str, arrived: Sequence[Prediction]
) -> list[Pair]:
    """Pair predictions with labels that wait; the rest begin to wait."""
    waiting, rest = _met(session, pipeline, arrived, "monitor_label", Label)
    _add(session, pipeline, "monitor_prediction", rest)
    return waiting


def meet_labels(
    session: Session, pipeline: str, arrived: Sequence[Label]
) -> list[Pair]:
    """Pair labels with predictions that wait; the rest begin to wait.

    The first word on a row holds: a second label of a row that waits already
    changes nothing.
    """
    pairs, rest = _met(session, pipeline, arrived, "monitor_prediction", Prediction)
    _add(session, pipeline, "monitor_label", rest)
    return [(said, label) for label, said in pairs]


def _met(
    session: Session,
    pipeline: str,
    arrived: Sequence[W],
    table: str,
    kind: type[V],
) -> tuple[list[tuple[W, V]], list[W]]:
    """Return the pairs, taken out of ``table``, and the arrived rows without one."""
    by_id = {row.row_id: row for row in reversed(arrived)}
    ids = list(by_id)
    connection = session.connection()
    mark = _mark(connection)
    columns = ", ".join(kind._fields)
    pairs = []
    for first in range(0, len(ids), IDS_A_QUERY):
        part: list[str] = ids[first : first + IDS_A_QUERY]
        marks = ",".join([mark] * len(part))
        these = f"FROM {table} WHERE pipeline = {mark} AND row_id IN ({marks})"
        values = (pipeline, *part)
        found = connection.exec_driver_sql(f"SELECT {columns} {these}", values).all()
        if found:
            connection.exec_driver_sql(f"DELETE {these}", values)
        pairs += [(by_id.pop(row[0]), kind(*row)) for row in found]
    return pairs, list(by_id.values())


def _add(
    session: Session, pipeline: str, table: str, rows: Sequence[Prediction | Label]
) -> None:
    if not rows:
        return
    connection = session.connection()
    columns = ", ".join(("pipeline", *rows[0]._fields))
    marks = ", ".join([_mark(connection)] * (1 + len(rows[0])))
    connection.exec_driver_sql(
        f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING",  # noqa: S608 - names and marks alone
        [(pipeline, *row) for row in rows],
    )


def _mark(connection: Connection) -> str:
    """Return the driver's placeholder."""
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


def forget(session: Session, pipeline: str, before: datetime) -> None:
    """Drop what has waited since before ``before`` (event time)."""
    connection = session.connection()
    mark = _mark(connection)
    before_us = (before - EPOCH) // timedelta(microseconds=1)
    for table in ("monitor_prediction", "monitor_label"):
        connection.exec_driver_sql(
            f"DELETE FROM {table} WHERE pipeline = {mark} AND time_us < {mark}",  # noqa: S608 - names and marks alone
            (pipeline, before_us),
        )
