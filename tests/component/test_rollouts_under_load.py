"""A rollout of each strategy while sixteen connections ask and services are killed.

Also what only real signs of life of two replicas can show: one that is gone, and a
freeze window that ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.events import (
    ModelDeployed,
    ModelRolledBack,
    RolloutAdvanced,
    ScorerReported,
)
from driftloop.local.kafka import KafkaNode

from tests.component.support import Events, ServiceProcess, open_events, wait_until
from tests.component.town import Clients, Town
from tests.unit.scorer.packages import Factory

CONNECTIONS = 16
REPLICAS = ("a", "b")
STEPS = {
    "shadow_then_canary": ["shadow", "canary 50 %"],
    "canary": ["canary 50 %"],
    "blue_green": ["warming"],
    "rolling": ["warming", "replica 1 of 2"],
    "immediate": [],
}
WITHOUT_LABELS = {"warming", "full"}


@dataclass
class Place:
    """One installation for all tests here; each test has a pipeline of its own."""

    events: Events
    factory: Factory
    deployer: ServiceProcess
    scorers: list[ServiceProcess]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home: Path = tmp_path_factory.mktemp("home")
    with KafkaNode(tmp_path_factory.mktemp("kafka")) as node, ExitStack() as stack:
        address = node.bootstrap
        events = stack.enter_context(open_events(address, home))
        deployer = stack.enter_context(ServiceProcess("deployer", address, home))
        scorers = [
            stack.enter_context(
                ServiceProcess(
                    "scorer",
                    address,
                    home,
                    replica=name,
                    scorer_heartbeat_seconds="1",
                )
            )
            for name in REPLICAS
        ]
        yield Place(events, Factory(home), deployer, scorers)


def served(place: Place, name: str, **rollout: Any) -> Town:
    """Return a pipeline whose first version every replica answers by."""
    town = Town(name, place.events, place.factory, place.deployer, place.scorers[0])
    town.apply(**rollout)
    town.approve(1, town.package(1.0))
    wait_until(lambda: town.of(ModelDeployed), "no first version")
    wait_until(
        lambda: (
            {r.replica for r in town.of(ScorerReported) if r.versions} == set(REPLICAS)
        ),
        "a replica has not loaded the first version",
    )
    return town


def lead_to(town: Town, last: str) -> None:
    """Play the monitor: give each step its labelled rows, until ``last`` is passed."""
    done: set[str] = set()

    def has_come() -> bool:
        steps = town.steps(2)
        if (last, "passed") in steps:
            return True
        for step, verdict in steps:
            if verdict != "started" or step in done | WITHOUT_LABELS:
                continue
            done.add(step)
            for _ in range(2 * ((step, "passed") not in steps)):
                if step == "watching":
                    town.measure(1, 2, 1.1)
                else:
                    town.measure(2, 1, 0.9)
        return False

    wait_until(has_come, f"{last} was not passed: {town.steps(2)}")


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(600)
@pytest.mark.parametrize("strategy", STEPS)
def test_no_request_fails_whoever_is_killed(
    place: Place, unique_name: Callable[[str], str], strategy: str
) -> None:
    """Deployer and one scorer are killed in mid-rollout, and started again.

    In a rolling rollout that scorer is the one ahead.
    """
    town = Town(
        unique_name("load"), place.events, place.factory, place.deployer,
        place.scorers[0],
    )  # fmt: skip
    town.apply(strategy=strategy, steps=[0.5])
    town.approve(1, town.package(1.0))
    wait_until(lambda: town.of(ModelDeployed), "no first version")
    wait_until(
        lambda: (
            {r.replica for r in town.of(ScorerReported) if r.versions} == set(REPLICAS)
        ),
        "a replica has not loaded the first version",
    )
    with Clients(town.name, place.scorers, CONNECTIONS) as clients:
        wait_until(lambda: len(clients.versions) > CONNECTIONS, "no answers")
        town.approve(2, town.package(2.0))
        *before, killed_in = STEPS[strategy] or ["full"]
        for step in before:
            lead_to(town, step)
        wait_until(lambda: (killed_in, "started") in town.steps(2), "it does not go on")
        with clients.without(place.scorers[0]), ThreadPoolExecutor() as both:
            victims = [place.deployer, place.scorers[0]]
            for victim in victims:
                victim.kill()
            list(both.map(ServiceProcess.start, victims))
        lead_to(town, "watching")
        town.wait_for(2, None, 0.0)
        answered = len(clients.versions)
        wait_until(lambda: len(clients.versions) > answered + 200, "no answers")
    print(f"{len(clients.versions)} answers")  # noqa: T201 - shown when asked for
    assert clients.failed == []
    assert set(clients.versions) == {"1", "2"}
    assert set(clients.versions[-100:]) == {"2"}
    assert not town.of(ModelRolledBack)
    town.wait_for_verdict(2, "watching", "passed")
    passed = [step for step, verdict in town.steps(2) if verdict == "passed"]
    assert list(dict.fromkeys(passed)) == [*STEPS[strategy], "full", "watching"]


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(600)
def test_a_replica_that_is_gone_is_not_waited_for(
    place: Place, unique_name: Callable[[str], str]
) -> None:
    town = served(place, unique_name("gone"), strategy="blue_green")
    place.scorers[1].kill()
    try:
        town.approve(2, town.package(2.0))
        wait_until(lambda: ("full", "passed") in town.steps(2), "it still waits")
    finally:
        place.scorers[1].start()
    town.wait_for_verdict(2, "warming", "passed")
    told = {e.step: e.detail for e in town.of(RolloutAdvanced) if e.verdict == "passed"}
    assert told["warming"] == "in memory on every replica: a"


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(600)
def test_a_rollout_begins_by_itself_when_nothing_freezes_it_any_more(
    place: Place, unique_name: Callable[[str], str]
) -> None:
    """Nothing but the scorers' signs of life comes to the deployer meanwhile."""
    now = datetime.now(UTC)
    begins, ends = (
        (now + days * timedelta(days=1)).strftime("%Y-%m-%d %H:%M") for days in (-1, 1)
    )
    rules = {"strategy": "immediate", "watch_rows": 0}
    freeze = [{"begins": begins, "ends": ends, "reason": "the year's end"}]
    town = served(place, unique_name("frozen"), freeze=freeze, **rules)
    town.approve(2, town.package(2.0))
    wait_until(lambda: town.steps(2), "nothing was told")
    beats = len(town.of(ScorerReported))
    wait_until(lambda: len(town.of(ScorerReported)) > beats + 4, "no signs of life")
    assert town.steps(2) == [("waiting", "held")]
    town.apply(**rules)
    wait_until(lambda: ("full", "passed") in town.steps(2), "it waits on")


