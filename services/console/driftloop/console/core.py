"""What the page shows, computed from the events of the log.

A board takes events in whatever order topics deliver them and tells, for any
revision, what has changed since: a page that reconnects gets what it lacks, and a
console that restarts comes to the same picture.
"""

from bisect import insort
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from driftloop.console.story import DECISIONS, Pipeline, order
from driftloop.console.telling import changes
from driftloop.contracts import estimates as p
from driftloop.contracts import events as e
from driftloop.contracts.base import Event
from driftloop.contracts.pipeline import PRODUCTION

MAX_DECISIONS = 5_000
MAX_POINTS = 5_000
MAX_CLOCK = 20_000
MAX_SPANS = 500
MAX_DEAD_LETTERS = 50
MAX_RECENT = 5_000
"""Ids by which a repeat of what is only counted is known: repeats come soon."""


@dataclass(frozen=True)
class DeadLetter:
    """A message that a service could not handle."""

    service: str
    topic: str
    reason: str
    at: str
    position: str


class Board:
    """The whole log as the page needs it; bounded, whatever the log's length."""

    def __init__(self) -> None:
        self.revision = 0
        self.pipelines: dict[str, Pipeline] = defaultdict(Pipeline)
        self.dead_letters: list[DeadLetter] = []
        self.dead_letter_counts: Counter[str] = Counter()
        self._dead_letter_revision = 0

    def count(self, pipeline: str, topic: str, rows: int = 0) -> None:
        """Count a record of a topic, and its rows."""
        self.revision += 1
        found = self.pipelines[pipeline]
        found.counts[topic] += 1
        found.rows[topic] += rows

    def take_dead_letter(self, letter: DeadLetter) -> None:
        self.revision += 1
        self._dead_letter_revision = self.revision
        self.dead_letter_counts[letter.service] += 1
        self.dead_letters = sorted([*self.dead_letters, letter], key=lambda x: x.at)
        self.dead_letters = self.dead_letters[-MAX_DEAD_LETTERS:]

    def take(self, event: Event) -> None:
        """Take one event; a repeat changes nothing."""
        found = self.pipelines[event.pipeline]
        if event.meta.id in found.decisions or event.meta.id in found.recent:
            return
        rows = 0
        if isinstance(event, e.RowsEvent) and event.kind == "observations":
            is_productions = getattr(event, "environment", PRODUCTION) == PRODUCTION
            rows = event.row_count if is_productions else 0
        self.count(event.pipeline, event.topic(), rows)
        found.tally.take(event)
        if type(event) in DECISIONS:
            found.decisions[event.meta.id] = (self.revision, event)
            _trim(found.decisions, MAX_DECISIONS)
            found.revision = self.revision
        else:
            found.recent[event.meta.id] = None
            if len(found.recent) > MAX_RECENT:
                del found.recent[next(iter(found.recent))]
        match event:
            case e.PerformanceMeasured() if event.environment == PRODUCTION:
                found.points.setdefault(event.meta.id, (self.revision, event))
                _trim(found.points, MAX_POINTS)
            case e.PipelineApplied():
                found.applied = _later(found.applied, event)
            case e.ServingDesired():
                old = found.desired.get(event.environment)
                if old is None or event.generation >= old.generation:
                    found.desired[event.environment] = event
                found.revision = self.revision
            case e.TrainingProgressed():
                last = found.progress.get(event.job_id)
                if last is None or event.done_ratio >= last.done_ratio:
                    found.progress[event.job_id] = event
                found.revision = self.revision
            case _:
                self._data(found, event)

    def _data(self, found: Pipeline, event: Event) -> None:
        """Take an event of the data's own way, or of a window of scored rows."""
        match event:
            case p.PerformanceEstimated() | p.PerformanceSettled():
                found.windows.take(event)
                found.windows.revision = self.revision
                return
            case e.BatchIngested():
                found.quality.ingested(event)
            case e.BatchValidated():
                insort(found.clock, (event.meta.time, event.span.end))
                del found.clock[:-MAX_CLOCK]
                found.quality.validated(event)
            case e.BatchRejected():
                ratio = event.row_count / event.batch_row_count
                insort(found.spans, (event.span.start, event.span.end, ratio))
                del found.spans[:-MAX_SPANS]
                found.quality.rejected(event)
                found.revision = self.revision
            case e.DatasetVersioned():
                found.datasets.take(event)
                found.quality.versioned(event)
                found.datasets.revision = self.revision
            case _:
                return
        found.quality.revision = self.revision

    def since(self, revision: int) -> dict[str, Any]:
        """Return what changed after a revision; 0: everything. Plain JSON values."""
        changed = {
            name: changes(name, found, revision)
            for name, found in sorted(self.pipelines.items())
        }
        answer: dict[str, Any] = {
            "revision": self.revision,
            "counts": {
                name: {
                    topic: [number, found.rows[topic]]
                    for topic, number in sorted(found.counts.items())
                }
                for name, found in sorted(self.pipelines.items())
            },
            "pipelines": {name: part for name, part in changed.items() if part},
        }
        if self._dead_letter_revision > revision or not revision:
            answer["dead_letters"] = {
                "counts": dict(sorted(self.dead_letter_counts.items())),
                "last": [vars(letter) for letter in reversed(self.dead_letters)],
            }
        return answer


def _trim(kept: dict[str, tuple[int, Any]], limit: int) -> None:
    """Leave out the oldest tenth when there are too many."""
    if len(kept) > limit:
        oldest = sorted(kept, key=lambda key: order(kept[key][1]))
        for key in oldest[: limit // 10]:
            del kept[key]


def _later(old: e.PipelineApplied | None, new: e.PipelineApplied) -> e.PipelineApplied:
    return new if old is None or order(new) >= order(old) else old
