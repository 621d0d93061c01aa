"""Publish a batch of observations and one of labels: publish.py FOLDER."""

import hashlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Producer

PIPELINE = os.environ.get("DRIFTLOOP_PIPELINE", "bike-demand")
SOURCE = "city-counter"

producer = Producer(
    {
        "bootstrap.servers": os.environ.get("DRIFTLOOP_BROKER", "127.0.0.1:9092"),
        "acks": "all",  # written to every replica in sync
        "enable.idempotence": True,  # a retry neither doubles nor reorders
        "delivery.timeout.ms": 30_000,
    }
)
errors = []


def delivered(error, _message) -> None:
    if error is not None:
        errors.append(error)


def publish(topic: str, rows: bytes) -> None:
    producer.produce(
        topic,
        key=f"{PIPELINE}/{SOURCE}",  # messages of one source stay in order
        value=rows,
        headers={
            "content-type": "application/x-ndjson",
            "ce_specversion": "1.0",
            "ce_id": hashlib.sha256(rows).hexdigest(),  # the same when sent again
            "ce_source": f"/upstream/{SOURCE}",
            "ce_type": f"io.driftloop.{topic}.v1",
            "ce_subject": PIPELINE,
            "ce_time": datetime.now(UTC).isoformat(),
        },
        on_delivery=delivered,
    )


folder = Path(sys.argv[1])
publish("observation-arrived", (folder / "observations.ndjson").read_bytes())
publish("label-arrived", (folder / "labels.ndjson").read_bytes())
producer.flush()  # returns when each message is written, or has failed
if errors:
    sys.exit(f"not published, send it again: {errors[0]}")
sys.stdout.write("published\n")
