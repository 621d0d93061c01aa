"""A pipeline as plain JSON values: what has changed since a revision."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from driftloop.console.proposals import proposal
from driftloop.console.standing import last_verdict, open_alerts
from driftloop.console.story import DECISIONS, Pipeline, order
from driftloop.console.versions import Waiting, version_table, waiting
from driftloop.contracts import alerts as a
from driftloop.contracts import events as e
from driftloop.contracts.approval import in_words
from driftloop.contracts.base import Event
from driftloop.contracts.describe import describe
from driftloop.contracts.pipeline import PRODUCTION

ALERT_TONES = {"info": "quiet", "warning": "warn", "critical": "bad"}

EVENT_TIMES: dict[type[Event], Callable[[Any], datetime]] = {
    e.DriftDetected: lambda x: x.detected_at,
    e.DriftEnded: lambda x: x.until,
    e.TrainingStarted: lambda x: x.holdout_span.end,
    e.ModelTrained: lambda x: x.evaluation.holdout_span.end,
    e.ModelRegistered: lambda x: x.evaluation.holdout_span.end,
}
"""Event time of events that say it; others get that of the data of their moment."""


def changes(name: str, found: Pipeline, revision: int) -> dict[str, Any]:
    """Return what is new after a revision; 0: everything."""
    answer: dict[str, Any] = {}
    points = [x for at, x in found.points.values() if at > revision]
    if points:
        answer["points"] = [p for x in sorted(points, key=order) for p in _point(x)]
    if found.quality.revision > revision:
        answer["quality"] = found.quality.as_json()
    if found.windows.revision > revision:
        answer["windows"] = found.windows.as_json()
    changed = max(found.revision, found.datasets.revision)
    if found.datasets.revision and changed > revision:
        answer["datasets"] = found.datasets.as_json(found.events())
    if found.revision > revision or not revision:
        fresh = [x for at, x in found.decisions.values() if at > revision]
        answer["decisions"] = [_item(found, x) for x in sorted(fresh, key=order)]
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
            "confidence": event.confidence,
            "alternatives": event.alternatives,
            "features": {name: event.shares.get(name) for name in event.features},
            "sources": event.sources,
        }
    if isinstance(event, e.AlertRaised | a.AlertResolved):
        item["condition"] = event.condition
    if isinstance(event, e.AlertRaised):
        item["alert"] = {
            "severity": event.severity,
            "title": event.title,
            "detail": event.detail,
            "owner": event.owner,
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
        "serving": _serving(found.desired.get(PRODUCTION)),
        "environments": _before_production(found),
        "versions": version_table(events),
        "waiting": [_asked(name, asked) for asked in waiting(events)],
        "proposal": proposal(name, spec, events),
        "job": _job(found, events),
        "verdict": last_verdict(events),
        "alerts": open_alerts(events),
        "quarantine": {
            "spans": [
                {"start": s.isoformat(), "end": t.isoformat(), "ratio": round(r, 4)}
                for s, t, r in found.spans
            ],
        },
    }


def _before_production(found: Pipeline) -> list[dict[str, Any]]:
    """Return what scorers before production should serve, in the order of the file."""
    listed = found.applied.spec.rollout.environments if found.applied else []
    return [
        {"name": each.name, "serving": _serving(found.desired.get(each.name))}
        for each in listed
    ]


def _serving(desired: e.ServingDesired | None) -> dict[str, Any] | None:
    if desired is None:
        return None
    champion, candidate = desired.champion, desired.candidate
    return {
        "champion": champion.version if champion else None,
        "candidate": candidate.version if candidate else None,
        "share": desired.candidate_share,
        "ahead": desired.ahead,
        "generation": desired.generation,
    }


def _asked(name: str, asked: Waiting) -> dict[str, Any]:
    """Return a version that waits for people, with the command that answers it."""
    return {
        "version": asked.version,
        "waits_for": in_words(asked.seats),
        "people": sum(asked.seats.values()),
        "until": asked.until.isoformat() if asked.until else None,
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
