"""Answers and labels of the same rows as losses, for one version and for two.

Whoever measures live (the monitor) and whoever replays the log (the scorer) pairs
rows by these functions, so that both mean the same. Pure.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.models.columns import Column, Floats, numbers, texts
from driftloop.models.losses import Target, log_losses, squared_or_absolute

CLASSES_METADATA_KEY = b"classes"
"""On a score column: the labels that the scores belong to, as a JSON list."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Prediction(NamedTuple):
    """What the champion, and a candidate where there is one, said of a row.

    A number for regression; for classification the shares of the labels, as JSON.
    """

    row_id: str
    time_us: int
    champion_version: int
    candidate_version: int | None
    champion: float | None
    candidate: float | None
    champion_shares: str | None
    candidate_shares: str | None


class Label(NamedTuple):
    """The true value of a row: a number for regression, else a text."""

    row_id: str
    time_us: int
    number: float | None
    text: str | None


Pair = tuple[Prediction, Label]


@dataclass(frozen=True)
class Labelled:
    """Rows of one version whose target has come, in order of event time.

    Attributes
    ----------
    times_us : (n_rows,) event times, microseconds since 1970.
    champion, candidate : (n_rows,) losses of the versions; no candidate: None.
    targets : (n_rows,) float or text.
    """

    champion_version: int
    candidate_version: int | None
    times_us: npt.NDArray[np.int64]
    champion: Floats
    candidate: Floats | None
    targets: Sequence[Target]


def as_time(time_us: int) -> datetime:
    """Return microseconds since 1970 as a time in UTC."""
    return EPOCH + timedelta(microseconds=int(time_us))


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
        said = pair[0]
        return said.champion_version, said.candidate_version or 0

    def place(pair: Pair) -> tuple[int, int, int, str]:
        said = pair[0]
        return (
            said.champion_version, said.candidate_version or 0, said.time_us,
            said.row_id,
        )  # fmt: skip

    found = []
    for (champion, candidate), group in groupby(sorted(pairs, key=place), key=versions):
        rows = list(group)
        found.append(
            Labelled(
                champion_version=champion,
                candidate_version=candidate or None,
                times_us=np.array([said.time_us for said, _ in rows], dtype=np.int64),
                champion=losses_of(rows, "champion", metric),
                candidate=losses_of(rows, "candidate", metric) if candidate else None,
                targets=[target_of(label) for _, label in rows],
            )
        )
    return sorted(found, key=lambda group: int(group.times_us[0]))


def losses_of(pairs: Sequence[Pair], role: str, metric: str) -> Floats:
    """Return (n_pairs,) losses of the ``champion`` or the ``candidate``."""
    if metric == "log_loss":
        shares = [
            json.loads(getattr(said, f"{role}_shares")).get(label.text, 0.0)
            for said, label in pairs
        ]
        return log_losses(np.array(shares, dtype=np.float64))
    target = np.array([label.number for _, label in pairs], dtype=np.float64)
    said = np.array([getattr(said, role) for said, _ in pairs], dtype=np.float64)
    return squared_or_absolute(metric, target, said)


def target_of(label: Label) -> Target:
    """Return the true value as number or text."""
    if label.text is not None:
        return label.text
    return 0.0 if label.number is None else label.number
