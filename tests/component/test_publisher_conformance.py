"""What `transport.Publisher` promises: a return means that everything is written."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.drivers.confluent import ConfluentPublisher
from driftloop.runtime.drivers.memory import MemoryBroker, MemoryPublisher
from driftloop.runtime.transport import Publisher, PublishError, Record
from support.cluster import Cluster

COUNT = 500


class MemoryTopics(MemoryBroker):
    def values(self, topic: str) -> list[bytes | None]:
        return [message.value for message in self.log(topic)]


@pytest.fixture(params=["memory", "confluent"])
def broker_and_publisher(
    request: pytest.FixtureRequest,
) -> Iterator[tuple[Any, Publisher]]:
    if request.param == "memory":
        broker = MemoryTopics()
        yield broker, MemoryPublisher(broker)
        return
    node: KafkaNode = request.getfixturevalue("kafka")
    publisher = ConfluentPublisher(node.bootstrap, client_id="tests")
    yield Cluster(node.bootstrap), publisher
    publisher.close()


def records(topic: str, prefix: str) -> list[Record]:
    return [Record(topic, b"key", f"{prefix}-{n}".encode()) for n in range(COUNT)]


def test_a_return_means_written_in_order(
    broker_and_publisher, unique_name: Callable[[str], str]
) -> None:
    """Read at once by someone else, all is there, in order within a key."""
    broker, publisher = broker_and_publisher
    topic = unique_name("topic")
    broker.create_topic(topic, 1)
    batch = records(topic, "a")
    publisher.publish(batch)
    assert list(broker.values(topic)) == [record.value for record in batch]
    publisher.publish([])
    assert len(broker.values(topic)) == COUNT


def test_threads_share_a_publisher(
    broker_and_publisher, unique_name: Callable[[str], str]
) -> None:
    """Each caller returns when its own records are written."""
    broker, publisher = broker_and_publisher
    topic = unique_name("topic")
    broker.create_topic(topic, 1)
    threads = [
        threading.Thread(target=publisher.publish, args=(records(topic, name),))
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    found = list(broker.values(topic))
    for name in "abcd":
        mine = [value for value in found if value.startswith(name.encode())]
        assert mine == [record.value for record in records(topic, name)]


def test_missing_topic_is_an_error(
    broker_and_publisher, unique_name: Callable[[str], str]
) -> None:
    """Nothing is created by writing to it; the publisher stays usable."""
    broker, publisher = broker_and_publisher
    topic = unique_name("topic")
    with pytest.raises(PublishError):
        publisher.publish([Record(topic, b"k", b"v")], timeout_s=2)
    broker.create_topic(topic, 1)
    publisher.publish([Record(topic, b"k", b"again")])
    assert b"again" in broker.values(topic)


@pytest.mark.parametrize("size", [3_000_000, 9_000_000], ids=["broker", "client"])
def test_too_large_record_says_so(
    kafka: KafkaNode, unique_name: Callable[[str], str], size: int
) -> None:
    """Above the broker's or the client's limit; memory has none."""
    topic = unique_name("topic")
    Cluster(kafka.bootstrap).create_topic(topic)
    publisher = ConfluentPublisher(kafka.bootstrap, client_id="tests")
    with pytest.raises(PublishError, match="size too large"):
        publisher.publish([Record(topic, b"k", os.urandom(size))])
    publisher.close()


def test_closed_publisher_refuses(kafka: KafkaNode) -> None:
    """A late caller hears of it; closing twice is fine."""
    publisher = ConfluentPublisher(kafka.bootstrap, client_id="tests")
    publisher.close()
    publisher.close()
    with pytest.raises(RuntimeError, match="closed"):
        publisher.publish([Record("t", b"k", b"v")])


def _publish_in_child(publisher: ConfluentPublisher, answer: Any) -> None:
    try:
        publisher.publish([Record("t", b"k", b"v")], timeout_s=2)
    except RuntimeError as error:
        answer.send_bytes(str(error).encode())
    os._exit(0)  # no client library's clean-up in a fork


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forked_child_is_refused(kafka: KafkaNode) -> None:
    """Otherwise the records would wait for ever in a queue without threads."""
    publisher = ConfluentPublisher(kafka.bootstrap, client_id="tests")
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_publish_in_child, args=(publisher, sender))
    child.start()
    assert receiver.poll(120)
    assert b"fork" in receiver.recv_bytes()
    child.join(120)
    publisher.close()
