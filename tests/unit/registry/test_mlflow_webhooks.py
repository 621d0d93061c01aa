"""Webhooks: whom nothing is sent to, whose secret is whose, what the log says."""

import hashlib
import hmac
import socket
from base64 import b64encode
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.webhooks import WebhookDelivered
from driftloop.registry.egress import Egress, RefusedError
from driftloop.registry.mlflow import experiments, logged_models
from driftloop.registry.mlflow.apply import take
from driftloop.registry.mlflow.errors import Refusal
from driftloop.registry.mlflow.registered import aliases, models, versions
from driftloop.registry.mlflow.tables import TABLES
from driftloop.registry.mlflow.webhooks.calls import Webhooks
from driftloop.registry.mlflow.webhooks.notices import EXAMPLES, headers_of
from driftloop.registry.mlflow.webhooks.sealing import (
    Sealer,
    WebhookKeyError,
    open_sealer,
)
from driftloop.runtime.database import open_database
from sqlalchemy import text

from tests.unit.registry import test_mlflow_tracking
from tests.unit.registry.test_mlflow_tracking import Store, hash_of

store = test_mlflow_tracking.store
HOOKS = "https://hooks.example.org/x"
OPEN = Egress(["*"], ["https", "http"])
ALL_EVENTS = [
    {"entity": entity.upper(), "action": action.upper()}
    for entity, action in (event.split(".") for event in EXAMPLES)
]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and their addresses; no other name is known."""
    known: dict[str, list[str]] = {"hooks.example.org": ["93.184.215.14"]}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, **kind: Any) -> list[Any]:
        found = known.get(host, [host])
        flags = socket.AI_NUMERICHOST
        return [e for a in found for e in real(a, port, flags=flags, **kind)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/x",
        "ftp://hooks.example.org/x",
        "file:///etc/passwd",
        "https:///x",
        "https://user:password@hooks.example.org/",
        "https://hooks.example.org#@evil.org/",
        "https://evil.org\\@hooks.example.org/",
        "https://evil.org/",
        "https://hooks.example.org.evil.org/",
        "https://nothooks.example.org/",
        "https://hooks.example.org:99999/",
        "https://[::1",
        "https://hooks.example.org/a b",
        "https://hooks.ex\u0430mple.org/",
        "https://hooks.example.org/\nHost: x",
        "https://" + "a" * 2000,
    ],
)
def test_addresses_that_are_none(names: dict[str, list[str]], url: str) -> None:
    """Refused before any name is looked up."""
    names.clear()
    with pytest.raises(RefusedError):
        Egress(["hooks.example.org"], ["https"]).target_of(url)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        # of RFC 1918, whose addresses are written out nowhere in the project
        *(str(IPv4Address(n)) for n in (0x0A010203, 0xAC100001, 0xC0A80001)),
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - refused
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:1:2:3:4:5:6",
        "ff02::1",
    ],
)
def test_private_addresses(names: dict[str, list[str]], address: str) -> None:
    """Of a name, even beside a public one; said plainly; or allowed by the setting."""
    names["hooks.example.org"] = ["93.184.215.14", address]
    with pytest.raises(RefusedError, match="is not public"):
        OPEN.post(HOOKS, b"", {})
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(RefusedError, match="is not public"):
        OPEN.check(f"http://{host}/")
    inside = Egress(["*"], ["https"], with_private=True)
    assert len(inside.addresses_of(inside.target_of(HOOKS))) == 2


def test_listed_hosts(names: dict[str, list[str]]) -> None:
    """Negative control: what is listed is sent to; by default nothing is."""
    below = Egress(["*.example.org"], ["https"])
    for egress in (below, OPEN, Egress(["HOOKS.example.org"], ["https"])):
        assert egress.target_of("https://Hooks.Example.org:444/x?y").port == 444
        egress.check(HOOKS)
    for url in ("https://example.org/", "https://xexample.org/"):
        with pytest.raises(RefusedError, match="WEBHOOK_HOSTS"):
            below.target_of(url)
    with pytest.raises(RefusedError, match="WEBHOOK_HOSTS"):
        Egress([], ["https"]).target_of(HOOKS)


def test_a_secret_opens_for_its_webhook_only(tmp_path: Path) -> None:
    """Not for another one, not with another key, not once altered."""
    sealer = open_sealer(tmp_path, None)
    sealed = sealer.sealed("secret", "w-1")
    assert open_sealer(tmp_path, None).opened(sealed, "w-1") == "secret"
    assert sealer.sealed("secret", "w-1") != sealed
    wrong: list[tuple[Sealer, str, str]] = [
        (sealer, sealed, "w-2"),
        (Sealer("k" * 32), sealed, "w-1"),
        (sealer, sealed[:-8] + "AAAAAAA=", "w-1"),
        (sealer, "nonsense", "w-1"),
    ]
    for opener, text_, webhook in wrong:
        with pytest.raises(WebhookKeyError, match="WEBHOOK_KEY"):
            opener.opened(text_, webhook)
    with pytest.raises(WebhookKeyError, match="less than 32"):
        Sealer("short")
    (tmp_path / "secrets/webhook-key").chmod(0o644)
    with pytest.raises(WebhookKeyError, match="chmod 600"):
        open_sealer(tmp_path, None)


def test_the_signature_is_the_standard_one() -> None:
    """Computed here in another way; another secret, time or body gives another one."""
    found = headers_of("id", 5, b"{}", "s")["X-MLflow-Signature"]
    digest = hmac.new(b"s", b"id.5.{}", hashlib.sha256).digest()
    assert found == "v1," + b64encode(digest).decode()
    others = [("id", 6, b"{}", "s"), ("id", 5, b"{ }", "s"), ("id", 5, b"{}", "t")]
    assert all(headers_of(*o)["X-MLflow-Signature"] != found for o in others)
    assert "X-MLflow-Signature" not in headers_of("id", 5, b"{}", None)


def a_logged_model(store: Store) -> str:
    number = store.call(experiments.create, name="one")["experiment_id"]
    made = store.call(logged_models.create, experiment_id=number)["model"]
    model_id: str = made["info"]["model_id"]
    return model_id


def rows(store: Store, query: str) -> list[Any]:
    with store.journal.reading() as connection:
        return list(connection.execute(text(query)))


def test_what_is_due_follows_from_the_log(
    store: Store, names: dict[str, list[str]], tmp_path: Path
) -> None:
    """Each event for whoever asked for it then; a rebuild has the same, told or not."""
    webhooks = Webhooks(Egress(["*"], ["https"]), Sealer("k" * 32))
    fields = {"url": HOOKS, "secret": "do not tell", "events": ALL_EVENTS}
    store.call(models.create, name="before")
    one = store.call(webhooks.create, name="all", **fields)["webhook"]
    off = store.call(webhooks.create, name="off", status="DISABLED", **fields)
    tags = {**fields, "events": [{"entity": "MODEL_VERSION_TAG", "action": "SET"}]}
    store.call(webhooks.create, name="tags", **tags)
    assert "do not tell" not in str([one, off, store.events()])
    store.call(models.create, name="m", description="d")
    model_id = a_logged_model(store)
    source = {"source": f"models:/{model_id}", "model_id": model_id}
    store.call(versions.create, name="m", **source)
    version = {"name": "m", "version": "1"}
    store.call(versions.set_tag, **version, key="k", value="v")
    store.call(versions.delete_tag, **version, key="k")
    store.call(aliases.put, **version, alias="a")
    store.call(aliases.delete, name="m", alias="a")
    found = rows(store, "SELECT * FROM mlflow_webhook_notice ORDER BY at_ms")
    mine = [row for row in found if row.webhook_id == one["webhook_id"]]
    assert sorted(row.event for row in mine) == sorted(EXAMPLES)
    assert off["webhook"]["webhook_id"] not in [row.webhook_id for row in found]
    assert len(found) == len(mine) + 1
    ends: list[tuple[Any, Any]] = [(mine[0], "delivered"), (mine[1], "given-up")]
    for row, outcome in ends:
        change = WebhookDelivered(
            webhook_id=row.webhook_id,
            delivery_id=row.delivery_id,
            outcome=outcome,
            detail="HTTP 500",
        )
        store.journal.write("registry", lambda _, c=change: c)
    given_up = store.call(webhooks.given_up, webhook_id=one["webhook_id"])
    assert len(given_up["deliveries"]) == 1
    other = open_database(f"sqlite:///{tmp_path}/other.db", TABLES)
    with other.begin() as connection:
        take(connection, store.events())
    assert hash_of(other) == store.hash()
    other.dispose()
    store.call(webhooks.retry, webhook_id=one["webhook_id"])
    assert not store.call(webhooks.given_up, webhook_id=one["webhook_id"])["deliveries"]
    store.call(webhooks.delete, webhook_id=one["webhook_id"])
    left = rows(store, "SELECT webhook_id FROM mlflow_webhook_notice")
    assert one["webhook_id"] not in [row.webhook_id for row in left]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": "a b"}, "name: 'a b' should be"),
        ({"name": "-a"}, "name: '-a'"),
        ({"name": "a" * 64}, "name:"),
        ({"url": "http://hooks.example.org"}, "url: the scheme is 'http'"),
        ({"url": "https://127.0.0.1/"}, "url: 127.0.0.1 is at 127.0.0.1"),
        ({"events": []}, "'events'"),
        ({"events": [{"entity": "PROMPT", "action": "CREATED"}]}, "events[0]: 'prompt"),
        ({"events": [{"entity": "MODEL_VERSION", "action": "SET"}]}, "events[0]:"),
        ({"events": ["x"]}, "events[0]: str where an object"),
        ({"status": "ASLEEP"}, "status: 'ASLEEP'"),
        ({"secret": "x" * 1001}, "secret: 1001 characters"),
    ],
)
def test_a_refusal_names_the_field(
    store: Store, names: dict[str, list[str]], fields: dict[str, Any], problem: str
) -> None:
    """And nothing is kept; without the fault it is."""
    webhooks = Webhooks(Egress(["*"], ["https"]), Sealer("k" * 32))
    right = {"name": "a", "url": HOOKS, "events": ALL_EVENTS}
    with pytest.raises(Refusal) as refused:
        store.call(webhooks.create, **{**right, **fields})
    assert problem in refused.value.message
    assert store.call(webhooks.list) == {}
    made = store.call(webhooks.create, **right)["webhook"]
    assert store.call(webhooks.list)["webhooks"] == [made]
