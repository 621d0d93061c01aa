"""The publishing example of docs/events.md runs, and ingest can use what it sends."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from driftloop.contracts.events import RowKind
from driftloop.contracts.pipeline import load_pipeline
from driftloop.ingest.core import typed_rows
from driftloop.ingest.formats import parse
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.envelope import attributes_of
from driftloop.runtime.transport import Message

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120


def example() -> str:
    page = (ROOT / "docs/events.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    text: str = block
    return text


def run(code: str, broker: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "DRIFTLOOP_BROKER": broker},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def messages(broker: str, topic: str) -> list[Message]:
    """Return what is on a topic; wait until something is."""
    consumer = Consumer(
        {"bootstrap.servers": broker, "group.id": "reader", "enable.auto.commit": False}
    )
    partitions = consumer.list_topics(topic, DEADLINE_S).topics[topic].partitions
    consumer.assign([TopicPartition(topic, n, OFFSET_BEGINNING) for n in partitions])
    until = time.monotonic() + DEADLINE_S
    found: list[Message] = []
    while not found and time.monotonic() < until:
        found += [
            Message(topic, m.partition(), m.offset(), m.key(), m.value(), m.headers())
            for m in consumer.consume(100, 1.0)
            if m.error() is None
        ]
    consumer.close()
    return found


def test_example_publishes_what_ingest_reads(own_kafka: KafkaNode) -> None:
    """The row and its label arrive with id, time and all features, none refused."""
    create_topics(own_kafka.bootstrap)
    spec = load_pipeline(ROOT / "examples/bike-demand/pipeline.yaml")

    done = run(example(), own_kafka.bootstrap)

    assert done.returncode == 0, done.stderr
    cases: tuple[tuple[str, RowKind, set[str]], ...] = (
        ("observation-arrived", "observations", set(spec.data.features)),
        ("label-arrived", "labels", {spec.data.target}),
    )
    for topic, kind, columns in cases:
        (message,) = messages(own_kafka.bootstrap, topic)
        attributes = attributes_of(message)
        assert attributes.get("subject") == spec.name
        assert attributes.get("type") == f"io.driftloop.{topic}.v1"
        parsed = parse(attributes.data or b"", attributes.content_type)
        typed = typed_rows(parsed, spec, kind, "city-counter")
        assert typed.bad == []
        (row,) = typed.table.to_pylist()
        assert row["id"] == "8640"
        assert {name for name in columns if row.get(name) is not None} == columns


def test_example_fails_loudly_without_a_broker() -> None:
    """Negative control: nothing listens, and the script says so by its exit code."""
    code = example().replace("flush(30)", "flush(2)")
    assert run(code, "127.0.0.1:1").returncode != 0
