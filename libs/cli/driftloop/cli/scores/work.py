"""Scored datasets as the log tells of them, and the wishes that begin or end one."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from driftloop.cli.context import CommandError, Installation
from driftloop.cli.data import publish_event
from driftloop.cli.datasets.work import WRITERS, history_of
from driftloop.cli.log import Entry, follow_log, read_log
from driftloop.contracts.base import Event
from driftloop.contracts.describe import describe
from driftloop.contracts.scoring import (
    DatasetScored,
    ScoringCancelled,
    ScoringCancelRequested,
    ScoringFailed,
    ScoringProgressed,
    ScoringRequested,
    ScoringStarted,
    job_id_of,
    name_of,
)
from driftloop.runtime.data.reading import read_table
from driftloop.runtime.datasets import storage_options

State = Literal["waiting", "running", "scored", "failed", "cancelled"]
EVENTS: tuple[type[Event], ...] = (
    ScoringRequested,
    ScoringStarted,
    ScoringProgressed,
    DatasetScored,
    ScoringFailed,
    ScoringCancelled,
)
TOPICS = tuple(event.topic() for event in EVENTS)
ENDS: dict[type[Event], State] = {
    DatasetScored: "scored",
    ScoringFailed: "failed",
    ScoringCancelled: "cancelled",
}
CANCEL_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Score:
    """One dataset version that was, or is to be, scored.

    Attributes
    ----------
    version : of the model; None: the champion, and nobody has begun.
    end : the event that ended it.
    """

    id: str
    pipeline: str
    dataset: str
    version: int | None
    requested_by: str
    asked_at: datetime
    state: State = "waiting"
    progress: ScoringProgressed | None = None
    end: Event | None = None
    ended_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        return self.end is not None

    @property
    def what(self) -> str:
        """How it ended, or how far it is, in words."""
        if self.end is not None:
            return describe(self.end)
        if self.progress is not None:
            return describe(self.progress)
        return "waits for a scorer" if self.state == "waiting" else "begins"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        end, progress = self.end, self.progress
        return {
            "job_id": self.id,
            "pipeline": self.pipeline,
            "dataset": self.dataset,
            "version": self.version,
            "requested_by": self.requested_by,
            "asked_at": self.asked_at.isoformat(),
            "state": self.state,
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
            "progress": progress.model_dump(mode="json") if progress else None,
            "end": end.model_dump(mode="json") if end else None,
        }


class Scores:
    """All of them, of the events so far; topics may come in any order."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._known: dict[str, Score] = {}
        self._later: dict[str, list[Entry]] = {}
        for entry in entries:
            self.take(entry)

    def take(self, entry: Entry) -> None:
        event = entry.event
        if isinstance(event, ScoringRequested):
            job_id = job_id_of(entry.meta.id)
            if job_id not in self._known:
                self._known[job_id] = Score(
                    job_id, event.pipeline, event.dataset, event.version,
                    event.requested_by, entry.meta.time,
                )  # fmt: skip
                for waiting in self._later.pop(job_id, []):
                    self.take(waiting)
        elif isinstance(event, EVENTS):
            job_id = getattr(event, "job_id", "")
            known = self._known.get(job_id)
            if known is None:
                self._later.setdefault(job_id, []).append(entry)
            else:
                self._known[job_id] = _told(known, entry)

    def get(self, job_id: str) -> Score | None:
        return self._known.get(job_id)

    def newest_first(self, pipeline: str | None = None) -> list[Score]:
        found = (s for s in self._known.values() if pipeline in (None, s.pipeline))
        return sorted(found, key=lambda score: score.asked_at, reverse=True)

    def named(self, text: str) -> Score:
        """Return the job of an id, or of its unmistakable beginning.

        Raises
        ------
        CommandError
            When there is none, or more than one.
        """
        found = [score for score in self._known.values() if score.id.startswith(text)]
        if len(found) == 1:
            return found[0]
        what = f"{len(found)} jobs begin with" if found else "no scored dataset is"
        raise CommandError(f"{what} {text!r}; see: driftloop scores list")


def _told(score: Score, entry: Entry) -> Score:
    event = entry.event
    if score.is_over:
        return score
    if isinstance(event, ScoringStarted):
        plan = event.plan
        return replace(
            score, state="running", dataset=name_of(plan.dataset), version=plan.version
        )
    if isinstance(event, ScoringProgressed):
        last = score.progress
        if last is not None and last.done_count > event.done_count:
            return score
        return replace(score, state="running", progress=event)
    state = ENDS[type(event)]
    return replace(score, state=state, end=event, ended_at=entry.meta.time)


