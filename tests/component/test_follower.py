"""A stretch of time of the log: what is in it and what is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.follower import LogSilentError, bounds_between, read_part

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def topic(kafka: KafkaNode, unique_name: Callable[[str], str]) -> str:
    """Two partitions; the first has a record an hour from 00:00 on, seven in all."""
    name = unique_name("hours")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    config = {"retention.ms": "-1"}
    made = admin.create_topics([NewTopic(name, 2, 1, config=config)])
    made[name].result(120)
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for hour in range(7):
        at = START + timedelta(hours=hour)
        producer.produce(
            name, f"{hour}", partition=0, timestamp=int(at.timestamp() * 1000)
        )
    assert producer.flush(120) == 0
    return name


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (2, 4, ["2", "3", "4"]),
        (2.5, 4.5, ["3", "4"]),
        (-5, 0, ["0"]),
        (5, 50, ["5", "6"]),
        (7, 50, []),
        (-5, -1, []),
    ],
)
def test_a_stretch_has_the_records_of_its_time(
    kafka: KafkaNode, topic: str, since: float, until: float, expected: list[str]
) -> None:
    bounds = bounds_between(
        kafka.bootstrap,
        topic,
        START + timedelta(hours=since),
        START + timedelta(hours=until),
    )
    read = read_part(kafka.bootstrap, bounds, chunk=2)
    values = [(message.value or b"").decode() for chunk in read for message in chunk]
    assert values == expected
    assert bounds[topic, 1] == (0, 0)


def test_a_topic_that_is_not_there_is_an_error(kafka: KafkaNode) -> None:
    with pytest.raises(LogSilentError):
        bounds_between(kafka.bootstrap, "no-such-topic", START, START)
