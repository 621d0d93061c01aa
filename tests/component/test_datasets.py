"""``driftloop datasets`` on a real broker's log and tables on a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from driftloop.cli.context import Installation
from driftloop.cli.datasets import upkeep
from driftloop.contracts.events import (
    DatasetMaintained,
    DatasetRef,
    DatasetVersioned,
    ModelTrained,
    PipelineApplied,
    RowKind,
    Span,
    TableRef,
    TrainingStarted,
)
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.contracts.topics import PARTITIONS
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.backlog import has_handled
from driftloop.runtime.database import advance, open_database
from driftloop.runtime.datasets import storage_options, table_uri
from driftloop.runtime.settings import Settings
from driftloop.validator.core import contract_of
from driftloop.validator.datasets import Datasets, Position
from sqlmodel import Session

from tests.component.support import E, Events, ServiceProcess, open_events, wait_until
from tests.servers import S3Server
from tests.unit.validator.upkeep import BEGIN, TRIGGER, rows_of

COMMAND = str(Path(sys.executable).with_name("driftloop"))
KINDS: tuple[RowKind, ...] = ("observations", "labels")
HOURS = pa.timestamp("us", "UTC")


def version_of(
    datasets: Datasets, pipeline: str, kind: RowKind, offset: int, numbers: range
) -> DatasetVersioned:
    """Append rows as the validator does; return what it says of them."""
    spec = parse_pipeline(
        f"{{name: {pipeline}, task: regression, data: {{target: cnt, features: "
        "{temp: {}}}}"
    )
    schemas = {
        one: contract_of(spec, one, spec.data.features, None).schema for one in KINDS
    }
    hour_us = 3_600_000_000
    values: dict[str, Any] = {
        "id": [f"r{n}" for n in numbers],
        "event_time": pa.array([n * hour_us for n in numbers], HOURS),
        "source": ["s"] * len(numbers),
        "temp": [float(n) for n in numbers],
        "cnt": pa.array(
            [2.0 * n for n in numbers] if kind == "labels" else [None] * len(numbers),
            pa.float64(),
        ),
        "revision": [0] * len(numbers),
        "extra": pa.nulls(len(numbers), pa.string()),
    }
    rows = pa.RecordBatch.from_pydict(
        {name: values[name] for name in schemas[kind].names}, schema=schemas[kind]
    )
    position = Position("batch-ingested", KINDS.index(kind), offset)
    dataset = datasets.append(pipeline, kind, rows, position, schemas)
    times = rows["event_time"]
    return DatasetVersioned(
        pipeline=pipeline,
        kind=kind,
        dataset=dataset,
        added_count=rows.num_rows,
        observation_count=rows.num_rows,
        label_count=rows.num_rows if kind == "labels" else 0,
        span=Span(start=times[0].as_py(), end=times[-1].as_py()),
    )


def test_datasets_are_found_by_the_log_and_read_from_s3(
    own_kafka: KafkaNode, s3: S3Server, tmp_path: Path
) -> None:
    settings: Settings = s3.new_bucket()
    assert settings.s3_access_key
    assert settings.s3_secret_key
    datasets = Datasets(partial(table_uri, settings), storage_options(settings))
    spec = parse_pipeline("{name: rides, task: regression, data: {target: cnt}}")
    applied = PipelineApplied(pipeline="rides", spec=spec, applied_by="ann")
    with open_events(own_kafka.bootstrap, tmp_path) as events:
        events.publish(applied, "applied")
        for number, (kind, rows) in enumerate(
            [("observations", range(40)), ("labels", range(30))]
        ):
            one = version_of(datasets, "rides", KINDS[number], 0, rows)
            events.publish(one, f"version-{kind}")
    environment = os.environ | {
        "DRIFTLOOP_BROKER": own_kafka.bootstrap,
        "DRIFTLOOP_HOME": str(tmp_path),
        "DRIFTLOOP_DATASETS_URL": str(settings.datasets_url),
        "DRIFTLOOP_S3_ENDPOINT_URL": str(settings.s3_endpoint_url),
        "DRIFTLOOP_S3_ACCESS_KEY": settings.s3_access_key.get_secret_value(),
        "DRIFTLOOP_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
    }

    def run(*words: str) -> Any:
        done = subprocess.run(
            [COMMAND, "datasets", *words, "--json"],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (line,) = run("list")
    assert line["uri"].startswith("s3://")
    assert (line["rows"], line["labelled"], line["versions"]) == (30, 30, 2)
    assert line["size_bytes"] > 0
    found = run("diff", "rides", "1.0", "1.1")
    assert (found["added"], found["labelled"]) == (0, 30)
    file = tmp_path / "rides.parquet"
    run("export", "rides", "-o", str(file), "--known-at", "1970-01-01T09:00:00Z")
    rows = pl.read_parquet(file)
    assert rows["cnt"].to_list() == [2.0 * n for n in range(10)] + [None] * 30


def test_the_validator_keeps_up_a_dataset_when_it_is_asked(
    own_kafka: KafkaNode, tmp_path: Path
) -> None:
    """By its process, its topics and the functions of the command line."""
    settings = Settings(home=tmp_path, broker=own_kafka.bootstrap)
    there = Installation(tmp_path, own_kafka.bootstrap, "", "", settings)
    spec = parse_pipeline(
        "{name: bikes, task: regression, data: {target: cnt, features: {temp: {}}, "
        "retention: {keep_days: 10, keep_versions_days: 1}}}"
    )
    applied = PipelineApplied(pipeline=spec.name, spec=spec, applied_by="ann")
    with (
        open_events(own_kafka.bootstrap, tmp_path) as events,
        ServiceProcess("validator", own_kafka.bootstrap, tmp_path),
    ):
        events.publish(applied, "applied")
        events.publish(rows_of(0, ("a", "b"), "observations"), "first")
        first = awaited(events, DatasetVersioned, lambda e: e.added_count == 2)
        events.publish(started_on(first.dataset), "training")
        events.publish(rows_of(12, ("c",), "observations"), "second")
        last = awaited(events, DatasetVersioned, lambda e: e.added_count == 1)
        assert last.observation_count == 1
        by_policy = awaited(events, DatasetMaintained, lambda e: not e.requested_by)
        assert by_policy.observations.dropped_count == 2
        would = upkeep.dry_run(there, "bikes")
        told = upkeep.maintain(there, "bikes")
    assert told["vacuum"] == would["vacuum"] == "done"
    for name in ("dropped_count", "vacuumed_count", "kept_from", "kept"):
        assert told["observations"][name] == would["observations"][name]


def awaited(events: Events, kind: type[E], is_it: Callable[[E], bool]) -> E:
    """Return the first such event, once it is there; events may come twice."""
    found: list[E] = []

    def is_there() -> bool:
        found.extend(event for event in events.of(kind) if is_it(event))
        return bool(found)

    wait_until(is_there, f"such a {kind.__name__}")
    return found[0]


def started_on(dataset: DatasetRef) -> TrainingStarted:
    span = Span(start=BEGIN, end=BEGIN)
    return TrainingStarted(
        pipeline="bikes", job_id="j", trigger=TRIGGER, dataset=dataset,
        train_span=span, holdout_span=span,
    )  # fmt: skip


def test_messages_that_are_not_handled_are_known(
    own_kafka: KafkaNode, tmp_path: Path
) -> None:
    topics = (TrainingStarted.topic(), ModelTrained.topic())
    ref = DatasetRef(observations=TableRef(uri="/t", version=1))
    with open_events(own_kafka.bootstrap, tmp_path) as events:
        events.publish(started_on(ref), "training")
        wait_until(lambda: events.of(TrainingStarted), "the training is in the log")
    engine = open_database(f"sqlite:///{tmp_path}/some.db")
    with Session(engine) as session:
        connection = session.connection()

        def is_done() -> bool:
            return has_handled(connection, own_kafka.bootstrap, topics)

        for partition in range(PARTITIONS):
            advance(connection, topics[0], partition, 10)
        wait_until(is_done, "all is handled; a new topic may have no leader yet")
        assert not has_handled(connection, "127.0.0.1:1", topics)
        session.rollback()
    with Session(engine) as session:  # the broker says the same as a moment ago
        assert not has_handled(session.connection(), own_kafka.bootstrap, topics)
        assert has_handled(session.connection(), own_kafka.bootstrap, topics[1:])
    engine.dispose()
