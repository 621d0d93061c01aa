"""Uploading payloads by HTTP, rows that hold them, and erasing whose they are."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from driftloop.contracts.events import (
    BlobRef,
    ErasureRequested,
    PipelineApplied,
    SubjectErased,
)
from driftloop.contracts.payloads import Reference
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.ingest import api, payloads_api
from driftloop.ingest.handlers import (
    HANDLERS,
    IngestDeps,
    Patience,
    on_erasure_requested,
)
from driftloop.ingest.payload_door import MEMORY_BYTES, PayloadDoor
from driftloop.ingest.privacy import subject_of
from driftloop.ingest.privacy_door import PrivacyDoor
from driftloop.ingest.settings import IngestSettings
from driftloop.ingest.tables import TABLES
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import Retry
from driftloop.runtime.http import http_app
from driftloop.runtime.payloads import PayloadStore
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message
from pydantic import SecretStr
from sqlmodel import Session

from tests.unit.ingest.door import KEYS
from tests.unit.ingest.test_api import TOKEN, Client, Kafka
from tests.unit.payloads import (
    SEEN_AS,
    SPEC,
    data_uri,
    digest,
    png,
    row,
    store_in,
)

URL = "/v1/pipelines/shop/"
PRIVATE = parse_pipeline(
    """
name: hidden
task: regression
data:
  target: price
  features: {weight: {}}
  attachments:
    photo: {media_types: [image/png], subject: customer_id}
    face: {media_types: [image/png]}
  privacy: {face: drop, customer_id: hash}
"""
)
PLAIN = parse_pipeline("{name: plain, task: regression, data: {target: price}}")
FILE_LIMIT = SPEC.data.attachments["photo"].max_bytes


class Desk:
    """The door with a store and a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.kafka, self.folder = Kafka(), folder
        self.engine = open_database(f"sqlite:///{folder}/ingest.db", TABLES)
        self.store = store_in(folder)
        self.pipelines = StateView(
            PipelineApplied,
            {
                spec.name: PipelineApplied(
                    pipeline=spec.name, spec=spec, applied_by="ann"
                )
                for spec in (SPEC, PRIVATE, PLAIN)
            },
        )
        self.client = self.client_of(self.store)

    def client_of(self, store: PayloadStore, **more: Any) -> Client:
        settings = IngestSettings(
            api_token=SecretStr(TOKEN), allowed_hosts=["door"], **more
        )
        app = http_app("ingest", settings, lambda: {"live": True, "ready": True})
        payloads = PayloadDoor(store, self.engine, KEYS)
        privacy = PrivacyDoor(self.engine, KEYS)
        door = api.Door(
            settings, self.kafka, self.pipelines, privacy, payloads.attached
        )
        app.include_router(api.router(door))
        app.include_router(payloads_api.router(door, store))
        return Client(app, door)

    def upload(self, data: Any, query: str = "", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(f"{URL}payloads{query}", data, named)

    def post(self, *rows: dict[str, Any], url: str = URL) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        return self.client.post(f"{url}observations", orjson.dumps(rows), headers)

    def sent(self) -> list[dict[str, Any]]:
        """Return the rows that Kafka has."""
        return [
            orjson.loads(line)
            for record in self.kafka.sent
            for line in (record.value or b"").split(b"\n")
        ]

    def deps(self, session: Session) -> IngestDeps:
        return IngestDeps(session, self.pipelines, Patience(0), KEYS, self.store)

    def consume(self) -> list[dict[str, Any]]:
        """Return the rows of the batches that become of what Kafka has."""
        messages = [
            Message(r.topic, 0, at, r.key, r.value, r.headers)
            for at, r in enumerate(self.kafka.sent)
        ]
        with Session(self.engine) as session:
            outputs = [*HANDLERS[0].function(messages, self.deps(session))]  # type: ignore[union-attr]  # a chunk
            session.commit()
        return [one for event in outputs for one in event.rows.to_pylist()]  # type: ignore[union-attr]  # no letters here

    def erase(self, person: str, pipeline: str = "shop") -> SubjectErased:
        event = ErasureRequested(
            pipeline=pipeline,
            subject=subject_of(KEYS, pipeline, person),
            requested_by="ann",
            reason="ticket",
        )
        with Session(self.engine) as session:
            (erased,) = on_erasure_requested(event, self.deps(session))
            session.commit()
        return erased

    def has(self, data: bytes, pipeline: str = "shop") -> bool:
        reference = Reference(pipeline, digest(data))
        return self.store.look(reference, 10**8) is not None


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.engine.dispose()


def test_the_same_bytes_twice_are_one_object_and_one_answer(desk: Desk) -> None:
    first = desk.upload(png(), content_type="image/png")
    assert first.status_code == 201
    assert first.json() == {
        "sha256": digest(png()),
        "size_bytes": len(png()),
        "media_type": "image/png",
        "uri": f"payload:shop/sha256/{digest(png())}",
    }
    again = desk.upload(png(), query="?column=photo")
    assert (again.status_code, again.json()) == (201, first.json())
    files = [p for p in (desk.folder / "artifacts").rglob("*") if p.is_file()]
    assert [p.read_bytes() for p in files] == [png()]


def test_a_large_payload_streams(desk: Desk) -> None:
    """Longer than what is kept in memory; hashed on its way."""
    whole = png() + b"\0" * (FILE_LIMIT - len(png()))

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 7_001):
            yield whole[start : start + 7_001]

    assert desk.upload(pieces()).json()["sha256"] == digest(whole)
    assert desk.has(whole)


