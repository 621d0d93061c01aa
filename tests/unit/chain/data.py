"""Ingest and validator in this process, on a broker in memory, to be killed anywhere.

Databases are real SQLite files and the dataset is a real Delta folder, so what is
there after a kill is what a new process would find.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from deltalake import DeltaTable
from driftloop.cli.log import Entry
from driftloop.contracts.events import (
    BlobRef,
    DatasetRef,
    DatasetVersioned,
    PipelineApplied,
    RowKind,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.topics import TOPICS, consumed_by, dead_letter_topic
from driftloop.ingest import handlers as ingest
from driftloop.ingest.tables import TABLES as INGEST_TABLES
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.drivers.memory import MemoryBroker
from driftloop.runtime.envelope import decode
from driftloop.runtime.handlers import Deps, handler_table
from driftloop.runtime.outbox import OutboxRelay
from driftloop.runtime.payloads import PayloadStore
from driftloop.runtime.runner import Runner
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Record
from driftloop.validator import handlers as validator
from driftloop.validator.datasets import Datasets
from driftloop.validator.tables import TABLES as VALIDATOR_TABLES
from opentelemetry.trace import NoOpTracer
from sqlalchemy import event as sql_events
from sqlmodel import Session

from tests.support.kills import Fuse, FusedPublisher
from tests.unit.ingest.door import KEYS

PARTITIONS = 2
DOORS: dict[RowKind, str] = {
    "observations": "observation-arrived",
    "labels": "label-arrived",
}


class FusedStore(FolderStore):
    fuse: Fuse

    def put(self, data: bytes) -> BlobRef:
        self.fuse.step("before storing a payload")
        ref = super().put(data)
        self.fuse.step("after storing a payload")
        return ref


class FusedDatasets(Datasets):
    fuse: Fuse

    def append(self, *args: Any, **options: Any) -> DatasetRef:
        self.fuse.step("before the append")
        ref = super().append(*args, **options)
        self.fuse.step("between append and commit")
        return ref


class DataChain:
    """Both services of the data door, and the topics between them."""

    def __init__(self, path: Path, *specs: PipelineSpec) -> None:
        self.path = path
        self.fuse = Fuse()
        self.store = FolderStore(path / "artifacts")
        self.payloads = PayloadStore(self._room)
        names = [topic.name for topic in TOPICS]
        names += [dead_letter_topic(name) for name in ("ingest", "validator")]
        self.broker = MemoryBroker(dict.fromkeys(names, PARTITIONS))
        self.applied = {
            spec.name: PipelineApplied(pipeline=spec.name, spec=spec, applied_by="ann")
            for spec in specs
        }

    def _room(self, name: str) -> FolderStore:
        room = FusedStore(self.path / "artifacts" / name)
        room.fuse = self.fuse
        return room

    def uri(self, pipeline: str, kind: RowKind) -> str:
        return str(self.path / "datasets" / pipeline / kind)

    def send(
        self,
        pipeline: str,
        rows: list[dict[str, Any]],
        kind: RowKind = "observations",
        source: str = "pump",
        partition: int | None = None,
    ) -> None:
        """Publish a message as upstream does."""
        self.send_bytes(pipeline, orjson.dumps(rows), kind, source, partition)

    def send_bytes(
        self,
        pipeline: str,
        value: bytes,
        kind: RowKind = "observations",
        source: str = "pump",
        partition: int | None = None,
    ) -> None:
        """Publish a message that may be broken."""
        key = f"{pipeline}/{source}".encode()
        self.broker.append([Record(DOORS[kind], key, value, (), partition)])

    def work(self, service: str, chunk: int = 100) -> None:
        """Start a service, let it do all that is there, and end it.

        Raises
        ------
        Killed
            Where the fuse says.
        """
        with self._started(service) as runner:
            for topic in consumed_by(service):
                for partition in range(PARTITIONS):
                    self._consume(service, runner, (topic.name, partition), chunk)

    def _consume(
        self, service: str, runner: Runner[Any], at: tuple[str, int], chunk: int
    ) -> None:
        own = runner.start_offset(*at)
        position = min(own, self.broker.committed(service, *at) or 0)
        while messages := self.broker.read(at, position, chunk):
            runner.process(messages)
            self.fuse.step("before the offset's commit")
            position = messages[-1].offset + 1
            self.broker.commit(service, {at: position})

    @contextmanager
    def _started(self, service: str) -> Iterator[Runner[Any]]:
        url = f"sqlite:///{self.path}/{service}.db"
        tables = INGEST_TABLES if service == "ingest" else VALIDATOR_TABLES
        engine = open_database(url, tables)
        sql_events.listen(engine, "commit", lambda _: self.fuse.step("before commit"))
        publisher = FusedPublisher(self.broker, self.fuse)
        tracer = NoOpTracer()
        outbox = OutboxRelay(service, engine, publisher, self.store, tracer)
        try:
            outbox.recover()
            yield Runner(
                service,
                handler_table((ingest if service == "ingest" else validator).HANDLERS),
                self._deps(service, Session(engine)),
                engine,
                outbox,
                self.store,
                tracer,
            )
        finally:
            self.fuse.steps_left = None
            outbox.close()
            engine.dispose()

    def _deps(self, service: str, session: Session) -> Deps:
        pipelines = StateView(PipelineApplied, self.applied)
        if service == "ingest":
            return ingest.IngestDeps(
                session=session,
                pipelines=pipelines,
                patience=ingest.Patience(0),
                privacy_keys=KEYS,
                payloads=self.payloads,
            )
        datasets = FusedDatasets(self.uri)
        datasets.fuse = self.fuse
        return validator.ValidatorDeps(
            session=session,
            pipelines=pipelines,
            datasets=datasets,
            payloads=self.payloads,
        )

    def log(self, *topics: str) -> list[Entry]:
        """Return what is on topics, as the command line reads it."""
        found = [
            decode(message, self.store)
            for topic in topics
            if topic != PipelineApplied.topic()
            for partition in range(PARTITIONS)
            for message in self.broker.log(topic, partition)
        ]
        entries = [Entry(event, event.meta) for event in found]
        return sorted(entries, key=lambda entry: entry.meta.time)

    def latest(self, pipeline: str) -> DatasetVersioned:
        events = [
            entry.event
            for entry in self.log("dataset-versioned")
            if isinstance(entry.event, DatasetVersioned)
            and entry.event.pipeline == pipeline
        ]
        return max(
            events,
            key=lambda e: (
                e.dataset.observations.version,
                e.dataset.labels.version if e.dataset.labels else -1,
            ),
        )

    def content(self, pipeline: str, kind: RowKind) -> list[str]:
        """Return a digest of each row of a table, sorted; doubles stay."""
        rows = DeltaTable(self.uri(pipeline, kind)).to_pyarrow_table().to_pylist()
        texts = (json.dumps(row, sort_keys=True, default=str) for row in rows)
        return sorted(hashlib.sha256(text.encode()).hexdigest() for text in texts)
