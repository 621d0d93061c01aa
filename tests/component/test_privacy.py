"""Personal data planted in every place of what upstream sends is found nowhere after.

Ingest and validator run as processes on a real broker. What one pipeline with privacy
rules is sent, one without them is sent too: there the same search finds it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from confluent_kafka.admin import AdminClient
from driftloop.contracts.events import (
    BatchRejected,
    BatchValidated,
    ErasureTraced,
    PipelineApplied,
    SubjectErased,
    ValueRevealed,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.drivers.publisher import ConfluentPublisher
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message, Record

from tests.component.processes import TOKEN, Log, ServiceProcess, with_id
from tests.component.test_rows import Stage
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]

RAW = ("observation-arrived", "label-arrived")
REVEAL_TOKEN = "a second token of the tests"
RULES = {
    "id": "hash",
    "email": "drop",
    "name": {"action": "mask", "keep_last": 2},
    "customer": "hash",
    "phone": "tokenise",
    "notes": {"action": "encrypt", "subject": "customer"},
}
DATA = {
    "target": "bought",
    "classes": ["no", "yes"],
    "features": {
        "age": {"min": 0, "max": 120},
        "plan": {"type": "category", "values": ["basic", "pro"]},
    },
}
PRIVATE, OPEN = "private-shop", "open-shop"


def marked(way: str, place: str) -> str:
    """Return a person's datum that stands at one place alone."""
    return f"Zq7-{way}-{place}-Lovelace"


def person(way: str, number: int, **values: Any) -> dict[str, Any]:
    given = {
        name: marked(way, f"{name}-{number}")
        for name in ("id", "email", "name", "phone", "notes", "address")
    }
    return {
        **given,
        "event_time": f"2024-05-01T{number:02d}:00:00Z",
        "customer": marked(way, "customer"),
        "age": 36,
        "plan": "pro",
        "bought": "yes",
        **values,
    }


def label(way: str, number: int) -> dict[str, Any]:
    row = person(way, number)
    return {n: row[n] for n in ("id", "event_time", "bought", "email", "notes")}


def wrong_rows(way: str) -> list[dict[str, Any]]:
    """Rows that are read, and then refused by the contract."""
    return [
        person(way, 10, age=marked(way, "age")),
        person(way, 11, age={"of": marked(way, "age-object")}),
        person(way, 12, plan=marked(way, "plan")),
        person(way, 13, bought=marked(way, "bought")),
        person(way, 14, age=999),
        person(way, 15, family=[{"child": marked(way, "nested")}]),
    ]


def unreadable(way: str) -> list[tuple[str, bytes]]:
    """Content types and values of which nothing, or not every row, can be read."""
    timeless = person(way, 20, event_time=marked(way, "time"))
    structured = {"specversion": "1.0", "id": marked(way, "structured"), "data": 7}
    return [
        ("application/json", json.dumps({"a": marked(way, "broken")})[:-1].encode()),
        ("application/json", json.dumps([marked(way, "list")]).encode()),
        ("application/json", json.dumps(timeless).encode()),
        ("application/x-ndjson", f'{{"id": "{marked(way, "line")}\n'.encode()),
        ("text/csv", f"id,event_time\n{marked(way, 'cell')},b,c\n".encode()),
        ("text/csv", f"{marked(way, 'head')},{marked(way, 'head')}\n1,2\n".encode()),
        ("application/vnd.apache.parquet", marked(way, "parquet").encode()),
        (marked(way, "kind"), b"x"),
        ("application/cloudevents+json", json.dumps(structured).encode()),
        ("application/cloudevents+json", marked(way, "no-event").encode()),
    ]


