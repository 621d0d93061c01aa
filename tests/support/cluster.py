"""What tests do to a broker and ask of it, by other means than the drivers."""

import time
from collections.abc import Callable, Iterable, Sequence

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.admin import OffsetSpec as Spec
from driftloop.contracts.topics import consumed_by

TIMEOUT_S = 120.0
POLL_S = 0.05


def eventually(
    condition: Callable[[], object],
    what: str,
    timeout_s: float = TIMEOUT_S,
    more: Callable[[], object] = lambda: "",
) -> None:
    """Poll until the condition holds; fail with what was waited for, and more."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}\n{more()}")
        time.sleep(POLL_S)


def committed_lag(bootstrap: str, service: str) -> int:
    """Return messages that a service's group has not committed, as of now.

    What a service itself says of its lag may be a moment old.
    """
    group = f"driftloop-{service}"
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        partitions = [
            TopicPartition(topic.name, number)
            for topic in consumed_by(service)
            for number in range(topic.partitions)
        ]
        lag = 0
        for committed in consumer.committed(partitions, timeout=TIMEOUT_S):
            low, high = consumer.get_watermark_offsets(committed, timeout=TIMEOUT_S)
            lag += high - max(committed.offset, low)
        return lag
    finally:
        consumer.close()


class Cluster:
    """A real broker, seen from outside."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self._client = {"bootstrap.servers": bootstrap, "log_level": 0}
        self._admin = AdminClient(self._client)
        self._producer = Producer({**self._client, "message.max.bytes": 8_000_000})

    def create_topic(self, name: str, partitions: int = 1) -> None:
        for future in self._admin.create_topics([NewTopic(name, partitions)]).values():
            future.result(TIMEOUT_S)

    def publish(
        self, topic: str, values: Iterable[bytes | None], partitions: int = 1
    ) -> None:
        """Write values in order, round robin over the partitions."""
        failures: list[str] = []
        for number, value in enumerate(values):
            self._producer.produce(
                topic,
                value=value,
                key=str(number).encode(),
                partition=number % partitions,
                on_delivery=lambda error, _: (
                    failures.append(str(error)) if error else None
                ),
            )
        left = self._producer.flush(TIMEOUT_S)
        assert not left, f"{left} not delivered"
        assert not failures, failures

    def committed(self, group: str, topic: str, partition: int = 0) -> int | None:
        """Return the group's offset; None while there is none (or no broker)."""
        try:
            offset = self._position(group, topic, partition)
        except KafkaException:
            return None
        return offset if offset >= 0 else None

    def _position(self, group: str, topic: str, partition: int) -> int:
        """Ask the group's coordinator; below 0 if the group has no position."""
        consumer = Consumer({**self._client, "group.id": group})
        try:
            wanted = [TopicPartition(topic, partition)]
            (answer,) = consumer.committed(wanted, timeout=30)
        finally:
            consumer.close()
        return int(answer.offset)

    def commit(self, group: str, topic: str, offset: int, partition: int = 0) -> None:
        """Set the offset of a group without members."""
        consumer = Consumer({**self._client, "group.id": group})
        try:
            offsets = [TopicPartition(topic, partition, offset)]
            consumer.commit(offsets=offsets, asynchronous=False)
        finally:
            consumer.close()

    def end(self, topic: str, partition: int = 0) -> int:
        try:
            return self._end(topic, partition)
        except KafkaException:
            # A broker that was killed may have an older epoch than this client knows.
            self._admin = AdminClient(self._client)
            return self._end(topic, partition)

    def _end(self, topic: str, partition: int) -> int:
        wanted = {TopicPartition(topic, partition): Spec.latest()}
        (future,) = self._admin.list_offsets(wanted).values()
        return int(future.result(TIMEOUT_S).offset)

    def is_done(self, group: str, topic: str, partitions: int = 1) -> bool:
        """Whether the group has committed to the end of each partition."""
        return all(
            self.committed(group, topic, number) == self.end(topic, number)
            for number in range(partitions)
        )

    def shares(self, group: str, topic: str) -> list[int]:
        """Return each member's number of partitions in a settled group, sorted.

        An admin request that finds no coordinator may be left without an answer
        (librdkafka issue 4605), so one is asked only after it has given a position.
        """
        try:
            self._position(group, topic, 0)
            (future,) = self._admin.describe_consumer_groups([group]).values()
            found = future.result(5)
        except (KafkaException, TimeoutError):  # there is none yet, or it is loading
            return []
        if found.state is not ConsumerGroupState.STABLE:
            return []
        return sorted(len(m.assignment.topic_partitions) for m in found.members)

    def values(self, topic: str) -> Sequence[bytes]:
        """Everything in partition 0 of a topic."""
        end = self.end(topic)
        consumer = Consumer({**self._client, "group.id": "reader-of-tests"})
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[bytes] = []
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while len(found) < end and time.monotonic() < deadline:
                raw = consumer.poll(1)
                if raw is not None and raw.error() is None:
                    found.append(raw.value())
        finally:
            consumer.close()
        return found
