"""The broker of docker-compose.yml lets each service do its part and no more."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from driftloop.local.compose_secrets import (
    ADMIN,
    TEMPLATE,
    client_settings,
    kafka_settings,
)
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.drivers.confluent import ConfluentDriver, ConfluentPublisher
from driftloop.runtime.drivers.faust import FaustDriver
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Driver, PublishError, Record

ROOT = Path(__file__).parents[2]
USERS = (ADMIN, "ingest", "validator", "monitor", "console", "upstream", "people")
PASSWORDS = {name: f"password-of-{name}" for name in USERS}
WAIT_S = 120


class SecuredNode(KafkaNode):
    """The node of the compose file, at this test's ports and folder."""

    def _write_settings(self, file_name: str, data: str) -> None:
        assert self._ports is not None
        broker, controller = self._ports
        template = (ROOT / TEMPLATE).read_text("utf-8")
        for there, here in {
            "0.0.0.0:19092": f"127.0.0.1:{broker}",
            "kafka:19092": f"127.0.0.1:{broker}",
            "localhost:9093": f"127.0.0.1:{controller}",
            # the listener for other machines' clients is not needed here
            "OUTSIDE://0.0.0.0:9092,": "",
            "OUTSIDE://127.0.0.1:9092,": "",
            "OUTSIDE:SASL_PLAINTEXT,": "",
            "/var/lib/kafka/data": data,
        }.items():
            assert there in template
            template = template.replace(there, here)
        settings = kafka_settings(template, PASSWORDS)
        (self._home / file_name).write_text(settings, encoding="ascii")

    def is_ready(self, patience_s: float = 2) -> bool:
        client = AdminClient({"bootstrap.servers": self.bootstrap, **login(ADMIN)})
        try:
            return bool(client.list_topics(timeout=patience_s).brokers)
        except KafkaException:
            return False


def login(user: str) -> dict[str, str]:
    return client_settings(user, PASSWORDS[user])


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a broker with topics and rights as ``broker-setup`` makes them."""
    folder = tmp_path_factory.mktemp("secured")
    with SecuredNode(folder / "kafka") as node:
        secrets = folder / "secrets"
        secrets.mkdir()
        (secrets / "driftloop_kafka_config").write_text(json.dumps(login(ADMIN)))
        for _ in range(2):  # it may run again: nothing is there twice
            done = subprocess.run(
                [sys.executable, "-m", "driftloop.runtime.admin", "--rights"],
                env={
                    **os.environ,
                    "DRIFTLOOP_BROKER": node.bootstrap,
                    "DRIFTLOOP_SECRETS_DIR": str(secrets),
                },
                capture_output=True,
                text=True,
                timeout=WAIT_S,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        assert "created 0 topics" in done.stdout
        yield node.bootstrap


def publish(broker: str, user: str, topic: str) -> None:
    publisher = ConfluentPublisher(broker, client_id=user, client_config=login(user))
    try:
        publisher.publish([Record(topic, b"bike-demand", b"{}")], WAIT_S)
    finally:
        publisher.close()


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("upstream", "observation-arrived"),
        ("ingest", "batch-ingested"),
        ("ingest", "ingest-dead-letter"),
        ("people", "pipeline-applied"),
    ],
)
def test_own_topics_can_be_written(broker: str, user: str, topic: str) -> None:
    """What the topic table gives is granted."""
    publish(broker, user, topic)


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("ingest", "batch-validated"),
        ("ingest", "model-approved"),
        ("validator", "validator-dead-lette"),
        ("console", "approval-given"),
        ("upstream", "batch-ingested"),
        ("people", "model-approved"),
    ],
)
def test_other_topics_cannot_be_written(broker: str, user: str, topic: str) -> None:
    """Everything else is denied: an approval cannot be forged by another service."""
    # who may write nothing at all gets no producer id: for good, not for this topic
    with pytest.raises((PublishError, KafkaException)):
        publish(broker, user, topic)


def consume(driver: Driver, timeout_s: float) -> bool:
    """Whether the driver hands over a message within the time."""
    got = threading.Event()

    def run() -> None:
        driver.run(lambda _: got.set(), lambda *_: None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    found = got.wait(timeout_s)
    driver.stop()
    thread.join(WAIT_S)
    return found


@pytest.mark.parametrize("driver", [ConfluentDriver, FaustDriver])
def test_own_group_reads_own_topics(broker: str, driver: type) -> None:
    """A service consumes what it handles, in its group and in no other."""
    publish(broker, "ingest", "batch-ingested")
    topics, config = ["batch-ingested"], {"client_config": login("validator")}
    own = driver(broker, "driftloop-validator", topics, **config)
    assert consume(own, WAIT_S)
    if driver is ConfluentDriver:
        other = driver(broker, "driftloop-ingest", topics, **config)
        assert not consume(other, 5)  # negative control


def test_views_may_keep_changelogs(broker: str) -> None:
    """Topics named after a service are its own to make and write, and only its."""
    for user, topic, allowed in (
        ("monitor", "driftloop-monitor-views-changelog", True),
        ("ingest", "driftloop-monitor-other-changelog", False),
    ):
        admin = AdminClient({"bootstrap.servers": broker, **login(user)})
        (future,) = admin.create_topics([NewTopic(topic, 4, 1)]).values()
        if allowed:
            future.result(WAIT_S)
            publish(broker, user, topic)
        else:
            with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
                future.result(WAIT_S)


def test_states_can_be_followed(broker: str) -> None:
    """The follower, which joins no group, reads with the same rights."""
    publish(broker, "people", "pipeline-applied")
    seen = threading.Event()
    follower = LogFollower(
        broker, ["pipeline-applied"], lambda _: seen.set(), login("console")
    )
    thread = threading.Thread(target=follower.run, daemon=True)
    thread.start()
    found = seen.wait(WAIT_S) and follower.caught_up.wait(WAIT_S)
    follower.stop()
    thread.join(WAIT_S)
    assert found


@pytest.mark.parametrize("stranger", [client_settings("ingest", "guessed"), {}])
def test_stranger_gets_nothing(broker: str, stranger: dict[str, str]) -> None:
    """With a wrong password, or without saying who it is, nobody writes."""
    limits = {"bootstrap.servers": broker, "message.timeout.ms": 4000, "log_level": 0}
    producer = Producer({**limits, **stranger}, logger=None)
    outcome: list[object] = []
    producer.produce("batch-ingested", b"x", callback=lambda e, _: outcome.append(e))
    producer.flush(WAIT_S)
    assert outcome
    assert outcome[0] is not None
