"""The HTTP door under attack and under load: ingest as a process on a real broker."""

from __future__ import annotations

import asyncio
import io
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import schemathesis
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.payloads import SUFFIXES
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.openapi import media_type
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.component.processes import TOKEN, Log, ServiceProcess, with_id
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]

AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
JSON = {"Content-Type": "application/json"}
ANSWER_TIMEOUT_S = 120
IDLE_S = 2
SEED = 20110101
FUZZED_CASES = 120
"""Of each operation and each way to generate."""
CLIENTS = 1000
REQUESTS_EACH = 2
ROW_BYTES = 20_000
FIRST_WAVE_MIB = 256
"""1,000 connections with 64 KiB each, the consumer's buffers, the database's cache."""
SECOND_WAVE_MIB = 64
IN_WORK_BYTES = 4 * 1024 * 1024
NOTE = {"media_types": ["text/plain", "image/png"], "max_bytes": 2000}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def table_of(rows: int) -> pa.Table:
    times = ["2011-01-01T00:00:00Z"] * rows
    ids = [f"r{n}" for n in range(rows)]
    return pa.table({"id": ids, "event_time": times, "temp": [0.5] * rows})


def parquet(rows: int) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table_of(rows), sink)
    return sink.getvalue()


def arrow(rows: int) -> bytes:
    sink = pa.BufferOutputStream()
    table = table_of(rows)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@st.composite
