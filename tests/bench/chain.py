"""The whole chain on a real Kafka: rows through it, and a verdict to a new model.

One stack for both: eight services and a broker on this machine, nothing mocked. Times
between events are those that the services wrote into them (``ce_time``).
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
from driftloop.cli.context import Installation, connect
from driftloop.cli.data import publish_event, publisher
from driftloop.cli.log import CHAIN_TOPICS, Entry, follow_log
from driftloop.contracts import events as e
from driftloop.contracts.base import Event
from driftloop.contracts.pipeline import PipelineSpec, load_pipeline
from driftloop.contracts.rows import CONTENT_TYPE
from driftloop.local import stack
from driftloop.runtime.transport import Record

from tests.bench.ceiling import measure_ceiling
from tests.bench.figures import Figure
from tests.support.cluster import committed_lag

PART = "chain"
EXAMPLE = Path(__file__).parents[2] / "examples/bike-demand"
FIRST_ROWS = 1_500
COPIES = 6
MESSAGE_ROWS = 2_000
STEP_TIMEOUT_S = 240.0
POLL_S = 0.05
SEED = 20261121

FLOW = "bench-flow"
LOOP = "bench-loop"
LOOP_BATCH_ROWS = 24
LOOP_FIRST_ROWS = 480
LOOP_CALM_BATCHES = 10
LOOP_MAX_BATCHES = 120
LEVEL_SHIFT = 10.0
"""In units of the target, whose noise has a standard deviation of 0.5."""

E = TypeVar("E", bound=Event)


class Log:
    """Every event so far, as a follower of the topics sees them."""

    def __init__(self, installation: Installation) -> None:
        self._entries: list[Entry] = []
        self._lock = threading.Lock()
        self._follower = follow_log(
            installation.bootstrap, CHAIN_TOPICS, installation.store, self._take
        )

    def _take(self, entry: Entry) -> None:
        with self._lock:
            self._entries.append(entry)

    def of(self, kind: type[E], pipeline: str) -> list[E]:
        """Return events of one kind, oldest first."""
        with self._lock:
            found = [
                entry.event
                for entry in self._entries
                if isinstance(entry.event, kind) and entry.event.pipeline == pipeline
            ]
        return sorted(found, key=lambda event: event.meta.time)

    def wait_for(self, what: str, find: Callable[[], Any]) -> Any:
        """Return what ``find`` returns once it is something.

        Raises
        ------
        TimeoutError
            Names what did not come.
        """
        until = time.monotonic() + STEP_TIMEOUT_S
        while time.monotonic() < until:
            if found := find():
                return found
            time.sleep(POLL_S)
        raise TimeoutError(f"no {what} within {STEP_TIMEOUT_S:.0f} s")

    def stop(self) -> None:
        self._follower.stop()


@contextmanager
def running() -> Iterator[tuple[Installation, Log]]:
    """Start a stack of its own in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="driftloop-bench-") as folder:
        home = Path(folder) / "home"
        try:
            stack.up(home)
            installation = connect(home)
            log = Log(installation)
            yield installation, log
            log.stop()
        finally:
            stack.down(home)


def run() -> Iterator[Figure]:
    """Measure the part."""
    with running() as (installation, log):
        yield from flow(installation, log)
        yield from loop(installation, log)


# ── rows through the chain ──────────────────────────────────────────────────


def flow(installation: Installation, log: Log) -> Iterator[Figure]:
    """Rows a second from the door to each stage, beside bare Kafka."""
    spec = _flow_spec()
    apply(installation, spec)
    frame = pl.read_csv(EXAMPLE / "rentals.csv", infer_schema_length=None)
    send(installation, spec, [frame.head(FIRST_ROWS)])
    log.wait_for("first model", lambda: log.of(e.ModelDeployed, FLOW))
    log.wait_for("rest", lambda: _is_quiet(installation))
    before = len(log.of(e.BatchValidated, FLOW))
    frames = list(_copies(frame.slice(FIRST_ROWS)))
    rows = sum(map(len, frames))
    started = datetime.now(UTC)
    clock = time.perf_counter()
    send(installation, spec, frames)
    log.wait_for("all rows validated", lambda: _rows_of(log, before) >= rows)
    log.wait_for("all rows monitored", lambda: _is_quiet(installation))
    monitored_s = time.perf_counter() - clock
    values = [_arrow(part) for part in frames]
    ceiling = measure_ceiling(installation.bootstrap, values)
    peer, per_message = "bare client, one hop", rows / len(frames)
    limit = ceiling.messages_per_s * per_message
    for kind in (e.BatchIngested, e.BatchValidated, e.BatchScored):
        last = max(event.meta.time for event in log.of(kind, FLOW))
        seconds = (last - started).total_seconds()
        name = f"rows to {kind.topic()}"
        yield Figure(PART, name, "rows/s", rows / seconds, peer, limit)
    name = "rows through all of them to monitored"
    yield Figure(PART, name, "rows/s", rows / monitored_s, peer, limit)
    size_mb = sum(map(len, values)) / 1e6
    ours = size_mb / monitored_s
    yield Figure(PART, name, "MB/s", ours, peer, ceiling.bytes_per_s / 1e6)


def _flow_spec() -> PipelineSpec:
    """The bike rentals' pipeline, with nothing but the first training."""
    spec = load_pipeline(EXAMPLE / "pipeline.yaml").model_dump()
    spec |= {"name": FLOW}
    spec["retrain"] |= {"on_drift": False, "first_rows": 1_000}
    spec["rollout"] |= {"strategy": "immediate", "watch_rows": 0}
    return PipelineSpec.model_validate(spec)


