"""The validator's Delta tables on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError
from driftloop.contracts.events import DatasetRef, RowKind, TableRef
from driftloop.runtime.data.reading import DatasetError, read_table
from driftloop.runtime.data.vacuum import SPARE, plan_vacuum, vacuum, vacuumed
from driftloop.runtime.datasets import storage_options, table_uri
from driftloop.runtime.errors import Retry
from driftloop.runtime.settings import Settings
from driftloop.validator.datasets import Datasets, Position
from driftloop.validator.retention import drop_rows, dropped_ids
from pydantic import SecretStr

from tests.servers import S3Server

TOPIC = "batch-ingested"
PIPELINE = "rides"
RACES = 20
OBSERVATIONS: RowKind = "observations"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("event_time", pa.timestamp("us", "UTC")),
        ("source", pa.string()),
        ("temp", pa.float64()),
    ]
)
SCHEMAS: dict[RowKind, pa.Schema] = {"observations": SCHEMA, "labels": SCHEMA}


@pytest.fixture
def settings(s3: S3Server) -> Settings:
    return s3.new_bucket()


@pytest.fixture
def own_s3(tmp_path: Path) -> Iterator[S3Server]:
    """Give the test a server of its own, to be stopped at will."""
    server = S3Server(tmp_path / "own-s3")
    try:
        yield server.start()
    finally:
        server.stop()


def rows(name: str, count: int = 3) -> pa.RecordBatch:
    columns = [
        [f"{name}-{number}" for number in range(count)],
        [datetime(2011, 1, 1, tzinfo=UTC)] * count,
        [name] * count,
        [0.5] * count,
    ]
    arrays = [
        pa.array(column, field.type)
        for column, field in zip(columns, SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def open_datasets(settings: Settings) -> Datasets:
    return Datasets(partial(table_uri, settings), storage_options(settings))


def append(
    datasets: Datasets, offset: int, partition: int = 0, name: str | None = None
) -> DatasetRef:
    return datasets.append(
        PIPELINE,
        OBSERVATIONS,
        rows(name or f"batch-{partition}-{offset}"),
        Position(TOPIC, partition, offset),
        SCHEMAS,
    )


def ids_of(settings: Settings, ref: DatasetRef) -> list[str]:
    """Read a version as the trainer does: by what the event says."""
    table = DeltaTable(
        ref.observations.uri,
        version=ref.observations.version,
        storage_options=storage_options(settings),
    )
    return sorted(table.to_pyarrow_table()["id"].to_pylist())


def expected_ids(*names: str) -> list[str]:
    return sorted(f"{name}-{number}" for name in names for number in range(3))


def test_an_append_is_a_version_that_can_be_read_for_ever(settings: Settings) -> None:
    datasets = open_datasets(settings)
    first, second = append(datasets, 0), append(datasets, 1)
    assert first.observations.uri.startswith("s3://")
    assert ids_of(settings, first) == expected_ids("batch-0-0")
    assert ids_of(settings, second) == expected_ids("batch-0-0", "batch-0-1")


def test_a_batch_that_comes_again_after_a_kill_adds_nothing(settings: Settings) -> None:
    append(open_datasets(settings), 0)
    again = open_datasets(settings)
    ref = append(again, 0)
    assert ids_of(settings, ref) == expected_ids("batch-0-0")
    assert ids_of(settings, append(again, 1)) == expected_ids("batch-0-0", "batch-0-1")


def append_many(settings: Settings, partition: int, count: int) -> None:
    """Append as one of several replicas; a lost race is tried again, as by the runner.

    Raises
    ------
    Retry
        When it always loses.
    """
    datasets = open_datasets(settings)
    for offset in range(count):
        for attempt in range(RACES):
            try:
                append(datasets, offset, partition)
                break
            except Retry:
                if attempt == RACES - 1:
                    raise


def test_replicas_that_append_at_once_lose_and_double_nothing(
    settings: Settings,
) -> None:
    """Each commit is a conditional write: two may not be the same version."""
    count, replicas = 6, 3
    with ThreadPoolExecutor(replicas) as pool:
        work = [
            pool.submit(append_many, settings, number, count)
            for number in range(replicas)
        ]
        for each in work:
            each.result(90)
    names = [f"batch-{p}-{n}" for p in range(replicas) for n in range(count)]
    last = append(open_datasets(settings), 0, partition=9)
    assert ids_of(settings, last) == expected_ids("batch-9-0", *names)


def test_two_owners_of_a_partition_append_its_batch_once(settings: Settings) -> None:
    """Both looked before either wrote: Delta's conflict check tells."""
    one, two = open_datasets(settings), open_datasets(settings)
    append(one, 0)
    append(two, 0)
    append(one, 1)
    ref = append(two, 1)
    assert ids_of(settings, ref) == expected_ids("batch-0-0", "batch-0-1")