@dataclass
class Shop:
    """A stage, and the ways in which rows reach a pipeline of it."""

    stage: Stage

    def apply(self, name: str, **more: Any) -> None:
        spec = PipelineSpec.model_validate(
            {"name": name, "task": "binary", "data": {**DATA, **more}}
        )
        event = PipelineApplied(pipeline=name, spec=spec, applied_by="ada")
        self.stage.log.publish(with_id(event, f"applied-{name}"))

    def publish(self, pipeline: str, way: str) -> None:
        """As an upstream system that writes to the topics itself."""
        ndjson = "application/x-ndjson"
        sent = [(RAW[0], kind, value) for kind, value in unreadable(way)]
        rows = [*(person(way, n) for n in range(3)), *wrong_rows(way)]
        sent += [(RAW[0], "application/json", json.dumps(r).encode()) for r in rows]
        sent.append((RAW[0], ndjson, lines([person(way, 5), person(way, 6)])))
        sent.append((RAW[1], ndjson, lines([label(way, n) for n in range(3)])))
        records = [
            Record(
                topic,
                f"{pipeline}/{marked(way, 'key')}".encode(),
                value,
                (
                    ("content-type", kind.encode()),
                    ("ce_subject", pipeline.encode()),
                    ("ce_id", f"{marked(way, 'ce-id')}-{number}".encode()),
                    ("ce_chainid", marked(way, "chain").encode()),
                    ("ce_person", marked(way, "extension").encode()),
                    ("x-user", marked(way, "header").encode()),
                    ("traceparent", marked(way, "trace").encode()),
                ),
            )
            for number, (topic, kind, value) in enumerate(sent)
        ]
        self.stage.publisher.publish(records)

    def post(self, pipeline: str, way: str) -> list[int]:
        """By HTTP; return the answers' statuses."""
        rows = [*(person(way, n) for n in range(3)), *wrong_rows(way)]
        sent = [("observations", "application/x-ndjson", lines(rows))]
        sent += [("observations", kind, value) for kind, value in unreadable(way)]
        sent.append(("labels", "application/json", json.dumps(label(way, 0)).encode()))
        return [
            self.stage.ingest.client.post(
                f"/v1/pipelines/{pipeline}/{kind}",
                content=value,
                headers={
                    "content-type": content_type,
                    "ce-id": f"{marked(way, 'ce-id')}-{number}",
                    "x-user": marked(way, "header"),
                    "traceparent": marked(way, "trace"),
                },
            ).status_code
            for number, (kind, content_type, value) in enumerate(sent)
        ]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run the command line beside the services."""
        return subprocess.run(
            [
                sys.executable, "-c", "from driftloop.cli.app import main; main()",
                *command,
            ],
            env={
                **os.environ,
                "DRIFTLOOP_HOME": str(self.stage.home / "cli"),
                "DRIFTLOOP_BROKER": self.stage.node.bootstrap,
                "DRIFTLOOP_INGEST_URL": self.stage.ingest.url,
                "DRIFTLOOP_API_TOKEN": TOKEN,
                "DRIFTLOOP_REVEAL_TOKEN": REVEAL_TOKEN,
                "USER": "ben",
            },
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def everything(self) -> dict[str, str]:
        """Return all that is kept or shown, by where it is."""
        places = topics(self.stage.node.bootstrap)
        for path in self.stage.home.rglob("*"):
            if path.is_file() and "own-kafka" not in path.parts:
                name = str(path.relative_to(self.stage.home))
                places[name] = path.read_bytes().decode("latin-1")
                if path.suffix == ".parquet":  # compressed
                    places[name] += repr(pq.read_table(path).to_pylist())
        for service in (self.stage.ingest, self.stage.validator):
            for page in ("/metrics", "/readyz"):
                text = service.client.get(page).text
                places[f"{service.name}{page}"] = text
        return places


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def topics(bootstrap: str) -> dict[str, str]:
    """Return every byte of every topic: keys, values and headers."""
    names = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=30).topics
    found: dict[str, str] = {}

    def take(message: Message) -> None:
        parts = [message.key or b"", message.value or b""]
        parts += [value for _, value in message.headers]
        text = b"\n".join(parts).decode("latin-1")
        found[message.topic] = f"{found.get(message.topic, '')}\n{text}"

    kept = [name for name in names if not name.startswith("__")]
    follower = LogFollower(bootstrap, kept, take)
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    assert follower.caught_up.wait(120)
    follower.stop()
    thread.join(120)
    return found


def leaks(places: dict[str, str], way: str) -> set[str]:
    """Return the places in which something of what came this way stands."""
    return {name for name, text in places.items() if f"Zq7-{way}-" in text}


@pytest.fixture
def shop(own_kafka: KafkaNode, tmp_path: Path) -> Iterator[Shop]:
    create_topics(own_kafka.bootstrap)
    log = Log(own_kafka.bootstrap, tmp_path)
    publisher = ConfluentPublisher(own_kafka.bootstrap, client_id="upstream")
    settings = {"reveal_token": REVEAL_TOKEN}
    with (
        ServiceProcess("ingest", tmp_path, own_kafka.bootstrap, **settings) as ingest,
        ServiceProcess("validator", tmp_path, own_kafka.bootstrap) as validator,
    ):
        yield Shop(Stage(tmp_path, own_kafka, log, publisher, ingest, validator))
    publisher.close()
    log.close()


def test_what_is_planted_is_found_nowhere_but_in_raw_topics(shop: Shop) -> None:
    shop.apply(PRIVATE, privacy=RULES)
    shop.apply(OPEN)
    file = shop.stage.home / "cli" / "rows.ndjson"
    for pipeline, way in ((PRIVATE, "file"), (OPEN, "openfile")):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(lines([person(way, n) for n in range(5)]))
        done = shop.run("publish", str(file), "--pipeline", pipeline)
        assert done.returncode == 0, done.stderr
        file.unlink()
    assert set(shop.post(PRIVATE, "http")) == {202, 415, 422}
    assert set(shop.post(OPEN, "openhttp")) == {202, 415, 422}
    shop.publish(PRIVATE, "topic")
    shop.publish(OPEN, "opentopic")
    shop.stage.wait_until_caught_up()

    places = shop.everything()

    # Through the door not even the raw topics have it; past it, they alone.
    assert leaks(places, "http") == set()
    assert leaks(places, "file") == set()
    assert leaks(places, "topic") == set(RAW)
    # The negative control: without rules the same search finds it everywhere.
    found = leaks(places, "opentopic")
    assert {*RAW, "batch-ingested", "batch-validated", "batch-rejected"} <= found
    assert {"ingest-dead-letter", "ingest.log", "traces/ingest.jsonl"} <= found
    assert any(name.startswith(f"datasets/{OPEN}/") for name in found)
    assert any(name.startswith("databases/ingest") for name in found)
    assert {*RAW, "batch-validated"} <= leaks(places, "openhttp")
    assert {"observation-arrived", "batch-validated"} <= leaks(places, "openfile")
    check_what_is_left(shop)
    check_erasure(shop)


def check_what_is_left(shop: Shop) -> None:
    """The rows are there, with what the rules leave, and the faults are counted."""
    log = shop.stage.log
    counts = {
        name: sum(e.row_count for e in log.read(BatchValidated, pipeline=name))
        for name in (PRIVATE, OPEN)
    }
    assert counts[PRIVATE] == counts[OPEN] > 0
    rejected = log.read(BatchRejected, pipeline=PRIVATE)
    reasons = {(r.field, r.check): r.example for e in rejected for r in e.reasons}
    assert reasons == {
        ("age", "type"): "[redacted]",
        ("age", "range"): "999",
        ("plan", "values"): "[redacted]",
        ("bought", "values"): "[redacted]",
    }
    letters = [
        letter
        for letter in shop.stage.dead_letters("ingest", "")
        if letter.get("ce_subject") == PRIVATE
    ]
    assert len(letters) == len(unreadable("topic"))
    for letter in letters:
        assert letter["value"] == ""
        assert letter["dead-letter-topic"] in RAW
        assert int(letter["dead-letter-offset"]) >= 0
        assert "kept back" not in letter["dead-letter-reason"]


def check_erasure(shop: Shop) -> None:
    """What was encrypted can be read until the person is erased, and never after."""
    batch = next(e for e in shop.stage.log.read(BatchValidated, pipeline=PRIVATE))
    extra = json.loads(batch.rows.column("extra")[0].as_py())
    why = ("--reason", "ticket 1")
    read = shop.run("reveal", PRIVATE, extra["notes"], *why)
    assert read.returncode == 0, read.stderr
    way = "-".join(read.stdout.split("-")[1:2])
    assert read.stdout.strip().startswith("notes: Zq7-")

    who = marked(way, "customer")
    proposed = shop.run("erase", PRIVATE, "--subject", who, *why, "--json")
    assert proposed.returncode == 0, proposed.stderr
    assert who not in proposed.stdout
    proposal = json.loads(proposed.stdout)["proposal_id"]
    own = shop.run("erasures", "confirm", PRIVATE, proposal, *why)
    assert own.returncode == 1
    assert "another person has to confirm" in own.stderr
    listed = shop.run("erasures", "proposed", PRIVATE, "--json")
    assert [p["state"] for p in json.loads(listed.stdout)] == ["open"]
    assert shop.run("reveal", PRIVATE, extra["notes"], *why).returncode == 0
    erased = shop.run("erasures", "confirm", PRIVATE, proposal, *why, "--by", "ann")
    assert erased.returncode == 0, erased.stderr

    wait_until(lambda: bool(shop.stage.log.read(SubjectErased)), 120)
    (told,) = shop.stage.log.read(SubjectErased)
    assert isinstance(told, SubjectErased)
    assert (told.key_count, told.requested_by) == (1, "ben")
    wait_until(lambda: bool(shop.stage.log.read(ErasureTraced)), 120)
    (where,) = shop.stage.log.read(ErasureTraced)
    assert isinstance(where, ErasureTraced)
    assert where.subject == told.subject
    assert where.erasure_id == told.meta.causation_id
    assert {v.kind for v in where.versions} >= {"observations"}
    assert all(v.row_count for v in where.versions)
    gone = shop.run("reveal", PRIVATE, extra["notes"], *why)
    assert gone.returncode == 1
    assert "the person was erased" in gone.stderr
    assert len(shop.stage.log.read(ValueRevealed)) == 2
    shop.stage.wait_until_caught_up()
    assert leaks(shop.everything(), way) <= set(RAW)
