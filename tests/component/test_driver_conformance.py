"""What `driftloop.runtime.transport` promises, held against every driver.

These cases need one process and run on memory, confluent-kafka and Faust. What needs
a process to be killed, frozen or ended is in `test_driver_kills.py`; memory has no
process of its own to kill and so has no cases there. A broker that is away at the
start or in between is memory's `outage()` here and a real outage there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import pytest
from confluent_kafka import Producer
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.drivers.confluent import ConfluentDriver, ConfluentPublisher
from driftloop.runtime.drivers.faust import FaustDriver
from driftloop.runtime.drivers.memory import (
    MemoryBroker,
    MemoryDriver,
    MemoryPublisher,
)
from driftloop.runtime.transport import (
    Driver,
    Message,
    Process,
    Publisher,
    Record,
    StartOffset,
)
from support.cluster import Cluster, eventually

JOIN_TIMEOUT_S = 120.0


class Transport(Protocol):
    """One kind of driver with its broker."""

    def create_topic(self, name: str, partitions: int = 1) -> None: ...
    def publish(
        self, topic: str, values: Iterable[bytes | None], partitions: int = 1
    ) -> None: ...
    def committed(self, group: str, topic: str, partition: int = 0) -> int | None: ...
    def commit(self, group: str, topic: str, offset: int) -> None: ...
    def driver(self, group: str, topics: Sequence[str], **options: Any) -> Driver: ...
    def publisher(self) -> Publisher: ...


class MemoryTransport:
    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def create_topic(self, name: str, partitions: int = 1) -> None:
        self.broker.create_topic(name, partitions)

    def publish(
        self, topic: str, values: Iterable[bytes | None], partitions: int = 1
    ) -> None:
        self.broker.append(
            [
                Record(topic, str(number).encode(), value, (), number % partitions)
                for number, value in enumerate(values)
            ]
        )

    def committed(self, group: str, topic: str, partition: int = 0) -> int | None:
        return self.broker.committed(group, topic, partition)

    def commit(self, group: str, topic: str, offset: int) -> None:
        self.broker.commit(group, {(topic, 0): offset})

    def driver(self, group: str, topics: Sequence[str], **_: Any) -> Driver:
        return MemoryDriver(self.broker, group, topics)

    def publisher(self) -> Publisher:
        return MemoryPublisher(self.broker)


class KafkaTransport(Cluster):
    def __init__(self, bootstrap: str, kind: Callable[..., Driver]) -> None:
        super().__init__(bootstrap)
        self._kind = kind

    def driver(self, group: str, topics: Sequence[str], **options: Any) -> Driver:
        return self._kind(self.bootstrap, group, topics, **options)

    def publisher(self) -> Publisher:
        return ConfluentPublisher(self.bootstrap, client_id="tests")


@pytest.fixture(params=["memory", "confluent", "faust"])
def transport(request: pytest.FixtureRequest) -> Transport:
    if request.param == "memory":
        return MemoryTransport()
    node: KafkaNode = request.getfixturevalue("kafka")
    kind = {"confluent": ConfluentDriver, "faust": FaustDriver}[request.param]
    return KafkaTransport(node.bootstrap, kind)


class Running:
    """A driver in a thread of its own, as a service runs it."""

    def __init__(
        self,
        driver: Driver,
        process: Process,
        start_offset: StartOffset = lambda _topic, _partition: None,
    ) -> None:
        self.driver = driver
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(process, start_offset))
        self._thread.start()

    def _run(self, process: Process, start_offset: StartOffset) -> None:
        try:
            self.driver.run(process, start_offset)
        except Exception as error:  # noqa: BLE001 - what run() raises is what is tested
            self.error = error

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join(JOIN_TIMEOUT_S)
        assert not self.is_alive, "the driver does not end"

    def end(self) -> None:
        """Stop in good order; the run must not have failed."""
        self.driver.stop()
        self.join()
        if self.error is not None:
            raise self.error


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Start drivers; whatever still runs at the end of the test is stopped."""
    runs: list[Running] = []

    def start(driver: Driver, process: Process, *more: Any) -> Running:
        runs.append(Running(driver, process, *more))
        return runs[-1]

    yield start
    for run in runs:
        run.driver.stop()
        run.join()


@pytest.fixture
def names(unique_name: Callable[[str], str]) -> tuple[str, str]:
    """Return the names of a topic and of a group."""
    return unique_name("topic"), unique_name("group")


def numbers(first: int, end: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, end)]


def values(messages: Sequence[Message]) -> list[bytes | None]:
    return [message.value for message in messages]