def _copies(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut the rows, several times over and always later, into messages."""
    times = frame["time"].str.to_datetime()
    length = timedelta(hours=1) + (times[-1] - times[0])
    for copy in range(COPIES):
        moved = (times + copy * length).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
        shifted = frame.with_columns(moved.alias("time"), moved.alias("id"))
        yield from shifted.iter_slices(MESSAGE_ROWS)


def _rows_of(log: Log, before: int) -> int:
    return sum(
        event.row_count + event.quarantined_count
        for event in log.of(e.BatchValidated, FLOW)[before:]
    )


def _is_quiet(installation: Installation) -> bool:
    """Whether no service of the flow has a message left to handle."""
    return all(
        committed_lag(installation.bootstrap, service) == 0
        for service in ("ingest", "validator", "scorer", "monitor")
    )


# ── from a verdict to a new version in service ──────────────────────────────


def loop(installation: Installation, log: Log) -> Iterator[Figure]:
    """Time from a drift verdict to the new version in service, without the fit.

    A linear relation whose level jumps: the quickest to detect and to fit, so what
    is left is the system's own time.
    """
    spec = _loop_spec()
    apply(installation, spec)
    source = _Stream()
    send(installation, spec, [source.rows(LOOP_FIRST_ROWS)])
    log.wait_for("first model", lambda: log.of(e.ModelDeployed, LOOP))
    for _ in range(LOOP_CALM_BATCHES):
        send(installation, spec, [source.rows(LOOP_BATCH_ROWS)])
    log.wait_for("rest", lambda: _is_quiet(installation))
    source.level = LEVEL_SHIFT
    for _ in range(LOOP_MAX_BATCHES):
        send(installation, spec, [source.rows(LOOP_BATCH_ROWS)])
        log.wait_for("rest", lambda: _is_quiet(installation))
        if _deployed_by_drift(log):
            break
    chain = log.wait_for("version because of drift", lambda: _deployed_by_drift(log))
    yield from _hops(chain)


def _loop_spec() -> PipelineSpec:
    feature = {"type": "number"}
    return PipelineSpec.model_validate(
        {
            "name": LOOP,
            "task": "regression",
            "data": {"time": "time", "target": "y", "features": {"x": feature}},
            "train": {"candidates": ["linear"], "window_days": 20, "min_rows": 100},
            "gate": {"confidence": 0.9},
            "rollout": {"strategy": "immediate", "watch_rows": 0},
            "monitor": {"window_rows": 48},
            "retrain": {"first_rows": LOOP_FIRST_ROWS - 80, "cooldown_days": 0},
        }
    )


class _Stream:
    """Rows of one hour each: ``y = 3 x + level + noise``."""

    def __init__(self) -> None:
        self.level = 0.0
        self._rng = np.random.default_rng(SEED)
        self._next = datetime(2026, 1, 1, tzinfo=UTC)

    def rows(self, count: int) -> pl.DataFrame:
        x = self._rng.normal(size=count)
        y = 3 * x + self.level + self._rng.normal(scale=0.5, size=count)
        times = [self._next + timedelta(hours=n) for n in range(count)]
        self._next = times[-1] + timedelta(hours=1)
        texts = [f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in times]
        return pl.DataFrame({"id": texts, "time": texts, "x": x, "y": y})


def _deployed_by_drift(log: Log) -> tuple[Event, ...] | None:
    """Return the first whole chain from a verdict to a rollout's end."""
    registered = {event.job_id: event for event in log.of(e.ModelRegistered, LOOP)}
    approved = {event.version: event for event in log.of(e.ModelApproved, LOOP)}
    deployed = {event.version: event for event in log.of(e.ModelDeployed, LOOP)}
    trained = {event.job_id: event for event in log.of(e.ModelTrained, LOOP)}
    for started in log.of(e.TrainingStarted, LOOP):
        for drift in log.of(e.DriftDetected, LOOP):
            version = getattr(registered.get(started.job_id), "version", None)
            if started.trigger.event_id == drift.meta.id and version in deployed:
                return (
                    drift,
                    started,
                    trained[started.job_id],
                    registered[started.job_id],
                    approved[version],
                    deployed[version],
                )
    return None


def _hops(chain: tuple[Event, ...]) -> Iterator[Figure]:
    (trained,) = (event for event in chain if isinstance(event, e.ModelTrained))
    fit_s = sum(tried.fit_seconds for tried in trained.tried)
    total_ms = -fit_s * 1000
    for before, after in pairwise(chain):
        hop_ms = (after.meta.time - before.meta.time).total_seconds() * 1000
        total_ms += hop_ms
        name = f"{before.topic()} to {after.topic()}"
        if isinstance(after, e.ModelTrained):
            hop_ms -= fit_s * 1000
            name += ", without the fit"
        yield Figure(PART, name, "ms", hop_ms)
    name = "verdict to new version in service, without the fit"
    yield Figure(PART, name, "ms", total_ms)


# ── both ────────────────────────────────────────────────────────────────────


def apply(installation: Installation, spec: PipelineSpec) -> None:
    """Put a pipeline into force."""
    event = e.PipelineApplied(pipeline=spec.name, spec=spec, applied_by="bench")
    publish_event(installation, event)


def send(
    installation: Installation, spec: PipelineSpec, frames: Sequence[pl.DataFrame]
) -> None:
    """Publish each frame as one Arrow message, as an upstream system would."""
    headers = (
        ("content-type", CONTENT_TYPE.encode()),
        ("ce_subject", spec.name.encode()),
        ("ce_source", b"/upstream/bench"),
    )
    key = f"{spec.name}/bench".encode()
    topic = e.ObservationArrived.topic()
    sender = publisher(installation)
    try:
        sender.publish([Record(topic, key, _arrow(f), headers) for f in frames])
    finally:
        sender.close()


def _arrow(frame: pl.DataFrame) -> bytes:
    table = frame.to_arrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data
