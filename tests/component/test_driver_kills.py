"""Drivers in processes of their own that are killed, frozen, cut off and ended.

After each fault the same is asked: no effect missing, none twice, every output
written, and the group's offset at the end. That these questions find what they look
for is shown by workers that are wrong on purpose.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.drivers.probe import BrokerProbe
from support.cluster import Cluster, eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),  # a busy machine is several times slower
    pytest.mark.skipif(sys.platform != "linux", reason="reads process states in /proc"),
]

SCRIPT = Path(__file__).with_name("driver_worker.py")
SESSION_S = 6.0  # Kafka's lowest by default (group.min.session.timeout.ms)
PATIENCE_S = 120.0
BAD = [b"\xff\xfe", b"{", b"", None, b"[1]", b"\x00\x00\x00"]

Options = dict[str, Any]


class Scene:
    """A topic in, a topic out, one database, and the workers between them."""

    def __init__(
        self, driver: str, cluster: Cluster, name: str, folder: Path, partitions: int
    ) -> None:
        self.cluster = cluster
        self.topic, self.output, self.group = f"{name}-in", f"{name}-out", name
        self.partitions = partitions
        self.database = folder / "effects.sqlite"
        self.driver = driver
        self._log = folder / "workers.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def create_topics(self) -> None:
        self.cluster.create_topic(self.topic, self.partitions)
        self.cluster.create_topic(self.output)

    def publish(self, first: int, end: int) -> None:
        values = [json.dumps({"id": number}).encode() for number in range(first, end)]
        self.cluster.publish(self.topic, values, self.partitions)

    def start(self, instance: str = "a", **options: Any) -> subprocess.Popen[bytes]:
        """Start a worker; options are those of `driver_worker.py`."""
        fixed = {
            "driver": self.driver,
            "bootstrap": self.cluster.bootstrap,
            "group": self.group,
            "instance": f"{self.group}-{instance}",
            "input": self.topic,
            "output": self.output,
            "database": self.database,
            "session-s": SESSION_S,
        }
        arguments: list[str] = []
        for name, value in (fixed | options).items():
            arguments.append(f"--{name.replace('_', '-')}")
            arguments += [] if value is True else [str(value)]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(SCRIPT), *arguments], stdout=log, stderr=log
            )
        self._processes.append(process)
        return process

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(self.database, timeout=100)) as database:
            try:
                return database.execute(statement).fetchall()
            except sqlite3.OperationalError:  # the first worker has no tables yet
                return []

    @property
    def effects(self) -> list[str]:
        return [row[0] for row in self.query("SELECT id FROM effect")]

    def missing(self, count: int) -> set[str]:
        return {str(number) for number in range(count)} - set(self.effects)

    def doubles(self) -> list[str]:
        effects = self.effects
        return sorted({name for name in effects if effects.count(name) > 1})

    def wait_until_committed(self) -> None:
        eventually(
            lambda: self.cluster.is_done(self.group, self.topic, self.partitions),
            "offsets at the end",
            PATIENCE_S,
            self.log_tail,
        )

    def wait_until_shared(self, shares: list[int]) -> None:
        eventually(
            lambda: self.cluster.shares(self.group, self.topic) == shares,
            f"partitions shared {shares}",
            PATIENCE_S,
            self.log_tail,
        )

    def check(self, count: int) -> None:
        """Every effect once, every output at least once, offsets at the end."""
        eventually(
            lambda: not self.missing(count),
            "all effects",
            PATIENCE_S,
            self.log_tail,
        )
        self.wait_until_committed()
        assert not self.doubles()
        outputs = [json.loads(value) for value in self.cluster.values(self.output)]
        good = {output["id"] for output in outputs if output["good"]}
        assert good == {str(number) for number in range(count)}

    def log_tail(self) -> str:
        return self._log.read_text(errors="replace")[-12000:]

    def kill_all(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def state_of(process: subprocess.Popen[bytes]) -> str:
    """Return the kernel's letter for the state: R, S, T (stopped), Z…"""
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


@pytest.fixture(params=["confluent", "faust"])
def make_scene(
    request: pytest.FixtureRequest,
    unique_name: Callable[[str], str],
    tmp_path: Path,
) -> Iterator[Callable[..., Scene]]:
    """Return a function that sets the scene on a broker."""
    scenes: list[Scene] = []

    def make(node: KafkaNode, partitions: int = 1, create: bool = True) -> Scene:
        name = unique_name("scene")
        folder = tmp_path / name
        folder.mkdir()
        cluster = Cluster(node.bootstrap)
        scenes.append(Scene(request.param, cluster, name, folder, partitions))
        if create:
            scenes[-1].create_topics()
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.kill_all()


