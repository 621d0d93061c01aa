"""Alerts by every channel to real receivers, with kills: once per condition."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import pytest
from driftloop.contracts.alerts import AlertDelivered, AlertResolved
from driftloop.contracts.events import AlertRaised, PipelineApplied
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics

from tests.component.cli import run_cli
from tests.component.processes import Log, ServiceProcess, with_id
from tests.component.smtp_receiver import LOGIN, MailReceiver
from tests.component.webhook_receiver import Receiver
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]
WAIT_S = 120
KEY = b"0123456789abcdef0123456789abcdef"
CHATS = ("slack", "teams", "hook", "sms")
EVERY = (*CHATS, "mail")
OWNER = "ada@example.org"


class Place:
    """A registry whose alerts may reach this machine, and the receivers there."""

    def __init__(self, node: KafkaNode, folder: Path, mail: MailReceiver) -> None:
        create_topics(node.bootstrap)
        self.mail = mail
        self.http = {name: Receiver() for name in (*CHATS, "boss")}
        self.bootstrap, self.home = node.bootstrap, folder / "home"
        self.log = Log(node.bootstrap, self.home)
        urls = {name: f"{found.url}/{name}" for name, found in self.http.items()}
        secrets = {
            "slack": {"value": urls["slack"]},
            "teams": {"value": urls["teams"]},
            "hook": {"value": "whsec_" + base64.b64encode(KEY).decode()},
            "sms": {"value": "the key of the provider", "hosts": ["127.0.0.1"]},
        }
        self.channels: dict[str, Any] = {
            "slack": {"kind": "slack", "url_secret": "slack"},
            "teams": {"kind": "teams", "url_secret": "teams"},
            "hook": {"kind": "webhook", "url": urls["hook"], "secret": "hook"},
            "sms": {
                "kind": "template",
                "url": urls["sms"] + "?key={{notice_id}}",
                "headers": {"Authorization": "Bearer {{secret.sms}}"},
                "content": "form",
                "body": "to=1&text={{text}}",
            },
            "mail": {"kind": "email", "to": ["owner", "team@example.org"]},
            "boss": {"kind": "webhook", "url": urls["boss"], "secret": "hook"},
        }
        self.registry = ServiceProcess(
            "registry",
            self.home,
            node.bootstrap,
            ALERT_HOSTS='["127.0.0.1"]',
            ALERT_SCHEMES='["http"]',
            ALERT_PRIVATE_ADDRESSES="true",
            ALERT_SECRETS=json.dumps(secrets),
            ALERT_CONSOLE_URL="https://loop.example.org",
            ALERT_SMTP_HOST="127.0.0.1",
            ALERT_SMTP_PORT=mail.port,
            ALERT_SMTP_USERNAME=LOGIN[0],
            ALERT_SMTP_PASSWORD=LOGIN[1],
            ALERT_SMTP_TRUST=mail.certificate,
            ALERT_EMAIL_FROM="loop@example.org",
        )

    def apply(self, name: str, *channels: str, **alerts: Any) -> None:
        wanted = {each: self.channels[each] for each in channels}
        spec = PipelineSpec.model_validate(
            {
                "name": name,
                "task": "regression",
                "data": {"target": "cnt"},
                "owner": OWNER,
                "alerts": {"channels": wanted, **alerts},
            }
        )
        event = PipelineApplied(pipeline=name, spec=spec, applied_by="ada")
        self.log.publish(with_id(event, str(uuid4())))

        def is_known() -> bool:
            found = self.registry.client.get(f"/api/v1/pipelines/{name}")
            return found.status_code == 200

        wait_until(is_known, WAIT_S)

    def raise_(self, pipeline: str, event_id: str, condition: str = "") -> None:
        event = AlertRaised(
            pipeline=pipeline,
            condition=condition or f"sensor_fault:temp:{pipeline}",
            severity="critical",
            title=f"Wrong values of temp in {pipeline}",
            detail="168 of 168 rows are out of range",
            owner=OWNER,
            can_end=True,
        )
        self.log.publish(with_id(event, event_id))

    def resolve(self, pipeline: str) -> None:
        over = AlertResolved(
            pipeline=pipeline,
            condition=f"sensor_fault:temp:{pipeline}",
            at=datetime.now(UTC),
            why="The values are right again.",
        )
        self.log.publish(with_id(over, f"over-{pipeline}"))

    def told(self, pipeline: str, outcome: str = "delivered") -> list[tuple[str, str]]:
        found = self.log.read(AlertDelivered, pipeline=pipeline)
        return sorted(
            (e.channel, e.reason)
            for e in found
            if isinstance(e, AlertDelivered) and e.outcome == outcome
        )

    def mails(self, pipeline: str) -> list[Any]:
        return [t for t in self.mail.taken if f" {pipeline}:" in t.message["Subject"]]

    def taken(self, name: str, pipeline: str) -> list[tuple[dict[str, str], bytes]]:
        """Return what a receiver was sent about a pipeline."""
        mark = pipeline.encode()
        return [(h, b) for h, b in self.http[name].taken if mark in b]

    def cli(self, *command: str, code: int = 0) -> str:
        url = self.registry.url
        return run_cli(self.home, self.bootstrap, *command, code=code, REGISTRY_URL=url)

    def asked(self, *command: str) -> Any:
        return json.loads(self.cli(*command, "--json"))

    def get(self, path: str, **wanted: Any) -> Any:
        answer = self.registry.client.get(f"/api/v1{path}", params=wanted)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("alerts")
    with KafkaNode(folder / "kafka") as node, MailReceiver(folder) as mail:
        found = Place(node, folder, mail)
        for receiver in found.http.values():
            receiver.__enter__()
        with found.registry:
            yield found
        for receiver in found.http.values():
            receiver.__exit__()
        found.log.close()


def test_every_channel_once_and_when_it_is_over(place: Place) -> None:
    """Raised twice and told once, each in its form; then once that it is over."""
    place.apply("every", *EVERY)
    place.raise_("every", "every-1")
    place.raise_("every", "every-2")
    raised = sorted((name, "raised") for name in EVERY)
    wait_until(lambda: place.told("every") == raised, WAIT_S)
    place.resolve("every")
    both = sorted([*raised, *((name, "resolved") for name in EVERY)])
    wait_until(lambda: place.told("every") == both, WAIT_S)
    assert [len(place.taken(name, "every")) for name in CHATS] == [2] * 4

    first, second = place.mails("every")
    assert first.to == [OWNER, "team@example.org"]
    assert (first.is_encrypted, first.is_logged_in) == (True, True)
    assert first.message["Subject"].startswith("[critical] every: Wrong values")
    assert second.message["Subject"].startswith("[resolved] every: Over: Wrong")
    assert first.message["References"] == second.message["References"]
    body = first.message.get_body(("plain",))
    assert "168 of 168 rows" in body.get_content()
    assert "Open the console" in first.message.get_body(("html",)).get_content()

    (headers, told), _ = place.taken("hook", "every")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + told
    digest = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"
    assert json.loads(told)["data"]["remedy"].startswith("Mend the source of temp")
    (_, slack), _ = place.taken("slack", "every")
    assert json.loads(slack)["blocks"][0]["type"] == "header"
    (_, teams), _ = place.taken("teams", "every")
    assert json.loads(teams)["attachments"][0]["content"]["type"] == "AdaptiveCard"
    (headers, sms), _ = place.taken("sms", "every")
    assert headers["Authorization"] == "Bearer the key of the provider"
    assert parse_qs(sms.decode())["text"][0].startswith("[critical] every: Wrong")

    (shown,) = place.get("/alerts", pipeline="every")["items"]
    assert (shown["state"], shown["repeat_count"]) == ("over", 1)
    delivered = [n for n in shown["notices"] if n["outcome"] == "delivered"]
    assert len(delivered) == 2 * len(EVERY)


def test_killed_between(place: Place) -> None:
    """Nobody takes it, the registry is killed, they take it: once each, same ids."""
    place.apply("killed", *EVERY)
    for name in CHATS:
        place.http[name].status = 503
    place.mail.reply = "451 later"
    place.raise_("killed", "killed-1")
    wait_until(
        lambda: (
            all(place.taken(name, "killed") for name in CHATS)
            and any(" killed:" in m["Subject"] for m in place.mail.refused)
        ),
        WAIT_S,
    )
    place.registry.kill()
    refused = {name: len(place.taken(name, "killed")) for name in CHATS}
    for name in CHATS:
        place.http[name].status = 200
    place.mail.reply = "250 taken"
    place.registry.start()
    wait_until(lambda: len(place.told("killed")) == len(EVERY), WAIT_S)
    for name in CHATS:
        assert len(place.taken(name, "killed")) == refused[name] + 1
    assert len({h["webhook-id"] for h, _ in place.taken("hook", "killed")}) == 1
    assert len({b for _, b in place.taken("hook", "killed")}) == 1
    (mail,) = place.mails("killed")
    tried = [m for m in place.mail.refused if " killed:" in m["Subject"]]
    assert {m["Message-ID"] for m in tried} == {mail.message["Message-ID"]}
    place.registry.kill()  # what was told stays told
    place.registry.start()
    place.raise_("killed", "killed-2", "another")
    wait_until(lambda: len(place.told("killed")) == 2 * len(EVERY), WAIT_S)
    assert len(place.mails("killed")) == 2


def test_killed_while_a_receiver_answers(place: Place) -> None:
    """The receiver may get it again, under the id that it has already."""
    place.apply("answering", "hook")
    receiver = place.http["hook"]
    receiver.hold = threading.Event()
    place.raise_("answering", "answering-1")
    wait_until(lambda: len(place.taken("hook", "answering")) == 1, WAIT_S)
    place.registry.kill()
    receiver.hold.set()
    receiver.hold = None
    place.registry.start()
    wait_until(lambda: place.told("answering") == [("hook", "raised")], WAIT_S)
    first, second = place.taken("hook", "answering")
    assert first[0]["webhook-id"] == second[0]["webhook-id"]
    assert first[1] == second[1]


def test_a_receiver_that_hangs_holds_up_nobody(place: Place) -> None:
    """It accepts and never answers; the other channel has three alerts meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as hung:
        url = f"http://127.0.0.1:{hung.getsockname()[1]}/"
        place.channels["hung"] = {"kind": "webhook", "url": url, "secret": "hook"}
        place.apply("hanging", "hung", "hook")
        for number in range(3):
            place.raise_("hanging", f"hanging-{number}", f"c{number}")
        wait_until(lambda: place.told("hanging") == [("hook", "raised")] * 3, WAIT_S)
        shown = place.get("/alerts", pipeline="hanging")["items"]
        told = [notice for alert in shown for notice in alert["notices"]]
        assert {notice["channel"] for notice in told} == {"hook"}