@dataclass(frozen=True)
class Stranger:
    """An address, as a replica has one."""

    url: str


@contextmanager
def answering(status: int | None) -> Iterator[Stranger]:
    """A replica that answers with a status, or (None) cuts each request off."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if status is None:
                self.connection.close()
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Stranger(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join(120)
        server.server_close()


@pytest.mark.parametrize(
    ("status", "told"), [(503, "503"), (404, "404"), (None, "cut off")]
)
def test_the_count_sees_an_error_and_a_cut_answer(
    status: int | None, told: str
) -> None:
    with answering(status) as replica:
        with Clients("bikes", [replica], 2) as clients:
            wait_until(lambda: clients.failed, "the failure was not counted")
        assert all(told in failure for failure in clients.failed)
        assert not clients.versions


def test_the_count_sees_that_nobody_takes_a_request() -> None:
    with answering(503) as replica:
        pass
    with Clients("bikes", [replica]) as clients:
        wait_until(lambda: clients.failed, "the failure was not counted")


def test_a_replica_that_is_known_to_be_down_is_not_asked() -> None:
    with (
        answering(503) as bad,
        Clients("bikes", [bad]) as clients,
        clients.without(bad),
    ):
        seen = len(clients.failed)
        wait_until(
            lambda: [f for f in clients.failed[seen + 2 :] if "no replica" in f],
            "it was asked",
        )
