"""Rows that wait for people's labels, as the monitor stores them.

A row is asked for once: one whose label came stays, settled, until the horizon.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from driftloop.contracts.events import LabelsWanted, WantedLabel
from driftloop.contracts.labelling import MAX_BUDGET_ROWS
from driftloop.models.pairing import EPOCH
from driftloop.monitor.joining import IDS_A_QUERY
from driftloop.monitor.tables import MonitorPrediction, MonitorWanted, MonitorWatch
from sqlalchemy import Select, Table, delete, func, insert, select, update
from sqlmodel import Session, SQLModel

Q = TypeVar("Q", bound=Select[Any])


def _table(model: type[SQLModel]) -> Table:
    table: Table = model.__table__  # type: ignore[attr-defined]  # tables have it
    return table


_WANTED, _WATCH = _table(MonitorWanted), _table(MonitorWatch)
_PREDICTION = _table(MonitorPrediction)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row that waits for its label.

    Attributes
    ----------
    place : where it stands: newest window first, and in it the best row first.
    """

    place: int
    window: int
    model_version: int | None
    label: WantedLabel


def microseconds(time: datetime) -> int:
    """Return a time in microseconds since 1970."""
    return (time - EPOCH) // timedelta(microseconds=1)


def _parts(ids: Collection[str]) -> Iterator[list[str]]:
    found = list(ids)
    for first in range(0, len(found), IDS_A_QUERY):
        yield found[first : first + IDS_A_QUERY]


class Said(NamedTuple):
    """What was predicted for a row: a number, or a probability by class as JSON."""

    time_us: int
    number: float | None
    shares: str | None


def predicted(session: Session, pipeline: str, ids: Collection[str]) -> dict[str, Said]:
    """Return the rows that are scored and lack a label, by id."""
    columns = _PREDICTION.c
    found: dict[str, Said] = {}
    for part in _parts(ids):
        query = select(
            columns.row_id, columns.time_us, columns.champion, columns.champion_shares
        ).where(columns.pipeline == pipeline, columns.row_id.in_(part))
        for row_id, *said in session.connection().execute(query):
            found[row_id] = Said(*said)
    return found


def asked_before(
    session: Session, pipeline: str, ids: Collection[str]
) -> dict[str, bool]:
    """Return those of the rows that were asked for; True: their label has come."""
    columns = _WANTED.c
    found: dict[str, bool] = {}
    for part in _parts(ids):
        query = select(columns.row_id, columns.is_settled).where(
            columns.pipeline == pipeline, columns.row_id.in_(part)
        )
        found |= {
            row_id: bool(settled)
            for row_id, settled in session.connection().execute(query)
        }
    return found


def add(session: Session, event: LabelsWanted) -> None:
    """Let the event's rows wait."""
    first = (event.window + 1) * MAX_BUDGET_ROWS
    rows = [
        {
            "pipeline": event.pipeline,
            "row_id": wanted.row_id,
            "place": first - rank,
            "window_number": event.window,
            "time_us": microseconds(wanted.event_time),
            "score": wanted.score,
            "reasons": json.dumps(wanted.reasons),
            "model_version": event.model_version,
            "is_settled": False,
        }
        for rank, wanted in enumerate(event.wanted, start=1)
    ]
    session.connection().execute(insert(_WANTED), rows)


def settle(session: Session, pipeline: str, ids: Sequence[str]) -> None:
    """Take rows whose label has come out of the queue."""
    for part in _parts(ids):
        statement = (
            update(_WANTED)
            .where(_WANTED.c.pipeline == pipeline, _WANTED.c.row_id.in_(part))
            .values(is_settled=True)
        )
        session.connection().execute(statement)


def forget(session: Session, pipeline: str, before: datetime) -> None:
    """Drop rows of an earlier event time: a label would come too late."""
    statement = delete(_WANTED).where(
        _WANTED.c.pipeline == pipeline, _WANTED.c.time_us < microseconds(before)
    )
    session.connection().execute(statement)


# ── for people ──────────────────────────────────────────────────────────────


def state_of(session: Session, pipeline: str) -> str | None:
    """Return a pipeline's stored state, without locking it as a handler does."""
    query = select(_WATCH.c.state).where(_WATCH.c.pipeline == pipeline)
    state: str | None = session.connection().execute(query).scalar()
    return state


def count(session: Session, pipeline: str, since: datetime | None) -> int:
    """Return how many rows wait, of those since ``since`` in event time."""
    query = _open(select(func.count()), pipeline, since)
    return session.connection().execute(query).scalar_one()


def waiting(
    session: Session, pipeline: str, since: datetime | None, limit: int, after: int
) -> list[Waiting]:
    """Return rows that wait, behind place ``after`` in their order; 0: from the front.

    Places count down, so the order holds while rows come and go.
    """
    query = _open(select(_WANTED), pipeline, since)
    if after:
        query = query.where(_WANTED.c.place < after)
    query = query.order_by(_WANTED.c.place.desc()).limit(limit)
    return [
        Waiting(
            place=row["place"],
            window=row["window_number"],
            model_version=row["model_version"],
            label=WantedLabel(
                row_id=row["row_id"],
                event_time=EPOCH + timedelta(microseconds=row["time_us"]),
                score=row["score"],
                reasons=json.loads(row["reasons"]),
            ),
        )
        for row in session.connection().execute(query).mappings()
    ]


def _open(query: Q, pipeline: str, since: datetime | None) -> Q:
    query = query.where(_WANTED.c.pipeline == pipeline, _WANTED.c.is_settled.is_(False))
    if since is None:
        return query
    return query.where(_WANTED.c.time_us >= microseconds(since))
