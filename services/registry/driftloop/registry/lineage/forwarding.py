"""Tells a collector of OpenLineage what the log holds, each event at least once.

The position is stored after the collector has answered, so a process that is killed
in between tells the last event again, under the same run id. Events go in the log's
order; while the collector is away they wait there.
"""

import json
import threading
from http import HTTPStatus

import httpx
from driftloop.contracts.events import LineageReported
from driftloop.registry.lineage.tables import RegistryForwarded
from driftloop.registry.metrics import OPENLINEAGE
from driftloop.registry.settings import RegistrySettings
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.telemetry import log
from driftloop.runtime.transport import Message
from sqlalchemy import Engine
from sqlmodel import Session

TIMEOUT_S = 10.0
FIRST_WAIT_S = 0.2
MAX_WAIT_S = 30.0
STOP_POLL_S = 0.1
REFUSALS = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
     HTTPStatus.UNPROCESSABLE_ENTITY}
)  # fmt: skip
"""Answers about the event itself: sent again, it would get the same."""
logger = log(__name__)


class Forwarder:
    """Follows the topic and posts each event to the collector."""

    def __init__(
        self, settings: RegistrySettings, engine: Engine, stopping: threading.Event
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._stopping = stopping
        headers = {"Content-Type": "application/json"}
        if settings.openlineage_token:
            token = settings.openlineage_token.get_secret_value()
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx.Client(
            headers=headers,
            timeout=TIMEOUT_S,
            follow_redirects=False,  # another host is another setting
            trust_env=False,
        )

    def run(self) -> None:
        """Forward until the process stops."""
        follower = LogFollower(
            self._settings.broker,
            [LineageReported.topic()],
            self._take,
            self._settings.kafka_config,
            self._begin,
        )
        thread = threading.Thread(target=follower.run, daemon=True)
        thread.start()
        while not self._stopping.wait(STOP_POLL_S) and thread.is_alive():
            pass
        follower.stop()
        thread.join()
        self._client.close()
        if not self._stopping.is_set():
            raise RuntimeError("the reader of lineage-reported has ended")

    def _begin(self, _topic: str, partition: int) -> int:
        with Session(self._engine) as session:
            row = session.get(RegistryForwarded, partition)
            return row.next_offset if row else 0

    def _take(self, message: Message) -> None:
        if self._stopping.is_set():
            return
        if self._is_delivered(message):
            with Session(self._engine) as session:
                row = RegistryForwarded(
                    partition=message.partition, next_offset=message.offset + 1
                )
                session.merge(row)
                session.commit()

    def _is_delivered(self, message: Message) -> bool:
        """Try until the collector has an event, or refuses it; False: stopped."""
        body = _body(message)
        wait_s = FIRST_WAIT_S
        while body is not None:
            problem = self._post(body, message)
            if problem is None:
                return True
            OPENLINEAGE.labels("retried").inc()
            if wait_s >= 1:
                logger.warning("the collector of lineage is away", why=problem)
            if self._stopping.wait(wait_s):
                return False
            wait_s = min(wait_s * 2, MAX_WAIT_S)
        return True

    def _post(self, body: bytes, message: Message) -> str | None:
        """Return why an event has to be sent again; None: it is dealt with."""
        url = str(self._settings.openlineage_url)
        try:
            answer = self._client.post(url, content=body)
        except httpx.HTTPError as error:
            return type(error).__name__
        if answer.is_success:
            OPENLINEAGE.labels("sent").inc()
            return None
        if answer.status_code in REFUSALS:
            OPENLINEAGE.labels("refused").inc()
            logger.error(
                "the collector refuses an event",
                status=answer.status_code,
                offset=message.offset,
            )
            return None
        return f"it answers {answer.status_code}"


def _body(message: Message) -> bytes | None:
    """Return the event by the standard; None: the record is none of ours."""
    try:
        content = json.loads(message.value or b"")
        content.pop("pipeline")
    except (ValueError, AttributeError, KeyError):
        logger.error("no lineage event", offset=message.offset)
        return None
    return json.dumps(content).encode()
