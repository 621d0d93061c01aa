"""Webhooks of MLflow's clients: a real receiver, signatures, kills, given up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import TrackingChanged
from driftloop.local.kafka import KafkaNode
from driftloop.registry.mlflow.webhooks.notices import signature
from driftloop.runtime.admin import create_topics

from tests.component.mlflow_client import CLIENT, QUIET
from tests.component.processes import TOKEN, Log, ServiceProcess
from tests.component.webhook_receiver import Receiver
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]
API = "/api/2.0/mlflow"
SECRET = "what only both know"


class Place:
    """A registry whose webhooks may call this machine."""

    def __init__(self, node: KafkaNode, folder: Path) -> None:
        create_topics(node.bootstrap)
        self.home = folder / "home"
        self.log = Log(node.bootstrap, self.home)
        self.registry = ServiceProcess(
            "registry",
            self.home,
            node.bootstrap,
            WEBHOOK_HOSTS='["127.0.0.1"]',
            WEBHOOK_SCHEMES='["http"]',
            WEBHOOK_PRIVATE_ADDRESSES="true",
            WEBHOOK_GIVE_UP_SECONDS="6",
        )

    def call(self, method: str, path: str, **fields: Any) -> dict[str, Any]:
        answer = self.registry.client.request(method, f"{API}/{path}", json=fields)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def hook(self, url: str, name: str, **more: Any) -> str:
        events = [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]
        made = self.call("POST", "webhooks", name=name, url=url, events=events, **more)
        webhook_id: str = made["webhook"]["webhook_id"]
        return webhook_id

    def model(self, name: str) -> None:
        self.call("POST", "registered-models/create", name=name)

    def ends(self, webhook_id: str) -> list[Any]:
        found = self.log.read(TrackingChanged)
        changes = [e.change for e in found if isinstance(e, TrackingChanged)]
        return [
            change
            for change in changes
            if change.kind == "webhook-delivered" and change.webhook_id == webhook_id
        ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("webhooks")
    with KafkaNode(folder / "kafka") as node:
        found = Place(node, folder)
        with found.registry:
            yield found
        found.log.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found


def checked(receiver: Receiver, secret: str = SECRET) -> list[bool]:
    """Return of each delivery whether its signature is the secret's."""
    found = []
    for headers, body in receiver.taken:
        delivery, at = headers["X-MLflow-Delivery-Id"], headers["X-MLflow-Timestamp"]
        wanted = signature(secret, delivery, int(at), body)
        found.append(headers["X-MLflow-Signature"] == wanted)
    return found


def test_told_once_signed(place: Place, receiver: Receiver) -> None:
    """The receiver can check who it is from; another secret does not fit."""
    webhook = place.hook(receiver.url, "told", secret=SECRET)
    place.model("told-model")
    wait_until(lambda: len(place.ends(webhook)) == 1, 120)
    ((headers, body),) = receiver.taken
    content = json.loads(body)
    assert (content["entity"], content["action"]) == ("registered_model", "created")
    assert content["data"]["name"] == "told-model"
    assert checked(receiver) == [True]
    assert checked(receiver, "another") == [False]
    (end,) = place.ends(webhook)
    assert (end.outcome, end.delivery_id) == (
        "delivered",
        headers["X-MLflow-Delivery-Id"],
    )
    place.call("DELETE", f"webhooks/{webhook}")


def test_the_secret_is_nowhere(place: Place, receiver: Receiver) -> None:
    """Not in an answer, the log, the database, or what the process prints."""
    secret = "0d5e1f-a-secret-to-look-for"
    webhook = place.hook(receiver.url, "quiet", secret=secret)
    listed = place.registry.client.get(f"{API}/webhooks").text
    assert webhook in listed
    events = [e.model_dump_json() for e in place.log.read(TrackingChanged)]
    places = [listed, *events, place.registry.log.read_text("utf-8")]
    files = [f.read_bytes() for f in (place.home / "databases").iterdir()]
    assert not any(secret in text for text in places)
    assert not any(secret.encode() in data for data in files)
    assert any(webhook.encode() in data for data in files)  # negative control
    place.call("DELETE", f"webhooks/{webhook}")


