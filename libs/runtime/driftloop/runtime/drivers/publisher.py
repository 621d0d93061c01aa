"""Publisher on confluent-kafka: a return means that the broker has every record."""

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from driftloop.runtime.drivers.errors import ClientErrors
from driftloop.runtime.transport import PublishError, Record

logger = logging.getLogger(__name__)

POLL_S = 0.1
FULL_QUEUE_WAIT_S = 0.01
CLOSE_TIMEOUT_S = 10.0
CLIENT_DEFAULTS = {
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "lz4",
    "linger.ms": 1,
    "partitioner": "murmur2_random",  # the Java client's: same key, same partition
    "message.max.bytes": 8 * 1024 * 1024,
    "delivery.timeout.ms": 30_000,
    "allow.auto.create.topics": False,
    "reconnect.backoff.max.ms": 1000,
    "log_level": 2,  # errors come through ClientErrors, without the repetition
}


class _Deliveries:
    """Counts the acknowledgements of one ``publish`` call."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._open = count
        self.done = threading.Event()
        self.failures: Counter[str] = Counter()

    def __call__(self, error: KafkaError | None, _message: Any) -> None:
        with self._lock:
            if error is not None:
                self.failures[error.str()] += 1
            self._open -= 1
            if not self._open:
                self.done.set()

    @property
    def open(self) -> int:
        with self._lock:
            return self._open


class ConfluentPublisher:
    """A :class:`transport.Publisher` on an idempotent producer; thread-safe.

    A thread of its own serves the delivery callbacks. librdkafka's threads do not
    survive a fork: use it in the process that made it.

    Parameters
    ----------
    bootstrap : ``host:port,…`` of the brokers.
    client_id : name of this client in the broker's logs.
    client_config : more librdkafka settings; they win over the defaults.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str,
        client_config: Mapping[str, str] | None = None,
    ) -> None:
        self._errors = ClientErrors(logger)
        self._producer = Producer(
            {
                **CLIENT_DEFAULTS,
                "bootstrap.servers": bootstrap,
                "client.id": client_id,
                "error_cb": self._on_error,
                **(client_config or {}),
            }
        )
        self._pid = os.getpid()
        self._fatal: KafkaError | None = None
        self._closing = threading.Event()
        self._poller = threading.Thread(
            target=self._poll, name="publisher-poll", daemon=True
        )
        self._poller.start()

    def publish(self, records: Sequence[Record], timeout_s: float = 30.0) -> None:
        """See :meth:`transport.Publisher.publish`.

        Raises
        ------
        PublishError
            When any record is not acknowledged in time; says why.
        KafkaException
            When this producer can never send again: end the process.
        RuntimeError
            When called in a forked child, or after :meth:`close`.
        """
        if os.getpid() != self._pid:
            raise RuntimeError("a publisher does not survive a fork; make a new one")
        if self._closing.is_set():
            raise RuntimeError("the publisher is closed")
        if not records:
            return
        deadline = time.monotonic() + timeout_s
        deliveries = _Deliveries(len(records))
        for record in records:
            self._produce(record, deliveries, deadline)
        while not deliveries.done.wait(POLL_S) and self._fatal is None:
            if time.monotonic() > deadline:
                break
        if self._fatal is not None:
            raise KafkaException(self._fatal)
        if deliveries.open or deliveries.failures:
            reasons = [f"{n} x {why}" for why, n in deliveries.failures.items()]
            if deliveries.open:
                reasons.append(f"{deliveries.open} x no answer in {timeout_s:g} s")
            raise PublishError(f"of {len(records)} records: {'; '.join(reasons)}")

    def close(self) -> None:
        """Send what is left, within a time limit; the publisher is then unusable."""
        if self._closing.is_set():
            return
        left = self._producer.flush(CLOSE_TIMEOUT_S)
        self._closing.set()
        self._poller.join()
        if left:
            # Only records whose publish() already raised can be here.
            logger.warning("closed with %d records not acknowledged", left)

    def _produce(
        self, record: Record, deliveries: _Deliveries, deadline: float
    ) -> None:
        extra = {} if record.partition is None else {"partition": record.partition}
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    on_delivery=deliveries,
                    **extra,
                )
            except BufferError:
                if time.monotonic() > deadline:
                    raise PublishError("the send queue stays full") from None
                time.sleep(FULL_QUEUE_WAIT_S)  # the poller empties it
            except KafkaException as error:
                if self._fatal is not None:
                    raise
                raise PublishError(error.args[0].str()) from error
            else:
                return

    def _poll(self) -> None:
        while not self._closing.is_set():
            try:
                self._producer.poll(POLL_S)
            except KafkaException as error:  # fatal: publish() raises it
                self._fatal = error.args[0]
                return

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        self._errors(error)
