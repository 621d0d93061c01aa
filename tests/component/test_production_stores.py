"""Two replicas of ingest and validator on one PostgreSQL and one S3 store, killed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from deltalake import DeltaTable
from driftloop.contracts.events import BatchIngested, BatchValidated, DatasetVersioned
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.datasets import storage_options
from driftloop.runtime.drivers.publisher import ConfluentPublisher
from driftloop.runtime.settings import Settings

from tests.component.processes import Log, ServiceProcess
from tests.component.test_rows import ARROW, CAUGHT_UP_S, Stage, arrow, row
from tests.servers import PostgresqlServer, S3Server
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PIPELINE = "bikes"
SOURCES = ("a", "b", "c", "d", "e", "f")
DAYS = 60
HOURS = 24


def environment(settings: Settings, database_url: str) -> dict[str, str]:
    """Say in variables how a service reaches its stores."""
    assert settings.s3_access_key is not None
    assert settings.s3_secret_key is not None
    return {
        "DATABASE_URL": database_url,
        "ARTIFACTS_URL": str(settings.artifacts_url),
        "DATASETS_URL": str(settings.datasets_url),
        "S3_ENDPOINT_URL": str(settings.s3_endpoint_url),
        "S3_ACCESS_KEY": settings.s3_access_key.get_secret_value(),
        "S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
    }


@pytest.fixture
def bucket(s3: S3Server) -> Settings:
    return s3.new_bucket()


@pytest.fixture
def replicas(
    own_kafka: KafkaNode, postgresql: PostgresqlServer, bucket: Settings, tmp_path: Path
) -> Iterator[dict[str, list[ServiceProcess]]]:
    create_topics(own_kafka.bootstrap)
    with ExitStack() as stack:
        started: dict[str, list[ServiceProcess]] = {}
        for name in ("ingest", "validator"):
            stores = environment(bucket, postgresql.new_database())
            started[name] = [
                ServiceProcess(
                    name,
                    tmp_path / f"machine-{number}",
                    own_kafka.bootstrap,
                    REPLICA=number,
                    **stores,
                )
                for number in range(2)
            ]
            for each in started[name]:
                stack.push(each)
                each.start(wait=False)
        for each in (*started["ingest"], *started["validator"]):
            wait_until(each.is_ready, CAUGHT_UP_S)
        yield started


@pytest.fixture
def stage(
    own_kafka: KafkaNode, replicas: dict[str, list[ServiceProcess]], tmp_path: Path
) -> Iterator[Stage]:
    log = Log(own_kafka.bootstrap, tmp_path)
    publisher = ConfluentPublisher(own_kafka.bootstrap, client_id="upstream")
    ingest, validator = (replicas[name][0] for name in ("ingest", "validator"))
    yield Stage(tmp_path, own_kafka, log, publisher, ingest, validator)
    publisher.close()
    log.close()


def test_replicas_that_are_killed_lose_and_double_nothing(
    stage: Stage, replicas: dict[str, list[ServiceProcess]], bucket: Settings
) -> None:
    """One replica of ingest dies for good, one of validator comes back."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    dice = random.Random(seed)
    stage.apply(PIPELINE)

    def upstream() -> None:
        for day in range(DAYS):
            rows = [row(n) for n in range(HOURS * day, HOURS * (day + 1))]
            source = SOURCES[day % len(SOURCES)]
            for _ in range(1 + (day % 5 == 0)):  # some come twice
                stage.send(PIPELINE, arrow(rows), source=source, kind=ARROW)
            time.sleep(0.2)

    worker = threading.Thread(target=upstream)
    worker.start()
    for name in dice.sample(["ingest", "validator"], 2):
        time.sleep(dice.uniform(0, 4))
        replicas[name][1].kill()
        if name == "validator":
            replicas[name][1].start(wait=False)
    worker.join(120)
    assert not worker.is_alive()
    stage.wait_until_caught_up()

    expected = Counter(f"r{n}" for n in range(DAYS * HOURS))
    assert Counter(stage.ids(BatchIngested, PIPELINE)) == expected
    assert Counter(stage.ids(BatchValidated, PIPELINE)) == expected
    versions = [e.dataset.observations for e in stage.log.read(DatasetVersioned)]
    last = max(versions, key=lambda ref: ref.version)
    assert last.uri.startswith("s3://")
    table = DeltaTable(
        last.uri, version=last.version, storage_options=storage_options(bucket)
    ).to_pyarrow_table(columns=["id"])
    assert Counter(table.column("id").to_pylist()) == expected