def test_a_receiver_that_fails_is_tried_again(place: Place, receiver: Receiver) -> None:
    """Under the same id and with the same body; the others do not wait."""
    receiver.status = 500
    webhook = place.hook(receiver.url, "failing", secret=SECRET)
    place.model("again")
    wait_until(lambda: len(receiver.taken) >= 2, 120)
    with Receiver() as other:
        second = place.hook(other.url, "healthy")
        place.model("beside")
        wait_until(lambda: other.names() == ["beside"], 120)
        place.call("DELETE", f"webhooks/{second}")
    receiver.status = 200
    wait_until(lambda: len(place.ends(webhook)) >= 2, 120)
    mine = [
        (h, b) for h, b in receiver.taken if json.loads(b)["data"]["name"] == "again"
    ]
    assert len({h["X-MLflow-Delivery-Id"] for h, _ in mine}) == 1
    assert len({b for _, b in mine}) == 1
    assert all(checked(receiver))
    place.call("DELETE", f"webhooks/{webhook}")


def test_killed_between(place: Place, receiver: Receiver) -> None:
    """What was due is delivered after the start; what was told is not told again."""
    webhook = place.hook(receiver.url, "killed")
    place.model("before-1")
    wait_until(lambda: len(place.ends(webhook)) == 1, 120)
    receiver.status = 503
    place.model("before-2")
    wait_until(lambda: "before-2" in receiver.names(), 120)
    place.registry.kill()
    receiver.status = 200
    place.registry.start()
    wait_until(lambda: len(place.ends(webhook)) == 2, 120)
    assert receiver.names().count("before-1") == 1
    assert {end.outcome for end in place.ends(webhook)} == {"delivered"}
    place.call("DELETE", f"webhooks/{webhook}")


def test_given_up_and_delivered_after_all(place: Place, receiver: Receiver) -> None:
    """After the time that is set, with the reason; told again when asked for."""
    receiver.status = 302  # a redirect is an answer, and is not followed
    webhook = place.hook(receiver.url, "lost")
    place.model("lost-model")
    wait_until(lambda: len(place.ends(webhook)) == 1, 120)
    (end,) = place.ends(webhook)
    assert (end.outcome, end.detail) == ("given-up", "HTTP 302")
    assert set(receiver.paths) == {"/"}
    found = place.call("GET", f"webhooks/{webhook}/given-up")["deliveries"]
    assert [each["problem"] for each in found] == ["HTTP 302"]
    receiver.status = 200
    place.call("POST", f"webhooks/{webhook}/retry")
    wait_until(lambda: len(place.ends(webhook)) == 2, 120)
    assert place.ends(webhook)[-1].outcome == "delivered"
    assert place.call("GET", f"webhooks/{webhook}/given-up")["deliveries"] == []
    place.call("DELETE", f"webhooks/{webhook}")


CLIENT_STORY = """
import sys, mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
client, url = MlflowClient(), sys.argv[1]
hook = client.create_webhook("client", url, ["registered_model.created",
    "model_version.created", "model_version_alias.created"], "of the test", "a secret")
assert client.get_webhook(hook.webhook_id).url == url
assert [h.webhook_id for h in client.list_webhooks()] == [hook.webhook_id]
result = client.test_webhook(hook.webhook_id)
assert (result.success, result.response_status) == (True, 200), result
assert client.test_webhook(hook.webhook_id, "model_version_alias.created").success
changed = client.update_webhook(hook.webhook_id, description="anew", status="DISABLED")
assert (changed.description, str(changed.status)) == ("anew", "DISABLED")
assert len(changed.events) == 3
client.update_webhook(hook.webhook_id, status="ACTIVE")
client.create_registered_model("by-client")
for wrong in ("http://169.254.169.254/x", "https://127.0.0.1/x", "http://localhost/"):
    try:
        client.create_webhook("wrong", wrong, ["model_version.created"])
    except MlflowException as error:
        assert error.error_code == "INVALID_PARAMETER_VALUE", error
    else:
        raise AssertionError(wrong)
print(hook.webhook_id)
"""


def test_mlflows_own_client(place: Place, receiver: Receiver) -> None:
    """Makes, tests, changes one; addresses that are not listed are refused."""
    if not CLIENT.exists():
        pytest.skip("MLflow's client is not installed: make setup-mlflow")
    done = subprocess.run(
        [CLIENT, "-c", CLIENT_STORY, receiver.url],
        env={
            **QUIET,
            "MLFLOW_TRACKING_URI": place.registry.url,
            "MLFLOW_TRACKING_TOKEN": TOKEN,
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    webhook = done.stdout.split()[-1]
    wait_until(lambda: len(place.ends(webhook)) == 1, 120)
    assert receiver.names() == ["example_model", "example_model", "by-client"]
    assert all(checked(receiver, "a secret"))
    place.call("DELETE", f"webhooks/{webhook}")
