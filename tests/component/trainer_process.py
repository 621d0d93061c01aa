"""A trainer in a process of its own, on a real broker, with rows to learn from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    DatasetRef,
    DatasetVersioned,
    PipelineApplied,
    Span,
    TableRef,
)
from driftloop.contracts.pipeline import PipelineSpec, parse_pipeline
from driftloop.contracts.topics import produced_by
from driftloop.runtime.admin import create_topics
from driftloop.runtime.artifacts import open_store
from driftloop.runtime.datasets import storage_options
from driftloop.runtime.drivers.publisher import ConfluentPublisher
from driftloop.runtime.envelope import decode, encode
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.settings import Settings, load_settings
from driftloop.runtime.transport import Message

from tests.unit.support import wait_until

E = TypeVar("E", bound=Event)
WAIT_S = 240
"""A child loads its libraries before it trains: on a busy machine a minute."""
START = datetime(2011, 1, 1, tzinfo=UTC)
PIPELINE = """
name: {name}
task: regression
data: {{target: y, features: {{kind: {{type: category}}, a: {{type: number}}}}}}
train: {{candidates: [{candidates}], min_rows: 200, holdout_ratio: {holdout_ratio}}}
retrain: {{first_rows: 400, cooldown_days: 1}}
"""


def spec_of(name: str, candidates: str, holdout_ratio: float = 0.2) -> PipelineSpec:
    return parse_pipeline(
        PIPELINE.format(name=name, candidates=candidates, holdout_ratio=holdout_ratio)
    )


def rows(count: int, first: int = 0, slope: float = 3.0) -> pa.Table:
    """Hourly rows: y = slope * a, plus 10 for the kind "big"."""
    draw = np.random.default_rng(first)
    a = draw.normal(size=count)
    kind = draw.choice(["big", "small"], count)
    y = slope * a + np.where(kind == "big", 10, 0) + draw.normal(scale=0.1, size=count)
    times = [START + timedelta(hours=first + i) for i in range(count)]
    return pa.table(
        {
            "id": [f"r{first + i}" for i in range(count)],
            "event_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "source": ["test"] * count,
            "a": a,
            "kind": kind,
            "y": y,
        }
    )


def _fields(settings: dict[str, str]) -> dict[str, str]:
    """Return those of the variables that all processes have."""
    names = {name.removeprefix("DRIFTLOOP_").lower(): name for name in settings}
    return {k: settings[v] for k, v in names.items() if k in Settings.model_fields}


class Trainer:
    """A home, a broker and the process; every event that it published."""

    def __init__(self, home: Path, broker: str, settings: dict[str, str]) -> None:
        self.home, self.broker, self.settings = home, broker, settings
        own = load_settings(Settings, "trainer", home=home, **_fields(settings))
        self.store = open_store(own)
        self._tables = own.datasets_url or str(home / "datasets")
        self.storage_options = storage_options(own)
        self.events: list[Event] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._numbers = iter(range(1_000_000))
        create_topics(broker)
        self._publisher = ConfluentPublisher(broker, client_id="test")
        topics = [topic.name for topic in produced_by("trainer")]
        self._follower = LogFollower(broker, topics, self._seen)
        self._thread = threading.Thread(target=self._follower.run, daemon=True)
        self._thread.start()

    def _seen(self, message: Message) -> None:
        self.events.append(decode(message, self.store))

    def close(self) -> None:
        self.kill()
        self._follower.stop()
        self._thread.join(120)
        self._publisher.close()

    def start(self) -> None:
        environment = {
            **os.environ,
            **self.settings,
            "DRIFTLOOP_HOME": str(self.home),
            "DRIFTLOOP_BROKER": self.broker,
            "DRIFTLOOP_LOG_FORMAT": "console",
        }
        with (self.home / "trainer.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "driftloop.trainer"],
                env=environment,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(120)
            self.process = None

    def child_pids(self) -> list[int]:
        """Return the process's own training processes."""
        assert self.process is not None
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                command = (place / "cmdline").read_bytes()
            except (OSError, IndexError):
                continue
            if parent == self.process.pid and b"driftloop.trainer.child" in command:
                found.append(int(place.name))
        return found

    def publish(self, event: Event, event_id: str | None = None) -> str:
        event_id = event_id or f"event-{next(self._numbers)}"
        meta = Meta(event_id, START, "/test", Chain(f"chain-of-{event_id}"))
        self._publisher.publish([encode(event, meta, self.store)])
        return event_id

    def publish_all(self, events: list[Event]) -> list[str]:
        """Publish many at once; return their ids."""
        ids = [f"event-{next(self._numbers)}" for _ in events]
        self._publisher.publish(
            [
                encode(event, Meta(name, START, "/test", Chain(name)), self.store)
                for event, name in zip(events, ids, strict=True)
            ]
        )
        return ids

    def apply(self, spec: PipelineSpec) -> None:
        self.publish(PipelineApplied(pipeline=spec.name, spec=spec, applied_by="ada"))

    def checkpointed_ns(self, job_id: str) -> int:
        """Return when a fit was last saved inside, in ns; 0: there is no checkpoint."""
        found = (self.home / "trainer" / job_id).glob("*.checkpoint")
        times = []
        for path in found:
            with suppress(FileNotFoundError):
                times.append(path.stat().st_mtime_ns)
        return max(times, default=0)

    def append(self, name: str, table: pa.Table, total: int) -> DatasetVersioned:
        """Append rows to the pipeline's table and return what the validator says."""
        uri = f"{self._tables}/{name}/observations"
        options = self.storage_options
        write_deltalake(uri, table, mode="append", storage_options=options)
        version = 0 if table.num_rows == total else 1
        times = table["event_time"].to_pylist()
        return DatasetVersioned(
            pipeline=name,
            kind="observations",
            dataset=DatasetRef(observations=TableRef(uri=uri, version=version)),
            added_count=table.num_rows,
            observation_count=total,
            label_count=total,
            span=Span(start=times[0], end=times[-1]),
        )

    def all(self, kind: type[E], name: str) -> list[E]:
        """Events of a kind, each id once: after a kill the outbox may send again."""
        found = {
            event.meta.id: event
            for event in list(self.events)
            if isinstance(event, kind) and event.pipeline == name
        }
        return list(found.values())

    def wait_for(
        self, kind: type[E], name: str, count: int = 1, wait_s: float = WAIT_S
    ) -> list[E]:
        try:
            wait_until(lambda: len(self.all(kind, name)) >= count, wait_s)
        except AssertionError:
            said = (self.home / "trainer.log").read_text()[-4000:]
            raise AssertionError(
                f"{count} {kind.__name__} awaited; log:\n{said}"
            ) from (None)
        return self.all(kind, name)


@contextmanager
def running(home: Path, broker: str, **settings: str) -> Iterator[Trainer]:
    """Run a trainer with more settings, by the names of their variables."""
    home.mkdir(parents=True)
    trainer = Trainer(home, broker, settings)
    try:
        trainer.start()
        yield trainer
    finally:
        trainer.close()