def content_digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_a_content_digest_is_held_to(desk: Desk) -> None:
    right = desk.upload(png(), content_digest=content_digest(png()))
    assert right.status_code == 201
    wrong = desk.upload(png(b"2"), content_digest=content_digest(png()))
    assert wrong.status_code == 422
    assert "content-digest differs" in wrong.json()["title"]
    assert not desk.has(png(b"2"))


@pytest.mark.parametrize(
    ("data", "query", "headers", "status", "text"),
    [
        (b"", "", {}, 422, "the payload is empty"),
        (b"\0\1\2", "", {}, 415, "of no known media type"),
        (b"GIF89a....", "", {}, 415, "its bytes are image/gif"),
        (b"plain words", "?column=photo", {}, 415, "its bytes are text/plain"),
        (png(), "", {"content_type": "image/jpeg"}, 415, "its bytes are image/png"),
        (png(), "?column=picture", {}, 422, "is no attachment of the pipeline"),
        (png(), "", {"content_encoding": "gzip"}, 415, "without content-encoding"),
        (png() + b"\0" * FILE_LIMIT, "", {}, 413, "more than"),
        (b"x" * 2001, "", {}, 413, "more than 2000 bytes"),
    ],
)
def test_what_may_not_come_is_refused_and_not_stored(
    desk: Desk, data: bytes, query: str, headers: dict[str, str], status: int, text: str
) -> None:
    answer = desk.upload(data, query, **headers)
    assert (answer.status_code, text in answer.json()["title"]) == (status, True)
    assert not (desk.folder / "artifacts").exists()


def test_pipelines_without_attachments_take_no_payloads(desk: Desk) -> None:
    post = desk.client.post
    assert post("/v1/pipelines/plain/payloads", png(), {}).status_code == 422
    assert post("/v1/pipelines/nowhere/payloads", png(), {}).status_code == 404
    dropped = post("/v1/pipelines/hidden/payloads?column=face", png(), {})
    assert dropped.status_code == 422
    without = post(f"{URL}payloads", png(), {"Authorization": "Bearer no"})
    assert without.status_code == 401


def test_no_room_and_no_store_are_told(desk: Desk, tmp_path: Path) -> None:
    class Away(FolderStore):
        def put_file(self, file: BinaryIO) -> BlobRef:
            raise Retry("artifact store: away")

        def put(self, data: bytes) -> BlobRef:
            raise Retry("artifact store: away")

    client = desk.client_of(PayloadStore(lambda room: Away(tmp_path / room)))
    answer = client.post(f"{URL}payloads", png(), {})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    rows = orjson.dumps(row(1, photo=data_uri(png())))
    answer = client.post(f"{URL}observations", rows, {})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert not desk.kafka.sent
    with desk.client.door.admission.place(desk.client.door.settings.max_bytes_in_work):
        answer = desk.upload(png())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert desk.upload(png()).status_code == 201
    assert desk.client.door.admission.bytes == 0


def test_a_body_that_stops_is_given_up(desk: Desk) -> None:
    client = desk.client_of(desk.store, body_timeout_seconds=0.2)

    async def stuck() -> AsyncIterator[bytes]:
        yield png()[:20]
        await asyncio.Event().wait()

    assert client.post(f"{URL}payloads", stuck(), {}).status_code == 408


def test_memory_is_bounded_by_what_a_process_holds(desk: Desk) -> None:
    """However large the payload, its place among the requests is small."""
    seen: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(8):
            seen.append(desk.client.door.admission.bytes)
            yield b"x" * 200

    # the whole is announced, as a sender does that knows it
    desk.client.post(f"{URL}payloads", pieces(), {"Content-Length": "1600"})
    assert 0 < max(seen) <= MEMORY_BYTES


