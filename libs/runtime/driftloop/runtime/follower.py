"""Reads topics from their beginning, or one record, without a consumer group."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Message

logger = log(__name__)
client_logger = logging.getLogger(__name__)
"""Takes what the client library says, which would go to stderr otherwise."""
POLL_S = 0.2
METADATA_TIMEOUT_S = 5.0


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


def _client_config(bootstrap: str, config: Mapping[str, str] | None) -> dict[str, str]:
    return {
        "bootstrap.servers": bootstrap,
        "group.id": "driftloop-follower",  # required by the client, never joined
        "enable.auto.commit": "false",
        "auto.offset.reset": "earliest",
        "enable.partition.eof": "true",
        "allow.auto.create.topics": "false",
        **(config or {}),
    }


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
    consumer = Consumer(_client_config(bootstrap, config), logger=client_logger)
    deadline = time.monotonic() + timeout_s
    try:
        consumer.assign([wanted])
        while time.monotonic() < deadline:
            raw = consumer.poll(POLL_S)
            if raw is None:
                continue
            if raw.error() is not None or raw.offset() != offset:
                return None  # at the end, or moved on by retention
            return _message(raw)
    finally:
        consumer.close()
    return None


class LogFollower:
    """Follows topics from the start and calls back for each raw.

    ``caught_up`` is set once everything that was there at the start was seen.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Sequence[str],
        on_message: Callable[[Message], None],
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._topics = list(topics)
        self._on_message = on_message
        self._stop = threading.Event()
        self.caught_up = threading.Event()
        self._config = _client_config(bootstrap, config)

    def run(self) -> None:
        """Follow until :meth:`stop`."""
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
                else:
                    logger.warning("follower", error=str(error))
        finally:
            consumer.close()

    def stop(self) -> None:
        self._stop.set()

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
                            TopicPartition(topic, number, OFFSET_BEGINNING)
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