def test_all_come_in_order_and_are_committed(transport, start, names) -> None:
    """Order within each partition; status and commit say when all is done."""
    topic, group = names
    transport.create_topic(topic, 3)
    transport.publish(topic, numbers(0, 300), partitions=3)
    seen: list[Message] = []
    run = start(transport.driver(group, [topic]), seen.extend)
    eventually(lambda: len(seen) >= 300, "300 messages")
    eventually(lambda: run.driver.status().lag == 0, "lag 0")
    status = run.driver.status()
    assert status.connected
    assert status.processed == 300
    assert status.assigned == {(topic, number) for number in range(3)}
    run.end()
    for partition in range(3):
        mine = [m for m in seen if m.partition == partition]
        assert [m.offset for m in mine] == list(range(100))
        assert values(mine) == numbers(0, 300)[partition::3]
        assert transport.committed(group, topic, partition) == 100


def test_records_arrive_as_they_were_written(transport, start, names) -> None:
    """Key, headers and any bytes at all, unchanged: the driver decodes nothing."""
    topic, group = names
    transport.create_topic(topic)
    odd = [b"\xff\xfe", b"{", b"", None, b"[1]", b"\x00\x00", b"fine"]
    publisher = transport.publisher()
    headers = (("traceparent", b"00-1"), ("empty", b""), ("traceparent", b"00-2"))
    before_ms = time.time() * 1000
    publisher.publish([Record(topic, b"key", value, headers) for value in odd])
    publisher.close()
    seen: list[Message] = []
    run = start(transport.driver(group, [topic]), seen.extend)
    eventually(lambda: len(seen) == len(odd), "all records")
    run.end()
    assert values(seen) == odd
    assert {m.key for m in seen} == {b"key"}
    assert {m.headers for m in seen} == {headers}
    if not isinstance(transport, MemoryTransport):
        assert all(abs(m.timestamp_ms - before_ms) < 60_000 for m in seen)


@pytest.mark.parametrize("size", [200_000, 900_000], ids=["200KB", "900KB"])
def test_large_messages(transport, start, names, size: int) -> None:
    """Batches of the sizes that the chain moves, in both directions."""
    topic, group = names
    transport.create_topic(topic)
    bodies = [bytes([65 + number]) * size for number in range(20)]
    publisher = transport.publisher()
    publisher.publish([Record(topic, b"k", body) for body in bodies])
    publisher.close()
    seen: list[Message] = []
    run = start(transport.driver(group, [topic]), seen.extend)
    eventually(lambda: len(seen) == len(bodies), "all large messages")
    run.end()
    assert values(seen) == bodies


def test_process_that_raises_ends_the_run(transport, start, names) -> None:
    """`run` raises the same; nothing past it is committed; it comes again first."""
    topic, group = names
    transport.create_topic(topic)
    transport.publish(topic, numbers(0, 10))
    error = ValueError("a bug")

    def process(messages: Sequence[Message]) -> None:
        for message in messages:
            if message.offset >= 5:
                raise error

    run = start(transport.driver(group, [topic]), process)
    run.join()
    assert run.error is error
    assert (transport.committed(group, topic) or 0) <= 5

    seen: list[Message] = []
    again = start(transport.driver(group, [topic]), seen.extend)
    eventually(lambda: seen and seen[-1].offset == 9, "the rest")
    again.end()
    offsets = [m.offset for m in seen]
    assert offsets == list(range(offsets[0], 10))
    assert offsets[0] <= 5
    assert transport.committed(group, topic) == 10


@pytest.mark.parametrize(
    ("committed", "own", "first"),
    [(7, 3, 3), (3, 7, 3), (None, 4, 4), (6, 0, 0), (6, None, 6), (None, None, 0)],
)
def test_begins_at_the_lower_offset(
    transport, start, names, committed: int | None, own: int | None, first: int
) -> None:
    """A commit that ran ahead of the own database loses nothing, nor one behind it."""
    topic, group = names
    transport.create_topic(topic)
    transport.publish(topic, numbers(0, 10))
    if committed is not None:
        transport.commit(group, topic, committed)
    seen: list[Message] = []
    run = start(
        transport.driver(group, [topic]), seen.extend, lambda _topic, _partition: own
    )
    eventually(lambda: seen and seen[-1].offset == 9, "the last message")
    eventually(lambda: run.driver.status().lag == 0, "lag 0")
    run.end()
    assert [m.offset for m in seen] == list(range(first, 10))
    assert transport.committed(group, topic) == 10