def test_a_row_may_hold_its_payload(desk: Desk) -> None:
    """Kafka, and whoever reads there, get the reference alone."""
    claimed = {"base64": base64.b64encode(png()).decode(), "media_type": "image/png"}
    answer = desk.post(
        row(1, photo=data_uri(png(b"1"))),
        row(2, photo=claimed, note=data_uri(b"words", "text/plain")),
        row(3, photo=f"sha256:{'ab' * 32}"),
        row(4),
    )
    assert answer.status_code == 202, answer.text
    assert [one.get("photo") for one in desk.sent()] == [
        f"payload:shop/sha256/{digest(png(b'1'))}",
        f"payload:shop/sha256/{digest(png())}",
        f"payload:shop/sha256/{'ab' * 32}",
        None,
    ]
    assert desk.has(png(b"1"))
    assert desk.has(b"words")
    held = b"".join(record.value or b"" for record in desk.kafka.sent)
    assert not any(text.encode() in held for text in SEEN_AS)
    assert [one["photo"] for one in desk.consume()] == [
        one.get("photo") for one in desk.sent()
    ]


def test_a_parquet_file_may_hold_bytes(desk: Desk) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row(1, photo=png())]), sink)
    headers = {"Content-Type": "application/vnd.apache.parquet"}
    body = sink.getvalue().to_pybytes()
    answer = desk.client.post(f"{URL}observations", body, headers)
    assert answer.status_code == 202, answer.text
    (found,) = desk.consume()
    assert found["photo"] == f"payload:shop/sha256/{digest(png())}"
    assert desk.has(png())


@pytest.mark.parametrize(
    ("photo", "problem"),
    [
        ("data:image/png;base64,!!!", "is no base64"),
        ("data:image/png,%89PNG", "is no base64"),
        (data_uri(b"words"), "is of no media type"),
        (data_uri(png(), "image/jpeg"), "is of no media type"),
        (data_uri(png() + b"\0" * FILE_LIMIT), "is too large"),
        ("data:image/png;base64," + "A" * 800_000, "is too large"),
    ],
)
def test_a_payload_that_cannot_be_taken_names_row_and_column(
    desk: Desk, photo: str, problem: str
) -> None:
    answer = desk.post(row(1), row(2, photo=photo))
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["row"], error["field"]) == (2, "photo")
    assert problem in error["problem"]
    assert not desk.kafka.sent


def test_dropped_payloads_are_never_stored(desk: Desk) -> None:
    url = "/v1/pipelines/hidden/"
    answer = desk.post(
        row(1, face=data_uri(png(b"f")), photo=data_uri(png(b"p"))), url=url
    )
    assert answer.status_code == 202, answer.text
    (found,) = desk.sent()
    assert "face" not in found
    assert found["photo"] == f"payload:hidden/sha256/{digest(png(b'p'))}"
    assert not desk.has(png(b"f"), "hidden")
    assert desk.has(png(b"p"), "hidden")
    (batch,) = desk.consume()
    assert batch["photo"] == found["photo"]


def test_erasing_a_person_deletes_what_is_theirs_alone(desk: Desk) -> None:
    """Whoever else refers to the same bytes keeps them; later rows get none."""
    mine, shared, other = b"mine", b"shared", b"of another"
    desk.post(
        row(1, customer_id="ada", note=data_uri(mine, "text/plain")),
        row(2, customer_id="ada", note=data_uri(shared, "text/plain")),
        row(3, customer_id="bob", note=data_uri(shared, "text/plain")),
        row(4, customer_id="bob", note=data_uri(other, "text/plain")),
        row(5, customer_id="ada", photo=data_uri(png())),  # has no subject
    )
    desk.consume()  # notes the same owners again
    assert desk.erase("ada").payload_count == 1
    assert [desk.has(d) for d in (mine, shared, other, png())] == [
        False, True, True, True,
    ]  # fmt: skip
    assert desk.erase("ada").payload_count == 0  # a repeat finds nothing
    desk.kafka.sent.clear()
    desk.post(row(6, customer_id="ada", note=data_uri(mine, "text/plain")))
    assert desk.sent()[0]["note"] is None
    assert not desk.has(mine)
    assert desk.erase("bob").payload_count == 2
    assert not desk.has(shared)


def test_erasing_finds_a_person_whose_id_is_hidden(desk: Desk) -> None:
    """The door saw who it was; the topic shows a hash, which is nobody's name."""
    url = "/v1/pipelines/hidden/"
    desk.post(row(1, customer_id="ada", photo=data_uri(png())), url=url)
    assert "ada" not in json.dumps(desk.sent())
    desk.consume()
    assert desk.erase("ada", "hidden").payload_count == 1
    assert not desk.has(png(), "hidden")
