"""What Prometheus is told of the log; see :mod:`measured`."""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from driftloop.console.measured import BUCKETS, Seconds, Tally
from driftloop.runtime.metrics import exemplar_of
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

Bucket = tuple[str, float] | tuple[str, float, Exemplar]


def buckets(seconds: Seconds) -> list[Bucket]:
    """Return upper end, count up to there and example of each bucket."""
    result: list[Bucket] = []
    for place, count in enumerate(accumulate(seconds.counts)):
        end = str(BUCKETS[place]) if place < len(BUCKETS) else "+Inf"
        found = (end, float(count))
        example = seconds.examples.get(place)
        labels = exemplar_of(example.traceparent) if example else None
        if example is None or labels is None:
            result.append(found)
        else:
            exemplar = Exemplar(labels, example.seconds, example.at.timestamp())
            result.append((*found, exemplar))
    return result


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
            self.durations.add_metric(labels, buckets(seconds), seconds.total)
        if any(tally.waits.counts):
            self.waits.add_metric([name], buckets(tally.waits), tally.waits.total)
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
