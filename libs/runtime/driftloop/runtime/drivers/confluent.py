"""Driver and publisher on confluent-kafka (librdkafka).

One thread polls; the work runs in one other thread. So heartbeats, rebalances and
``max.poll.interval.ms`` are served however long a chunk takes.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_STORED,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from driftloop.runtime.drivers.errors import ClientErrors
from driftloop.runtime.drivers.probe import BrokerProbe, Partition
from driftloop.runtime.drivers.publisher import ConfluentPublisher
from driftloop.runtime.transport import DriverStatus, Message, Process, StartOffset

__all__ = ["ConfluentDriver", "ConfluentPublisher"]

logger = logging.getLogger(__name__)

IDLE_POLL_S = 0.2
WORK_POLL_S = 0.1
PATIENCE_S = 0.5
"""Work that is done within this time costs no pause: a pause empties the prefetch
queue, so everything in it would be fetched twice."""
REVOKE_WAIT_S = 2.0
"""How long a rebalance waits for the chunk in work; must stay far below the session
time-out."""
OFFSET_TIMEOUT_S = 10.0
COMMIT_INTERVAL_S = 0.5
MAX_CHUNK_BYTES = 16 * 1024 * 1024
CLIENT_DEFAULTS = {
    # Starting point, and who moves it: this driver alone, after the work. (The
    # client's own commits are not tried again when one fails in an outage.)
    "auto.offset.reset": "earliest",
    "enable.auto.offset.store": False,
    "enable.auto.commit": False,
    "partition.assignment.strategy": "range",
    "allow.auto.create.topics": False,
    # Batches of 200 KB: room for some, and a quick return after the queue was full
    # (librdkafka's default is 1 s, which would throttle to one queue a second).
    "fetch.max.bytes": 16 * 1024 * 1024,
    "max.partition.fetch.bytes": 4 * 1024 * 1024,
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.queue.backoff.ms": 20,
    "reconnect.backoff.max.ms": 1000,
    "log_level": 2,  # errors come through ClientErrors, without the repetition
}


@dataclass(slots=True)
class _Work:
    """A chunk in the worker thread, and what may be committed after it."""

    future: Future[None]
    count: int
    ends: dict[Partition, int]


class ConfluentDriver:
    """A :class:`transport.Driver` on a confluent-kafka consumer.

    Parameters
    ----------
    bootstrap : ``host:port,…`` of the brokers.
    group : consumer group.
    topics : names; all must exist before anything is read.
    instance_id : stable name of this replica (static membership): a restart
        within the session time-out gets its partitions back at once.
    max_chunk : most messages given to ``process`` at once.
    session_timeout_s : after this silence others take over the partitions.
    client_config : more librdkafka settings; they win over the defaults.
    """

    def __init__(
        self,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        *,
        instance_id: str | None = None,
        max_chunk: int = 500,
        session_timeout_s: float = 8,
        client_config: Mapping[str, str] | None = None,
    ) -> None:
        self._topics = list(topics)
        self._max_chunk = max_chunk
        self._config: dict[str, Any] = {
            **CLIENT_DEFAULTS,
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "session.timeout.ms": int(session_timeout_s * 1000),
            "heartbeat.interval.ms": int(session_timeout_s * 1000 / 4),
            **({"group.instance.id": instance_id} if instance_id else {}),
            "error_cb": ClientErrors(logger),
            "on_commit": self._on_commit,
            **(client_config or {}),
        }
        self._probe = BrokerProbe(bootstrap, group, client_config or {})
        self._stopping = threading.Event()
        self._start_offset: StartOffset = lambda _topic, _partition: None
        self._positions: dict[Partition, int] = {}  # next offset to process
        self._done: dict[Partition, int] = {}  # to be committed
        self._committed: dict[Partition, int] = {}
        self._next_commit_s = 0.0
        self._pending: list[Message] = []
        self._work: _Work | None = None
        self._delivering: set[Partition] = set()  # since the last assignment
        self._paused: set[Partition] = set()
        self._processed = 0

    def run(self, process: Process, start_offset: StartOffset) -> None:
        """See :meth:`transport.Driver.run`.

        Raises
        ------
        KafkaException
            When the client cannot go on, for example fenced by another process
            with the same ``instance_id``.
        """
        if self._probe.wait_for_topics(self._topics, self._stopping) is None:
            return
        self._start_offset = start_offset
        consumer = Consumer(self._config)
        with (
            self._probe.watching(self._held, self._held),
            ThreadPoolExecutor(1, "driver-work") as worker,
        ):
            try:
                consumer.subscribe(
                    self._topics,
                    on_assign=self._on_assign,
                    on_revoke=self._on_revoke,
                    on_lost=self._on_lost,
                )
                while not self._stopping.is_set():
                    self._commit_when_due(consumer)
                    chunk = self._next_chunk(consumer)
                    if chunk:
                        future = worker.submit(process, chunk)
                        self._work = _Work(future, len(chunk), _ends(chunk))
                        self._await_work(consumer)
                        self._settle()
            finally:
                consumer.close()  # revokes, which commits what is done
                self._forget()

    def stop(self) -> None:
        self._stopping.set()

    def status(self) -> DriverStatus:
        positions = dict(self._positions)
        return DriverStatus(
            connected=self._probe.connected,
            assigned=frozenset(positions),
            lag=self._probe.lag(positions),
            processed=self._processed,
            stranded=self._probe.stranded,
        )

    def _held(self) -> tuple[Partition, ...]:
        return tuple(self._positions)

    def _next_chunk(self, consumer: Consumer) -> list[Message]:
        """Return what is there now; wait a little when nothing is.

        Polls one by one: a rebalance in between then empties what was collected
        for partitions that are no longer ours (see ``_forget``).
        """
        size = 0
        while len(self._pending) < self._max_chunk and size < MAX_CHUNK_BYTES:
            raw = consumer.poll(0 if self._pending else IDLE_POLL_S)
            if raw is None:
                break
            self._take(raw)
            size += len(raw)
        chunk, self._pending = self._pending, []
        return chunk

    def _take(self, raw: Any) -> None:
        error = raw.error()
        if error is None:
            self._pending.append(_message(raw))
            self._delivering.add((raw.topic(), raw.partition()))
        elif error.fatal():
            raise KafkaException(error)
        else:
            logger.warning("consumer: %s", error.str())

    def _await_work(self, consumer: Consumer) -> None:
        """Wait for the worker; go on polling, paused, when it takes long."""
        assert self._work is not None  # noqa: S101 - set by the only caller
        future = self._work.future
        wait([future], PATIENCE_S)
        if future.done():
            return
        while not future.done():
            self._pause(consumer)
            raw = consumer.poll(WORK_POLL_S)
            if raw is not None:
                self._take(raw)
            self._commit_when_due(consumer)
        self._resume(consumer)

    def _pause(self, consumer: Consumer) -> None:
        """Pause what has delivered since it was assigned, and nothing else.

        A partition that is paused while its first fetch starts may stay silent
        after the resume (seen with librdkafka 2.16).
        """
        now = self._delivering - self._paused
        if now:
            consumer.pause([TopicPartition(*partition) for partition in now])
            self._paused |= now

    def _resume(self, consumer: Consumer) -> None:
        """Resume what is paused; before it is taken away too, for pauses outlive that.

        Paused from its assignment on, a partition would stay silent for good.
        """
        paused = [TopicPartition(*partition) for partition in self._paused]
        self._paused.clear()
        if paused:
            consumer.resume(paused)

    def _settle(self) -> None:
        """Let finished work be committed, or raise what it raised."""
        work, self._work = self._work, None
        if work is None:
            return
        work.future.result()
        self._processed += work.count
        self._positions.update(work.ends)
        self._done.update(work.ends)

    def _commit_when_due(self, consumer: Consumer) -> None:
        if time.monotonic() > self._next_commit_s:
            self._next_commit_s = time.monotonic() + COMMIT_INTERVAL_S
            self._commit(consumer, asynchronous=True)

    def _commit(self, consumer: Consumer, *, asynchronous: bool) -> None:
        """Commit what is done and not yet known to be committed."""
        offsets = [
            TopicPartition(*partition, offset)
            for partition, offset in self._done.items()
            if self._committed.get(partition) != offset
        ]
        if offsets:
            try:
                consumer.commit(offsets=offsets, asynchronous=asynchronous)
            except KafkaException as error:
                logger.warning("commit failed: %s", error.args[0].str())

    def _on_commit(
        self, error: KafkaError | None, partitions: list[TopicPartition]
    ) -> None:
        """Note what is committed; the rest is tried again at the next interval."""
        for partition in partitions:
            at = (partition.topic, partition.partition)
            reason = error or partition.error
            if reason is None and at in self._done:
                self._committed[at] = partition.offset
            elif reason is not None:
                logger.warning("commit failed: %s", reason.str())

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        begin = self._begin(consumer, partitions)
        self._positions = {(p.topic, p.partition): max(0, p.offset) for p in begin}
        logger.info("assigned: %s", _names(begin))
        consumer.assign(begin)

    def _begin(
        self, consumer: Consumer, partitions: list[TopicPartition]
    ) -> list[TopicPartition]:
        """Lower of the group's committed and the handler's own offset."""
        unknown = OFFSET_BEGINNING
        try:
            partitions = consumer.committed(partitions, timeout=OFFSET_TIMEOUT_S)
        except KafkaException as error:
            # Safe: what lies before the own offset is stored, and without one the
            # client asks for the group's offset again by itself.
            logger.warning("no committed offsets: %s", error.args[0].str())
            unknown = OFFSET_STORED
        begin = []
        for partition in partitions:
            own = self._start_offset(partition.topic, partition.partition)
            known = [partition.offset] if partition.offset >= 0 else []
            known += [] if own is None else [own]
            offset = min(known, default=unknown)
            begin.append(TopicPartition(partition.topic, partition.partition, offset))
        return begin

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        logger.info("revoked: %s", _names(partitions))
        if self._work is not None:
            wait([self._work.future], REVOKE_WAIT_S)
            if self._work.future.done() and self._work.future.exception() is None:
                self._settle()
        self._commit(consumer, asynchronous=False)
        self._resume(consumer)
        self._forget()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        logger.warning("lost: %s", _names(partitions))
        self._resume(consumer)
        self._forget()

    def _forget(self) -> None:
        """Never commit for partitions that may belong to someone else by now."""
        self._positions = {}
        self._done = {}
        self._committed = {}
        self._pending.clear()
        self._delivering.clear()
        self._paused.clear()
        if self._work is not None:
            self._work.ends.clear()


def _message(raw: Any) -> Message:
    return Message(
        topic=raw.topic(),
        partition=raw.partition(),
        offset=raw.offset(),
        key=raw.key(),
        value=raw.value(),
        headers=tuple((name, value or b"") for name, value in raw.headers() or ()),
        timestamp_ms=raw.timestamp()[1],
    )


def _ends(chunk: Sequence[Message]) -> dict[Partition, int]:
    return {(m.topic, m.partition): m.offset + 1 for m in chunk}


def _names(partitions: Sequence[TopicPartition]) -> str:
    return ", ".join(f"{p.topic}/{p.partition}@{p.offset}" for p in partitions) or "-"
