"""A broker and driver in memory: the reference that the conformance suite starts from.

Deterministic: no thread of its own, partitions are visited in a fixed order.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from zlib import crc32

from driftloop.runtime.transport import (
    DriverStatus,
    Message,
    Process,
    PublishError,
    Record,
    StartOffset,
)

TopicPartition = tuple[str, int]
IDLE_WAIT_S = 0.05


class MemoryBroker:
    """Append-only logs with committed offsets and group membership; thread-safe."""

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._logs: dict[str, list[list[Message]]] = {}
        self._committed: dict[tuple[str, TopicPartition], int] = {}
        self._members: dict[str, list[object]] = {}
        self._available = True
        for topic, partitions in (topics or {}).items():
            self.create_topic(topic, partitions)

    @property
    def is_available(self) -> bool:
        return self._available

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Answer nobody meanwhile: nothing is published, read or committed."""
        self._set_available(False)
        try:
            yield
        finally:
            self._set_available(True)

    def _set_available(self, available: bool) -> None:
        with self._changed:
            self._available = available
            self._changed.notify_all()

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Create a topic; an existing one stays as it is."""
        with self._changed:
            self._logs.setdefault(topic, [[] for _ in range(partitions)])
            self._changed.notify_all()

    def append(self, records: Sequence[Record]) -> None:
        """Write records, all or none of them.

        Raises
        ------
        PublishError
            During an outage, and when a topic does not exist.
        """
        with self._changed:
            if not self._available:
                raise PublishError("the broker does not answer")
            missing = {r.topic for r in records} - self._logs.keys()
            if missing:
                raise PublishError(f"no such topic: {', '.join(sorted(missing))}")
            for record in records:
                self._append(record)
            self._changed.notify_all()

    def _append(self, record: Record) -> None:
        partitions = self._logs[record.topic]
        number = record.partition
        if number is None:
            number = crc32(record.key or b"") % len(partitions)
        log = partitions[number]
        message = Message(
            record.topic, number, len(log), record.key, record.value, record.headers
        )
        log.append(message)

    def log(self, topic: str, partition: int = 0) -> tuple[Message, ...]:
        """Everything written to a partition so far."""
        with self._changed:
            return tuple(self._logs[topic][partition])

    def committed(self, group: str, topic: str, partition: int = 0) -> int | None:
        with self._changed:
            return self._committed.get((group, (topic, partition)))

    def commit(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        with self._changed:
            for partition, offset in offsets.items():
                self._committed[group, partition] = offset

    def join(self, group: str, member: object) -> None:
        with self._changed:
            self._members.setdefault(group, []).append(member)
            self._changed.notify_all()

    def leave(self, group: str, member: object) -> None:
        with self._changed:
            self._members[group].remove(member)
            self._changed.notify_all()

    def assignment(
        self, group: str, member: object, topics: Sequence[str]
    ) -> list[TopicPartition] | None:
        """Return this member's share; None while the broker or a topic is missing."""
        with self._changed:
            if not self._available or any(t not in self._logs for t in topics):
                return None
            members = self._members[group]
            place = members.index(member)
            return [
                (topic, number)
                for topic in topics
                for number in range(len(self._logs[topic]))
                if number % len(members) == place
            ]

    def read(self, partition: TopicPartition, offset: int, limit: int) -> list[Message]:
        with self._changed:
            if not self._available:
                return []
            return self._logs[partition[0]][partition[1]][offset : offset + limit]

    def end(self, partition: TopicPartition) -> int:
        with self._changed:
            return len(self._logs[partition[0]][partition[1]])

    def wait(self, timeout_s: float) -> None:
        """Return when something has changed, or after the time."""
        with self._changed:
            self._changed.wait(timeout_s)


class MemoryDriver:
    """A :class:`transport.Driver` on a :class:`MemoryBroker`."""

    def __init__(
        self,
        broker: MemoryBroker,
        group: str,
        topics: Sequence[str],
        *,
        max_chunk: int = 500,
    ) -> None:
        self._broker = broker
        self._group = group
        self._topics = tuple(topics)
        self._max_chunk = max_chunk
        self._stopping = threading.Event()
        self._positions: dict[TopicPartition, int] = {}
        self._processed = 0

    def run(self, process: Process, start_offset: StartOffset) -> None:
        """See :meth:`transport.Driver.run`; works in the calling thread."""
        self._broker.join(self._group, self)
        try:
            while not self._stopping.is_set():
                self._rebalance(start_offset)
                if not self._work_through(process):
                    self._broker.wait(IDLE_WAIT_S)
        finally:
            self._positions = {}
            self._broker.leave(self._group, self)

    def stop(self) -> None:
        self._stopping.set()

    def status(self) -> DriverStatus:
        positions = dict(self._positions)
        connected = self._broker.is_available
        lag = sum(self._broker.end(p) - at for p, at in positions.items())
        return DriverStatus(
            connected,
            frozenset(positions),
            lag if positions and connected else None,
            self._processed,
        )

    def _rebalance(self, start_offset: StartOffset) -> None:
        share = self._broker.assignment(self._group, self, self._topics)
        if share is None or set(share) == set(self._positions):
            return
        positions = {}
        for topic, number in share:
            offsets = (
                self._broker.committed(self._group, topic, number),
                start_offset(topic, number),
            )
            known = [offset for offset in offsets if offset is not None]
            positions[topic, number] = min(known, default=0)
        self._positions = positions

    def _work_through(self, process: Process) -> bool:
        """Process what is there, one chunk a partition; False when nothing was."""
        worked = False
        for partition, position in tuple(self._positions.items()):
            chunk = self._broker.read(partition, position, self._max_chunk)
            if not chunk or self._stopping.is_set():
                continue
            process(chunk)
            worked = True
            self._positions[partition] = chunk[-1].offset + 1
            self._processed += len(chunk)
            self._broker.commit(self._group, {partition: chunk[-1].offset + 1})
        return worked


class MemoryPublisher:
    """A :class:`transport.Publisher` on a :class:`MemoryBroker`."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def publish(self, records: Sequence[Record], timeout_s: float = 30.0) -> None:  # noqa: ARG002 - part of the protocol; memory answers at once
        self._broker.append(records)

    def close(self) -> None:
        pass
