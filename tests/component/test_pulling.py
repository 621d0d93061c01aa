"""Ingest fetches rows by itself, is killed while it does, and takes each row once."""

from __future__ import annotations

import io
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
import sqlalchemy as sa
from driftloop.contracts.events import (
    BatchIngested,
    ObservationArrived,
    PipelineApplied,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.follower import LogFollower

from tests.component.processes import Log, ServiceProcess, with_id
from tests.servers import PostgresqlServer, S3Server
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]

STEPS = 6
ROWS = 100
"""Of each source in each step."""
KILLED_AT = (1, 3)
CAUGHT_UP_S = 150


@dataclass
class Upstream:
    """Three systems that know nothing of driftloop."""

    folder: Path
    s3: S3Server
    bucket: str
    database: sa.Engine

    def set_up(self) -> None:
        with self.database.begin() as connection:
            connection.exec_driver_sql(
                "CREATE TABLE rentals (id TEXT PRIMARY KEY, event_time TIMESTAMPTZ, "
                "temp DOUBLE PRECISION, changed BIGINT)"
            )

    def write(self, step: int) -> None:
        """Add rows everywhere; five rows of the table share a cursor value."""
        partial = self.folder / f"{step}.parquet.tmp"
        rows(f"f{step}").write_parquet(partial)
        partial.rename(self.folder / f"{step}.parquet")
        data = rows(f"s{step}").write_csv().encode()
        self.s3.client().put_object(
            self.bucket, f"lake/{step}.csv", io.BytesIO(data), len(data)
        )
        with self.database.begin() as connection:
            for number, row in enumerate(rows(f"t{step}").to_dicts()):
                values = (
                    row["id"],
                    row["event_time"],
                    row["temp"],
                    step * ROWS + number // 5,
                )
                connection.exec_driver_sql(
                    "INSERT INTO rentals VALUES (%s, %s, %s, %s)", values
                )


def rows(stem: str) -> pl.DataFrame:
    start = "2011-01-01T00:00:00+00:00"
    given = [{"id": f"{stem}-{n}", "event_time": start} for n in range(ROWS)]
    return pl.DataFrame(given).with_columns(temp=0.5)


def expected() -> Counter[str]:
    return Counter(
        row_id
        for step in range(STEPS)
        for kind in "fst"
        for row_id in rows(f"{kind}{step}")["id"]
    )


def test_ingest_killed_while_it_fetches_takes_each_row_once(
    kafka: KafkaNode,
    s3: S3Server,
    postgresql: PostgresqlServer,
    tmp_path: Path,
    unique_name: Callable[[str], str],
) -> None:
    create_topics(kafka.bootstrap)
    name = unique_name("pulled")
    bucket = s3.new_bucket().artifacts_url.split("/")[2]  # type: ignore[union-attr]
    url = postgresql.new_database()
    upstream = Upstream(tmp_path / "in", s3, bucket, sa.create_engine(url))
    upstream.folder.mkdir()
    upstream.set_up()
    log = Log(kafka.bootstrap, tmp_path)
    spec = PipelineSpec.model_validate(pipeline(name, upstream))
    event = PipelineApplied(pipeline=name, spec=spec, applied_by="ada")
    log.publish(with_id(event, f"applied-{name}"))
    settings = {
        "FOLDER_ROOTS": orjson.dumps([str(tmp_path), f"s3://{bucket}"]).decode(),
        "S3_ENDPOINT_URL": s3.url,
        "S3_ACCESS_KEY": s3.access_key,
        "S3_SECRET_KEY": s3.secret_key,
    }
    secrets = {"DRIFTLOOP_SOURCE_WAREHOUSE": url}
    dice = random.Random(7)
    ingest = ServiceProcess(
        "ingest", tmp_path, kafka.bootstrap, environment=secrets, **settings
    )
    with ingest:
        for step in range(STEPS):
            upstream.write(step)
            if step in KILLED_AT:
                time.sleep(dice.uniform(0.5, 3.5))  # any moment will do
                ingest.kill()
                ingest.start()
        wait_until(lambda: ids_of(log, name).keys() >= expected().keys(), CAUGHT_UP_S)
        told = {s["name"]: s for s in sources(ingest, name)}
        assert {s["state"] for s in told.values()} == {"read_here"}, told
        assert told["drop"]["file_count"] == told["lake"]["file_count"] == STEPS
    assert ids_of(log, name) == expected()
    assert password_of(url) not in ingest.log.read_text()
    log.close()
    upstream.database.dispose()


