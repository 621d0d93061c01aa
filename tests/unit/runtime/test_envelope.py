"""CloudEvents in both modes, rows, claim check, and what is refused."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.base import Chain, Meta
from driftloop.contracts.events import BatchIngested, RetrainRequested, Span
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.envelope import CLAIM_CHECK_BYTES, decode, encode
from driftloop.runtime.errors import Reject
from driftloop.runtime.transport import Message, Record

NOW = datetime(2026, 1, 2, tzinfo=UTC)
META = Meta("id-1", NOW, "/people", Chain("c", f"00-{'a' * 32}-{'b' * 16}-01"))
EVENT = RetrainRequested(pipeline="p", requested_by="ann", reason="why not")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path)


def received(record: Record) -> Message:
    return Message(record.topic, 1, 7, record.key, record.value, record.headers)


def batch(rows: int) -> BatchIngested:
    ids = [str(n) for n in range(rows)]
    table = pa.record_batch(
        {
            "id": ids,
            "event_time": pa.array([NOW] * rows, pa.timestamp("us", "UTC")),
            "source": ["s"] * rows,
            "x": np.arange(rows, dtype=float),
        }
    )
    return BatchIngested(
        pipeline="p",
        shard="s",
        row_count=rows,
        span=Span(start=NOW, end=NOW),
        watermark=NOW,
    ).with_rows(table)


def test_binary_mode_there_and_back(store: FolderStore) -> None:
    event = decode(received(encode(EVENT, META, store)), store)
    assert event == EVENT.with_meta(event.meta)
    assert event.meta.id == "id-1"
    assert event.meta.chain == META.chain
    assert (event.meta.partition, event.meta.offset) == (1, 7)


def test_structured_mode_is_accepted(store: FolderStore) -> None:
    body = {
        "specversion": "1.0",
        "id": "id-1",
        "source": "/people",
        "type": EVENT.type_name(),
        "time": "2026-01-02T00:00:00Z",
        "chainid": "c",
        "data": EVENT.model_dump(),
    }
    headers = (("content-type", b"application/CloudEvents+json; charset=UTF-8"),)
    value = json.dumps(body).encode()
    event = decode(Message("retrain-requested", 0, 0, None, value, headers), store)
    assert event == EVENT.with_meta(event.meta)
    assert event.meta.chain.id == "c"


@pytest.mark.parametrize("rows", [0, 3, CLAIM_CHECK_BYTES // 8 + 1])
def test_rows_travel_inline_or_by_claim_check(store: FolderStore, rows: int) -> None:
    record = encode(batch(rows), META, store)
    assert (record.value == b"") == (rows * 8 > CLAIM_CHECK_BYTES)
    event = decode(received(record), store)
    assert event.rows.equals(batch(rows).rows)


def test_unknown_fields_of_a_newer_producer_are_kept(store: FolderStore) -> None:
    record = encode(EVENT, META, store)
    value = json.dumps({**json.loads(record.value or b""), "colour": "red"}).encode()
    event = decode(Message(record.topic, 0, 0, None, value, record.headers), store)
    assert json.loads(event.model_dump_json())["colour"] == "red"


def with_header(record: Record, name: str, value: bytes) -> Message:
    headers = tuple((n, value if n == name else v) for n, v in record.headers)
    return Message(record.topic, 0, 0, record.key, record.value, headers)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ce_type", b"io.driftloop.retrain-requested.v2", "ce_type"),
        ("ce_time", b"yesterday", "ce_time"),
        ("ce_id", b"", "ce_id"),
        ("ce_source", b"\xff", "UTF-8"),
    ],
)
def test_a_wrong_header_is_named(
    store: FolderStore, name: str, value: bytes, says: str
) -> None:
    with pytest.raises(Reject, match=says):
        decode(with_header(encode(EVENT, META, store), name, value), store)


@pytest.mark.parametrize("value", [None, b"", b"{", b"[1]", b"null", b"\x00\xff"])
def test_a_broken_value_is_rejected(store: FolderStore, value: bytes | None) -> None:
    record = encode(EVENT, META, store)
    with pytest.raises(Reject):
        decode(Message(record.topic, 0, 0, None, value, record.headers), store)


def test_a_wrong_field_is_named(store: FolderStore) -> None:
    record = encode(EVENT, META, store)
    value = b'{"pipeline": "Not A Name", "requested_by": 7}'
    with pytest.raises(Reject, match=r"pipeline.*requested_by.*reason"):
        decode(Message(record.topic, 0, 0, None, value, record.headers), store)


def test_truncated_rows_are_rejected(store: FolderStore) -> None:
    record = encode(batch(3), META, store)
    for cut in (1, 100, len(record.value or b"") // 2):
        value = (record.value or b"")[:cut]
        with pytest.raises(Reject):
            decode(Message(record.topic, 0, 0, None, value, record.headers), store)
