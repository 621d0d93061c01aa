"""Rows of a pipeline with privacy rules: to ingest's HTTP door, not to the topic.

The rules need keys and tokens that only ingest has, so the rows go to it as they are,
on loopback or by TLS, and come out on the topic treated.
"""

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from types import MappingProxyType

import httpx
from driftloop.cli.context import CommandError, Installation, problem_of
from driftloop.runtime.transport import PublishError, Record

TIMEOUT_S = 60.0
RETRIES = 10
RETRY_S = 2.0
KINDS = MappingProxyType(
    {"observation-arrived": "observations", "label-arrived": "labels"}
)
BUSY = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})


def patiently(send: Callable[[], httpx.Response]) -> httpx.Response:
    """Send a request, again and again while the door has no room for it.

    Raises
    ------
    PublishError
        When ingest does not answer, or stays busy.
    """
    for attempt in range(RETRIES + 1):
        try:
            response = send()
        except httpx.HTTPError as error:
            raise PublishError(f"ingest does not answer: {error}") from error
        if response.status_code not in BUSY:
            break
        if attempt == RETRIES:
            raise PublishError(problem_of(response))
        time.sleep(float(response.headers.get("retry-after", RETRY_S)))
    return response


class DoorPublisher:
    """Sends records of rows to ingest's HTTP door; a publisher as Kafka's is."""

    def __init__(self, installation: Installation) -> None:
        self._client = installation.door(timeout_s=TIMEOUT_S)

    def publish(self, records: Sequence[Record], timeout_s: float = TIMEOUT_S) -> None:
        """Return once Kafka has the treated rows.

        Raises
        ------
        CommandError
            When the door refuses the rows, with its reasons.
        PublishError
            When it does not answer, or Kafka takes nothing.
        """
        for record in records:
            self._send(record, timeout_s)

    def _send(self, record: Record, timeout_s: float) -> None:
        headers = {name: value.decode() for name, value in record.headers}
        pipeline, _, source = (record.key or b"").decode().partition("/")
        response = patiently(
            lambda: self._client.post(
                f"/v1/pipelines/{pipeline}/{KINDS[record.topic]}",
                params={"source": source},
                headers={
                    "content-type": headers["content-type"],
                    "ce-specversion": "1.0",
                    "ce-id": headers["ce_id"],
                    "ce-source": headers["ce_source"],
                    "ce-type": headers["ce_type"],
                },
                content=record.value,
                timeout=timeout_s,
            )
        )
        if response.is_error:
            hint = (
                "; take a smaller --batch-hours"
                if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                else ""
            )
            raise CommandError(f"ingest refuses the rows: {problem_of(response)}{hint}")

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
