"""Delivers what webhooks have to tell, at least once each, and says when it is done.

What is due follows from the log, and each delivery's end is said there: a process that
dies in between delivers again, under the same id. A receiver that fails is left alone
for longer each time; the others do not wait for it.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from driftloop.contracts.webhooks import WebhookDelivered
from driftloop.registry.egress import RefusedError, UnreachableError
from driftloop.registry.mlflow.errors import Refusal
from driftloop.registry.mlflow.journal import Journal
from driftloop.registry.mlflow.webhooks.calls import AnyRow, Webhooks
from driftloop.registry.mlflow.webhooks.notices import (
    VERSION_CREATED,
    body_of,
    delivery_id,
    headers_of,
    version_news,
)
from driftloop.registry.mlflow.webhooks.sealing import WebhookKeyError
from driftloop.runtime import database
from driftloop.runtime.telemetry import log
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

POLL_S = 0.5
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 600.0
GONE = 410
SOURCE = "registry"
_ALONE = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
_ACTIVE = text("SELECT * FROM mlflow_webhook WHERE is_active ORDER BY webhook_id")
_NOTICES = text(
    "SELECT * FROM mlflow_webhook_notice WHERE webhook_id = :id AND problem IS NULL "
    "ORDER BY at_ms, delivery_id LIMIT 100"
)
_VERSIONS = text(
    "SELECT s.* FROM registry_shown_version s LEFT JOIN mlflow_model_version v "
    "ON v.name = s.name AND v.version = s.version AND v.source IS NOT NULL "
    "WHERE s.created_ms >= :since AND v.name IS NULL ORDER BY s.created_ms"
)
_TOLD = text("SELECT delivery_id FROM mlflow_webhook_told WHERE webhook_id = :id")
logger = log(__name__)


class Due(NamedTuple):
    """One delivery that is not over."""

    delivery_id: str
    body: bytes
    since_ms: int


@dataclass
class Receiver:
    """How a webhook's receiver does; forgotten with the process."""

    failures: int = 0
    not_before: float = 0.0
    tried: dict[str, int] = field(default_factory=dict)


