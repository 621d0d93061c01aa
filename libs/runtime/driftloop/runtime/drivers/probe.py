"""Asks the broker from outside the consumer: topics, ends of partitions, life.

A consumer that has silently stopped reading does not know that it lags; so what
the watchdog and the readiness look at does not come from it.

Two ways of librdkafka 2.16 shape how it asks. An admin request that waits for a
group's coordinator ends the process when the coordinator comes back after the
request's time (librdkafka issue 4605): positions are asked of a consumer, and members
only of a coordinator that has just answered. And after a restart of a broker an admin
client goes by the old leaders until it has asked for them: each look begins there.
"""

import logging
import threading
import time
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

logger = logging.getLogger(__name__)

Partition = tuple[str, int]
"""``(topic, partition number)``."""

INTERVAL_S = 1.0
REQUEST_TIMEOUT_S = 3.0
ANSWERED_LATELY_S = INTERVAL_S + REQUEST_TIMEOUT_S + 1.0
FIRST_WAIT_S = 0.2
MAX_WAIT_S = 2.0


class BrokerProbe:
    """An admin client that looks at topics, partition ends and a group; thread-safe.

    Parameters
    ----------
    bootstrap : ``host:port,…`` of the brokers.
    group : the consumer group whose member is watched.
    client_config : librdkafka settings for security.
    """

    def __init__(
        self, bootstrap: str, group: str, client_config: Mapping[str, str]
    ) -> None:
        self._group = group
        self._client = {
            "bootstrap.servers": bootstrap,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,  # this class says in its own words what it waits for
            **client_config,
        }
        self._admin = AdminClient(self._client)
        self._topics: dict[str, int] = {}
        self._ends: dict[Partition, tuple[int, int]] = {}
        self._stranded = 0
        self._read: dict[Partition, int] = {}
        self._answered_at: float | None = None
        self._stop = threading.Event()

    @property
    def connected(self) -> bool:
        """Whether the broker answered lately."""
        at = self._answered_at
        return at is not None and time.monotonic() - at < ANSWERED_LATELY_S

    def wait_for_topics(
        self, topics: Sequence[str], stopping: threading.Event
    ) -> dict[str, int] | None:
        """Wait until the broker answers and has all topics.

        Returns
        -------
        dict or None
            Number of partitions of each topic; None when asked to stop before.
        """
        wait_s, said = FIRST_WAIT_S, ""
        while not stopping.is_set():
            try:
                known = self._admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
            except KafkaException as error:
                waiting_for = f"the broker ({error.args[0].str()})"
            else:
                self._answered_at = time.monotonic()
                missing = [t for t in topics if t not in known or known[t].error]
                if not missing:
                    self._topics = {t: len(known[t].partitions) for t in topics}
                    return self._topics
                waiting_for = f"topics {', '.join(sorted(missing))}"
            if waiting_for != said:
                logger.warning("waiting for %s", waiting_for)
                said = waiting_for
            stopping.wait(wait_s)
            wait_s = min(wait_s * 2, MAX_WAIT_S)
        return None

    def create_topic(
        self, name: str, partitions: int, settings: Mapping[str, str]
    ) -> None:
        """Create a topic with the cluster's default replication, if it is missing."""
        wanted = NewTopic(name, partitions, config=dict(settings))
        (future,) = self._admin.create_topics([wanted]).values()
        try:
            future.result(2 * REQUEST_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def first_offset(
        self, partition: Partition, at: int, stopping: threading.Event
    ) -> int | None:
        """Offset of the first record from ``at`` on, read independently.

        Waits until there is one; None when asked to stop before.
        """
        consumer = Consumer(
            {
                **self._client,
                "group.id": "driftloop-probe",  # required, never joined
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_uncommitted",
            }
        )
        try:
            consumer.assign([TopicPartition(*partition, at)])
            while not stopping.is_set():
                raw = consumer.poll(INTERVAL_S)
                if raw is not None and raw.error() is None:
                    return int(raw.offset())
        finally:
            consumer.close()
        return None

    @contextmanager
    def watching(
        self,
        assigned: Callable[[], Iterable[Partition]],
        begun: Callable[[], Collection[Partition]],
    ) -> Iterator[None]:
        """Ask again and again, in a thread, for the ends of what is assigned.

        ``begun`` tells what of it is being read.
        """
        bystander = self._bystander()
        thread = threading.Thread(
            target=self._watch,
            args=(assigned, begun, bystander),
            name="broker-probe",
            daemon=True,
        )
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(2 * REQUEST_TIMEOUT_S)

    def lag(self, positions: Mapping[Partition, int]) -> int | None:
        """Messages between positions and ends; None when an end is unknown.

        Records that retention has removed do not count. In a topic written by
        Kafka transactions the markers do, so its lag may never reach 0.
        """
        ends = self._ends
        if not positions or any(p not in ends for p in positions):
            return None
        return sum(
            max(0, ends[p][1] - max(position, ends[p][0]))
            for p, position in positions.items()
        )

    @property
    def stranded(self) -> int:
        """See :attr:`transport.DriverStatus.stranded`."""
        return self._stranded

    def _watch(
        self,
        assigned: Callable[[], Iterable[Partition]],
        begun: Callable[[], Collection[Partition]],
        bystander: Consumer,
    ) -> None:
        try:
            while not self._stop.wait(INTERVAL_S):
                try:
                    self._look(list(assigned()), begun(), bystander)
                except (KafkaException, FutureTimeoutError) as error:
                    logger.debug("the broker does not answer: %s", error)
                else:
                    self._answered_at = time.monotonic()
                bystander.poll(0)  # drops what it has to say
        finally:
            bystander.close()

    def _bystander(self) -> Consumer:
        """Make a consumer that asks for the group's positions, and never joins."""
        never_joined = {"group.id": self._group, "session.timeout.ms": 6000}
        return Consumer({**self._client, **never_joined})

    def _look(
        self,
        assigned: list[Partition],
        begun: Collection[Partition],
        bystander: Consumer,
    ) -> None:
        self._admin.list_topics(timeout=REQUEST_TIMEOUT_S)
        partitions = assigned or self._every_partition()
        low = self._offsets(partitions, OffsetSpec.earliest())
        high = self._offsets(partitions, OffsetSpec.latest())
        self._ends = {p: (low[p], high[p]) for p in partitions}
        idle = [p for p in partitions if p not in begun]
        self._stranded = self._unread(idle, bystander, are_mine=bool(assigned))

    def _unread(
        self, partitions: list[Partition], bystander: Consumer, *, are_mine: bool
    ) -> int:
        """Count the messages of partitions that nobody reads."""
        read_before, self._read = self._read, {}
        if not partitions:
            return 0
        self._read = {
            (at.topic, at.partition): at.offset
            for at in bystander.committed(
                [TopicPartition(*p) for p in partitions], REQUEST_TIMEOUT_S
            )
        }
        if are_mine:
            return self.lag(self._read) or 0  # without a commit the offset is negative
        still = {p: at for p, at in self._read.items() if read_before.get(p) == at}
        return self.lag(self._without_reader(still)) or 0 if self.lag(still) else 0

    def _without_reader(self, positions: dict[Partition, int]) -> dict[Partition, int]:
        """Return the partitions that no member of the group has."""
        (future,) = self._admin.describe_consumer_groups(
            [self._group], request_timeout=REQUEST_TIMEOUT_S
        ).values()
        held = {
            (held.topic, held.partition)
            for member in future.result(2 * REQUEST_TIMEOUT_S).members
            for held in member.assignment.topic_partitions
        }
        return {p: at for p, at in positions.items() if p not in held}

    def _every_partition(self) -> list[Partition]:
        return [(t, n) for t, count in self._topics.items() for n in range(count)]

    def _offsets(
        self, partitions: list[Partition], spec: OffsetSpec
    ) -> dict[Partition, int]:
        wanted = {TopicPartition(*partition): spec for partition in partitions}
        futures = self._admin.list_offsets(wanted, request_timeout=REQUEST_TIMEOUT_S)
        return {
            (p.topic, p.partition): future.result(2 * REQUEST_TIMEOUT_S).offset
            for p, future in futures.items()
        }
