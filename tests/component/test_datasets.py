"""``driftloop datasets`` on a real broker's log and tables on a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from driftloop.contracts.events import (
    DatasetVersioned,
    PipelineApplied,
    RowKind,
    Span,
)
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.datasets import storage_options, table_uri
from driftloop.runtime.settings import Settings
from driftloop.validator.core import contract_of
from driftloop.validator.datasets import Datasets, Position

from tests.component.support import open_events
from tests.servers import S3Server

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
            env=environment, capture_output=True, text=True, timeout=90, check=False,
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
