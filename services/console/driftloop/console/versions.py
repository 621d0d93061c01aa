"""A pipeline's versions as its decisions tell of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from driftloop.contracts import events as e
from driftloop.contracts.approval import in_words, seats_of
from driftloop.contracts.base import Event
from driftloop.contracts.pipeline import PRODUCTION


@dataclass
class _Version:
    registered: e.ModelRegistered
    reason: str = ""
    state: str = "registered"
    detail: str = ""
    ended: str | None = None


@dataclass
class Waiting:
    """A version that waits for people."""

    version: int
    seats: dict[str, int]
    until: datetime | None = None
    said: list[str] = field(default_factory=list)


def version_table(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Return the versions, newest first, from decisions in their order of time.

    A decision may bear the same time as its version's registration and come first.
    """
    told = list(events)
    registered = [event for event in told if isinstance(event, e.ModelRegistered)]
    versions = {event.version: _Version(event) for event in registered}
    reasons: dict[str, str] = {}
    for event in told:
        if isinstance(event, e.ModelTrained):
            reasons[event.job_id] = event.trigger.reason
        else:
            _advance(versions, event)
    for version in versions.values():
        version.reason = reasons.get(version.registered.job_id, "")
    return [_line(versions[number]) for number in sorted(versions, reverse=True)]


def _advance(versions: dict[int, _Version], event: Event) -> None:
    """Move the version that an event is about, and those that it displaces."""
    version = versions.get(getattr(event, "version", 0))
    if version is None:
        return
    match event:
        case e.ApprovalRequested():
            version.state = "awaiting approval"
            version.detail = in_words(seats_of(event))
        case e.ModelApproved():
            version.state, version.detail = "approved", ", ".join(event.approved_by)
        case e.ModelRejected():
            version.state = "rejected"
            version.detail = "; ".join(filter(None, [*event.reasons, event.comparison]))
        case e.RolloutAdvanced(step="waiting", verdict="failed"):
            version.state, version.detail = "superseded", event.detail
        case e.RolloutAdvanced():
            _step(version, event)
        case e.ModelDeployed():
            for other in versions.values():
                if other.state == "deployed":
                    other.state, other.detail = "superseded", f"by v{event.version}"
            version.state, version.detail = "deployed", ""
        case e.ModelRolledBack():
            version.state, version.detail = "rolled back", event.reason
            restored = versions.get(event.restored.version) if event.restored else None
            if restored is not None:
                restored.state, restored.detail = "deployed", ""
        case _:
            pass


def _step(version: _Version, event: e.RolloutAdvanced) -> None:
    """Tell where a version is on its way, or that it ended before production."""
    if version.state == "deployed":
        return
    if event.environment == PRODUCTION:
        if event.verdict == "started":
            version.state, version.detail = "in rollout", event.step
        return
    where = f"{event.environment}: "
    if event.verdict == "failed":
        version.state, version.detail = "rolled back", where + event.detail
    elif event.verdict in {"started", "held"}:
        version.state, version.detail = "in rollout", where + event.step


def _line(version: _Version) -> dict[str, Any]:
    event = version.registered
    worth = event.evaluation
    return {
        "version": event.version,
        "algorithm": event.algorithm,
        "reason": version.reason,
        "metric": worth.metric,
        "candidate": worth.candidate,
        "champion": worth.champion,
        "champion_version": worth.champion_version,
        "baseline": worth.baseline,
        "holdout_rows": worth.holdout_row_count,
        "holdout_end": worth.holdout_span.end.isoformat(),
        "gate": [check.model_dump() for check in event.gate],
        "state": version.state,
        "detail": version.detail,
    }


def waiting(events: Iterable[Event]) -> list[Waiting]:
    """Return the versions that wait for people, with who has decided already."""
    asked: dict[int, Waiting] = {}
    for event in events:
        match event:
            case e.ApprovalRequested():
                found = Waiting(event.version, seats_of(event), event.expires_at)
                asked[event.version] = found
            case e.ApprovalGiven() if event.version in asked:
                asked[event.version].said.append(f"{event.by}: {event.decision}")
            case e.ModelApproved() | e.ModelRejected():
                asked.pop(event.version, None)
            case _:
                pass
    return [asked[number] for number in sorted(asked)]