def test_escalated_unless_somebody_looks(place: Place) -> None:
    """One alert is acknowledged from the command line, the boss hears of the other."""
    place.apply("escalating", "hook")
    place.raise_("escalating", "escalating-1", "mine")
    wait_until(lambda: len(place.told("escalating")) == 1, WAIT_S)
    words = ("--note", "I look", "--by", "ann")
    answer = place.asked("alerts", "ack", "escalating-1", *words)
    assert (answer["state"], answer["acknowledged_by"]) == ("acknowledged", "ann")
    steps = [{"after_minutes": 0.01, "channels": ["boss"]}]
    place.apply("escalating", "hook", "boss", escalation=steps)
    place.raise_("escalating", "escalating-2", "nobodys")
    wait_until(lambda: ("boss", "escalated") in place.told("escalating"), WAIT_S)
    ((_, body),) = place.taken("boss", "escalating")
    assert json.loads(body)["data"]["condition"] == "nobodys"
    assert "mine" in place.cli("alerts", "list", "escalating")
    shown = place.cli("alerts", "show", "escalating-2")
    assert "boss" in shown
    assert "escalated" in shown


def test_silenced_from_the_command_line(place: Place) -> None:
    """While it is silenced nobody is told; what goes on is told when that ends."""
    place.apply("silent", "hook")
    made = place.asked(
        "alerts", "silence", "silent", "--condition", "sensor_fault:*",
        "--hours", "2", "--by", "ann", "-m", "the sensor is exchanged",
    )  # fmt: skip
    until = datetime.fromisoformat(made["until"])
    assert timedelta(hours=1) < until - datetime.now(UTC) < timedelta(hours=3)
    place.raise_("silent", "silent-1")
    place.raise_("silent", "silent-2", "another")
    wait_until(lambda: place.told("silent", "silenced") == [("hook", "raised")], WAIT_S)
    wait_until(lambda: place.told("silent") == [("hook", "raised")], WAIT_S)
    assert len(place.taken("hook", "silent")) == 1
    place.asked("alerts", "unsilence", "silent", made["silence_id"], "--by", "ann")
    wait_until(lambda: place.told("silent") == [("hook", "raised")] * 2, WAIT_S)
    ids = [json.loads(b)["data"]["alert_id"] for _, b in place.taken("hook", "silent")]
    assert ids == ["silent-2", "silent-1"]


