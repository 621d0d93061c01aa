"""Predictions meet their labels by id, whichever comes first, exactly once.

A pair leaves the tables in the transaction that reports it; what never meets is
dropped behind the horizon. One statement handles many rows, and goes to the database
driver as it is: SQLAlchemy's handling of each parameter would take longer than all
the rest.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from driftloop.monitor.columns import Column, Floats, numbers, texts
from driftloop.monitor.labelled import Labelled
from driftloop.monitor.losses import log_losses, squared_or_absolute
from driftloop.monitor.state import Target
from sqlalchemy import Connection
from sqlmodel import Session

IDS_A_QUERY = 5_000
"""SQLite takes at most 32,766 parameters."""
CLASSES_METADATA_KEY = b"classes"
"""On a score column: the labels that the scores belong to, as a JSON list."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Prediction(NamedTuple):
    """A row of :class:`tables.MonitorPrediction`, without the pipeline."""

    row_id: str
    time_us: int
    champion_version: int
    candidate_version: int | None
    champion: float | None
    candidate: float | None
    champion_shares: str | None
    candidate_shares: str | None


class Label(NamedTuple):
    """A row of :class:`tables.MonitorLabel`, without the pipeline."""

    row_id: str
    time_us: int
    number: float | None
    text: str | None


Pair = tuple[Prediction, Label]
W = TypeVar("W", Prediction, Label)
V = TypeVar("V", Prediction, Label)


def times_us(rows: pa.RecordBatch) -> list[int]:
    """Return the event times in microseconds since 1970."""
    found: list[int] = rows.column("event_time").cast(pa.int64()).to_pylist()
    return found


def predictions_of(
    rows: pa.RecordBatch, champion_version: int, candidate_version: int | None
) -> list[Prediction]:
    """Return the rows of a ``batch-scored`` that the champion answered."""
    champion, champion_shares = _answers(rows, "champion")
    candidate, candidate_shares = _answers(rows, "candidate")
    columns = zip(
        rows.column("id").to_pylist(),
        times_us(rows),
        champion,
        candidate,
        champion_shares,
        candidate_shares,
        strict=True,
    )
    return [
        Prediction(
            row_id,
            time,
            champion_version,
            None if rival is None and rival_shares is None else candidate_version,
            said,
            rival,
            said_shares,
            rival_shares,
        )
        for row_id, time, said, rival, said_shares, rival_shares in columns
        if said is not None or said_shares is not None
    ]


def _answers(
    rows: pa.RecordBatch, role: str
) -> tuple[Sequence[float | None], Sequence[str | None]]:
    """Return a number a row and, for classification instead, the shares as JSON."""
    names, none = rows.schema.names, [None] * rows.num_rows
    if f"{role}_prediction" not in names:
        return none, none
    if f"{role}_score" not in names:
        said = numbers(rows.column(f"{role}_prediction"))
        bad = ~np.isfinite(said)
        if not bad.any():
            return said.tolist(), none
        return np.where(bad, None, said).tolist(), none  # type: ignore[call-overload]  # None makes it an object array
    place = names.index(f"{role}_score")
    metadata = rows.schema.field(place).metadata or {}
    classes = json.loads(metadata[CLASSES_METADATA_KEY])
    scores = rows.column(place).to_pylist()
    return none, [_shares(score, classes) for score in scores]


def _shares(score: float | list[float] | None, classes: list[str]) -> str | None:
    if score is None:
        return None
    shares = score if isinstance(score, list) else [1 - score, score]
    return json.dumps(dict(zip(classes, shares, strict=True)))


def labels_of(rows: pa.RecordBatch, target: str, *, is_number: bool) -> list[Label]:
    """Return the labels that rows carry: none where the target is missing."""
    if target not in rows.schema.names:
        return []
    column: Column = rows.column(target)
    ids, times = rows.column("id").to_pylist(), times_us(rows)
    if is_number:
        values = numbers(column)
        return [
            Label(row_id, time, value, None)
            for row_id, time, value, ok in zip(
                ids, times, values.tolist(), np.isfinite(values).tolist(), strict=True
            )
            if ok
        ]
    return [
        Label(row_id, time, None, value)
        for row_id, time, value in zip(
            ids, times, texts(column).to_pylist(), strict=True
        )
        if value is not None
    ]


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


def within(pairs: Sequence[Pair], horizon: timedelta) -> list[Pair]:
    """Return the pairs whose label is not of a time too long after its row."""
    most_us = horizon // timedelta(microseconds=1)
    return [
        (said, label)
        for said, label in pairs
        if label.time_us - said.time_us <= most_us
    ]


def labelled(pairs: Sequence[Pair], metric: str) -> list[Labelled]:
    """Return the pairs by the versions that answered, in order of event time."""

    def versions(pair: Pair) -> tuple[int, int]:
        return pair[0].champion_version, pair[0].candidate_version or 0

    def place(pair: Pair) -> tuple[int, int, int, str]:
        return *versions(pair), pair[0].time_us, pair[0].row_id

    found = []
    for (champion, candidate), group in groupby(sorted(pairs, key=place), key=versions):
        rows = list(group)
        found.append(
            Labelled(
                champion_version=champion,
                candidate_version=candidate or None,
                times_us=np.array([said.time_us for said, _ in rows], dtype=np.int64),
                champion=_losses(rows, "champion", metric),
                candidate=_losses(rows, "candidate", metric) if candidate else None,
                targets=[_target(label) for _, label in rows],
            )
        )
    return sorted(found, key=lambda group: int(group.times_us[0]))


def _losses(pairs: Sequence[Pair], role: str, metric: str) -> Floats:
    if metric == "log_loss":
        shares = [
            json.loads(getattr(said, f"{role}_shares")).get(label.text, 0.0)
            for said, label in pairs
        ]
        return log_losses(np.array(shares, dtype=np.float64))
    target = np.array([label.number for _, label in pairs], dtype=np.float64)
    said = np.array([getattr(said, role) for said, _ in pairs], dtype=np.float64)
    return squared_or_absolute(metric, target, said)


def _target(label: Label) -> Target:
    if label.text is not None:
        return label.text
    return 0.0 if label.number is None else label.number
