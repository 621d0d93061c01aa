"""What the page shows, computed from the events of the log.

A board takes events in whatever order topics deliver them and tells, for any
revision, what has changed since: a page that reconnects gets what it lacks, and a
console that restarts comes to the same picture.
"""

from bisect import bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from driftloop.console.versions import Waiting, version_table, waiting
from driftloop.contracts import events as e
from driftloop.contracts.base import Event
from driftloop.contracts.describe import describe

MAX_DECISIONS = 5_000
MAX_POINTS = 5_000
MAX_CLOCK = 20_000
MAX_SPANS = 500
MAX_DEAD_LETTERS = 50
SHOWN_REASONS = 5

DECISIONS: dict[type[Event], str] = {
    e.PipelineApplied: "plain",
    e.SchemaProposed: "person",
    e.SchemaAccepted: "plain",
    e.DriftDetected: "warn",
    e.AlertRaised: "warn",
    e.RetrainRequested: "person",
    e.TrainingCancelRequested: "person",
    e.TrainingStarted: "plain",
    e.TrainingSkipped: "quiet",
    e.TrainingFailed: "bad",
    e.TrainingCancelled: "warn",
    e.TrainingCancelRefused: "quiet",
    e.ModelTrained: "plain",
    e.ModelRegistered: "quiet",
    e.ApprovalRequested: "person",
    e.ApprovalGiven: "person",
    e.ModelApproved: "plain",
    e.ModelRejected: "bad",
    e.RollbackRequested: "person",
    e.RolloutAdvanced: "quiet",
    e.ModelDeployed: "good",
    e.ModelRolledBack: "bad",
    e.ErasureRequested: "person",
    e.SubjectErased: "quiet",
    e.ValueRevealed: "person",
}
"""Events of the timeline, with the tone in which the page shows them. Their order is
that of a chain: what one handler tells has one time, and then this order holds."""
RANKS = {event: rank for rank, event in enumerate(DECISIONS)}

ALERT_TONES = {"info": "quiet", "warning": "warn", "critical": "bad"}

EVENT_TIMES: dict[type[Event], Callable[[Any], datetime]] = {
    e.DriftDetected: lambda x: x.detected_at,
    e.TrainingStarted: lambda x: x.holdout_span.end,
    e.ModelTrained: lambda x: x.evaluation.holdout_span.end,
    e.ModelRegistered: lambda x: x.evaluation.holdout_span.end,
}
"""Event time of events that say it; others get that of the data of their moment."""


@dataclass
class Pipeline:
    """What is known of one pipeline."""

    applied: e.PipelineApplied | None = None
    desired: e.ServingDesired | None = None
    dataset: e.DatasetVersioned | None = None
    counts: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    decisions: dict[str, tuple[int, Event]] = field(default_factory=dict)
    points: dict[str, tuple[int, e.PerformanceMeasured]] = field(default_factory=dict)
    clock: list[tuple[datetime, datetime]] = field(default_factory=list)
    progress: dict[str, e.TrainingProgressed] = field(default_factory=dict)
    spans: list[tuple[datetime, datetime, float]] = field(default_factory=list)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    details: dict[tuple[str, str], str] = field(default_factory=dict)
    revision: int = 0
    """Of the last change of anything but counts and points."""

    def event_time_at(self, moment: datetime) -> datetime | None:
        """Return the event time that the data had reached at a moment."""
        position = bisect_right(self.clock, moment, key=lambda pair: pair[0])
        return self.clock[position - 1][1] if position else None

    def events(self) -> list[Event]:
        """Return the decisions, oldest first."""
        return sorted((x for _, x in self.decisions.values()), key=_order)


@dataclass(frozen=True)
class DeadLetter:
    """A message that a service could not handle."""

    service: str
    topic: str
    reason: str
    at: str
    position: str