def damaged(draw: st.DrawFn, write: Callable[[int], bytes]) -> bytes:
    """Return a file, often with some bytes changed or its end cut off."""
    data = bytearray(write(draw(st.integers(0, 20))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.integers(0, 255))
    end = draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    return bytes(data[:end])


def lines(*good: str) -> st.SearchStrategy[bytes]:
    line = st.one_of(st.sampled_from(good), st.sampled_from(good), st.text(max_size=30))
    return st.lists(line, max_size=4).map(lambda given: "\n".join(given).encode())


media_type(
    "application/x-ndjson",
    lines(
        '{"id": "a", "event_time": "2011-01-01"}',
        '{"event_time": "2011-01-01T00:00:00Z", "temp": NaN, "x": [{}]}',
    ),
)
media_type(
    "text/csv",
    lines("r1,2011-01-01,0.5", "r2,2011-01-01,").map(
        lambda rows: b"id,event_time,temp\n" + rows
    ),
)
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 30
for kind in (*SUFFIXES, "application/octet-stream"):
    if kind != "text/plain":  # which schemathesis knows
        media_type(kind, st.one_of(st.binary(max_size=3000), st.just(PNG)))
media_type("application/vnd.apache.parquet", damaged(parquet))
media_type("application/vnd.apache.arrow.stream", damaged(arrow))


@dataclass
class Stage:
    """A broker and ingest, with little room for requests in work."""

    node: KafkaNode
    log: Log
    ingest: ServiceProcess

    def apply(self, name: str) -> None:
        spec = PipelineSpec.model_validate(
            {
                "name": name,
                "task": "regression",
                "data": {"target": "cnt", "attachments": {"note": NOTE}},
            }
        )
        event = PipelineApplied(pipeline=name, spec=spec, applied_by="ada")
        self.log.publish(with_id(event, f"applied-{name}"))
        url = f"/v1/pipelines/{name}/observations"
        wait_until(
            lambda: self.ingest.client.post(url, json=[]).status_code == 422, 120
        )

    def arrived(self, pipeline: str) -> list[Message]:
        """Return what is on the topic of observations for a pipeline."""
        found: list[Message] = []

        def take(message: Message) -> None:
            if (message.key or b"").startswith(f"{pipeline}/".encode()):
                found.append(message)

        follower = LogFollower(self.node.bootstrap, ["observation-arrived"], take)
        assert follower.read_to_end(120)
        return found


@pytest.fixture(scope="module")
def stage(
    kafka: KafkaNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("door")
    create_topics(kafka.bootstrap)
    log = Log(kafka.bootstrap, home)
    limits = {"MAX_REQUESTS_IN_WORK": 100, "MAX_BYTES_IN_WORK": IN_WORK_BYTES}
    with ServiceProcess("ingest", home, kafka.bootstrap, **limits) as ingest:
        yield Stage(kafka, log, ingest)
    log.close()


@pytest.fixture
def pipeline(stage: Stage, unique_name: Callable[[str], str]) -> str:
    name = unique_name("door")
    stage.apply(name)
    return name


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_whatever_openapi_allows_or_not_is_answered(
    stage: Stage, pipeline: str, mode: GenerationMode
) -> None:
    """No 5xx, no answer that the document does not name, no request left hanging."""
    print(f"seed {SEED}")  # noqa: T201 - shown when it fails
    answers: Counter[int] = Counter()
    schema = schemathesis.openapi.from_url(f"{stage.ingest.url}/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()
        cases = operation.as_strategy(
            generation_mode=mode, path_parameters={"name": pipeline}
        )

        @seeded(SEED)
        @settings(
            max_examples=FUZZED_CASES,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def answered(case: schemathesis.Case) -> None:
            response = case.call(
                base_url=stage.ingest.url,
                headers=AUTHORIZATION,
                timeout=ANSWER_TIMEOUT_S,
            )
            answers[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        answered()
    print(dict(answers))  # noqa: T201 - shown when it fails
    assert answers[422]
    if mode == GenerationMode.POSITIVE:
        assert answers[202]
        assert answers[201]
    assert stage.ingest.is_ready()


def peak_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024


async def clients(url: str, wave: int) -> tuple[Counter[int], set[str]]:
    """Let many clients send their rows; return answers, and ids that were taken."""
    answers: Counter[int] = Counter()
    taken: set[str] = set()
    filler = "x" * ROW_BYTES

    async def client(session: aiohttp.ClientSession, number: int) -> None:
        dice = random.Random(number)
        for request in range(REQUESTS_EACH):
            row_id = f"w{wave}-c{number}-{request}"
            time = "2011-01-01T00:00:00Z"
            body = orjson.dumps({"id": row_id, "event_time": time, "text": filler})
            while True:
                async with session.post(url, data=body, headers=JSON) as answer:
                    await answer.read()
                answers[answer.status] += 1
                if answer.status != 429:
                    break
                pause_s = int(answer.headers["retry-after"])
                await asyncio.sleep(pause_s * dice.uniform(0.5, 1.5))
            if answer.status == 202:
                taken.add(row_id)

    async with open_session() as session:
        await asyncio.gather(*(client(session, n) for n in range(CLIENTS)))
    return answers, taken


def open_session() -> aiohttp.ClientSession:
    """A session without a limit of connections.

    One that is idle for longer is not used again: the server may just be closing it.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S),
        headers=AUTHORIZATION,
        timeout=aiohttp.ClientTimeout(ANSWER_TIMEOUT_S),
    )


def test_a_thousand_clients_lose_nothing_and_memory_is_bounded(
    stage: Stage, pipeline: str
) -> None:
    """Twice, as only what grows again would go on growing."""
    url = f"{stage.ingest.url}/v1/pipelines/{pipeline}/observations"
    peaks = [peak_mib(stage.ingest.pid)]
    everything: set[str] = set()
    refused = 0
    for wave in range(2):
        answers, taken = asyncio.run(clients(url, wave))
        assert set(answers) <= {202, 429}
        assert answers[202] == len(taken) == CLIENTS * REQUESTS_EACH
        everything |= taken
        refused += answers[429]
        peaks.append(peak_mib(stage.ingest.pid))
    print(f"refused {refused} times, peaks {peaks} MiB")  # noqa: T201
    assert refused
    messages = stage.arrived(pipeline)
    found = Counter(orjson.loads(message.value or b"")["id"] for message in messages)
    assert found == Counter(everything)  # every 202 is there once, and nothing else
    assert peaks[1] - peaks[0] < FIRST_WAVE_MIB
    assert peaks[2] - peaks[1] < SECOND_WAVE_MIB


def test_many_bombs_at_once_are_refused_one_by_one(stage: Stage, pipeline: str) -> None:
    """40 bodies that would be 1 GB each: none is decoded beyond its limit."""
    packer = zlib.compressobj(wbits=31)
    block = b" " * 2**20
    bomb = b"".join(packer.compress(block) for _ in range(1024)) + packer.flush()
    before = peak_mib(stage.ingest.pid)
    url = f"{stage.ingest.url}/v1/pipelines/{pipeline}/observations"

    async def send(session: aiohttp.ClientSession) -> int:
        headers = JSON | {"Content-Encoding": "gzip"}
        async with session.post(url, data=bomb, headers=headers) as answer:
            return answer.status

    async def send_all() -> list[int]:
        async with open_session() as session:
            return await asyncio.gather(*(send(session) for _ in range(40)))

    answers = Counter(asyncio.run(send_all()))
    grown = peak_mib(stage.ingest.pid) - before
    print(f"answers {dict(answers)}, peak {before} MiB + {grown} MiB")  # noqa: T201
    assert set(answers) <= {413, 429}
    assert answers[413]
    assert grown < 512
    assert not stage.arrived(pipeline)
