"""The HTTP door: what it takes, what it refuses and how it says so."""

import asyncio
import gzip
import io
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import httpx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from driftloop.contracts.rows import CONTENT_TYPE as ARROW
from driftloop.ingest import api
from driftloop.ingest.handlers import HANDLERS
from driftloop.ingest.settings import IngestSettings
from driftloop.runtime.http import http_app
from driftloop.runtime.transport import Message, PublishError, Record
from fastapi import FastAPI
from pydantic import SecretStr

from tests.unit.ingest.door import Desk, pipelines, row

TOKEN = "a-token-for-this-test"
URL = "/v1/pipelines/bikes/observations"
LIMIT = 3_000_000


@dataclass
class Kafka:
    """Stands where the publisher is: keeps what is sent, or is away."""

    sent: list[Record] = field(default_factory=list)
    is_away: bool = False
    answers: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    def publish(self, records: Sequence[Record], timeout_s: float = 30) -> None:
        if self.is_away:
            raise PublishError("no acknowledgement")
        assert self.answers.wait(120)
        self.sent += records

    def close(self) -> None: ...


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@dataclass
class Client:
    """Calls an application in this process."""

    app: FastAPI
    door: api.Door

    def post(
        self, url: str, content: object, headers: dict[str, str]
    ) -> httpx.Response:
        async def call() -> httpx.Response:
            async with self.session() as client:
                return await client.post(url, content=content, headers=headers)

        return asyncio.run(call())

    def session(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app),
            base_url="http://door",
            headers={"Authorization": f"Bearer {TOKEN}"},
        )


@pytest.fixture
def client(kafka: Kafka) -> Client:
    return client_of(kafka)


def client_of(kafka: Kafka, **more: float) -> Client:
    settings = IngestSettings(
        api_token=SecretStr(TOKEN),
        max_body_bytes=LIMIT,
        max_decoded_bytes=LIMIT,
        allowed_hosts=["door"],
        **more,
    )
    app = http_app("ingest", settings, lambda: {"live": True, "ready": True})
    door = api.Door(settings, kafka, pipelines())
    app.include_router(api.router(door))
    return Client(app, door)


def arrow(rows: list[dict[str, object]]) -> bytes:
    table = pa.Table.from_pylist(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def parquet(rows: list[dict[str, object]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def post(
    client: Client, content: bytes, kind: str = "", url: str = URL, **headers: str
) -> httpx.Response:
    given = {"Content-Type": kind} if kind else {}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(url, content, given | named)


def arrived(kafka: Kafka) -> list[str]:
    """Ids that ingest's own handlers find in what was published."""
    desk = Desk()
    messages = [
        Message(r.topic, 0, n, r.key, r.value, r.headers)
        for n, r in enumerate(kafka.sent)
    ]
    events, letters = desk.handle(HANDLERS[0], messages)
    desk.close()
    assert not letters
    return [i for event in events for i in event.rows["id"].to_pylist()]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("application/json", orjson.dumps([row(1), row(2)])),
        ("", orjson.dumps([row(1), row(2)])),
        (
            "application/x-ndjson",
            b"\n".join([orjson.dumps(row(1)), orjson.dumps(row(2))]),
        ),
        ("text/csv", b"id,event_time,temp\nr1,2011-01-01,1\nr2,2011-01-01,1\n"),
        (ARROW, arrow([row(1), row(2)])),
        ("application/vnd.apache.parquet", parquet([row(1), row(2)])),
        (
            "application/cloudevents+json",
            orjson.dumps({"id": "e", "source": "/a/b", "data": [row(1), row(2)]}),
        ),
    ],
)
def test_rows_of_each_form_are_published(
    client: Client, kafka: Kafka, kind: str, content: bytes
) -> None:
    response = post(client, content, kind)
    assert response.status_code == 202, response.text
    answer = response.json()
    assert (answer["row_count"], answer["message_count"]) == (2, 1)
    (record,) = kafka.sent
    assert record.topic == "observation-arrived"
    assert dict(record.headers)["ce_subject"] == b"bikes"
    assert arrived(kafka) == ["r1", "r2"]


def test_the_source_is_the_callers_to_name(client: Client, kafka: Kafka) -> None:
    post(client, orjson.dumps(row(1)), url=f"{URL}?source=plant-7")
    post(client, orjson.dumps(row(1)), ce_id="1", ce_source="/x/plant-8")
    post(client, orjson.dumps(row(1)))
    keys = [record.key for record in kafka.sent]
    assert keys == [b"bikes/plant-7", b"bikes/plant-8", b"bikes/http"]


def test_labels_go_to_their_own_topic(client: Client, kafka: Kafka) -> None:
    url = "/v1/pipelines/bikes/labels"
    assert post(client, orjson.dumps(row(1, cnt=3)), url=url).status_code == 202
    assert kafka.sent[0].topic == "label-arrived"


def test_the_same_request_gives_the_same_event_ids(
    client: Client, kafka: Kafka
) -> None:
    ids = [post(client, orjson.dumps([row(n)])).json()["id"] for n in (1, 1, 2)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("kind", ["application/json", ARROW])
def test_a_large_request_becomes_several_messages(
    client: Client, kafka: Kafka, kind: str
) -> None:
    rows = [row(n, sky="x" * 200) for n in range(6000)]
    content = arrow(rows) if kind == ARROW else orjson.dumps(rows)
    answer = post(client, content, kind).json()
    assert answer["row_count"] == 6000
    assert answer["message_count"] == len(kafka.sent) > 1
    assert max(len(record.value or b"") for record in kafka.sent) < 1024 * 1024
    assert arrived(kafka) == [f"r{n}" for n in range(6000)]


def test_broken_content_names_row_and_field(client: Client, kafka: Kafka) -> None:
    lines = [orjson.dumps(row(1)), b"{", orjson.dumps(row(3, event_time=None))]
    response = post(client, b"\n".join(lines), "application/x-ndjson")
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    first, second = response.json()["errors"]
    assert (first["row"], first["field"]) == (2, None)
    assert (second["row"], second["field"]) == (3, "event_time")
    assert "missing" in second["problem"]
    assert not kafka.sent


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"7"])
def test_a_body_without_rows_is_refused(
    client: Client, kafka: Kafka, content: bytes
) -> None:
    response = post(client, content)
    assert response.status_code == 422
    assert response.json()["title"]
    assert not kafka.sent