def _order(event: Event) -> tuple[datetime, int, str]:
    return (event.meta.time, RANKS.get(type(event), 0), event.meta.id)


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
        """Take one event; a repeated decision changes nothing."""
        found = self.pipelines[event.pipeline]
        if event.meta.id in found.decisions:
            return
        rows = 0
        if isinstance(event, e.RowsEvent) and event.kind == "observations":
            rows = event.row_count
        self.count(event.pipeline, event.topic(), rows)
        if type(event) in DECISIONS:
            found.decisions[event.meta.id] = (self.revision, event)
            _trim(found.decisions, MAX_DECISIONS)
            found.revision = self.revision
        if isinstance(event, e.PerformanceMeasured):
            found.points.setdefault(event.meta.id, (self.revision, event))
            _trim(found.points, MAX_POINTS)
        elif isinstance(event, e.PipelineApplied):
            found.applied = _later(found.applied, event)
        elif isinstance(event, e.DatasetVersioned):
            found.dataset = _newer(found.dataset, event)
        elif isinstance(event, e.ServingDesired):
            if found.desired is None or event.generation >= found.desired.generation:
                found.desired = event
            found.revision = self.revision
        elif isinstance(event, e.TrainingProgressed):
            last = found.progress.get(event.job_id)
            if last is None or event.done_ratio >= last.done_ratio:
                found.progress[event.job_id] = event
            found.revision = self.revision
        elif isinstance(event, e.BatchValidated):
            insort(found.clock, (event.meta.time, event.span.end))
            del found.clock[:-MAX_CLOCK]
        elif isinstance(event, e.BatchRejected):
            self._quarantined(found, event)

    def _quarantined(self, found: Pipeline, event: e.BatchRejected) -> None:
        ratio = event.row_count / event.batch_row_count
        insort(found.spans, (event.span.start, event.span.end, ratio))
        del found.spans[:-MAX_SPANS]
        for reason in event.reasons:
            key = (reason.field, reason.check)
            found.reasons[key] += reason.row_count
            found.details[key] = max(found.details.get(key, ""), reason.detail)
        found.revision = self.revision

    def since(self, revision: int) -> dict[str, Any]:
        """Return what changed after a revision; 0: everything. Plain JSON values."""
        changed = {
            name: _changes(name, found, revision)
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
        oldest = sorted(kept, key=lambda key: _order(kept[key][1]))
        for key in oldest[: limit // 10]:
            del kept[key]


def _later(old: e.PipelineApplied | None, new: e.PipelineApplied) -> e.PipelineApplied:
    return new if old is None or _order(new) >= _order(old) else old


def _newer(
    old: e.DatasetVersioned | None, new: e.DatasetVersioned
) -> e.DatasetVersioned:
    return new if old is None or _tables(new) >= _tables(old) else old


def _tables(event: e.DatasetVersioned) -> tuple[int, int]:
    dataset = event.dataset
    labels = dataset.labels.version if dataset.labels else 0
    return dataset.observations.version, labels


def _changes(name: str, found: Pipeline, revision: int) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    points = [x for at, x in found.points.values() if at > revision]
    if points:
        answer["points"] = [p for x in sorted(points, key=_order) for p in _point(x)]
    if found.revision > revision or not revision:
        fresh = [x for at, x in found.decisions.values() if at > revision]
        answer["decisions"] = [_item(found, x) for x in sorted(fresh, key=_order)]
        answer |= _standing(name, found)
    elif found.clock:
        answer["event_time"] = found.clock[-1][1].isoformat()
    return answer


def _point(event: e.PerformanceMeasured) -> Iterator[dict[str, Any]]:
    for measured in event.measurements:
        yield {
            "id": f"{event.meta.id}/{measured.version}",
            "t": event.span.end.isoformat(),
            "version": measured.version,
            "role": measured.role,
            "metric": measured.metric,
            "value": measured.value,
            "rows": event.row_count,
        }


def _item(found: Pipeline, event: Event) -> dict[str, Any]:
    """One line of the timeline."""
    says_time = EVENT_TIMES.get(type(event))
    reached = found.event_time_at(event.meta.time)
    at = says_time(event) if says_time else reached
    tone = DECISIONS[type(event)]
    if isinstance(event, e.AlertRaised):
        tone = ALERT_TONES[event.severity]
    if isinstance(event, e.RolloutAdvanced) and event.verdict == "failed":
        tone = "bad"
    item = {
        "id": event.meta.id,
        "chain": event.meta.chain.id,
        "cause": event.meta.causation_id,
        "topic": event.topic(),
        "at": event.meta.time.isoformat(),
        "event_time": at.isoformat() if at else None,
        "tone": tone,
        "text": describe(event),
        "version": getattr(event, "version", None),
    }
    if isinstance(event, e.DriftDetected):
        item["drift"] = {
            "cause": event.cause,
            "retrain": event.retrain_advised,
            "since": event.since.isoformat(),
        }
    return item


def _standing(name: str, found: Pipeline) -> dict[str, Any]:
    """Return what is sent anew whenever any of it changes."""
    events = found.events()
    spec = found.applied.spec if found.applied else None
    return {
        "spec": None
        if spec is None
        else {
            "task": spec.task,
            "target": spec.data.target,
            "owner": spec.owner,
            "automation": spec.automation,
            "metric": spec.metric,
            "description": spec.description,
        },
        "event_time": found.clock[-1][1].isoformat() if found.clock else None,
        "serving": _serving(found.desired),
        "versions": version_table(events),
        "waiting": [_asked(name, asked) for asked in waiting(events)],
        "job": _job(found, events),
        "quarantine": {
            "spans": [
                {"start": s.isoformat(), "end": t.isoformat(), "ratio": round(r, 4)}
                for s, t, r in found.spans
            ],
            "reasons": [
                {
                    "field": column,
                    "check": check,
                    "rows": number,
                    "detail": found.details[column, check],
                }
                for (column, check), number in sorted(
                    found.reasons.items(), key=lambda pair: (-pair[1], pair[0])
                )[:SHOWN_REASONS]
            ],
        },
    }


def _serving(desired: e.ServingDesired | None) -> dict[str, Any] | None:
    if desired is None:
        return None
    champion, candidate = desired.champion, desired.candidate
    return {
        "champion": champion.version if champion else None,
        "candidate": candidate.version if candidate else None,
        "share": desired.candidate_share,
        "generation": desired.generation,
    }


def _asked(name: str, asked: Waiting) -> dict[str, Any]:
    """Return a version that waits for people, with the command that answers it."""
    return {
        "version": asked.version,
        "role": asked.role,
        "people": asked.people,
        "said": list(asked.said),
        "command": f"driftloop approve {name}/{asked.version} "
        '--by YOUR-NAME --reason "…"',
    }


def _job(found: Pipeline, events: Iterable[Event]) -> dict[str, Any] | None:
    """Return the training that runs now."""
    running: e.TrainingStarted | None = None
    for event in events:
        if isinstance(event, e.TrainingStarted):
            running = event
        elif isinstance(
            event, e.ModelTrained | e.TrainingFailed | e.TrainingCancelled
        ) and (running is not None and running.job_id == event.job_id):
            running = None
    if running is None:
        return None
    progress = found.progress.get(running.job_id)
    return {
        "job_id": running.job_id,
        "reason": running.trigger.reason,
        "step": progress.step if progress else "started",
        "ratio": progress.done_ratio if progress else 0.0,
        "detail": progress.detail if progress else "",
        "loss": progress.loss if progress else None,
        "eta_seconds": progress.eta_seconds if progress else None,
    }
