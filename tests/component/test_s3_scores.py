"""Scoring a dataset on a real S3 server: it is read, answered, listed and removed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from driftloop.contracts.events import TableRef
from driftloop.runtime.data.stored import remove_table, stored_answers
from driftloop.runtime.datasets import answers_uri, storage_options, table_uri
from driftloop.runtime.errors import Retry
from driftloop.runtime.settings import Settings
from driftloop.scorer.jobs.answers import AnswersTable, Counts, answers_schema
from driftloop.scorer.jobs.facts import CannotScore
from driftloop.scorer.jobs.source import Source

from tests.servers import S3Server

PIPELINE = "rides"
FILES, FILE_ROWS = 3, 40
NOW = datetime.now(UTC)


@pytest.fixture
def settings(s3: S3Server) -> Settings:
    return s3.new_bucket()


def dataset(settings: Settings) -> TableRef:
    uri = table_uri(settings, PIPELINE, "observations")
    for number in range(FILES):
        rows = pa.table(
            {
                "id": [f"{number}-{row}" for row in range(FILE_ROWS)],
                "event_time": pa.array([NOW] * FILE_ROWS, pa.timestamp("us", "UTC")),
                "size": [float(number)] * FILE_ROWS,
            }
        )
        write_deltalake(
            uri, rows, mode="append", storage_options=storage_options(settings)
        )
    return TableRef(uri=uri, version=FILES - 1)


def test_a_version_is_read_from_anywhere_in_one_order(settings: Settings) -> None:
    ref, options = dataset(settings), storage_options(settings)
    source = Source(PIPELINE, ref, ["size"], options)
    whole = [i for b in source.batches(0, 32) for i in b["id"].to_pylist()]
    assert len(set(whole)) == len(whole) == source.row_count == FILES * FILE_ROWS
    rest = [i for b in source.batches(55, 32) for i in b["id"].to_pylist()]
    assert rest == whole[55:]


def test_a_version_that_is_gone_is_said_and_a_store_that_is_away_is_waited_for(
    settings: Settings,
) -> None:
    ref, options = dataset(settings), storage_options(settings)
    nowhere = TableRef(uri=ref.uri + "-else", version=0)
    with pytest.raises(CannotScore, match="cannot be read at version 0"):
        Source(PIPELINE, nowhere, ["size"], options)
    source = Source(PIPELINE, ref, ["size"], options)
    remove_table(ref.uri, options)
    with pytest.raises(CannotScore, match="cannot be read at version 2"):
        list(source.batches(0, 32))
    away = {**(options or {}), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    away |= {"max_retries": "0", "retry_timeout": "1s"}
    with pytest.raises(Retry):
        Source(PIPELINE, ref, ["size"], away)


def test_a_part_is_added_once_and_a_table_goes_as_a_whole(settings: Settings) -> None:
    options, schema = storage_options(settings), answers_schema(())

    def part(name: str) -> list[pa.RecordBatch]:
        columns = [[name], [NOW], [1.0], [["size"]], [3]]
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(columns, schema, strict=True)
        ]
        return [pa.RecordBatch.from_arrays(arrays, schema=schema)]

    uris = {job: answers_uri(settings, PIPELINE, job) for job in ("a", "b")}
    for job, uri in uris.items():
        AnswersTable(uri, job, schema, options).append(part("one"), 1)
    table, woken = (AnswersTable(uris["a"], "a", schema, options) for _ in range(2))
    assert (table.done, woken.done) == (1, 1)
    table.append(part("two"), 2)
    with pytest.raises(Retry, match="another scorer was first"):
        woken.append(part("two"), 2)
    assert AnswersTable(uris["a"], "a", schema, options).done == 2
    table.tidy()
    assert table.counts() == Counts(row_count=2, error_count=0, unfamiliar_count=2)

    found = {one.job_id: one for one in stored_answers(settings, PIPELINE)}
    assert {job: one.uri for job, one in found.items()} == uris
    for one in found.values():
        assert one.size_bytes > 1000
        assert abs(one.put_at - datetime.now(UTC)) < timedelta(minutes=5)
    remove_table(uris["a"], options)
    remove_table(uris["a"], options)  # again: nothing to do
    assert [one.job_id for one in stored_answers(settings, PIPELINE)] == ["b"]
    assert not DeltaTable.is_deltatable(uris["a"], options)
    assert list(stored_answers(settings, "other")) == []