def read_scores(installation: Installation) -> Scores:
    """Return all that the log tells of."""
    return Scores(read_log(installation.bootstrap, TOPICS, installation.store))


def request(
    installation: Installation,
    pipeline: str,
    dataset: str,
    version: int | None,
    by: str,
    reason: str,
) -> Score:
    """Ask for a dataset version to be scored.

    Raises
    ------
    CommandError
        When the pipeline has no such version of its dataset.
    """
    found = history_of(installation, pipeline).find(dataset)
    event = ScoringRequested(
        pipeline=pipeline, dataset=found.name, version=version, requested_by=by,
        reason=reason,
    )  # fmt: skip
    asked = publish_event(installation, event)
    return Score(
        job_id_of(asked),
        pipeline,
        found.name,
        version,
        by,
        datetime.now(found.at.tzinfo),
    )


def follow(
    installation: Installation,
    job_id: str,
    show: Callable[[Score], None],
    timeout_s: float | None = None,
) -> Score | None:
    """Show a job anew at each event of it, until it is over; None: not in time."""
    scores, lock, over = Scores(), threading.Lock(), threading.Event()

    def take(entry: Entry) -> None:
        with lock:
            before = scores.get(job_id)
            scores.take(entry)
            now = scores.get(job_id)
        if now is not None and now is not before:
            show(now)
            if now.is_over:
                over.set()

    follower = follow_log(installation.bootstrap, TOPICS, installation.store, take)
    try:
        over.wait(timeout_s)
    finally:
        follower.stop()
    with lock:
        found = scores.get(job_id)
    return found if found is not None and found.is_over else None


def cancel(installation: Installation, score: Score, by: str, reason: str) -> Score:
    """Ask for a job's end and wait for it.

    Raises
    ------
    CommandError
        When it has ended already, or no scorer answers.
    """
    if score.is_over:
        raise CommandError(f"{score.id[:8]} has ended: {score.what}")
    wish = ScoringCancelRequested(
        pipeline=score.pipeline, job_id=score.id, requested_by=by, reason=reason
    )
    publish_event(installation, wish)
    found = follow(installation, score.id, lambda _: None, CANCEL_TIMEOUT_S)
    if found is None:
        raise CommandError(
            f"no answer within {CANCEL_TIMEOUT_S:.0f} s; the wish is stored, and a "
            "scorer takes it when it is back: driftloop status"
        )
    if found.state != "cancelled":
        raise CommandError(f"{score.id[:8]} ended before: {found.what}")
    return found


def is_there(installation: Installation, scored: DatasetScored) -> bool:
    """Whether the answers can still be read."""
    options = storage_options(installation.settings)
    try:
        return bool(DeltaTable.is_deltatable(scored.answers.uri, options))
    except (DeltaError, OSError):
        return False


def export(installation: Installation, score: Score, file: Path) -> int:
    """Write the answers of a job to a file, whole or not at all; return the rows.

    Raises
    ------
    CommandError
        When there are none, or the file cannot be written.
    DatasetError
        When they cannot be read any more.
    """
    write = WRITERS.get(file.suffix.lower())
    if write is None:
        raise CommandError(
            f"{file.name}: give it a name that ends in {' or '.join(WRITERS)}"
        )
    if not isinstance(score.end, DatasetScored):
        raise CommandError(f"{score.id[:8]} has no answers: {score.what}")
    if not is_there(installation, score.end):
        raise CommandError(
            f"the answers of {score.id[:8]} were removed (driftloop gc); ask again: "
            f"driftloop score {score.pipeline} --dataset {score.dataset} "
            f"--version {score.version}"
        )
    rows = read_table(score.end.answers, storage_options(installation.settings))
    rows = rows.sort("event_time", "id")
    if file.suffix.lower() == ".csv":
        rows = _without_lists(rows)
    partial = file.with_name(f".{file.name}.partial")
    try:
        write(rows, partial)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CommandError(f"cannot write {file}: {error}") from error
    return rows.height


def _without_lists(rows: pl.DataFrame) -> pl.DataFrame:
    """Return lists as text, as a CSV has none: ``0.1;0.9``."""
    lists = [name for name, kind in rows.schema.items() if kind == pl.List]
    return rows.with_columns(
        pl.col(name).cast(pl.List(pl.String)).list.join(";") for name in lists
    )
