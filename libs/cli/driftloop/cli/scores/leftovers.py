"""Tables of answers that ``driftloop gc`` removes, by a rule.

Answers stay as a version of the dataset does that no training refers to: with
``data.retention.keep_versions_days`` so long, else for ever. A table whose job ended
without answers, or that the log does not know, goes after the grace time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from driftloop.cli.context import Installation
from driftloop.cli.log import Entry, read_log
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.scoring import (
    DatasetScored,
    ScoringCancelled,
    ScoringFailed,
    ScoringStarted,
)
from driftloop.runtime.data.stored import StoredAnswers, remove_table, stored_answers
from driftloop.runtime.datasets import storage_options

EVENTS = (
    PipelineApplied,
    ScoringStarted,
    DatasetScored,
    ScoringFailed,
    ScoringCancelled,
)
TOPICS = tuple(event.topic() for event in EVENTS)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A table that nobody is promised, and why."""

    table: StoredAnswers
    why: str

    def as_json(self) -> dict[str, Any]:
        table = self.table
        return {
            "pipeline": table.pipeline,
            "job_id": table.job_id,
            "uri": table.uri,
            "size_bytes": table.size_bytes,
            "put_at": table.put_at.isoformat(),
            "why": self.why,
        }


def leftovers(
    tables: Iterable[StoredAnswers],
    entries: Iterable[Entry],
    grace: timedelta,
    now: datetime,
) -> list[Leftover]:
    """Return which tables may go.

    Parameters
    ----------
    tables : as they were listed before ``entries`` were read: the log knows a job
        before it has a table.
    """
    keep: dict[str, timedelta] = {}
    scored: dict[str, datetime] = {}
    started: set[str] = set()
    ended: set[str] = set()
    for entry in entries:
        event = entry.event
        if isinstance(event, PipelineApplied):
            days = event.spec.data.retention.keep_versions_days
            keep.pop(event.pipeline, None)
            if days is not None:
                keep[event.pipeline] = timedelta(days=days)
        elif isinstance(event, ScoringStarted):
            started.add(event.job_id)
        elif isinstance(event, DatasetScored):
            scored.setdefault(event.job_id, entry.meta.time)
        elif isinstance(event, ScoringFailed | ScoringCancelled):
            ended.add(event.job_id)
    found = []
    for table in tables:
        age = keep.get(table.pipeline)
        if table.job_id in scored:
            if age is not None and scored[table.job_id] < now - age:
                days = age / timedelta(days=1)
                why = f"older than data.retention.keep_versions_days: {days:g}"
                found.append(Leftover(table, why))
        elif table.put_at < now - grace:
            if table.job_id in ended:
                found.append(Leftover(table, "its job ended without answers"))
            elif table.job_id not in started:
                found.append(Leftover(table, "the log knows no such job"))
    return found


def find(installation: Installation, grace: timedelta, now: datetime) -> list[Leftover]:
    """Return the tables that may go.

    Raises
    ------
    LogTimeoutError
        When the log cannot be read.
    Retry
        When the store is away.
    """
    applied = read_log(installation.bootstrap, TOPICS[:1], installation.store)
    pipelines = sorted({entry.event.pipeline for entry in applied})
    settings = installation.settings
    tables = [table for name in pipelines for table in stored_answers(settings, name)]
    if not tables:
        return []
    entries = read_log(installation.bootstrap, TOPICS, installation.store)
    return leftovers(tables, entries, grace, now)


def remove(installation: Installation, found: Iterable[Leftover]) -> None:
    """Remove tables.

    Raises
    ------
    Retry
        When the store is away.
    """
    options = storage_options(installation.settings)
    for one in found:
        remove_table(one.table.uri, options)