def test_a_commit_does_not_replace_another_one(
    settings: Settings, s3: S3Server
) -> None:
    """What commits rest on: a second write to the same name is refused."""
    datasets = open_datasets(settings)
    append(datasets, 0)
    bucket, _, prefix = str(settings.datasets_url)[5:].partition("/")
    name = f"{prefix}/{PIPELINE}/{OBSERVATIONS}/_delta_log/{1:020}.json"
    before = s3.client().get_object(bucket, name).data
    stale = DeltaTable(
        table_uri(settings, PIPELINE, OBSERVATIONS),
        version=0,
        storage_options=storage_options(settings),
    )
    with suppress(DeltaError):
        write_deltalake(stale, rows("late"), mode="append")
    assert s3.client().get_object(bucket, name).data == before


def upkept(settings: Settings, kept: DatasetRef) -> TableRef:
    """Drop all rows, delete what ``kept`` does not need; return the newest version."""
    options = storage_options(settings)
    table = open_datasets(settings).table(PIPELINE, OBSERVATIONS)
    assert table is not None
    assert drop_rows(table, datetime(2011, 1, 2, tzinfo=UTC), None)
    age, now = -SPARE, datetime.now(UTC)
    plan = plan_vacuum(table, options, {kept.observations.version}, age, now)
    assert sum(plan.sizes.values()) > 0
    vacuum(table, plan, age)
    return TableRef(uri=kept.observations.uri, version=table.version())


def test_files_go_and_a_version_that_is_referred_to_stays(settings: Settings) -> None:
    datasets, options = open_datasets(settings), storage_options(settings)
    first, second = append(datasets, 0), append(datasets, 1)
    newest = upkept(settings, first)
    assert read_table(newest, options).height == 0
    assert ids_of(settings, first) == expected_ids("batch-0-0")
    assert vacuumed(first.observations, options) is None
    with pytest.raises(DatasetError, match="version 2 was vacuumed; kept are 1, all"):
        read_table(second.observations, options)
    with pytest.raises(Retry, match="concurrent"):
        append(datasets, 2)  # a process that has seen nothing of it looks anew
    third = append(datasets, 2)
    assert ids_of(settings, third) == expected_ids("batch-0-2")


def test_replicas_that_append_during_upkeep_lose_and_double_nothing(
    settings: Settings,
) -> None:
    count = 6
    first = append(open_datasets(settings), 0, partition=9)
    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(append_many, settings, n, count) for n in range(2)]
        upkeep = pool.submit(drop_at_once, settings)
        for each in work:
            each.result(90)
        dropped = upkeep.result(90)
    last = append(open_datasets(settings), 1, partition=9)
    names = [f"batch-{p}-{n}" for p in range(2) for n in range(count)]
    every = expected_ids("batch-9-0", "batch-9-1", *names)
    assert sorted([*ids_of(settings, last), *dropped]) == every
    assert set(expected_ids("batch-9-0")) <= set(dropped)
    assert ids_of(settings, first) == expected_ids("batch-9-0")


def drop_at_once(settings: Settings) -> list[str]:
    """Drop the rows that are there now; those on their way come after it."""
    cutoff = datetime(2011, 1, 2, tzinfo=UTC)
    for _ in range(RACES):
        table = open_datasets(settings).table(PIPELINE, OBSERVATIONS)
        assert table is not None
        with suppress(DeltaError):
            drop_rows(table, cutoff, None)
            return dropped_ids(table, storage_options(settings), cutoff)
    raise AssertionError("it always lost")


def test_a_server_that_is_away_is_a_passing_fault(own_s3: S3Server) -> None:
    settings = own_s3.new_bucket()
    datasets = open_datasets(settings)
    append(datasets, 0)
    own_s3.stop()
    with pytest.raises(Retry):
        append(datasets, 1)
    own_s3.start()
    assert ids_of(settings, append(datasets, 1)) == expected_ids(
        "batch-0-0", "batch-0-1"
    )


def test_a_wrong_secret_is_said(settings: Settings) -> None:
    wrong = settings.model_copy(update={"s3_secret_key": SecretStr("wrong")})
    with pytest.raises(Retry, match="SignatureDoesNotMatch"):
        append(open_datasets(wrong), 0)
