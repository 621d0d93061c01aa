"""Faust's windowed tables, fed from the messages as the driver processes them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import faust
import pytest
from confluent_kafka import Producer
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.drivers.faust import FaustDriver, Feed
from driftloop.runtime.drivers.faust_transport import Consumer
from driftloop.runtime.transport import Message
from support.cluster import Cluster, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WINDOW_S = 60.0
KEPT_S = 7 * 24 * 3600.0


class Counts:
    """A tumbling count of messages a minute, and what the feed read from it."""

    def __init__(self) -> None:
        self.read: dict[float, int] = {}

    def configure(self, app: Any) -> Feed:
        table = app.Table(
            "minutes",
            default=int,
            key_type=str,
            value_type=int,
            use_partitioner=True,  # source topics may differ in partitions
        ).tumbling(WINDOW_S, expires=KEPT_S, key_index=True)

        def feed(message: Message) -> None:
            table["all"] += 1
            window = message.timestamp_ms / 1000 // WINDOW_S * WINDOW_S
            self.read[window] = table["all"].current()

        return feed


def consume(
    cluster: Cluster, group: str, topics: list[str], counts: Counts, expected: int
) -> None:
    """Run a driver until it has processed so many messages."""
    driver = FaustDriver(cluster.bootstrap, group, topics, configure=counts.configure)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            driver.run(lambda _messages: None, lambda _topic, _partition: None)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(
            lambda: driver.status().processed == expected or errors,
            f"{expected} messages",
            120,
            driver.status,
        )
    finally:
        driver.stop()
        thread.join(120)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


@pytest.fixture
def scene(
    kafka: KafkaNode, unique_name: Callable[[str], str]
) -> tuple[Cluster, str, list[str]]:
    """Return a broker, a group and two topics that differ in partitions."""
    cluster = Cluster(kafka.bootstrap)
    topics = [unique_name("wide"), unique_name("narrow")]
    cluster.create_topic(topics[0], 3)
    cluster.create_topic(topics[1], 1)
    return cluster, unique_name("views"), topics


def write(cluster: Cluster, topic: str, at_s: float, count: int) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
    for number in range(count):
        producer.produce(topic, b"{}", key=str(number), timestamp=int(at_s * 1000))
    assert producer.flush(120) == 0


def test_windows_are_fed_read_and_survive_a_restart(scene) -> None:
    """Each minute has its count; a new process goes on from the changelog."""
    cluster, group, topics = scene
    first = time.time() // WINDOW_S * WINDOW_S - 3600
    second = first + WINDOW_S
    write(cluster, topics[0], first + 5, 20)
    write(cluster, topics[1], first + 30, 10)
    write(cluster, topics[0], second + 5, 7)
    counts = Counts()
    consume(cluster, group, topics, counts, 37)
    assert counts.read == {first: 30, second: 7}

    write(cluster, topics[1], second + 59, 1)
    again = Counts()
    consume(cluster, group, topics, again, 1)
    assert again.read == {second: 8}


def test_redelivered_messages_are_counted_again(scene) -> None:
    """Why nothing may be decided on a table alone: the driver's promise is once at
    least, and only the handler's own database knows what was there before."""
    cluster, group, topics = scene
    minute = time.time() // WINDOW_S * WINDOW_S - 3600
    write(cluster, topics[1], minute, 10)
    consume(cluster, group, topics, Counts(), 10)
    eventually(lambda: cluster.committed(group, topics[1]) == 10, "a commit")
    cluster.commit(group, topics[1], 4)  # as after a kill before the commit
    again = Counts()
    consume(cluster, group, topics, again, 6)
    assert again.read == {minute: 16}


def test_messages_that_faust_leaves_out_are_read_after_all(
    scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust sometimes goes past messages after an assignment; here it is made to."""
    cluster, group, topics = scene
    write(cluster, topics[1], time.time() - 60, 10)
    getmany = Consumer.getmany
    left_out: set[int] = set()
    offsets: list[int] = []

    async def leaping(self: Consumer, timeout: float) -> AsyncIterator[Any]:
        async for partition, message in getmany(self, timeout):
            if message.offset in {3, 4, 5} - left_out:
                left_out.add(message.offset)
            else:
                yield partition, message

    class Offsets(Counts):
        def configure(self, app: Any) -> Feed:
            return lambda message: offsets.append(message.offset)

    monkeypatch.setattr(Consumer, "getmany", leaping)
    consume(cluster, group, topics, Offsets(), 10)
    assert left_out == {3, 4, 5}
    assert offsets == list(range(10))


def test_nothing_is_handed_over_before_the_seek(
    scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table recovery resumes partitions and seeks only then; the seek takes long here.

    What comes in between may be lost: handed over before it is settled where to
    begin, and dropped as known when the seek brings it again.
    """
    cluster, group, topics = scene
    write(cluster, topics[1], time.time() - 60, 10)
    consume(cluster, group, topics, Counts(), 10)
    eventually(lambda: cluster.committed(group, topics[1]) == 10, "a commit")
    cluster.commit(group, topics[1], 4)
    seek, getmany = Consumer.seek_to_committed, Consumer.getmany
    story: list[int | str] = []

    async def slow_seek(self: Consumer) -> Mapping[Any, int]:
        await asyncio.sleep(2)
        try:
            return await seek(self)
        finally:
            story.append("seek")

    async def told(self: Consumer, timeout: float) -> AsyncIterator[Any]:
        async for partition, message in getmany(self, timeout):
            if partition.topic in topics:
                story.append(message.offset)
            yield partition, message

    monkeypatch.setattr(Consumer, "seek_to_committed", slow_seek)
    monkeypatch.setattr(Consumer, "getmany", told)
    consume(cluster, group, topics, Counts(), 6)
    assert story == ["seek", *range(4, 10)]


def test_feed_that_raises_ends_the_run_uncommitted(scene) -> None:
    """A feed is part of the work: its failure is not committed over."""
    cluster, group, topics = scene
    write(cluster, topics[1], time.time() - 60, 5)

    class Failing(Counts):
        def configure(self, app: Any) -> Feed:
            def feed(message: Message) -> None:
                if message.offset == 2:
                    raise ValueError("a bug in a view")

            return feed

    with pytest.raises(ValueError, match="a bug in a view"):
        consume(cluster, group, topics, Failing(), 5)
    assert cluster.committed(group, topics[1]) in {None, 2}


def test_configure_sees_a_faust_app(scene) -> None:
    """The hook gets the app itself, before it starts: agents can be added too."""
    cluster, group, topics = scene
    write(cluster, topics[1], time.time() - 60, 3)
    seen: list[bytes] = []

    class Agent(Counts):
        def configure(self, app: Any) -> None:  # type: ignore[override]
            assert isinstance(app, faust.App)
            raw = app.topic(topics[1], value_type=bytes, value_serializer="raw")

            async def beside(stream: Any) -> None:
                async for event in stream.events():
                    seen.append(event.value)  # noqa: PERF401 - an endless stream

            app.agent(raw)(beside)

    consume(cluster, group, topics, Agent(), 3)
    assert seen == [b"{}"] * 3
    assert cluster.committed(group, topics[1]) == 3
