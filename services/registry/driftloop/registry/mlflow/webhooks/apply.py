"""Changes of webhooks to rows, and other changes to what webhooks have to tell."""

import json
from collections.abc import Callable
from typing import Any

from driftloop.contracts import webhooks as w
from driftloop.contracts.events import TrackingChanged
from driftloop.registry.mlflow.webhooks.notices import delivery_id, news_of
from sqlalchemy import Connection, text

_SAVE = text(
    "INSERT INTO mlflow_webhook (webhook_id, name, url, events, description, "
    "is_active, secret, created_ms, updated_ms) VALUES (:webhook_id, :name, :url, "
    ":events, :description, :is_active, :secret, :at, :at) ON CONFLICT (webhook_id) "
    "DO UPDATE SET name = excluded.name, url = excluded.url, events = excluded.events, "
    "description = excluded.description, is_active = excluded.is_active, "
    "secret = excluded.secret, updated_ms = excluded.updated_ms"
)
_SUBSCRIBED = text(
    "SELECT webhook_id FROM mlflow_webhook WHERE is_active "
    "AND (' ' || events || ' ') LIKE :pattern ESCAPE '!'"
)
_NOTICE = text(
    "INSERT INTO mlflow_webhook_notice (delivery_id, webhook_id, event, at_ms, "
    "since_ms, data) VALUES (:delivery_id, :webhook_id, :event, :at, :at, :data)"
)
_GIVEN_UP = text(
    "UPDATE mlflow_webhook_notice SET problem = :detail "
    "WHERE delivery_id = :delivery_id"
)
_DELIVERED = text("DELETE FROM mlflow_webhook_notice WHERE delivery_id = :delivery_id")
_TELL = text(
    "INSERT INTO mlflow_webhook_told (delivery_id, webhook_id, problem) "
    "VALUES (:delivery_id, :webhook_id, :problem) ON CONFLICT (delivery_id) "
    "DO UPDATE SET problem = excluded.problem"
)


def tell(connection: Connection, event: TrackingChanged) -> None:
    """Note what each webhook has to tell of a change that was just made."""
    news = news_of(event.change)
    if news is None:
        return
    name = news.event.replace("_", "!_")
    found = connection.execute(_SUBSCRIBED, {"pattern": f"% {name} %"})
    for webhook_id in sorted(found.scalars()):
        connection.execute(
            _NOTICE,
            {
                "delivery_id": delivery_id(webhook_id, f"revision/{event.revision}"),
                "webhook_id": webhook_id,
                "event": news.event,
                "at": event.at_ms,
                "data": json.dumps(news.data),
            },
        )


def _saved(connection: Connection, change: w.WebhookSaved, at_ms: int) -> None:
    values = change.model_dump(exclude={"kind", "events"})
    events = " ".join(sorted(change.events))
    connection.execute(_SAVE, {**values, "events": events, "at": at_ms})


def _deleted(connection: Connection, change: w.WebhookDeleted, _: int) -> None:
    for table in ("", "_notice", "_told"):
        statement = f"DELETE FROM mlflow_webhook{table} WHERE webhook_id = :id"  # noqa: S608 - names of ours
        connection.execute(text(statement), {"id": change.webhook_id})


def _delivered(connection: Connection, change: w.WebhookDelivered, _: int) -> None:
    is_given_up = change.outcome == "given-up"
    values = {"delivery_id": change.delivery_id}
    if is_given_up:
        done = connection.execute(_GIVEN_UP, {**values, "detail": change.detail})
    else:
        done = connection.execute(_DELIVERED, values)
    if done.rowcount:
        return
    connection.execute(
        _TELL,
        {
            "delivery_id": change.delivery_id,
            "webhook_id": change.webhook_id,
            "problem": change.detail if is_given_up else None,
        },
    )


def _retried(connection: Connection, change: w.WebhookRetried, at_ms: int) -> None:
    values = {"id": change.webhook_id, "at": at_ms}
    connection.execute(
        text(
            "UPDATE mlflow_webhook_notice SET problem = NULL, since_ms = :at "
            "WHERE webhook_id = :id AND problem IS NOT NULL"
        ),
        values,
    )
    connection.execute(
        text(
            "DELETE FROM mlflow_webhook_told "
            "WHERE webhook_id = :id AND problem IS NOT NULL"
        ),
        {"id": change.webhook_id},
    )


APPLY_WEBHOOKS: dict[type[Any], Callable[[Connection, Any, int], None]] = {
    w.WebhookSaved: _saved,
    w.WebhookDeleted: _deleted,
    w.WebhookDelivered: _delivered,
    w.WebhookRetried: _retried,
}