class Deliverer:
    """Runs in a thread of its own, in one replica at a time.

    Parameters
    ----------
    give_up_s : after which a delivery that still fails is over.
    is_current : whether the tables hold what the log held at the start.
    """

    def __init__(
        self,
        journal: Journal,
        webhooks: Webhooks,
        give_up_s: float,
        is_current: Callable[[], bool],
    ) -> None:
        self._journal = journal
        self._webhooks = webhooks
        self._give_up_s = give_up_s
        self._is_current = is_current
        self._receivers: dict[tuple[str, int], Receiver] = {}

    def run(self, stopping: threading.Event) -> None:
        """Deliver until ``stopping`` is set."""
        while not stopping.is_set():
            try:
                did_any = self._is_current() and self._round(stopping)
            except DBAPIError as error:
                if not database.is_passing(error):
                    raise
                logger.warning("the database is away", error=str(error))
                did_any = False
            except Refusal as refusal:  # the log is not read, or the webhook is gone
                logger.info("a delivery's end waits", problem=refusal.message)
                did_any = False
            if not did_any:
                stopping.wait(POLL_S)

    def _round(self, stopping: threading.Event) -> bool:
        """Try one delivery of each receiver that is not left alone."""
        did_any = False
        with self._journal.reading() as connection:
            if not _is_alone(connection):
                return False
            webhooks = connection.execute(_ACTIVE).all()
            known = self._receivers  # one that was changed begins anew
            keys = [(row.webhook_id, row.updated_ms) for row in webhooks]
            self._receivers = {key: known.get(key) or Receiver() for key in keys}
            for webhook, receiver in zip(
                webhooks, self._receivers.values(), strict=True
            ):
                if stopping.is_set() or time.monotonic() < receiver.not_before:
                    continue
                due = _due(connection, webhook)
                if due:
                    least = min(due, key=lambda d: receiver.tried.get(d.delivery_id, 0))
                    self._deliver(webhook, least, receiver)
                    did_any = True
        return did_any

    def _deliver(self, webhook: AnyRow, due: Due, receiver: Receiver) -> None:
        problem, is_gone = self._send(webhook, due)
        if problem is None:
            receiver.failures, receiver.not_before = 0, 0.0
            receiver.tried.pop(due.delivery_id, None)
            self._end(webhook, due, "delivered", "")
            return
        receiver.failures += 1
        pause_s = min(FIRST_PAUSE_S * 2 ** (receiver.failures - 1), MAX_PAUSE_S)
        receiver.not_before = time.monotonic() + pause_s
        tries = receiver.tried.get(due.delivery_id, 0) + 1
        receiver.tried[due.delivery_id] = tries
        is_late = time.time() - due.since_ms / 1000 > self._give_up_s
        logger.warning(
            "a webhook's receiver did not take it",
            webhook=webhook.name,
            delivery=due.delivery_id,
            tries=tries,
            problem=problem,
        )
        if is_gone or is_late:
            receiver.tried.pop(due.delivery_id)
            self._end(webhook, due, "given-up", problem)

    def _send(self, webhook: AnyRow, due: Due) -> tuple[str | None, bool]:
        """Return what went wrong, if anything, and whether it will for ever."""
        try:
            secret = self._webhooks.secret_of(webhook)
            headers = headers_of(due.delivery_id, int(time.time()), due.body, secret)
            answer = self._webhooks.egress.post(webhook.url, due.body, headers)
        except (RefusedError, UnreachableError, WebhookKeyError) as error:
            return str(error), False
        if answer.is_success:
            return None, False
        return f"HTTP {answer.status}", answer.status == GONE

    def _end(
        self,
        webhook: AnyRow,
        due: Due,
        outcome: Literal["delivered", "given-up"],
        detail: str,
    ) -> None:
        change = WebhookDelivered(
            webhook_id=webhook.webhook_id,
            delivery_id=due.delivery_id,
            outcome=outcome,
            detail=detail,
        )

        def decide(connection: Connection) -> WebhookDelivered | None:
            known = text("SELECT 1 FROM mlflow_webhook WHERE webhook_id = :id")
            is_there = connection.execute(known, {"id": webhook.webhook_id}).first()
            return change if is_there else None  # deleted meanwhile

        self._journal.write(SOURCE, decide)


def _is_alone(connection: Connection) -> bool:
    """Whether no other replica delivers; holds until the transaction ends."""
    if connection.dialect.name == "sqlite":
        return True
    name = {"name": "driftloop/registry/webhooks"}
    return bool(connection.execute(_ALONE, name).scalar())


def _due(connection: Connection, webhook: AnyRow) -> list[Due]:
    """Return deliveries of a webhook that are not over, the oldest first."""
    rows = connection.execute(_NOTICES, {"id": webhook.webhook_id})
    found = [
        Due(r.delivery_id, body_of(r.event, json.loads(r.data), r.at_ms), r.since_ms)
        for r in rows
    ]
    if VERSION_CREATED in webhook.events.split():
        found += _of_pipelines(connection, webhook)
    return found


def _of_pipelines(connection: Connection, webhook: AnyRow) -> list[Due]:
    """Return what a webhook has to tell of the loop's own versions."""
    told = set(connection.execute(_TOLD, {"id": webhook.webhook_id}).scalars())
    found = []
    for row in connection.execute(_VERSIONS, {"since": webhook.created_ms}):
        cause = f"version/{row.name}/{row.version}"
        delivery = delivery_id(webhook.webhook_id, cause)
        if delivery not in told:
            news = version_news(row.name, row.version, source=row.source)
            body = body_of(news.event, news.data, row.created_ms)
            since_ms = max(row.created_ms, webhook.updated_ms)
            found.append(Due(delivery, body, since_ms))
    return found
