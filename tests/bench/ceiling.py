"""What Kafka itself gives here: bare confluent-kafka, the same bytes, nothing else."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from driftloop.runtime.drivers.publisher import CLIENT_DEFAULTS

TOPIC = "bench-ceiling"
PARTITIONS = 4
TIMEOUT_S = 120.0
REPEATS = 10
"""Of the values: alone they are through before the clients are up to speed."""


@dataclass(frozen=True)
class Ceiling:
    """Bare produce and consume, both at once, until the last message is there."""

    messages_per_s: float
    bytes_per_s: float


def measure_ceiling(bootstrap: str, values: Sequence[bytes]) -> Ceiling:
    """Send ``values`` as fast as the client can and read them as they come.

    Raises
    ------
    TimeoutError
        When they do not all arrive.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap})
    new = NewTopic(TOPIC, PARTITIONS, 1, config={"max.message.bytes": "8388608"})
    admin.create_topics([new])[TOPIC].result(30)
    values = [*values] * REPEATS
    everything = threading.Event()
    ready = threading.Event()

    def consume() -> None:
        consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": TOPIC,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        consumer.subscribe([TOPIC], on_assign=lambda *_: ready.set())
        left = len(values) + 1
        until = time.monotonic() + TIMEOUT_S
        while left and time.monotonic() < until:
            left -= sum(m.error() is None for m in consumer.consume(500, 0.1))
        if not left:
            everything.set()
        consumer.close()

    reader = threading.Thread(target=consume)
    reader.start()
    try:
        ready.wait(TIMEOUT_S)
        producer = Producer({**CLIENT_DEFAULTS, "bootstrap.servers": bootstrap})
        producer.produce(TOPIC, b"warm")
        producer.flush(TIMEOUT_S)
        started = time.perf_counter()
        for number, value in enumerate(values):
            while True:
                try:
                    producer.produce(TOPIC, value, partition=number % PARTITIONS)
                except BufferError:
                    producer.poll(0.01)
                else:
                    break
            producer.poll(0)
        producer.flush(TIMEOUT_S)
    finally:
        reader.join(TIMEOUT_S)
    seconds = time.perf_counter() - started
    if not everything.is_set():
        raise TimeoutError(f"not all of {len(values)} messages came back")
    return Ceiling(len(values) / seconds, sum(map(len, values)) / seconds)
