"""Metrics that follow from the log alone: how long chains take, and what they cost.

They are counted over everything that the log keeps, so that they are the same after a
restart and on each console, whatever order the topics are read in.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate

from driftloop.contracts import events as e
from driftloop.contracts import scoring as s
from driftloop.contracts.base import Event
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.runtime.metrics import exemplar_of
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

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

Bucket = tuple[str, float] | tuple[str, float, Exemplar]


@dataclass
class Seconds:
    """Durations by bucket, each with the newest that has a trace."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0
    examples: dict[int, Exemplar] = field(default_factory=dict)

    def add(self, seconds: float, at: datetime, traceparent: str | None) -> None:
        place = bisect_left(BUCKETS, seconds)
        self.counts[place] += 1
        self.total += seconds
        labels = exemplar_of(traceparent)
        if labels is not None:
            self.examples[place] = Exemplar(labels, seconds, at.timestamp())

    def buckets(self) -> list[Bucket]:
        """Return upper end, count up to there and example of each bucket."""
        result: list[Bucket] = []
        for place, count in enumerate(accumulate(self.counts)):
            end = str(BUCKETS[place]) if place < len(BUCKETS) else "+Inf"
            example = self.examples.get(place)
            found = (end, float(count))
            result.append((*found, example) if example else found)
        return result


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


class Families:
    """The metrics, empty at first."""

    def __init__(self) -> None:
        self.durations = HistogramMetricFamily(
            "driftloop_chain_duration_seconds",
            "From the event that set a training off to each result of it: registered, "
            "deployed, refused, rolled_back, failed or cancelled; without the time "
            "that people took to decide",
            labels=["pipeline", "reason", "result"],
        )
        self.waits = HistogramMetricFamily(
            "driftloop_approval_wait_seconds",
            "From the request for approval to the decision",
            labels=["pipeline"],
        )
        self.events = CounterMetricFamily(
            "driftloop_story_events",
            "Events of a pipeline's story by topic: verdicts, trainings, decisions, "
            "rollouts",
            labels=["pipeline", "event"],
        )
        self.cpu = CounterMetricFamily(
            "driftloop_work_cpu_seconds",
            "Processor time of trainings and of datasets scored as a whole, all tries "
            "together, by work: training or scoring_job",
            labels=["pipeline", "work"],
        )
        self.rows = GaugeMetricFamily(
            "driftloop_dataset_rows",
            "Rows of the dataset's newest version, by kind: observations, or labels "
            "(rows whose target is known)",
            labels=["pipeline", "kind"],
        )
        self.newest_row = GaugeMetricFamily(
            "driftloop_dataset_newest_row_timestamp_seconds",
            "Event time of the newest row of the dataset, since 1970",
            labels=["pipeline"],
        )
        self.deployed_at = GaugeMetricFamily(
            "driftloop_model_deployed_timestamp_seconds",
            "When the version that serves in production took over, since 1970",
            labels=["pipeline", "version"],
        )

    def __iter__(self) -> Iterator[Metric]:
        yield from (self.durations, self.waits, self.events, self.cpu)
        yield from (self.rows, self.newest_row, self.deployed_at)

    def tell(self, name: str, tally: Tally, story: Mapping[str, int]) -> None:
        """Add what is counted of a pipeline.

        Parameters
        ----------
        story : events of its story by topic.
        """
        tally.settle()
        for (reason, result), seconds in sorted(tally.durations.items()):
            labels = [name, reason, result]
            self.durations.add_metric(labels, seconds.buckets(), seconds.total)
        if any(tally.waits.counts):
            self.waits.add_metric([name], tally.waits.buckets(), tally.waits.total)
        for topic, count in sorted(story.items()):
            self.events.add_metric([name, topic], count)
        for work, cpu_s in sorted(tally.cpu_s.items()):
            self.cpu.add_metric([name, work], cpu_s)
        for kind, (_, count) in sorted(tally.rows.items()):
            self.rows.add_metric([name, kind], count)
        if tally.newest_row is not None:
            self.newest_row.add_metric([name], tally.newest_row.timestamp())
        champion = tally.serving.champion if tally.serving else None
        if champion is not None and champion.version in tally.deployed_at:
            at = tally.deployed_at[champion.version].timestamp()
            self.deployed_at.add_metric([name, str(champion.version)], at)


class LogCollector(Collector):
    """Tells Prometheus what the log says; nothing before the log has been read.

    Half of a log would look as if counters had been set back.

    Parameters
    ----------
    tell : adds what is counted of each pipeline.
    is_complete : whether what was in the log at the start has been read.
    """

    def __init__(
        self, tell: Callable[[Families], None], is_complete: Callable[[], bool]
    ) -> None:
        self._tell, self._is_complete = tell, is_complete

    def describe(self) -> Iterator[Metric]:
        yield from Families()

    def collect(self) -> Iterator[Metric]:
        families = Families()
        if self._is_complete():
            self._tell(families)
        yield from families
