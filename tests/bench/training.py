"""From a trigger to a job that runs, and to a registered model.

A broker, the trainer and the registry, each a real process. The model is trivial (a
straight line), so that what is left is the system's own time. Times are those that the
services wrote into the events (``ce_time``).
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from driftloop.contracts import events as e
from driftloop.contracts.base import Event
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.envelope import decode
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message

from tests.bench.figures import Figure
from tests.component.processes import Log, ServiceProcess, with_id

PART = "training"
NAME = "bench-training"
ROWS = 500
WARM_TRIGGERS, COLD_TRIGGERS = 30, 5
WAIT_S = 120.0
POLL_S = 0.05
SEED = 20261121
WARM = "driftloop_trainer_warm_child 1.0"
KINDS = (e.TrainingStarted, e.TrainingProgressed, e.ModelTrained, e.ModelRegistered)


@dataclass(frozen=True)
class Way:
    """Milliseconds after its trigger at which a job had come so far."""

    accepted: float
    started: float
    trained: float
    registered: float


def run() -> Iterator[Figure]:
    """Measure the part."""
    with (
        tempfile.TemporaryDirectory(prefix="driftloop-bench-") as folder,
        ExitStack() as s,
    ):
        home = Path(folder)
        node = s.enter_context(KafkaNode(home / "kafka"))
        create_topics(node.bootstrap)
        trainer = s.enter_context(ServiceProcess("trainer", home, node.bootstrap))
        s.enter_context(ServiceProcess("registry", home, node.bootstrap))
        bench = Bench(home, node.bootstrap, trainer)
        s.callback(bench.close)
        bench.prepare()
        warm = [bench.way(is_warm=True) for _ in range(WARM_TRIGGERS)]
        cold = [bench.way(is_warm=False) for _ in range(COLD_TRIGGERS)]
    yield from _figures("warm", warm)
    name = "trigger to model registered, cold, median"
    yield Figure(PART, name, "ms", statistics.median(way.registered for way in cold))


def _figures(kind: str, ways: list[Way]) -> Iterator[Figure]:
    stages: dict[str, Callable[[Way], float]] = {
        "job accepted": lambda way: way.accepted,
        "job started": lambda way: way.started,
        "model trained": lambda way: way.trained,
        "model registered": lambda way: way.registered,
    }
    for stage, of in stages.items():
        values = [of(way) for way in ways]
        for name, value in (
            ("median", statistics.median(values)),
            ("p99", float(np.percentile(values, 99))),
        ):
            yield Figure(PART, f"trigger to {stage}, {kind}, {name}", "ms", value)


class Bench:
    """One pipeline with its rows, and the events of its jobs."""

    def __init__(self, home: Path, bootstrap: str, trainer: ServiceProcess) -> None:
        self._home, self._trainer = home, trainer
        self._log = Log(bootstrap, home)
        self._store = FolderStore(home / "artifacts")
        self._events: list[Event] = []
        self._number = 0
        topics = [kind.topic() for kind in KINDS]
        self._follower = LogFollower(bootstrap, topics, self._take)
        threading.Thread(target=self._follower.run, daemon=True).start()

    def close(self) -> None:
        self._follower.stop()
        self._log.close()

    def _take(self, message: Message) -> None:
        self._events.append(decode(message, self._store))

    def prepare(self) -> None:
        """Apply the pipeline and announce its rows; nothing starts by itself."""
        spec = PipelineSpec.model_validate(
            {
                "name": NAME,
                "task": "regression",
                "automation": "approve",  # so that no rollout goes on beside
                "data": {"target": "y", "features": {"x": {"type": "number"}}},
                "train": {"candidates": ["linear"], "min_rows": 100},
                "retrain": {"first_rows": 100 * ROWS},
            }
        )
        uri = str(self._home / "table")
        rows = _rows()
        write_deltalake(uri, rows)
        times = rows["event_time"].to_pylist()
        self._log.publish(
            with_id(e.PipelineApplied(pipeline=NAME, spec=spec, applied_by="b"), "p"),
            with_id(
                e.DatasetVersioned(
                    pipeline=NAME,
                    kind="observations",
                    dataset=e.DatasetRef(observations=e.TableRef(uri=uri, version=0)),
                    added_count=ROWS,
                    observation_count=ROWS,
                    label_count=ROWS,
                    span=e.Span(start=times[0], end=times[-1]),
                ),
                "d",
            ),
        )
        self.way(is_warm=True)  # the first of everything is not measured

    def way(self, *, is_warm: bool) -> Way:
        """Trigger a training and follow it to the registry."""
        if is_warm:
            _wait(
                "warm child", lambda: WARM in self._trainer.client.get("/metrics").text
            )
        self._number += 1
        event_id, at = f"request-{self._number}", datetime.now(UTC)
        wish = e.RetrainRequested(pipeline=NAME, requested_by="bench", reason="bench")
        self._log.publish(with_id(wish, event_id, time=at))

        def job() -> str | None:
            found = (x for x in list(self._events) if isinstance(x, e.TrainingStarted))
            return next(
                (x.job_id for x in found if x.trigger.event_id == event_id), None
            )

        _wait("job", job)
        name = job()

        def time_of(kind: type[Event]) -> datetime | None:
            found = (x for x in list(self._events) if isinstance(x, kind))
            times = (x.meta.time for x in found if getattr(x, "job_id", "") == name)
            return min(times, default=None)

        _wait("registered model", lambda: time_of(e.ModelRegistered))
        after = [_ms(time_of(kind), at) for kind in KINDS]
        return Way(*after)


def _ms(moment: datetime | None, start: datetime) -> float:
    if moment is None:
        raise TimeoutError("an event of the way is missing")
    return (moment - start).total_seconds() * 1000


def _wait(what: str, find: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT_S
    while not find():
        if time.monotonic() > until:
            raise TimeoutError(f"no {what} within {WAIT_S:.0f} s")
        time.sleep(POLL_S)


def _rows() -> pa.Table:
    draw = np.random.default_rng(SEED)
    x = draw.normal(size=ROWS)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = [start + timedelta(hours=number) for number in range(ROWS)]
    return pa.table(
        {
            "id": [f"r{number}" for number in range(ROWS)],
            "event_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "source": ["bench"] * ROWS,
            "x": x,
            "y": 3 * x + draw.normal(scale=0.5, size=ROWS),
        }
    )
