"""Which changes webhooks tell of, and in which words: MLflow's, of version 3.17.

Source: ``mlflow/webhooks/types.py`` and the calls of ``deliver_webhook`` in
``mlflow/server/handlers.py``.
"""

import json
import uuid
from datetime import UTC, datetime
from typing import Any, NamedTuple

from driftloop.contracts import registered as r
from driftloop.contracts.base import EVENT_NAMESPACE
from driftloop.registry import signing

Data = dict[str, Any]
EXAMPLES: dict[str, Data] = {
    "registered_model.created": {
        "name": "example_model",
        "tags": {"example_key": "example_value"},
        "description": "An example registered model",
    },
    "model_version.created": {
        "name": "example_model",
        "version": "1",
        "source": "models:/123",
        "run_id": "abcd1234abcd5678",
        "tags": {"example_key": "example_value"},
        "description": "An example model version",
    },
    "model_version_tag.set": {
        "name": "example_model",
        "version": "1",
        "key": "example_key",
        "value": "example_value",
    },
    "model_version_tag.deleted": {
        "name": "example_model",
        "version": "1",
        "key": "example_key",
    },
    "model_version_alias.created": {
        "name": "example_model",
        "alias": "example_alias",
        "version": "1",
    },
    "model_version_alias.deleted": {"name": "example_model", "alias": "example_alias"},
}
"""Each event that there is, with what a test sends; the fields are the real ones'."""
VERSION_CREATED = "model_version.created"


class News(NamedTuple):
    """An event of :data:`EXAMPLES` and its data."""

    event: str
    data: Data


def news_of(change: Any) -> News | None:  # noqa: PLR0911 - a kind of change each
    """Return what webhooks tell of a change; None: nothing.

    >>> news_of(r.AliasDeleted(name="m", alias="a"))
    News(event='model_version_alias.deleted', data={'name': 'm', 'alias': 'a'})
    >>> news_of(r.ModelDeleted(name="m"))
    """
    if isinstance(change, r.ModelCreated):
        data: Data = {"name": change.name, "tags": change.tags}
        return News(
            "registered_model.created", {**data, "description": change.description}
        )
    if isinstance(change, r.VersionCreated):
        return version_news(
            change.name,
            change.version,
            source=change.source,
            run_id=change.run_id,
            tags=change.tags,
            description=change.description,
        )
    if isinstance(change, r.ModelTagSet | r.ModelTagDeleted):
        if change.version is None:
            return None
        data = {"name": change.name, "version": str(change.version), "key": change.key}
        if isinstance(change, r.ModelTagDeleted):
            return News("model_version_tag.deleted", data)
        return News("model_version_tag.set", {**data, "value": change.value})
    if isinstance(change, r.AliasSet):
        data = {"name": change.name, "alias": change.alias}
        return News(
            "model_version_alias.created", {**data, "version": str(change.version)}
        )
    if isinstance(change, r.AliasDeleted):
        data = {"name": change.name, "alias": change.alias}
        return News("model_version_alias.deleted", data)
    return None


def version_news(
    name: str,
    version: int,
    *,
    source: str,
    run_id: str = "",
    tags: dict[str, str] | None = None,
    description: str = "",
) -> News:
    data: Data = {
        "name": name,
        "version": str(version),
        "source": source,
        "run_id": run_id or None,
        "tags": tags or {},
        "description": description or None,
    }
    return News(VERSION_CREATED, data)


def delivery_id(webhook_id: str, cause: str) -> str:
    """Return the id of what a webhook tells of a cause; a repeat has the same."""
    return str(uuid.uuid5(EVENT_NAMESPACE, f"webhook/{webhook_id}/{cause}"))


def body_of(event: str, data: Data, at_ms: int) -> bytes:
    """Return what is sent."""
    entity, _, action = event.partition(".")
    content = {
        "entity": entity,
        "action": action,
        "timestamp": datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(),
        "data": data,
    }
    return json.dumps(content).encode()


def headers_of(
    delivery: str, now_s: int, body: bytes, secret: str | None
) -> dict[str, str]:
    """Return the headers of a delivery; with a secret, its signature among them.

    >>> found = headers_of("d", 1, b"{}", "s")["X-MLflow-Signature"]
    >>> found == signature("s", "d", 1, b"{}"), found[:3]
    (True, 'v1,')
    """
    headers = {
        "Content-Type": "application/json",
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": str(now_s),
    }
    if secret:
        headers["X-MLflow-Signature"] = signature(secret, delivery, now_s, body)
    return headers


def signature(secret: str, delivery: str, now_s: int, body: bytes) -> str:
    """Return ``v1,`` and the HMAC-SHA256 of ``id.time.body`` in base64."""
    return signing.signature(secret.encode(), delivery, now_s, body)
