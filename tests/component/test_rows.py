"""Ingest and validator as processes on a real broker: no row lost, none twice."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    BatchIngested,
    BatchRejected,
    BatchValidated,
    DatasetVersioned,
    PipelineApplied,
    RowsEvent,
    SchemaAccepted,
    SchemaProposed,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.drivers.publisher import ConfluentPublisher
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message, Record
from driftloop.validator.datasets import COMPACT_APPENDS, MAX_FILES
from driftloop.validator.inference import FIRST_ROWS
from driftloop.validator.schemas import AUTOMATIC
from support.cluster import committed_lag

from tests.component.processes import Log, ServiceProcess, with_id
from tests.unit.payloads import SEEN_AS, data_uri, digest, png
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(400)]

ARROW = b"application/vnd.apache.arrow.stream"
CAUGHT_UP_S = 150
TABLES = ("observations", "labels")
START = datetime(2011, 1, 1, tzinfo=UTC)
FEATURES = {
    "temp": {"min": 0, "max": 1},
    "sky": {"type": "category", "values": ["clear", "mist"]},
}


def row(number: int, **values: Any) -> dict[str, Any]:
    given = {
        "id": f"r{number}",
        "event_time": (START + timedelta(hours=number)).isoformat(),
        "temp": number % 100 / 100,
        "sky": "clear" if number % 3 else "mist",
    }
    return given | values


def arrow(rows: list[dict[str, Any]]) -> bytes:
    table = pa.Table.from_pylist(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def record(pipeline: str, value: bytes, source: str, kind: bytes, topic: str) -> Record:
    return Record(
        topic, f"{pipeline}/{source}".encode(), value, (("content-type", kind),)
    )


@dataclass
class Stage:
    """A broker and the two services; the test is upstream and reads the log."""

    home: Path
    node: KafkaNode
    log: Log
    publisher: ConfluentPublisher
    ingest: ServiceProcess
    validator: ServiceProcess

    def apply(self, name: str, **data: Any) -> None:
        """Apply a pipeline with the features above, or with other data."""
        spec = PipelineSpec.model_validate(
            {
                "name": name,
                "task": "regression",
                "data": {"target": "cnt", **(data or {"features": FEATURES})},
            }
        )
        event = PipelineApplied(pipeline=name, spec=spec, applied_by="ada")
        self.log.publish(with_id(event, f"applied-{name}"))

    def send(
        self,
        pipeline: str,
        *values: bytes,
        source: str = "pump",
        kind: bytes = b"application/json",
        topic: str = "observation-arrived",
    ) -> None:
        self.publisher.publish(
            [record(pipeline, value, source, kind, topic) for value in values]
        )

    def wait_until_caught_up(self) -> None:
        """Return once both have committed all there is, ingest first."""
        for service in (self.ingest, self.validator):
            wait_until(
                lambda s=service.name: committed_lag(self.node.bootstrap, s) == 0,
                CAUGHT_UP_S,
            )
            wait_until(lambda s=service: reported_lag(s) == 0, CAUGHT_UP_S)

    def read(self, kind: type[Event], pipeline: str) -> list[Any]:
        return self.log.read(kind, pipeline=pipeline)

    def ids(self, kind: type[RowsEvent], pipeline: str) -> list[str]:
        events = self.read(kind, pipeline)
        return [i for e in events for i in e.rows.column("id").to_pylist()]

    def dead_letters(self, service: str, pipeline: str) -> list[dict[str, str]]:
        """Headers and value of each, a repeat once."""
        found: dict[str, dict[str, str]] = {}

        def take(message: Message) -> None:
            letter = {k: v.decode() for k, v in message.headers}
            letter["value"] = (message.value or b"").decode(errors="replace")
            if (message.key or b"").decode().startswith(pipeline):
                found[letter["dead-letter-id"]] = letter

        follower = LogFollower(self.node.bootstrap, [f"{service}-dead-letter"], take)
        assert follower.read_to_end(120)
        return list(found.values())


def reported_lag(service: ServiceProcess) -> int | None:
    answer = service.client.get("/readyz").json()
    assert isinstance(answer, dict)
    return answer["lag"] if answer["ready"] else None


@pytest.fixture(scope="module")
def stage(
    kafka: KafkaNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("rows")
    create_topics(kafka.bootstrap)
    log = Log(kafka.bootstrap, home)
    publisher = ConfluentPublisher(kafka.bootstrap, client_id="upstream")
    with (
        ServiceProcess("ingest", home, kafka.bootstrap) as ingest,
        ServiceProcess("validator", home, kafka.bootstrap) as validator,
    ):
        yield Stage(home, kafka, log, publisher, ingest, validator)
    publisher.close()
    log.close()


@pytest.fixture
def pipeline(stage: Stage, unique_name: Callable[[str], str]) -> str:
    name = unique_name("bikes")
    stage.apply(name)
    return name


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    seed = random.SystemRandom().randrange(10**6)
    print(f"{request.node.name}: seed {seed}")  # noqa: T201 - shown when it fails
    return random.Random(seed)


def killed_while(
    service: ServiceProcess,
    dice: random.Random,
    moments: list[Callable[[], None]],
    send: Callable[[int], None],
) -> int:
    """Kill the service at each moment while ``send(0)``, ``send(1)``… go on.

    Return how often ``send`` was called.
    """
    finished = threading.Event()
    count = 0

    def upstream() -> None:
        nonlocal count
        while not finished.wait(0.2):
            send(count)
            count += 1

    worker = threading.Thread(target=upstream)
    worker.start()
    try:
        for wait_for_moment in moments:
            wait_for_moment()
            service.kill()
            service.start(wait=False)
    finally:
        finished.set()
        worker.join(120)
    wait_until(service.is_ready, CAUGHT_UP_S)
    return count


def random_moment(dice: random.Random) -> Callable[[], None]:
    return lambda: time.sleep(dice.uniform(0.0, 5.0))


def after_next_append(table: Path) -> Callable[[], None]:
    """Return a wait for the instant at which a new version is in the Delta log.

    The validator's own commit comes milliseconds later: a kill now mostly falls
    between the two.
    """

    def wait() -> None:
        log = table / "_delta_log"
        before = set(log.glob("*.json"))
        until = time.monotonic() + CAUGHT_UP_S
        while set(log.glob("*.json")) == before:
            assert time.monotonic() < until, "nothing is appended"
            time.sleep(0.001)

    return wait


def test_ingest_killed_at_random_moments_takes_each_row_once(
    stage: Stage, pipeline: str, dice: random.Random
) -> None:
    def send(number: int) -> None:
        rows = [row(n) for n in range(100 * number, 100 * number + 100)]
        single = [json.dumps(r).encode() for r in rows[:60]]
        again = dice.sample(single, 5)
        stage.send(pipeline, *single, *again, b"{broken", source="a")
        stage.send(pipeline, arrow(rows[60:]), source="b", kind=ARROW)
        stage.send(pipeline, arrow(rows[60:80]), source="b", kind=ARROW)

    count = killed_while(stage.ingest, dice, [random_moment(dice)] * 4, send)
    stage.wait_until_caught_up()
    expected = Counter(f"r{n}" for n in range(100 * count))
    assert Counter(stage.ids(BatchIngested, pipeline)) == expected
    assert Counter(stage.ids(BatchValidated, pipeline)) == expected
    broken = stage.dead_letters("ingest", pipeline)
    assert [letter["value"] for letter in broken] == ["{broken"] * count


def test_validator_killed_between_append_and_commit_versions_each_row_once(
    stage: Stage, pipeline: str, dice: random.Random
) -> None:
    def send(day: int) -> None:
        rows = [row(n) for n in range(24 * day, 24 * day + 24)]
        stage.send(pipeline, arrow(rows), kind=ARROW)
        labels = [{k: r[k] for k in ("id", "event_time")} | {"cnt": 1.0} for r in rows]
        stage.send(pipeline, arrow(labels), kind=ARROW, topic="label-arrived")

    folder = stage.home / "datasets" / pipeline
    moments = [after_next_append(folder / kind) for kind in TABLES * 2]
    dice.shuffle(moments)
    moments += [random_moment(dice)] * 2
    count = 24 * killed_while(stage.validator, dice, moments, send)
    stage.wait_until_caught_up()
    expected = Counter(f"r{n}" for n in range(count))
    versions = stage.read(DatasetVersioned, pipeline)
    assert max(e.observation_count for e in versions) == count
    assert max(e.label_count for e in versions) == count
    for kind in TABLES:
        refs = [getattr(e.dataset, kind) for e in versions if e.kind == kind]
        last = max(refs, key=lambda ref: ref.version)
        table = DeltaTable(last.uri, version=last.version).to_pyarrow_table(
            columns=["id"]
        )
        assert Counter(table.column("id").to_pylist()) == expected
        assert len(DeltaTable(last.uri).file_uris()) <= MAX_FILES + COMPACT_APPENDS + 1
    assert len(versions) == len(stage.read(BatchValidated, pipeline))


BREAKS: dict[str, tuple[str, str]] = {
    # what is wrong: (check or part of the reason, field)
    "type": ("type", "temp"),
    "column": ("null", "sky"),
    "nan": ("null", "temp"),
    "category": ("values", "sky"),
    "range": ("range", "temp"),
}


def broken(number: int, how: str) -> bytes:
    match how:
        case "type":
            good = row(number, temp="warm")
        case "column":
            good = row(number)
            del good["sky"]
        case "nan":
            good = row(number, temp=float("nan"))
        case "category":
            good = row(number, sky="octarine")
        case "range":
            good = row(number, temp=17.0)
        case "time":
            good = row(number, event_time="yesterday")
        case _:
            return json.dumps(row(number)).encode()[:-7]
    return json.dumps(good).encode()


def test_a_file_with_one_broken_row_in_twenty_and_the_same_file_again(
    stage: Stage, pipeline: str
) -> None:
    """Good rows go on, bad ones are kept with field and reason; twice is once."""
    kinds = [*BREAKS, "time", "json"]
    bad = {n: kinds[n // 20 % len(kinds)] for n in range(7, 2800, 20)}
    lines = [
        broken(n, bad[n]) if n in bad else json.dumps(row(n)).encode()
        for n in range(2800)
    ]
    file = [b"\n".join(lines[n : n + 400]) for n in range(0, 2800, 400)]
    ndjson = b"application/x-ndjson"
    stage.send(pipeline, *file, kind=ndjson)
    stage.wait_until_caught_up()

    good = Counter(f"r{n}" for n in range(2800) if n not in bad)
    quarantined = Counter(f"r{n}" for n, how in bad.items() if how in BREAKS)
    letters = {n: how for n, how in bad.items() if how not in BREAKS}
    for _ in range(2):
        assert Counter(stage.ids(BatchValidated, pipeline)) == good
        assert Counter(stage.ids(BatchRejected, pipeline)) == quarantined
        stage.send(pipeline, *file, kind=ndjson)
        stage.wait_until_caught_up()

    counted: Counter[tuple[str, str]] = Counter()
    for event in stage.read(BatchRejected, pipeline):
        for reason in event.reasons:
            counted[reason.check, reason.field] += reason.row_count
            assert reason.detail
            assert reason.example
    assert counted == Counter(BREAKS[how] for how in bad.values() if how in BREAKS)
    found = stage.dead_letters("ingest", pipeline)
    assert len(found) == 3 * len(letters)  # the broken rows of each sending
    assert {letter["value"] for letter in found} == {
        json.dumps(row(n, event_time="yesterday"), separators=(",", ":"))
        if how == "time"
        else broken(n, how).decode().strip()
        for n, how in letters.items()
    }
    for letter in found:
        is_time = "yesterday" in letter["value"]
        assert letter.get("dead-letter-field") == ("event_time" if is_time else None)
        assert ("is no time" if is_time else "broken JSON") in letter[
            "dead-letter-reason"
        ]


def test_a_schema_is_proposed_accepted_and_held_to_after_a_kill(
    stage: Stage, unique_name: Callable[[str], str]
) -> None:
    """The one that a person accepted, and the one that went into force by itself."""
    asked, automatic = unique_name("asked"), unique_name("automatic")
    stage.apply(asked, evolution="propose")
    stage.apply(automatic, evolution="accept")
    for pipeline in (asked, automatic):
        first = [row(n) for n in range(FIRST_ROWS + 10)]
        stage.send(pipeline, arrow(first[:FIRST_ROWS]), kind=ARROW)
        stage.send(pipeline, arrow(first[FIRST_ROWS:]), kind=ARROW)
    stage.wait_until_caught_up()
    [proposal] = stage.read(SchemaProposed, asked)
    assert set(proposal.columns) == {"temp", "sky"}
    assert stage.read(SchemaAccepted, asked) == []
    [by_itself] = stage.read(SchemaAccepted, automatic)
    assert by_itself.accepted_by == AUTOMATIC
    assert (
        by_itself.meta.causation_id
        == stage.read(SchemaProposed, automatic)[0].meta.causation_id
    )

    # Before a person accepts, what does not fit goes on; the control of what follows.
    stage.send(asked, arrow([row(5000, sky="octarine")]), kind=ARROW)
    stage.wait_until_caught_up()
    assert stage.read(BatchRejected, asked) == []
    stage.validator.kill()
    said = driftloop(stage, "schema", "accept", asked, "--version=1", "--by=ann")
    out, _ = said.communicate(timeout=120)
    assert said.returncode == 0, out
    [accepted] = stage.read(SchemaAccepted, asked)
    assert (accepted.version, accepted.accepted_by) == (proposal.version, "ann")
    assert accepted.columns == proposal.columns
    stage.validator.start()
    stage.send(asked, arrow([row(5001, temp=70.0), row(5002)]), kind=ARROW)
    stage.send(
        automatic, arrow([row(n, wind=1.0) for n in range(5000, 5020)]), kind=ARROW
    )
    stage.wait_until_caught_up()
    assert stage.ids(BatchRejected, asked) == ["r5001"]
    assert "r5002" in stage.ids(BatchValidated, asked)
    told = [
        (e.version, "wind" in e.columns) for e in stage.read(SchemaAccepted, automatic)
    ]
    assert told == [(1, False), (2, True)]
    assert stage.ids(BatchRejected, automatic) == []


def driftloop(stage: Stage, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("driftloop"), *arguments, "--json"],
        env=os.environ
        | {
            "DRIFTLOOP_BROKER": stage.node.bootstrap,
            "DRIFTLOOP_HOME": str(stage.home),
        },
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_folder_published_in_two_runs_and_again_is_taken_once(
    stage: Stage, pipeline: str, tmp_path: Path
) -> None:
    rows = [row(n) for n in range(24 * 12)]
    for day in range(12):
        frame = pl.DataFrame(rows[24 * day : 24 * day + 24])
        name = tmp_path / f"day-{day:02d}"
        match day % 3:
            case 0:
                frame.write_parquet(name.with_suffix(".parquet"))
            case 1:
                content = frame.write_csv().encode()
                name.with_suffix(".csv.gz").write_bytes(gzip.compress(content))
            case _:
                frame.write_ndjson(name.with_suffix(".ndjson"))
    arguments = [str(tmp_path), "-p", pipeline]
    slow = driftloop(stage, "publish", *arguments, "--rate", "10", "--batch-hours", "6")
    try:
        wait_until(lambda: len(stage.ids(BatchIngested, pipeline)) > 60, 120)
    finally:
        slow.kill()
        slow.communicate(timeout=120)
    counts = []
    for _ in range(2):
        done = driftloop(stage, "publish", *arguments, "--batch-hours", "6")
        out, _ = done.communicate(timeout=120)
        assert done.returncode == 0, out
        counts.append(json.loads(out)["rows"])
    assert counts[0] < len(rows) == counts[1]  # the second run goes on, the third anew
    stage.wait_until_caught_up()
    expected = Counter(f"r{n}" for n in range(len(rows)))
    assert Counter(stage.ids(BatchIngested, pipeline)) == expected


def test_the_http_door(stage: Stage, pipeline: str) -> None:
    url = f"/v1/pipelines/{pipeline}/observations"
    rows = [row(n) for n in range(30)]
    answers: list[httpx.Response] = []

    def is_taken() -> bool:  # once the service has read of the pipeline
        answers.append(stage.ingest.client.post(url, json=rows))
        return answers[-1].status_code != 404

    wait_until(is_taken, CAUGHT_UP_S)
    assert (answers[-1].status_code, answers[-1].json()["row_count"]) == (202, 30)
    answer = stage.ingest.client.post(f"{url}?source=plant", json=row(30))
    assert answer.status_code == 202
    refused = stage.ingest.client.post(url, json=[row(31), row(32, event_time=None)])
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["row"] == 2
    assert (
        stage.ingest.client.post("/v1/pipelines/no/labels", json=rows).status_code
        == 404
    )
    stage.wait_until_caught_up()
    assert Counter(stage.ids(BatchValidated, pipeline)) == Counter(
        f"r{n}" for n in range(31)
    )


def test_without_a_broker_the_http_door_says_so(
    own_kafka: KafkaNode, tmp_path: Path
) -> None:
    create_topics(own_kafka.bootstrap)
    log = Log(own_kafka.bootstrap, tmp_path)
    spec = PipelineSpec.model_validate(
        {"name": "bikes", "task": "regression", "data": {"target": "cnt"}}
    )
    event = PipelineApplied(pipeline="bikes", spec=spec, applied_by="ada")
    log.publish(with_id(event, "applied"))
    log.close()
    with ServiceProcess("ingest", tmp_path, own_kafka.bootstrap) as ingest:
        url = "/v1/pipelines/bikes/observations"
        assert ingest.client.post(url, json=row(1)).status_code == 202
        own_kafka.kill()
        refused = ingest.client.post(url, json=row(2))
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        own_kafka.start()
        wait_until(
            lambda: ingest.client.post(url, json=row(2)).status_code == 202, CAUGHT_UP_S
        )


def test_payloads_go_into_the_dataset_by_reference(
    stage: Stage, unique_name: Callable[[str], str]
) -> None:
    """By upload, within rows of both doors, and one that nobody has stored."""
    name = unique_name("shop")
    attachments = {"photo": {"media_types": ["image/png"], "max_bytes": 10_000}}
    data = {"target": "cnt", "features": FEATURES, "attachments": attachments}
    spec = PipelineSpec.model_validate(
        {"name": name, "task": "regression", "data": data}
    )
    event = PipelineApplied(pipeline=name, spec=spec, applied_by="ada")
    stage.log.publish(with_id(event, f"applied-{name}"))
    url = f"/v1/pipelines/{name}"
    post = stage.ingest.client.post
    uploaded = png(b"uploaded")
    wait_until(
        lambda: post(f"{url}/payloads", content=uploaded).status_code == 201,
        CAUGHT_UP_S,
    )
    inline, by_topic, lost = png(b"by http"), png(b"by topic"), "ab" * 32
    rows = [row(1, photo=digest(uploaded)), row(2, photo=data_uri(inline))]
    assert post(f"{url}/observations", json=rows).status_code == 202
    stage.send(name, json.dumps(row(3, photo=data_uri(by_topic))).encode())
    stage.send(name, json.dumps(row(4, photo=lost)).encode())
    stage.send(name, b'{"id": "r5", "photo": "' + data_uri(png(b"cut off")).encode())
    stage.wait_until_caught_up()
    table = DeltaTable(str(stage.home / "datasets" / name / "observations"))
    found = {one["id"]: one["photo"] for one in table.to_pyarrow_table().to_pylist()}
    assert found == {
        f"r{n}": {
            "sha256": digest(content),
            "size_bytes": len(content),
            "media_type": "image/png",
            "uri": f"payload:{name}/sha256/{digest(content)}",
        }
        for n, content in ((1, uploaded), (2, inline), (3, by_topic))
    }
    rejected = stage.read(BatchRejected, name)
    assert [r.example for e in rejected for r in e.reasons] == [f"missing: {lost}"]
    (letter,) = stage.dead_letters("ingest", name)
    assert letter["value"] == ""
    seen = [
        path
        for path in stage.home.rglob("*")
        if path.is_file()
        and "payloads" not in path.parts
        and any(text.encode() in path.read_bytes() for text in SEEN_AS)
    ]
    assert not seen  # logs, traces, databases, tables
