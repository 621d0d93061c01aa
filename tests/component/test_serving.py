"""Deployer and scorer as processes on a real broker: rollouts, crashes, bad models."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from driftloop.contracts.events import (
    AlertRaised,
    BatchScored,
    ModelDeployed,
    ModelRolledBack,
    PackageRef,
    RollbackRequested,
    RolloutAdvanced,
    RolloutSteered,
    ServingDesired,
    SteeringAction,
)
from driftloop.local.kafka import KafkaNode
from driftloop.scorer.open_inference import open_inference_pb2 as pb
from support import plain

from tests.component.support import (
    TOKEN,
    Events,
    ServiceProcess,
    open_events,
    wait_until,
)
from tests.component.town import ROWS, Clients, Town
from tests.unit.scorer import packages
from tests.unit.scorer.packages import Factory

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def place(
    home: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Events, Factory, ServiceProcess, ServiceProcess]]:
    """One installation for all tests here; each test has a pipeline of its own."""
    with KafkaNode(tmp_path_factory.mktemp("kafka")) as node:
        address = node.bootstrap
        with (
            open_events(address, home) as events,
            ServiceProcess("deployer", address, home) as deployer,
            ServiceProcess("scorer", address, home, scorer_report_every="5") as scorer,
        ):
            yield events, Factory(home), deployer, scorer


@pytest.fixture
def town(
    place: tuple[Events, Factory, ServiceProcess, ServiceProcess],
    unique_name: Callable[[str], str],
) -> Town:
    return Town(unique_name("town"), *place)


def test_a_version_goes_all_the_way_and_a_worse_one_comes_back(town: Town) -> None:
    """Each delivered twice: nothing happens twice."""
    town.deliveries = 2
    town.first_version()
    town.validate(count=3)
    wait_until(lambda: len(town.of(BatchScored)) == 3, "not all were scored")
    town.approve(2, town.package(2.0))
    town.wait_for(1, 2, 0.0)
    town.validate()
    for share in (0.1, 0.5):
        town.measure(2, 1, 0.9)
        town.measure(2, 1, 0.9)
        town.wait_for(1, 2, share)
    town.measure(2, 1, 0.9)
    town.measure(2, 1, 0.9)
    wait_until(lambda: len(town.of(ModelDeployed)) == 2, "2 is not in service")
    assert town.desired() == (2, 1, 0.0)
    town.measure(1, 2, 1.1)
    town.measure(1, 2, 1.1)
    town.wait_for(2, None, 0.0)
    town.approve(3, town.package(3.0))
    town.wait_for(2, 3, 0.0)
    town.measure(3, 2, 2.0)
    town.wait_for(2, None, 0.0)
    town.validate()
    wait_until(lambda: len(town.of(BatchScored)) == 5, "not all were scored")

    scored = {e.span.start.day: e for e in town.of(BatchScored)}
    assert [
        (e.champion_version, e.candidate_version) for _, e in sorted(scored.items())
    ] == [(1, None), (1, None), (1, None), (1, 2), (2, None)]
    assert scored[4].rows.column("champion_prediction").to_pylist() == [12.0] * ROWS
    assert scored[4].rows.column("candidate_prediction").to_pylist() == [13.0] * ROWS
    town.wait_for_verdict(3, "shadow", "failed")
    wait_until(lambda: town.of(ModelRolledBack), "3 was not taken back")
    whole_way = ("shadow", "canary 10 %", "canary 50 %", "full", "watching")
    assert town.steps(2) == [
        (step, verdict) for step in whole_way for verdict in ("started", "passed")
    ]
    assert town.steps(3) == [("shadow", "started"), ("shadow", "failed")]
    assert [e.version for e in town.of(ModelDeployed)] == [1, 2]
    assert [e.version for e in town.of(ModelRolledBack)] == [3]
    chains = {e.meta.chain.id for e in town.of(RolloutAdvanced)}
    assert chains == {f"chain-{town.name}-approved-{version}" for version in (1, 2, 3)}
    generations = [e.generation for e in town.of(ServingDesired)]
    assert generations == list(range(1, len(generations) + 1))


def test_bad_versions_never_answer_and_rows_go_on(town: Town) -> None:
    make = town.package
    town.first_version()
    bad = {
        2: make(samples={"prediction": [0.0, 0.0]}),
        3: make(extra=packages.TWICE_AS_MANY),
        4: make(model=packages.onnx_bytes(0, inputs=("weight", "colour"))),
        5: PackageRef(
            uri=make(5.0).uri, digest="0" * 64, signer=town.factory.signer.key_id
        ),
        6: make(extra=packages.NAN_ABOVE_100),
        7: make(extra=packages.RAISES_ABOVE_100),
    }
    for version, package in bad.items():
        town.approve(version, package)
        if version in (6, 7):  # good on the samples, bad on rows above 100
            town.wait_for(1, version, 0.0)
            town.validate(200.0)
        wait_until(
            lambda version=version: (
                version in {e.version for e in town.of(ModelRolledBack)}
            ),
            f"version {version} was not taken back",
        )
    town.validate()
    wait_until(lambda: len(town.of(BatchScored)) == town.batches, "rows were lost")
    for event in town.of(BatchScored):
        assert event.rows.column("champion_prediction").null_count == 0
        if "served_by" in event.rows.schema.names:
            assert set(event.rows.column("served_by").to_pylist()) == {"champion"}
    reasons = {e.version: e.reason for e in town.of(ModelRolledBack)}
    assert "sample 0" in reasons[2]
    assert "answers to 2 rows" in reasons[3]
    assert "the graph takes" in reasons[4]
    assert "digest" in reasons[5]
    assert "failed on 24 of 24 rows" in reasons[6]
    assert "failed on 24 of 24 rows" in reasons[7]
    assert [e.version for e in town.of(ModelDeployed)] == [1]
    wait_until(lambda: len(town.of(AlertRaised)) >= len(bad), "not all were told")
    conditions = Counter(e.condition for e in town.of(AlertRaised))
    assert len(conditions) == len(bad)
    assert set(conditions.values()) == {1}


def test_a_person_takes_a_version_back(town: Town) -> None:
    town.first_version()
    town.approve(2, town.package(2.0))
    town.wait_for(1, 2, 0.0)
    request = RollbackRequested(pipeline=town.name, requested_by="bob", reason="odd")
    town.publish(request, "rollback", 2)
    town.wait_for(1, None, 0.0)
    wait_until(lambda: town.of(ModelRolledBack), "it was not taken back")
    (back,) = town.of(ModelRolledBack)
    assert back.meta.chain.id == f"chain-{town.name}-approved-2"
    assert back.reason == "bob asked for it: odd"


def test_a_person_holds_a_version_and_puts_it_in_front(town: Town) -> None:
    town.first_version()
    town.approve(2, town.package(2.0))
    town.wait_for(1, 2, 0.0)

    def steer(action: SteeringAction) -> None:
        request = RolloutSteered(
            pipeline=town.name,
            action=action,
            version=2,
            requested_by="bob",
            reason="odd",
        )
        town.publish(request, f"rollout-{action}", 2)

    steer("hold")
    wait_until(lambda: ("shadow", "held") in town.steps(2), "it was not held")
    town.measure(2, 1, 0.5)
    town.measure(2, 1, 0.5)
    town.measure(2, 1, 0.5)
    steer("promote")
    wait_until(lambda: ("full", "passed") in town.steps(2), "it is not in front")
    assert ("canary 10 %", "started") not in town.steps(2)
    assert town.desired()[0] == 2


def test_a_deployer_without_its_database_goes_on(town: Town, home: Path) -> None:
    """The next version is compared with the champion, not taken for a first one."""
    town.first_version()
    town.deployer.kill()
    for file in (home / "databases").glob("deployer-*"):
        file.unlink()
    town.deployer.start()
    town.approve(2, town.package(2.0))
    town.wait_for(1, 2, 0.0)
    assert [e.generation for e in town.of(ServingDesired)] == [1, 2]


def test_kills_at_any_moment_change_nothing(town: Town) -> None:
    """Both services are killed again and again while a version goes its way."""
    seed = random.SystemRandom().randrange(10_000)
    print(f"seed {seed}")  # noqa: T201 - shown when it fails
    moments = random.Random(seed)
    town.deliveries = 2
    town.first_version()
    town.approve(2, town.package(2.0))
    for number in range(4):
        town.validate(count=moments.randrange(1, 4))
        if number == 1:
            town.wait_for(1, 2, 0.0)  # measurements count from here on
        for _ in range(2 * min(number, 1)):
            town.measure(2, 1, 0.9)
        time.sleep(moments.random())  # the moment of the crash, nothing waits for it
        victim = (town.deployer, town.scorer)[(number + seed) % 2]
        victim.kill()
        victim.start()
    wait_until(lambda: len(town.once(ModelDeployed)) == 2, "2 is not in service")
    for _ in range(2):
        town.measure(1, 2, 1.1)
    town.wait_for(2, None, 0.0)
    wait_until(lambda: len(town.once(BatchScored)) == town.batches, "rows were lost")
    assert len({e.span.start for e in town.once(BatchScored)}) == town.batches
    town.wait_for_verdict(2, "watching", "passed")
    told = [e for e in town.once(RolloutAdvanced) if e.version == 2]
    whole_way = ("shadow", "canary 10 %", "canary 50 %", "full", "watching")
    assert [(e.step, e.verdict) for e in told] == [
        (step, verdict) for step in whole_way for verdict in ("started", "passed")
    ]
    generations = [e.generation for e in town.once(ServingDesired)]
    assert generations == list(range(1, len(generations) + 1))
    assert [e.version for e in town.once(ModelDeployed)] == [1, 2]


def test_no_request_fails_while_versions_change(town: Town) -> None:
    """A switch, a bad version and a dead deployer: each request is answered."""
    town.apply(strategy="immediate")
    town.approve(1, town.package(1.0))
    wait_until(lambda: town.of(ModelDeployed), "no first version")
    with Clients(town.name, [town.scorer]) as caller:
        wait_until(lambda: "1" in caller.versions, "no answers")
        town.approve(2, town.package(samples={"prediction": [0.0, 0.0]}))
        town.wait_for(1, None, 0.0)
        town.approve(3, town.package(3.0))
        wait_until(lambda: "3" in caller.versions, "version 3 does not answer")
        town.deployer.kill()
        answered = len(caller.versions)
        wait_until(lambda: len(caller.versions) > answered + 20, "no answers")
        town.deployer.start()
    assert caller.failed == []
    assert list(dict.fromkeys(caller.versions)) == ["1", "3"]
    assert version_by_grpc(town) == "3"


def version_by_grpc(town: Town) -> str:
    """Ask the process's other door which version answers."""
    request = pb.ModelInferRequest(model_name=town.name)
    size = request.inputs.add(name="size", datatype="FP64", shape=[1])
    size.contents.fp64_contents.append(1.0)
    colour = request.inputs.add(name="colour", datatype="BYTES", shape=[1])
    colour.contents.bytes_contents.append(b"red")
    with grpc.insecure_channel(town.scorer.started["grpc"]) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        metadata = [("authorization", f"Bearer {TOKEN}")]
        answer = infer(request, metadata=metadata, timeout=100)
    version: str = answer.model_version
    return version


def test_requests_on_which_a_candidate_fails_take_it_back(town: Town) -> None:
    town.apply(strategy="canary", steps=[0.5])
    town.approve(1, town.package(-1000.0))
    wait_until(lambda: town.of(ModelDeployed), "no first version")
    town.approve(2, town.package(extra=packages.NAN_ABOVE_100))
    town.wait_for(1, 2, 0.5)
    body = {"inputs": {"size": [500.0], "colour": ["red"]}}
    url = f"{town.scorer.url}/pipelines/{town.name}/invocations"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for _ in range(20):
        response = plain.post(url, json=body, headers=headers, timeout=100)
        assert response.json() == {"predictions": [-490.0]}
    town.wait_for(1, None, 0.0)
    wait_until(lambda: town.of(ModelRolledBack), "it was not taken back")
    (back,) = town.of(ModelRolledBack)
    assert back.version == 2
    assert "it failed on" in back.reason