def test_a_channel_is_tried(place: Place) -> None:
    """From the command line; it says what is wrong, and exits with 1."""
    place.channels["wrong"] = {
        "kind": "webhook", "url": "http://192.0.2.1:9/", "secret": "hook",
    }  # fmt: skip
    place.apply("tried", "mail", "wrong")
    assert place.asked("alerts", "test", "tried", "mail")["outcome"] == "delivered"
    (mail,) = place.mails("tried")
    assert "This is a test" in mail.message["Subject"]
    refused = place.cli("alerts", "test", "tried", "wrong", code=1)
    assert "is no host that alerts may call" in refused
    unknown = place.cli("alerts", "test", "tried", "nowhere", code=1)
    assert "there is mail, wrong" in unknown


def test_no_secret_is_anywhere(place: Place) -> None:
    """Not in the log, the database, or what the process prints."""
    events = [e.model_dump_json() for e in place.log.read(AlertDelivered)]
    texts = [*events, place.registry.log.read_text("utf-8")]
    files = [f.read_bytes() for f in (place.home / "databases").iterdir()]
    for secret in ("the key of the provider", LOGIN[1], KEY.decode()):
        assert not any(secret in text for text in texts)
        assert not any(secret.encode() in data for data in files)
    assert any(OWNER.encode() in data for data in files)  # negative control
    metrics = place.registry.client.get("/metrics").text
    assert "driftloop_alert_delay_seconds_bucket" in metrics