def test_kill_between_effect_and_commit(make_scene, kafka) -> None:
    """Three times in a row; the restarted worker goes on where the effects end."""
    scene = make_scene(kafka)
    scene.publish(0, 60)
    for number in (10, 30, 50):
        assert scene.start(die_after=number).wait(PATIENCE_S) == -signal.SIGKILL
    scene.start()
    scene.check(60)


def test_checker_sees_double_effects(make_scene, kafka) -> None:
    """Negative control: the same kill, and a worker without an inbox."""
    scene = make_scene(kafka)
    scene.publish(0, 60)
    process = scene.start(die_after=30, no_inbox=True)
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    scene.start(no_inbox=True)
    eventually(lambda: not scene.missing(60), "all effects")
    assert scene.doubles()


def test_checker_sees_lost_effects(make_scene, kafka) -> None:
    """Negative control: a worker that lets the driver commit before the effect."""
    scene = make_scene(kafka)
    scene.publish(0, 60)
    process = scene.start(ack_first=True, work_ms=200)
    eventually(lambda: scene.effects, "a first effect")
    scene.wait_until_committed()
    process.kill()
    process.wait()
    scene.publish(60, 61)
    scene.start()
    eventually(lambda: "60" in scene.effects, "the effect after the loss")
    assert scene.missing(61)


def test_bad_records_between_good_ones_and_kills(make_scene, kafka) -> None:
    """A third cannot be decoded; kill -9 at three random moments."""
    seed = random.randrange(10_000)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    scene = make_scene(kafka)
    values: list[bytes | None] = []
    for number in range(300):
        values.append(json.dumps({"id": number}).encode())
        if number % 2:
            values.append(chance.choice(BAD))
    scene.cluster.publish(scene.topic, values)
    for _ in range(3):
        before = len(scene.effects)
        process = scene.start(work_ms=5)
        target = before + chance.randrange(5, 60)
        eventually(lambda target=target: len(scene.effects) >= target, "some effects")
        process.kill()
        process.wait()
    scene.start()
    scene.check(300)
    outputs = [json.loads(value) for value in scene.cluster.values(scene.output)]
    dead = {output["id"] for output in outputs if not output["good"]}
    expected = {
        f"{scene.topic}/0/{offset}"
        for offset, value in enumerate(values)
        if value is None or not value.startswith(b'{"id"')
    }
    assert dead == expected
    assert len(expected) == 150


def test_sigterm_finishes_and_commits(make_scene, kafka) -> None:
    """Exit code 0, and the offset is exactly at the end of the effects."""
    scene = make_scene(kafka)
    scene.publish(0, 300)
    process = scene.start(work_ms=10)
    eventually(lambda: len(scene.effects) > 20, "some effects")
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert len(scene.effects) < 300 or scene.driver == "confluent"
    assert scene.cluster.committed(scene.group, scene.topic) == len(scene.effects)
    scene.start()
    scene.check(300)


def test_handler_longer_than_session_and_poll_interval(make_scene, kafka) -> None:
    """A handler of 20 s runs once: nobody is thrown out of the group."""
    scene = make_scene(kafka, partitions=2)
    scene.start("a", slow_at=6, slow_s=20)
    scene.start("b", slow_at=6, slow_s=20)
    scene.wait_until_shared([1, 1])
    scene.publish(0, 12)
    scene.check(12)
    (deliveries,) = scene.query("SELECT count(*) FROM delivery WHERE id = '6'")
    assert deliveries == (2,)  # before the 20 s and after them


def test_one_of_two_workers_killed(make_scene, kafka) -> None:
    """The other takes over after the session."""
    scene = make_scene(kafka, partitions=4)
    first = scene.start("a", work_ms=2)
    scene.start("b", work_ms=2)
    scene.wait_until_shared([2, 2])
    scene.publish(0, 400)
    eventually(lambda: len(scene.effects) > 100, "some effects")
    first.kill()
    first.wait()
    scene.publish(400, 800)
    eventually(lambda: len(scene.effects) >= 800, "all effects", PATIENCE_S)
    scene.check(800)


def test_one_of_two_workers_frozen_and_woken(make_scene, kafka) -> None:
    """The zombie works through its buffer: repeats, and commits that are refused."""
    scene = make_scene(kafka, partitions=4)
    frozen = scene.start("a", freeze_at=150)
    scene.publish(0, 400)
    eventually(lambda: state_of(frozen) == "T", "the worker froze itself", PATIENCE_S)
    scene.start("b")  # 150 is free to be handled by the other one
    eventually(lambda: not scene.missing(400), "the other did all", PATIENCE_S)
    scene.wait_until_committed()
    os.kill(frozen.pid, signal.SIGCONT)
    scene.publish(400, 800)
    scene.check(800)
    assert frozen.poll() is None, scene.log_tail()