def test_other_refusals(client: Client, kafka: Kafka) -> None:
    good = orjson.dumps(row(1))
    unknown = post(client, good, url="/v1/pipelines/cars/observations")
    assert unknown.status_code == 404
    assert "bikes" in unknown.json()["title"]
    assert post(client, good, "text/html").status_code == 415
    assert post(client, good, "application/cloudevents-batch+json").status_code == 415
    assert post(client, good, Content_Encoding="br").status_code == 415
    assert post(client, good, Authorization="Bearer wrong").status_code == 401
    assert post(client, good, url=f"{URL}?source=a/b").status_code == 422
    assert not kafka.sent


def test_too_large_a_body_is_refused_whatever_its_length_says(
    client: Client, kafka: Kafka
) -> None:
    assert post(client, b" " * (LIMIT + 1)).status_code == 413

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LIMIT // 100_000 + 1):
            yield b" " * 100_000

    headers = {"Content-Type": "application/json"}
    assert client.post(URL, pieces(), headers).status_code == 413
    assert not kafka.sent


def test_a_broker_that_is_away_is_said_and_when_to_come_again(
    client: Client, kafka: Kafka
) -> None:
    kafka.is_away = True
    response = post(client, orjson.dumps(row(1)))
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0


ENCODED = {
    "gzip": gzip.compress,
    "zstd": lambda data: pa.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compressed_body_is_the_body(
    client: Client, kafka: Kafka, encoding: str
) -> None:
    content = orjson.dumps([row(1), row(2)])
    plain = post(client, content)
    packed = post(client, ENCODED[encoding](content), Content_Encoding=encoding)
    assert packed.status_code == 202, packed.text
    assert packed.json() == plain.json()
    assert arrived(kafka) == ["r1", "r2"]  # the repeat has the same ids


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compressed_body_is_measured_as_it_is_decoded(
    client: Client, kafka: Kafka, encoding: str
) -> None:
    bomb = ENCODED[encoding](b" " * 100_000_000)
    assert len(bomb) < LIMIT
    answer = post(client, bomb, Content_Encoding=encoding)
    assert answer.status_code == 413
    assert f"more than {LIMIT} bytes when decoded" in answer.json()["title"]
    for broken in (b"no such thing", bomb[:-20]):
        answer = post(client, broken, Content_Encoding=encoding)
        assert answer.status_code in (413, 422)
    cut = ENCODED[encoding](orjson.dumps(row(1)))[:-3]
    assert post(client, cut, Content_Encoding=encoding).status_code == 422
    assert not kafka.sent


def test_a_full_door_says_when_to_come_again(kafka: Kafka) -> None:
    """Two places: a third request is refused, and taken once there is room."""
    client = client_of(kafka, max_requests_in_work=2)

    async def calls() -> tuple[list[int], httpx.Response, int]:
        kafka.answers.clear()
        async with client.session() as session:
            first = [
                asyncio.create_task(session.post(URL, json=row(n))) for n in range(2)
            ]
            while client.door.admission.requests < 2:
                await asyncio.sleep(0)
            third = await session.post(URL, json=row(2))
            kafka.answers.set()
            done = [(await task).status_code for task in first]
            return done, third, (await session.post(URL, json=row(2))).status_code

    done, refused, again = asyncio.run(calls())
    assert (done, again) == ([202, 202], 202)
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["content-type"] == "application/problem+json"
    assert sorted(arrived(kafka)) == ["r0", "r1", "r2"]


def test_bytes_in_work_are_limited_too(kafka: Kafka) -> None:
    client = client_of(kafka, max_bytes_in_work=1000)
    large = orjson.dumps(row(1, sky="x" * 2000))

    async def calls() -> list[int]:
        kafka.answers.clear()
        async with client.session() as session:
            first = asyncio.create_task(session.post(URL, content=large))
            while not client.door.admission.bytes:
                await asyncio.sleep(0)
            second = await session.post(URL, content=large)
            kafka.answers.set()
            return [(await first).status_code, second.status_code]

    assert asyncio.run(calls()) == [202, 429]  # one that is alone is let in


def test_a_body_that_does_not_come_is_not_waited_for(kafka: Kafka) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.sleep(60)

    client = client_of(kafka, body_timeout_seconds=0.05)
    assert client.post(URL, pieces(), {}).status_code == 408
    assert not kafka.sent


def test_a_source_that_cannot_be_printed_is_refused(
    client: Client, kafka: Kafka
) -> None:
    for source in (r"/a/b\u0000c", r"\ud800"):
        event = f'{{"id": "e", "source": "{source}", "data": {{}}}}'
        answer = post(client, event.encode(), "application/cloudevents+json")
        assert answer.status_code == 422, source
        assert "source" in answer.json()["title"]
    assert not kafka.sent
