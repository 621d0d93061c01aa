"""Client errors in the log, each kind once in a while.

librdkafka reports every failed attempt to connect: twenty lines a second in an outage.
"""

import logging
import time

from confluent_kafka import KafkaError

REPEAT_AFTER_S = 30.0


class ClientErrors:
    """An ``error_cb`` that logs the first error of each code, then sometimes."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._logged_at: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        code, now_s = error.code(), time.monotonic()
        if now_s - self._logged_at.get(code, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return
        self._logged_at[code] = now_s
        self._logger.warning("client: %s", error.str())
