"""How a pipeline stands now: estimates beside labels, the last verdict, open alerts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from driftloop.contracts import alerts as a
from driftloop.contracts import estimates as p
from driftloop.contracts import events as e
from driftloop.contracts.base import Event

MAX_WINDOWS = 60
"""The newest ones; more than a chart can show side by side."""
EPISODE = timedelta(days=7)
"""So long an alert is open that nothing can end, as where people are told of it."""


@dataclass
class Windows:
    """Windows of scored rows by number: estimated, and measured once labels landed."""

    estimated: dict[int, p.PerformanceEstimated] = field(default_factory=dict)
    settled: dict[int, p.PerformanceSettled] = field(default_factory=dict)
    revision: int = 0

    def take(self, event: p.PerformanceEstimated | p.PerformanceSettled) -> None:
        """Keep what is said of a window, in whatever order it comes."""
        if isinstance(event, p.PerformanceEstimated):
            self.estimated[event.window] = event
        else:
            self.settled[event.window] = event
        numbers = sorted({*self.estimated, *self.settled})
        for number in numbers[:-MAX_WINDOWS]:
            self.estimated.pop(number, None)
            self.settled.pop(number, None)

    def as_json(self) -> dict[str, Any]:
        """Return what the page shows of it."""
        numbers = sorted({*self.estimated, *self.settled})
        newest = self.estimated[max(self.estimated)] if self.estimated else None
        scored = self.settled[max(self.settled)] if self.settled else None
        return {
            "shown": [self._window_json(number) for number in numbers],
            "labels": newest.labels.model_dump(mode="json") if newest else None,
            "basis": newest.basis.model_dump(mode="json") if newest else None,
            "score": scored.score.model_dump(mode="json") if scored else None,
        }

    def _window_json(self, number: int) -> dict[str, Any]:
        thought, done = self.estimated.get(number), self.settled.get(number)
        said = thought or done
        assert said is not None  # noqa: S101 - its number is of one of them
        estimate = thought.estimates[0] if thought and thought.estimates else None
        return {
            "number": number,
            "version": said.version,
            "start": said.span.start.isoformat(),
            "end": said.span.end.isoformat(),
            "rows": said.row_count,
            "verdict": thought.verdict if thought else None,
            "reason": thought.reason if thought else "",
            "estimate": estimate.model_dump(mode="json") if estimate else None,
            "measured": done.metrics[0].model_dump(mode="json", exclude={"estimate"})
            if done
            else None,
            "labelled": done.labelled_count if done else 0,
        }


def last_verdict(events: Sequence[Event]) -> dict[str, Any] | None:
    """Return the newest verdict with its evidence, and what a person said instead.

    Parameters
    ----------
    events : oldest first.
    """
    said: e.DriftDetected | None = None
    instead: e.VerdictOverruled | None = None
    for event in events:
        if isinstance(event, e.DriftDetected):
            said = event
        elif isinstance(event, e.VerdictOverruled):
            instead = event
    if said is None:
        return None
    overruled = instead if instead and instead.verdict_id == said.meta.id else None
    wanted = {
        "cause", "retrain_advised", "since", "detected_at", "explanation", "evidence",
        "confidence", "alternatives", "features", "shares", "sources", "model_version",
    }  # fmt: skip
    return said.model_dump(mode="json", include=wanted) | {
        "overruled": overruled
        and {
            "cause": overruled.cause,
            "by": overruled.overruled_by,
            "reason": overruled.reason,
        },
    }


@dataclass
class _Open:
    first: e.AlertRaised
    newest: e.AlertRaised
    last_at: datetime
    times: int = 1
    seen_by: str | None = None

    def is_past(self, at: datetime) -> bool:
        return not self.newest.can_end and at >= self.last_at + EPISODE


def open_alerts(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the alerts that go on, one a condition, the newest first.

    Parameters
    ----------
    events : oldest first; the time of the last one is taken for now.
    """
    found: dict[str, _Open] = {}
    for event in events:
        match event:
            case e.AlertRaised():
                known, at = found.get(event.condition), event.meta.time
                if known is None or known.is_past(at):
                    found.pop(event.condition, None)
                    found[event.condition] = _Open(event, event, at)
                else:
                    known.newest, known.last_at = event, at
                    known.times += 1
            case a.AlertResolved():
                found.pop(event.condition, None)
            case a.AlertAcknowledged():
                known = found.get(event.condition)
                if known is not None and known.first.meta.id == event.alert_id:
                    known.seen_by = event.by
            case _:
                pass
    if not events:
        return []
    now = events[-1].meta.time
    going_on = [each for each in found.values() if not each.is_past(now)]
    return [
        {
            "id": each.first.meta.id,
            "condition": each.newest.condition,
            "severity": each.newest.severity,
            "title": each.newest.title,
            "detail": each.newest.detail,
            "owner": each.newest.owner,
            "since": each.first.meta.time.isoformat(),
            "times": each.times,
            "seen_by": each.seen_by,
        }
        for each in reversed(going_on)
    ]