@pytest.mark.parametrize("kind", [ConfluentDriver, FaustDriver])
def test_gaps_in_the_log_are_no_loss(kafka, start, names, kind) -> None:
    """Transaction markers take up offsets; memory has no log with gaps."""
    topic, group = names
    transport = KafkaTransport(kafka.bootstrap, kind)
    transport.create_topic(topic)
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "transactional.id": group}
    )
    producer.init_transactions(JOIN_TIMEOUT_S)
    for number in range(6):
        producer.begin_transaction()
        producer.produce(topic, str(number).encode())
        producer.commit_transaction(JOIN_TIMEOUT_S)
    seen: list[Message] = []
    run = start(transport.driver(group, [topic]), seen.extend)
    eventually(lambda: len(seen) >= 6, "all records")
    run.end()
    assert values(seen) == numbers(0, 6)
    assert [m.offset for m in seen] == [0, 2, 4, 6, 8, 10]


def test_waits_for_a_missing_topic(transport, start, names) -> None:
    """Nothing is read before all topics are there; then everything is."""
    topic, group = names
    late = f"{topic}-late"
    transport.create_topic(topic)
    transport.publish(topic, [b"early"])
    seen: list[Message] = []
    run = start(transport.driver(group, [topic, late]), seen.extend)
    time.sleep(1)  # no condition to poll for: the point is that nothing happens
    assert run.is_alive
    assert not seen
    transport.create_topic(late)
    transport.publish(late, [b"late"])
    eventually(lambda: len(seen) == 2, "a message of each topic")
    run.end()


def test_stop_while_waiting_for_a_topic(transport, start, names) -> None:
    """A process can be ended before it ever had anything to do."""
    topic, group = names
    run = start(transport.driver(group, [topic]), lambda _messages: None)
    run.end()


def test_stop_finishes_and_commits_the_chunk_in_work(transport, start, names) -> None:
    """What is in work at `stop` is done, committed, and not seen again."""
    topic, group = names
    transport.create_topic(topic)
    transport.publish(topic, [b"slow"])
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def process(_messages: Sequence[Message]) -> None:
        begun.set()
        assert go_on.wait(JOIN_TIMEOUT_S)
        done.set()

    run = start(transport.driver(group, [topic]), process)
    assert begun.wait(JOIN_TIMEOUT_S)
    run.driver.stop()
    time.sleep(1)  # long enough for a driver that would not wait to be gone
    assert run.is_alive
    go_on.set()
    run.end()
    assert done.is_set()
    assert transport.committed(group, topic) == 1


def test_two_members_share_the_partitions(transport, start, names) -> None:
    """A second member takes its share; when it leaves, the first has all again."""
    topic, group = names
    transport.create_topic(topic, 4)
    seen: list[list[Message]] = [[], []]
    first = start(transport.driver(group, [topic]), seen[0].extend)
    eventually(lambda: len(first.driver.status().assigned) == 4, "all for the first")
    second = start(transport.driver(group, [topic]), seen[1].extend)
    eventually(
        lambda: [len(r.driver.status().assigned) for r in (first, second)] == [2, 2],
        "two partitions each",
    )
    transport.publish(topic, numbers(0, 400), partitions=4)
    eventually(lambda: all(len(into) >= 200 for into in seen), "200 messages each")
    second.end()
    eventually(lambda: len(first.driver.status().assigned) == 4, "all for the first")
    transport.publish(topic, numbers(400, 800), partitions=4)
    eventually(lambda: len(seen[0]) >= 600, "400 more for the first")
    first.end()
    assert {m.value for into in seen for m in into} == set(numbers(0, 800))
    assert all(transport.committed(group, topic, n) == 200 for n in range(4))


def test_memory_outage_pauses_and_loses_nothing(start) -> None:
    """Down at the start and in between; test_driver_kills has the real outages."""
    transport = MemoryTransport()
    transport.create_topic("t")
    transport.publish("t", numbers(0, 5))
    seen: list[Message] = []
    with transport.broker.outage():
        run = start(transport.driver("g", ["t"]), seen.extend)
        time.sleep(0.2)  # nothing happens: no condition to poll for
        assert not seen
        assert not run.driver.status().connected
    eventually(lambda: len(seen) == 5, "the first five")
    with transport.broker.outage():
        eventually(lambda: not run.driver.status().connected, "the outage is noticed")
    transport.publish("t", numbers(5, 10))
    eventually(lambda: len(seen) == 10, "the last five")
    run.end()
    assert values(seen) == numbers(0, 10)
