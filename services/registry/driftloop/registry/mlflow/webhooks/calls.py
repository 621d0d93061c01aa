"""MLflow's ``webhooks`` calls, and two of our own for what was given up."""

import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from driftloop.contracts import webhooks as w
from driftloop.registry.egress import (
    Egress,
    RefusedError,
    UnreachableError,
)
from driftloop.registry.mlflow import limits
from driftloop.registry.mlflow.call import Call, Json, missing, object_of, page
from driftloop.registry.mlflow.errors import Refusal, absent, invalid
from driftloop.registry.mlflow.webhooks.notices import EXAMPLES, body_of, headers_of
from driftloop.registry.mlflow.webhooks.sealing import Sealer, WebhookKeyError
from sqlalchemy import Connection, Row, text

NAME = re.compile(r"(?=.{1,63}\Z)[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
"""Source: ``_WEBHOOK_NAME_REGEX`` of mlflow 3.17."""
MAX_SECRET, MAX_WEBHOOKS = 1000, 100
MAX_DESCRIPTION = 1000
DEFAULT_PAGE, MAX_PAGE = 100, 1000
ENTITIES = (
    "REGISTERED_MODEL",
    "MODEL_VERSION",
    "MODEL_VERSION_TAG",
    "MODEL_VERSION_ALIAS",
)
ACTIONS = ("CREATED", "UPDATED", "DELETED", "SET", "EXCEEDED")
STATUSES = {"ACTIVE": True, "1": True, "DISABLED": False, "2": False}
_BY_ID = text("SELECT * FROM mlflow_webhook WHERE webhook_id = :id")
_COUNT = text("SELECT count(*) FROM mlflow_webhook")
_PAGE = text(
    "SELECT * FROM mlflow_webhook ORDER BY created_ms DESC, webhook_id "
    "LIMIT :limit OFFSET :offset"
)
_GIVEN_UP = text(
    "SELECT delivery_id, problem FROM mlflow_webhook_notice "
    "WHERE webhook_id = :id AND problem IS NOT NULL UNION ALL "
    "SELECT delivery_id, problem FROM mlflow_webhook_told "
    "WHERE webhook_id = :id AND problem IS NOT NULL ORDER BY delivery_id"
)
AnyRow = Row[tuple[Any, ...]]


class Webhooks:
    """The calls' work.

    Attributes
    ----------
    egress, sealer : also the deliverer's.
    """

    def __init__(self, egress: Egress, sealer: Sealer) -> None:
        self.egress = egress
        self.sealer = sealer

    def calls(self) -> Sequence[tuple[str, str, Callable[[Call], Json]]]:
        """Return method, path and function of each call."""
        one = "webhooks/{webhook_id}"
        return (
            ("POST", "webhooks", self.create),
            ("GET", "webhooks", self.list),
            ("GET", one, self.get),
            ("PATCH", one, self.update),
            ("DELETE", one, self.delete),
            ("POST", f"{one}/test", self.test),
            ("GET", f"{one}/given-up", self.given_up),
            ("POST", f"{one}/retry", self.retry),
        )

    def create(self, call: Call) -> Json:
        webhook_id = str(uuid.uuid4())
        secret = _secret(call)
        change = w.WebhookSaved(
            webhook_id=webhook_id,
            name=_name(call.text("name")),
            url=self._url(call.text("url")),
            events=_events(call),
            description=_description(call, ""),
            is_active=_status(call, default=True),
            secret=self.sealer.sealed(secret, webhook_id) if secret else "",
        )
        if not change.events:
            raise missing("events")

        def decide(connection: Connection) -> w.WebhookSaved:
            if int(connection.execute(_COUNT).scalar_one()) >= MAX_WEBHOOKS:
                raise invalid(f"there are {MAX_WEBHOOKS} webhooks, the most there may")
            return change

        call.write(decide)
        return _whole(call, webhook_id)

    def list(self, call: Call) -> Json:
        size, offset = call.page_size(DEFAULT_PAGE, MAX_PAGE), call.offset()
        with call.reading() as connection:
            values = {"limit": size + 1, "offset": offset}
            rows = connection.execute(_PAGE, values).all()
        return page("webhooks", [as_json(row) for row in rows], size, offset)

    def get(self, call: Call) -> Json:
        return _whole(call, call.text("webhook_id"))

    def update(self, call: Call) -> Json:
        """Change what is given; the secret stays, unless another one comes."""
        webhook_id, name, url = (
            call.text("webhook_id"),
            call.maybe("name"),
            call.maybe("url"),
        )
        if name is not None:
            _name(name)
        if url is not None:
            self._url(url)
        events = _events(call)
        secret = _secret(call)
        sealed = self.sealer.sealed(secret, webhook_id) if secret else ""

        def decide(connection: Connection) -> w.WebhookSaved:
            row = of_id(connection, webhook_id)
            return w.WebhookSaved(
                webhook_id=webhook_id,
                name=name or row.name,
                url=url or row.url,
                events=events or row.events.split(),
                description=_description(call, row.description),
                is_active=_status(call, default=bool(row.is_active)),
                secret=row.secret if secret is None else sealed,
            )

        call.write(decide)
        return _whole(call, webhook_id)

    def delete(self, call: Call) -> Json:
        webhook_id = call.text("webhook_id")

        def decide(connection: Connection) -> w.WebhookDeleted:
            of_id(connection, webhook_id)
            return w.WebhookDeleted(webhook_id=webhook_id)

        call.write(decide)
        return {}

    def test(self, call: Call) -> Json:
        """Send an example, once; say what was answered."""
        with call.reading() as connection:
            row = of_id(connection, call.text("webhook_id"))
        given = call.fields.get("event")
        event = _event(object_of(given, "event"), "event") if given else None
        name = event or row.events.split()[0]
        now_s = int(time.time())
        body = body_of(name, EXAMPLES[name], now_s * 1000)
        try:
            secret = self.secret_of(row)
            headers = headers_of(str(uuid.uuid4()), now_s, body, secret)
            answer = self.egress.post(row.url, body, headers)
        except (RefusedError, UnreachableError, WebhookKeyError) as error:
            return {"result": {"success": False, "error_message": str(error)}}
        return {
            "result": {
                "success": answer.is_success,
                "response_status": answer.status,
                "response_body": answer.text,
            }
        }

    def secret_of(self, row: AnyRow) -> str | None:
        """Return a webhook's secret; None: it has none."""
        return self.sealer.opened(row.secret, row.webhook_id) if row.secret else None

    def given_up(self, call: Call) -> Json:
        """List what a webhook could not deliver."""
        webhook_id = call.text("webhook_id")
        with call.reading() as connection:
            of_id(connection, webhook_id)
            rows = connection.execute(_GIVEN_UP, {"id": webhook_id}).all()
        return {
            "deliveries": [
                {"delivery_id": row.delivery_id, "problem": row.problem} for row in rows
            ]
        }

    def retry(self, call: Call) -> Json:
        """Deliver after all what was given up."""
        webhook_id = call.text("webhook_id")

        def decide(connection: Connection) -> w.WebhookRetried | None:
            of_id(connection, webhook_id)
            is_any = connection.execute(_GIVEN_UP, {"id": webhook_id}).first()
            return w.WebhookRetried(webhook_id=webhook_id) if is_any else None

        call.write(decide)
        return {}

    def _url(self, url: str) -> str:
        try:
            self.egress.check(url)
        except RefusedError as error:
            raise invalid(f"url: {error}") from error
        return url


def of_id(connection: Connection, webhook_id: str) -> AnyRow:
    """Return a webhook's row.

    Raises
    ------
    Refusal
        When there is none.
    """
    row = connection.execute(_BY_ID, {"id": webhook_id}).first()
    if row is None:
        raise absent(f"webhook_id: there is no webhook {webhook_id!r}")
    return row


def _whole(call: Call, webhook_id: str) -> Json:
    with call.reading() as connection:
        return {"webhook": as_json(of_id(connection, webhook_id))}


def as_json(row: AnyRow) -> Json:
    """Return a webhook without its secret, which nobody is shown."""
    found = {
        "webhook_id": row.webhook_id,
        "name": row.name,
        "description": row.description or None,
        "url": row.url,
        "events": [_event_json(event) for event in row.events.split()],
        "status": "ACTIVE" if row.is_active else "DISABLED",
        "creation_timestamp": row.created_ms,
        "last_updated_timestamp": row.updated_ms,
    }
    return {name: value for name, value in found.items() if value is not None}


def _event_json(event: str) -> Json:
    entity, _, action = event.partition(".")
    return {"entity": entity.upper(), "action": action.upper()}


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise invalid(
            f"name: {name!r} should be 1 to 63 letters, digits, '.', '_' and '-', with "
            "a letter or digit at either end"
        )
    return name


def _description(call: Call, default: str) -> str:
    given = call.fields.get("description")
    description = default if given is None else call.text("description", "")
    limits.check_length(description, MAX_DESCRIPTION, "description")
    return description


def _secret(call: Call) -> str | None:
    """Return the secret; empty: there is to be none; None: nothing is said of it."""
    if call.fields.get("secret") is None:
        return None
    secret = call.text("secret", "")
    limits.check_length(secret, MAX_SECRET, "secret")
    return secret


def _status(call: Call, *, default: bool) -> bool:
    given = call.fields.get("status")
    if given is None:
        return default
    found = STATUSES.get(str(given))
    if found is None:
        raise invalid(f"status: {given!r} is neither ACTIVE nor DISABLED")
    return found


def _events(call: Call) -> list[str]:
    return [
        _event(item, f"events[{number}]")
        for number, item in enumerate(call.objects("events"))
    ]


def _event(item: Json, place: str) -> str:
    def one(field: str, names: Sequence[str]) -> str:
        given = str(item.get(field) or "")
        if given.isdigit() and 1 <= int(given) <= len(names):
            given = names[int(given) - 1]
        return given.lower()

    event = f"{one('entity', ENTITIES)}.{one('action', ACTIONS)}"
    if event not in EXAMPLES:
        raise Refusal(
            "INVALID_PARAMETER_VALUE",
            f"{place}: {event!r} is nothing that webhooks here tell of; there is "
            f"{', '.join(EXAMPLES)}",
        )
    return event