def test_of_two_replicas_one_fetches_and_the_other_takes_over(
    kafka: KafkaNode,
    postgresql: PostgresqlServer,
    tmp_path: Path,
    unique_name: Callable[[str], str],
) -> None:
    """Kafka gets each file once, until the one that fetches is killed."""
    create_topics(kafka.bootstrap)
    name = unique_name("shared")
    folder = tmp_path / "in"
    folder.mkdir()
    log = Log(kafka.bootstrap, tmp_path)
    drop = {"name": "drop", "folder": str(folder), "every_seconds": 0.1}
    content = {"target": "cnt", "sources": [drop]}
    spec = PipelineSpec.model_validate(
        {"name": name, "task": "regression", "data": content}
    )
    event = PipelineApplied(pipeline=name, spec=spec, applied_by="ada")
    log.publish(with_id(event, f"applied-{name}"))
    url = postgresql.new_database()
    first, second = (
        ServiceProcess(
            "ingest",
            tmp_path,
            kafka.bootstrap,
            REPLICA=number,
            DATABASE_URL=url,
            FOLDER_ROOTS=orjson.dumps([str(tmp_path)]).decode(),
            PULL_LEASE_SECONDS=12,  # half of it is how long Kafka may take
        )
        for number in ("one", "two")
    )

    def drop_file(stem: str) -> None:
        partial = folder / f"{stem}.tmp"
        rows(stem).write_parquet(partial)
        partial.rename(folder / f"{stem}.parquet")

    def file_counts() -> set[int]:
        return {sources(each, name)[0]["file_count"] for each in (first, second)}

    with first, second:
        for step in range(4):
            drop_file(f"before-{step}")
            wait_until(lambda done=step + 1: file_counts() == {done}, CAUGHT_UP_S)
            states = {sources(each, name)[0]["state"] for each in (first, second)}
            assert states == {"read_here", "read_elsewhere"}
        # Two that both fetch would send each file twice; ingest would hide it.
        assert raw_messages(kafka, name) == 4
        holds = sources(first, name)[0]["state"] == "read_here"
        holder, other = (first, second) if holds else (second, first)
        drop_file("killed-while")
        holder.kill()
        drop_file("after")
        wait_until(lambda: sources(other, name)[0]["file_count"] == 6, CAUGHT_UP_S)
        assert sources(other, name)[0]["state"] == "read_here"
        stems = [f"before-{step}" for step in range(4)] + ["killed-while", "after"]
        wanted = Counter(i for stem in stems for i in rows(stem)["id"])
        wait_until(lambda: ids_of(log, name).keys() >= wanted.keys(), CAUGHT_UP_S)
    assert ids_of(log, name) == wanted
    log.close()


def ids_of(log: Log, name: str) -> Counter[str]:
    batches = log.read(BatchIngested, pipeline=name)
    return Counter(i for e in batches for i in e.rows.column("id").to_pylist())  # type: ignore[attr-defined]


def raw_messages(kafka: KafkaNode, name: str) -> int:
    """Return how many messages of a pipeline upstream's topic holds."""
    keys: list[bytes] = []
    topic = ObservationArrived.topic()
    follower = LogFollower(
        kafka.bootstrap, [topic], lambda message: keys.append(message.key or b"")
    )
    assert follower.read_to_end(120)
    return sum(key.decode().startswith(name) for key in keys)


def password_of(url: str) -> str:
    return sa.make_url(url).password or "no password"


def sources(ingest: ServiceProcess, name: str) -> list[dict[str, Any]]:
    wait_until(ingest.is_ready, CAUGHT_UP_S)
    answer = ingest.client.get(f"/v1/pipelines/{name}/sources")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def pipeline(name: str, upstream: Upstream) -> dict[str, Any]:
    table = {"url_secret": "warehouse", "table": "rentals", "cursor": "changed"}
    places: list[dict[str, Any]] = [
        {"name": "drop", "folder": str(upstream.folder), "pattern": "*.parquet"},
        {"name": "lake", "folder": f"s3://{upstream.bucket}/lake"},
        {"name": "sql", "sql": table},
    ]
    for place in places:
        place["every_seconds"] = 0.5
    return {
        "name": name,
        "task": "regression",
        "data": {"target": "cnt", "sources": places},
    }