def test_broker_killed_and_back(make_scene, own_kafka) -> None:
    """The same processes go on by themselves; the watchdog keeps quiet meanwhile.

    One of the two has nothing to read, and asks who reads in its place.
    """
    scene = make_scene(own_kafka, partitions=1)
    processes = [scene.start(name, work_ms=5, watchdog_s=10) for name in "ab"]
    scene.wait_until_shared([0, 1])
    scene.publish(0, 300)
    eventually(lambda: len(scene.effects) > 50, "some effects")
    own_kafka.kill()
    time.sleep(12)  # longer than the session and the watchdog's limit
    own_kafka.start()
    scene.check(300)
    scene.publish(300, 600)
    scene.check(600)
    assert [process.poll() for process in processes] == [None, None], scene.log_tail()


def test_the_probe_knows_the_ends_after_a_restart(own_kafka) -> None:
    """A partition's leader has a new epoch then; the old one is refused."""
    cluster = Cluster(own_kafka.bootstrap)
    cluster.create_topic("numbers")
    cluster.publish("numbers", [b"1", b"2"], 1)
    place = ("numbers", 0)
    probe = BrokerProbe(own_kafka.bootstrap, "readers", {})
    with probe.watching(lambda: [place], lambda: [place]):
        eventually(lambda: probe.lag({place: 0}) == 2, "two to read")
        own_kafka.kill()
        eventually(lambda: not probe.connected, "the broker is seen to be away")
        own_kafka.start()
        cluster.publish("numbers", [b"3"], 1)
        eventually(lambda: probe.lag({place: 0}) == 3, "three to read")
        assert probe.connected


def test_broker_and_topics_missing_at_the_start(make_scene, own_kafka) -> None:
    """A worker that is first waits for both, without ending."""
    scene = make_scene(own_kafka, create=False)
    own_kafka.stop()
    process = scene.start()
    eventually(lambda: "waiting for the broker" in scene.log_tail(), "no broker seen")
    own_kafka.start()
    eventually(lambda: "waiting for topics" in scene.log_tail(), "no topic seen")
    assert process.poll() is None
    scene.create_topics()
    scene.publish(0, 20)
    scene.check(20)
    own_kafka.kill()
    process.terminate()
    assert process.wait(PATIENCE_S) == 0  # ends although nobody takes the commit


def test_watchdog_ends_a_stuck_handler(make_scene, kafka) -> None:
    """Exit code 3; after the restart the message is handled."""
    scene = make_scene(kafka)
    scene.publish(0, 20)
    process = scene.start(slow_at=10, slow_s=600, watchdog_s=3)
    assert process.wait(PATIENCE_S) == 3
    scene.start(watchdog_s=10)
    scene.check(20)


class AssignsNothing(RoundRobinPartitionAssignor):
    """Leads a group to nothing, as a leader does that knows no partitions yet."""

    name = "faust"

    @classmethod
    def assign(cls, cluster: Any, members: Any) -> dict[str, Any]:
        return {m: ConsumerProtocolMemberAssignment(0, [], b"") for m in members}


class AsRange(AssignsNothing):
    name = "range"


def leave_an_empty_assignment(scene: Scene, instance: str) -> None:
    """Join as the worker would, get nothing, and go without leaving the group."""
    assignor = AssignsNothing if scene.driver == "faust" else AsRange

    async def join() -> None:
        consumer = AIOKafkaConsumer(
            scene.topic,
            bootstrap_servers=scene.cluster.bootstrap,
            group_id=scene.group,
            group_instance_id=f"{scene.group}-{instance}",
            partition_assignment_strategy=[assignor],
            session_timeout_ms=int(SESSION_S * 1000),
        )
        await consumer.start()  # returns when it has joined
        await consumer.stop()

    asyncio.run(join())


def test_a_member_with_nothing_to_read_while_nobody_reads(make_scene, kafka) -> None:
    """The broker hands a restarted member what it had: here, nothing at all."""
    scene = make_scene(kafka, partitions=2)
    scene.publish(0, 20)
    leave_an_empty_assignment(scene, "a")
    process = scene.start("a", watchdog_s=3)
    assert process.wait(PATIENCE_S) == 3, scene.log_tail()
    assert not scene.effects
    time.sleep(SESSION_S + 1)  # as the supervisor waits
    scene.start("a", watchdog_s=10)
    scene.check(20)


def test_a_member_with_nothing_to_read_while_another_reads(make_scene, kafka) -> None:
    """Of one partition a group's second member has none: it waits for ever."""
    scene = make_scene(kafka, partitions=1)
    scene.publish(0, 5)
    first = scene.start("a", watchdog_s=3)
    scene.check(5)
    second = scene.start("b", watchdog_s=3)
    scene.wait_until_shared([0, 1])
    scene.publish(5, 300)
    scene.check(300)
    time.sleep(5)  # longer than the watchdog's limit
    assert first.poll() is None, scene.log_tail()
    assert second.poll() is None, scene.log_tail()
