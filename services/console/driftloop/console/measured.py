"""Metrics that follow from the log alone: how long chains take, and what they cost.

They are counted over everything that the log keeps, so that they are the same after a
restart and on each console, whatever order the topics are read in.
"""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from driftloop.contracts import events as e
from driftloop.contracts import scoring as s
from driftloop.contracts.base import Event
from driftloop.contracts.pipeline import PRODUCTION

BUCKETS = (
    1.0,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14_400.0,
    86_400.0,
    604_800.0,
)
"""Upper ends in seconds: a second to a week."""
RESULTS: dict[type[Event], str] = {
    e.TrainingFailed: "failed",
    e.TrainingCancelled: "cancelled",
    e.ModelRegistered: "registered",
    e.ModelRejected: "refused",
    e.ModelDeployed: "deployed",
    e.ModelRolledBack: "rolled_back",
}
MAX_CHAINS = 5_000
"""Of a pipeline that are held, the newest; older ones are counted and let go."""


class Example(NamedTuple):
    """One observation of many: in which trace, how long, when."""

    traceparent: str
    seconds: float
    at: datetime


@dataclass
class Seconds:
    """Durations by bucket, each with the newest that has a trace."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0
    examples: dict[int, Example] = field(default_factory=dict)

    def add(self, seconds: float, at: datetime, traceparent: str | None) -> None:
        place = bisect_left(BUCKETS, seconds)
        self.counts[place] += 1
        self.total += seconds
        if traceparent is not None:
            self.examples[place] = Example(traceparent, seconds, at)


@dataclass
class Chain:
    """What is known of what one trigger set off."""

    begun: datetime | None = None
    reason: str = ""
    asked: dict[int, datetime] = field(default_factory=dict)
    decided: dict[int, datetime] = field(default_factory=dict)
    results: dict[str, Event] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)

    def waited_s(self) -> float:
        """Return for how long the chain waited for people."""
        both = self.asked.keys() & self.decided.keys()
        waits = ((self.decided[v] - self.asked[v]).total_seconds() for v in both)
        return sum(max(0.0, wait) for wait in waits)


@dataclass
class Tally:
    """What is counted of one pipeline; events may come in any order of their topics."""

    cpu_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    newest_row: datetime | None = None
    serving: e.ServingDesired | None = None
    deployed_at: dict[int, datetime] = field(default_factory=dict)
    durations: dict[tuple[str, str], Seconds] = field(
        default_factory=lambda: defaultdict(Seconds)
    )
    waits: Seconds = field(default_factory=Seconds)
    chains: dict[str, Chain] = field(default_factory=lambda: defaultdict(Chain))

    def take(self, event: Event) -> None:
        """Take an event, each once."""
        result = RESULTS.get(type(event))
        if result is not None:
            self.chains[event.meta.chain.id].results.setdefault(result, event)
        match event:
            case e.ModelTrained() | e.TrainingFailed():
                self.cpu_s["training"] += event.cpu_seconds
            case s.DatasetScored() | s.ScoringFailed():
                self.cpu_s["scoring_job"] += event.cpu_seconds
            case e.DatasetVersioned():
                self._versioned(event)
            case e.ModelDeployed():
                last = self.deployed_at.get(event.version, event.meta.time)
                self.deployed_at[event.version] = max(last, event.meta.time)
            case e.ServingDesired() if event.environment == PRODUCTION:
                old = self.serving
                if old is None or event.generation >= old.generation:
                    self.serving = event
            case _:
                self._begins(event)
        if isinstance(event, e.ModelApproved | e.ModelRejected):
            decided = self.chains[event.meta.chain.id].decided
            decided.setdefault(event.version, event.meta.time)

    def _versioned(self, event: e.DatasetVersioned) -> None:
        """Take a new version of the dataset; the newest holds."""
        version = event.dataset.observations.version
        for kind, count in (
            ("observations", event.observation_count),
            ("labels", event.label_count),
        ):
            if version >= self.rows.get(kind, (-1, 0))[0]:
                self.rows[kind] = version, count
        if self.newest_row is None or event.span.end > self.newest_row:
            self.newest_row = event.span.end

    def _begins(self, event: Event) -> None:
        """Take what a chain begins with, or waits for."""
        at = event.meta.time
        match event:
            case e.DriftDetected() | e.RetrainRequested() | e.ModelSubmitted():
                chain = self.chains[event.meta.chain.id]
                chain.begun = min(chain.begun or at, at)
            case e.TrainingStarted():
                chain = self.chains[event.meta.chain.id]
                chain.begun = min(chain.begun or at, at)
                chain.reason = event.trigger.reason
            case e.ApprovalRequested():
                self.chains[event.meta.chain.id].asked.setdefault(event.version, at)

    def settle(self) -> None:
        """Count what is known of chains whose beginning is known by now."""
        for chain in self.chains.values():
            if chain.begun is None or not chain.reason:
                continue
            for result, event in chain.results.items():
                if result not in chain.counted:
                    chain.counted.add(result)
                    self._count(chain, chain.begun, result, event)
        for key in [*self.chains][: max(0, len(self.chains) - MAX_CHAINS)]:
            del self.chains[key]

    def _count(self, chain: Chain, begun: datetime, result: str, event: Event) -> None:
        at, traceparent = event.meta.time, event.meta.chain.traceparent
        waited = chain.waited_s()
        took = max(0.0, (at - begun).total_seconds() - waited)
        self.durations[chain.reason, result].add(took, at, traceparent)
        if waited and result in ("deployed", "refused"):
            self.waits.add(waited, at, traceparent)
