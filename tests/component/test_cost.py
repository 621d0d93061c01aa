"""``driftloop cost`` by a real log, a real store and a real table."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake
from driftloop.contracts.events import (
    DatasetRef,
    DatasetVersioned,
    ModelRegistered,
    Span,
    TableRef,
)
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics

from tests.component.cli import run_cli
from tests.component.processes import Log, with_id
from tests.unit.registry import story
from tests.unit.scorer.packages import Factory


def test_cost_of_a_pipeline(own_kafka: KafkaNode, tmp_path: Path) -> None:
    """Training, rows and bytes are those of the log, the table and the package."""
    create_topics(own_kafka.bootstrap)
    home, factory, log = tmp_path, Factory(tmp_path), Log(own_kafka.bootstrap, tmp_path)
    trained = story.trained(factory, "job").model_copy(update={"cpu_seconds": 12.5})
    registered = ModelRegistered(
        pipeline=story.NAME, version=1, job_id="job", package=trained.package,
        algorithm="linear", evaluation=trained.evaluation, gate=[],
    )  # fmt: skip
    table = home / "table"
    write_deltalake(str(table), pa.table({"id": ["a", "b", "c"]}))
    moment = story.meta("x").time
    versioned = DatasetVersioned(
        pipeline=story.NAME, kind="observations", added_count=3, observation_count=3,
        label_count=0, span=Span(start=moment, end=moment),
        dataset=DatasetRef(observations=TableRef(uri=str(table), version=0)),
    )  # fmt: skip
    log.publish(
        with_id(trained, "trained"), with_id(registered, "registered"),
        with_id(versioned, "versioned"),
    )  # fmt: skip
    try:
        said = run_cli(home, own_kafka.bootstrap, "cost", story.NAME, "--json")
        (cost,) = json.loads(said)
        (version,) = cost["versions"]
        assert version["training_cpu_seconds"] == cost["cpu_seconds"] == 12.5
        stored = sum(one.size_bytes for one in factory.store.stored())
        assert version["package_bytes"] == stored
        files = sum(path.stat().st_size for path in table.glob("*.parquet"))
        assert (cost["dataset_rows"], cost["dataset_bytes"]) == (3, files)
        later = run_cli(
            home, own_kafka.bootstrap, "cost", "--since", "2999-01-01", "--json"
        )
        assert json.loads(later)[0]["cpu_seconds"] == 0
        assert "12.5 s of CPU" in run_cli(home, own_kafka.bootstrap, "cost")
        nobody = run_cli(home, own_kafka.bootstrap, "cost", "nobody", code=1)
        assert "'nobody' has cost nothing" in nobody
    finally:
        log.close()
