"""Reads topics from their beginning, or one record, without a consumer group."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from driftloop.runtime.drivers.errors import ClientErrors
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Message

logger = log(__name__)
client_logger = logging.getLogger(__name__)
"""Takes what the client library says, which would go to stderr otherwise."""
POLL_S = 0.2
TO_THE_END = {"fetch.wait.max.ms": 20}
"""For who stops at the end: the broker need not hold on to a request (by default half
a second) in case that something is written."""
METADATA_TIMEOUT_S = 5.0
CHUNK = 500


def _message(raw: Any) -> Message:
    return Message(
        topic=raw.topic(),
        partition=raw.partition(),
        offset=raw.offset(),
        key=raw.key(),
        value=raw.value(),
        headers=tuple((n, v or b"") for n, v in raw.headers() or ()),
        timestamp_ms=raw.timestamp()[1],
    )


def _client_config(bootstrap: str, config: Mapping[str, str] | None) -> dict[str, Any]:
    return {
        "log_level": 2,  # errors come through ClientErrors, without the repetition
        "error_cb": ClientErrors(client_logger),
        "reconnect.backoff.max.ms": 1000,
        "bootstrap.servers": bootstrap,
        "group.id": "driftloop-follower",  # required by the client, never joined
        "enable.auto.commit": "false",
        "auto.offset.reset": "earliest",
        "enable.partition.eof": "true",
        "allow.auto.create.topics": "false",
        **(config or {}),
    }


@contextmanager
def _consumer(bootstrap: str, config: Mapping[str, str] | None) -> Iterator[Consumer]:
    """Give a consumer that is in no group, and close it."""
    settings = _client_config(bootstrap, config) | TO_THE_END
    consumer = Consumer(settings, logger=client_logger)
    try:
        yield consumer
    finally:
        consumer.close()


def message_at(
    bootstrap: str,
    topic: str,
    partition: int,
    offset: int,
    config: Mapping[str, str] | None = None,
    timeout_s: float = METADATA_TIMEOUT_S,
) -> Message | None:
    """Return one record; None where the log does not hold it, or not in time."""
    wanted = TopicPartition(topic, partition, offset)
    deadline = time.monotonic() + timeout_s
    with _consumer(bootstrap, config) as consumer:
        consumer.assign([wanted])
        while time.monotonic() < deadline:
            raw = consumer.poll(POLL_S)
            if raw is None:
                continue
            if raw.error() is not None or raw.offset() != offset:
                return None  # at the end, or moved on by retention
            return _message(raw)
    return None


Partition = tuple[str, int]


class LogSilentError(Exception):
    """The broker does not say what the log holds."""


@contextmanager
def _asking(bootstrap: str, config: Mapping[str, str] | None) -> Iterator[Consumer]:
    """Give a consumer to ask the broker by; that it is away is said in words."""
    try:
        with _consumer(bootstrap, config) as consumer:
            yield consumer
    except KafkaException as error:
        text = error.args[0].str()
        raise LogSilentError(f"the broker at {bootstrap}: {text}") from error


def bounds_of(
    bootstrap: str, topics: Sequence[str], config: Mapping[str, str] | None = None
) -> dict[Partition, tuple[int, int]]:
    """Return first and next offset of each partition of some topics.

    Raises
    ------
    LogSilentError
        When the broker is away, or a topic is not there.
    """
    found = {}
    with _asking(bootstrap, config) as consumer:
        for topic in topics:
            known = consumer.list_topics(topic, METADATA_TIMEOUT_S).topics[topic]
            if known.error is not None:
                raise LogSilentError(f"{topic}: {known.error.str()}")
            for number in known.partitions:
                place = TopicPartition(topic, number)
                low, high = consumer.get_watermark_offsets(place, METADATA_TIMEOUT_S)
                found[topic, number] = (low, high)
    return found


def bounds_between(
    bootstrap: str,
    topic: str,
    since: datetime,
    until: datetime,
    config: Mapping[str, str] | None = None,
) -> dict[Partition, tuple[int, int]]:
    """Return what a topic got in a stretch of time, as bounds of its partitions.

    By the records' timestamps; where they are not in order, a later one may be among
    them.

    Raises
    ------
    LogSilentError
        When the broker is away, or the topic is not there.
    """
    whole = bounds_of(bootstrap, [topic], config)
    with _asking(bootstrap, config) as consumer:

        def firsts(moment: datetime) -> dict[Partition, int]:
            """Return the first offset at or after a moment; none: the next one."""
            at_ms = math.ceil(moment.timestamp() * 1000)
            asked = [TopicPartition(*partition, at_ms) for partition in whole]
            found = consumer.offsets_for_times(asked, METADATA_TIMEOUT_S)
            ends = {(p.topic, p.partition): p.offset for p in found}
            return {p: whole[p][1] if at < 0 else at for p, at in ends.items()}

        starts, ends = firsts(since), firsts(until + timedelta(milliseconds=1))
    return {p: (starts[p], min(ends[p], whole[p][1])) for p in whole}


def read_part(
    bootstrap: str,
    bounds: Mapping[Partition, tuple[int, int]],
    config: Mapping[str, str] | None = None,
    patience_s: float = 30.0,
    chunk: int = CHUNK,
) -> Iterator[list[Message]]:
    """Yield what partitions hold within bounds, in chunks of one partition, in order.

    Parameters
    ----------
    patience_s : for the next record.
    chunk : most messages at a time, of all partitions.

    Raises
    ------
    LogSilentError
        When nothing comes for so long.
    """
    open_ends = {p: end for p, (start, end) in bounds.items() if start < end}
    with _consumer(bootstrap, config) as consumer:
        consumer.assign([TopicPartition(*p, bounds[p][0]) for p in open_ends])
        heard = time.monotonic()
        while open_ends:
            chunks: dict[Partition, list[Message]] = {}
            for raw in consumer.consume(chunk, POLL_S):
                heard = time.monotonic()
                partition = raw.topic(), raw.partition()
                end = open_ends.get(partition)
                if end is None:
                    continue
                error = raw.error()
                if error is None and raw.offset() < end:
                    chunks.setdefault(partition, []).append(_message(raw))
                elif error is not None and error.code() != KafkaError._PARTITION_EOF:
                    logger.warning("reading the log", error=error.str())
                    continue
                if error is not None or raw.offset() + 1 >= end:
                    del open_ends[partition]
            if chunks:
                yield from chunks.values()
                heard = time.monotonic()  # the reader's own time is not the broker's
            if time.monotonic() - heard > patience_s:
                raise LogSilentError(f"nothing came for {patience_s:g} s")


class LogFollower:
    """Follows topics from the start and calls back for each raw.

    ``caught_up`` is set once everything that was there at the start was seen.

    Parameters
    ----------
    begin : first offset wanted of a topic's partition; the first there is, if it is
        gone. Default: the beginning.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Sequence[str],
        on_message: Callable[[Message], None],
        config: Mapping[str, str] | None = None,
        begin: Callable[[str, int], int] = lambda _topic, _partition: OFFSET_BEGINNING,
    ) -> None:
        self._topics = list(topics)
        self._on_message = on_message
        self._begin = begin
        self._stop = threading.Event()
        self._stays = True
        self.caught_up = threading.Event()
        self._config = _client_config(bootstrap, config)

    def run(self) -> None:
        """Follow until :meth:`stop`, or to the end where that is all that is read."""
        consumer = Consumer(self._config, logger=client_logger)
        try:
            waiting = self._assign(consumer)
            while not self._stop.is_set():
                raw = consumer.poll(POLL_S)
                if raw is None:
                    continue
                error = raw.error()
                if error is None:
                    self._on_message(_message(raw))
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard((raw.topic(), raw.partition()))
                    if not waiting:
                        self.caught_up.set()
                        if not self._stays:
                            break
                else:
                    logger.warning("follower", error=str(error))
        finally:
            consumer.close()

    def stop(self) -> None:
        self._stop.set()

    def read_to_end(
        self,
        timeout_s: float = math.inf,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Read what is there at the start, and stop; False: not in time, or stopped."""
        self._config |= TO_THE_END
        self._stays = False
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        until = time.monotonic() + timeout_s
        while not self.caught_up.wait(POLL_S / 2):
            if is_stopping() or time.monotonic() > until:
                break
        self.stop()
        thread.join()
        return self.caught_up.is_set()

    def _assign(self, consumer: Consumer) -> set[tuple[str, int]]:
        """Assign all partitions, waiting until the broker knows every topic."""
        while not self._stop.is_set():
            found: list[TopicPartition] = []
            try:
                for topic in self._topics:
                    metadata = consumer.list_topics(topic, METADATA_TIMEOUT_S)
                    known = metadata.topics[topic]
                    if known.error is None:
                        found += [
                            TopicPartition(topic, number, self._begin(topic, number))
                            for number in known.partitions
                        ]
            except KafkaException as error:
                logger.warning("waiting for the broker", error=str(error))
                time.sleep(POLL_S)
                continue
            if {p.topic for p in found} == set(self._topics):
                consumer.assign(found)
                return {(p.topic, p.partition) for p in found}
            logger.info("waiting for topics", topics=self._topics)
            self._stop.wait(1.0)
        return set()
