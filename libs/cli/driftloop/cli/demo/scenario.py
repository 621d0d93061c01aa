"""What happens in the demo: real rentals in accelerated event time, one fault.

The fault is staged as it happens in life: for a week a sensor's gateway writes
``temp`` in another unit. Everything else is the data as it was published.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
from driftloop.cli.log import Entry
from driftloop.cli.publish import (
    Pace,
    Part,
    plan,
    read_file,
    record_of,
    send,
    with_event_time,
)
from driftloop.contracts import events as e
from driftloop.contracts.base import Event
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.runtime.transport import Publisher

SOURCE = "rentals"
DAY = timedelta(days=1)
LABEL_DELAY = timedelta(hours=6)
FAULT_START = datetime(2011, 9, 12, tzinfo=UTC)
FAULT_END = FAULT_START + timedelta(days=7)
CELSIUS_PER_UNIT = 41.0
"""``temp`` is published as °C / 41; the faulty gateway sends °C."""
MAX_VALIDATED_BEHIND = timedelta(days=4)
MAX_MEASURED_BEHIND = timedelta(days=12)
"""How far the chain may be behind the publisher before it waits. Nothing is
measured in the week of the fault, as its rows are not scored."""
MAX_HOLD_S = 60.0
"""The publisher waits no longer where nobody says anything: upstream would not either.
A chain that is slow, as on a busy machine, says something all the time."""


def staged(frame: pl.DataFrame, spec: PipelineSpec) -> pl.DataFrame:
    """Return the rows with a week of ``temp`` in °C."""
    timed = with_event_time(frame, spec)
    in_fault = pl.col("due_at").is_between(FAULT_START, FAULT_END, closed="left")
    wrong = (pl.col("temp") * CELSIUS_PER_UNIT).round(2)
    return timed.with_columns(
        pl.when(in_fault).then(wrong).otherwise(pl.col("temp")).alias("temp")
    ).drop("due_at")


@dataclass
class Board:
    """What the chain has said so far; written by the log's follower."""

    pipeline: str
    entries: list[Entry] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    decided: list[Entry] = field(default_factory=list)
    validated_until: datetime | None = None
    measured_until: datetime | None = None
    champion: int | None = None
    desired: e.ServingDesired | None = None
    ready: set[tuple[int, int]] = field(default_factory=set)
    running_jobs: set[str] = field(default_factory=set)
    ended_jobs: set[str] = field(default_factory=set)
    losses: dict[int, list[tuple[datetime, float]]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    seen: set[str] = field(default_factory=set)

    def take(self, entry: Entry) -> None:
        """Add one event of the log; a repeat changes nothing."""
        if entry.event.pipeline != self.pipeline:
            return
        with self.changed:
            if entry.meta.id in self.seen:
                return
            self.seen.add(entry.meta.id)
            self.counts[entry.topic] = self.counts.get(entry.topic, 0) + 1
            self.entries.append(entry)
            self._fold(entry)
            self.changed.notify_all()

    def _fold(self, entry: Entry) -> None:
        self._fold_data(entry.event)
        self._fold_models(entry.event)
        if isinstance(entry.event, DECISIONS):
            self.decided.append(entry)

    def _fold_data(self, event: Event) -> None:
        match event:
            case (
                e.BatchValidated(kind="observations")
                | e.BatchRejected(kind="observations")
            ):
                self.validated_until = _latest(self.validated_until, event.span.end)
            case e.PerformanceMeasured():
                self.measured_until = _latest(self.measured_until, event.span.end)
                for item in event.measurements:
                    points = self.losses.setdefault(item.version, [])
                    points.append((event.span.end, item.value))
            case _:
                pass

    def _fold_models(self, event: Event) -> None:
        match event:
            case e.TrainingStarted(job_id=job):
                if job not in self.ended_jobs:
                    self.running_jobs.add(job)
            case e.ModelRegistered(job_id=job) | e.TrainingFailed(job_id=job):
                self.ended_jobs.add(job)
                self.running_jobs.discard(job)
            case e.ModelDeployed(version=version):
                self.champion = version
            case e.ModelRolledBack(restored=restored):
                self.champion = restored.version if restored else self.champion
            case e.ServingDesired() as desired if desired.key == desired.pipeline:
                if self.desired is None or desired.generation > self.desired.generation:
                    self.desired = desired
            case e.ScorerReported(generation=generation, versions=versions):
                self.ready |= {(generation, said.version) for said in versions}
            case _:
                pass

    def is_behind(self, due: datetime) -> bool:
        """Whether event time should stand still at ``due``."""
        with self.changed:
            validated, measured = self.validated_until, self.measured_until
            if self.running_jobs or self._is_loading():
                return True
        return (validated is not None and due - validated > MAX_VALIDATED_BEHIND) or (
            measured is not None and due - measured > MAX_MEASURED_BEHIND
        )

    def _is_loading(self) -> bool:
        """Whether no scorer has said what became of a version that is wanted now."""
        if self.desired is None:
            return False
        wanted = (self.desired.champion, self.desired.candidate)
        generation = self.desired.generation
        return any(m and (generation, m.version) not in self.ready for m in wanted)

    def of(self, *types: type) -> list[Entry]:
        """Return the events of some types so far, by time."""
        with self.changed:
            found = [entry for entry in self.entries if isinstance(entry.event, types)]
        return sorted(found, key=lambda entry: entry.meta.time)

    def wait(self, test: Callable[["Board"], bool], timeout_s: float) -> bool:
        """Wait until ``test`` holds; False when it does not in time."""
        with self.changed:
            return self.changed.wait_for(lambda: test(self), timeout_s)


class Quiet:
    """For how long the chain has said nothing."""

    def __init__(
        self, board: Board, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._board, self._clock = board, clock
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._count, self._since = len(self._board.entries), self._clock()

    def for_s(self) -> float:
        if len(self._board.entries) != self._count:
            self.begin()
        return self._clock() - self._since


DECISIONS = (
    e.DriftDetected, e.AlertRaised, e.TrainingStarted, e.TrainingSkipped,
    e.TrainingFailed, e.ModelTrained, e.ModelRegistered, e.ApprovalRequested,
    e.ModelApproved, e.ModelRejected, e.RolloutAdvanced, e.ModelDeployed,
    e.ModelRolledBack,
)  # fmt: skip


def _latest(known: datetime | None, new: datetime) -> datetime:
    return new if known is None else max(known, new)


@dataclass(frozen=True)
class Scenario:
    """The rows, cut into what upstream sends and when."""

    spec: PipelineSpec
    rows: pl.DataFrame
    parts: Sequence[Part]

    @classmethod
    def load(
        cls, folder: Path, spec: PipelineSpec, until: datetime | None = None
    ) -> "Scenario":
        """Read the example; ``until`` cuts it short (event time)."""
        frame = staged(read_file(folder / "rentals.csv"), spec)
        timed = with_event_time(frame, spec)
        if until is not None:
            timed = timed.filter(pl.col("due_at") < until)
        frame = timed.drop("due_at")
        return cls(spec, frame, list(plan(frame, spec, DAY, LABEL_DELAY)))

    def publish(
        self,
        publisher: Publisher,
        board: Board,
        speed_days_per_s: float,
        on_sent: Callable[[Part], None],
        stop: threading.Event,
    ) -> None:
        """Publish all parts in accelerated event time.

        Event time stands still while a model is trained, registered or loaded, as
        seconds of work would otherwise become weeks, and while the chain is far
        behind.
        """
        current: list[Part] = []
        quiet = Quiet(board)

        def hold() -> bool:
            if stop.is_set() or not current or not board.is_behind(current[-1].due):
                quiet.begin()
                return False
            return quiet.for_s() < MAX_HOLD_S

        def sent(part: Part) -> None:
            current[:] = [part]
            on_sent(part)

        send(
            [part for part in self.parts if not stop.is_set()],
            lambda part: record_of(part, self.spec.name, SOURCE, "demo"),
            publisher,
            Pace(speed=speed_days_per_s * DAY.total_seconds()),
            sent,
            hold,
        )
