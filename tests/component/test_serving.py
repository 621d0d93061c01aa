"""Deployer and scorer as processes on a real broker: rollouts, crashes, bad models."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
import httpx
import pyarrow as pa
import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    AlertRaised,
    BatchScored,
    BatchValidated,
    Measurement,
    ModelApproved,
    ModelDeployed,
    ModelRolledBack,
    PackageRef,
    PairedComparison,
    PerformanceMeasured,
    PipelineApplied,
    RollbackRequested,
    RolloutAdvanced,
    RolloutSteered,
    ScorerReported,
    ServingDesired,
    Span,
    SteeringAction,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local.kafka import KafkaNode
from driftloop.scorer.door import VERSION_HEADER
from driftloop.scorer.open_inference import open_inference_pb2 as pb

from tests.component.support import (
    TOKEN,
    Events,
    ServiceProcess,
    open_events,
    wait_until,
)
from tests.unit.scorer import packages
from tests.unit.scorer.packages import Factory

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(300)]

E = TypeVar("E", bound=Event)
ROWS = 24


@dataclass
class Town:
    """A broker, the two services, and the rest of the loop played by the test."""

    name: str
    all_events: Events
    factory: Factory
    deployer: ServiceProcess
    scorer: ServiceProcess
    batches: int = 0
    measurements: int = 0
    deliveries: int = 1

    def of(self, kind: type[E]) -> list[E]:
        """Events of this pipeline."""
        return [e for e in self.all_events.of(kind) if e.pipeline == self.name]

    def once(self, kind: type[E]) -> list[E]:
        """Events of this pipeline as a consumer with an inbox handles them.

        After a crash an event may be on the topic again, with the same id; then it
        must say the same.
        """
        by_id: dict[str, E] = {}
        for event in self.of(kind):
            first = by_id.setdefault(event.meta.id, event)
            assert first.model_dump_json() == event.model_dump_json()
        return list(by_id.values())

    def publish(self, event: Event, stem: str, times: int = 1) -> None:
        self.all_events.publish(event, f"{self.name}-{stem}", times)

    def package(self, plus: float = 0.0, **fields: Any) -> PackageRef:
        return self.factory.package(plus, pipeline=self.name, **fields)

    def apply(self, **rollout: Any) -> None:
        spec = PipelineSpec.model_validate(
            {
                "name": self.name,
                "task": "regression",
                "owner": "ada",
                "data": {"target": "cnt"},
                "rollout": {"shadow_rows": 48, "step_rows": 48, "watch_rows": 48}
                | rollout,
            }
        )
        applied = PipelineApplied(pipeline=self.name, spec=spec, applied_by="ada")
        self.publish(applied, f"applied-{rollout}")

    def approve(self, version: int, package: PackageRef) -> None:
        approved = ModelApproved(
            pipeline=self.name, version=version, package=package, approved_by=["gate"]
        )
        self.publish(approved, f"approved-{version}", self.deliveries)

    def validate(self, size: float = 1.0, count: int = 1) -> None:
        """Publish validated batches of one day each."""
        for _ in range(count):
            number, self.batches = self.batches, self.batches + 1
            start = packages.START + timedelta(days=number)
            rows = pa.RecordBatch.from_arrays(
                [
                    pa.array([f"{number}-{row}" for row in range(ROWS)]),
                    pa.array(
                        [start + timedelta(hours=row) for row in range(ROWS)],
                        pa.timestamp("us", "UTC"),
                    ),
                    pa.array(["upstream"] * ROWS),
                    pa.array([size] * ROWS, pa.float64()),
                    pa.array(["red"] * ROWS),
                ],
                names=["id", "event_time", "source", "size", "colour"],
            )
            event = BatchValidated(
                pipeline=self.name, shard="upstream", row_count=ROWS,
                span=Span(start=start, end=start + timedelta(hours=23)),
                watermark=start + timedelta(hours=23),
            )  # fmt: skip
            self.publish(event.with_rows(rows), f"batch-{number}", self.deliveries)

    def measure(self, candidate: int, champion: int, ratio: float) -> None:
        """Publish what a monitor says of a day on which both versions predicted."""
        number, self.measurements = self.measurements, self.measurements + 1
        event = PerformanceMeasured(
            pipeline=self.name,
            span=packages.MONTH,
            row_count=ROWS,
            measurements=[
                Measurement(version=v, role=role, metric="mae", value=value)
                for v, role, value in (
                    (champion, "champion", 10.0),
                    (candidate, "candidate", 10.0 * ratio),
                )
            ],
            comparison=PairedComparison(
                mean_difference=10.0 * (ratio - 1), standard_error=1.0, row_count=ROWS
            ),
        )
        self.publish(event, f"measured-{number}", self.deliveries)

    def desired(self) -> tuple[int | None, int | None, float]:
        last = self.of(ServingDesired)[-1]
        return (
            last.champion.version if last.champion else None,
            last.candidate.version if last.candidate else None,
            last.candidate_share,
        )

    def has_reported(self) -> bool:
        """Whether the scorer has settled on what is wanted last."""
        wanted = self.of(ServingDesired)[-1].generation
        return any(r.generation == wanted for r in self.of(ScorerReported))

    def wait_for(self, *desired: Any) -> None:
        wait_until(
            lambda: self.of(ServingDesired) and self.desired() == desired,
            f"{desired} is not what scorers should serve",
        )
        wait_until(self.has_reported, "no scorer reported that")

    def first_version(self) -> None:
        self.apply()
        self.approve(1, self.package(1.0))
        wait_until(lambda: self.of(ModelDeployed), "no first version")

    def steps(self, version: int) -> list[tuple[str, str]]:
        return [
            (e.step, e.verdict)
            for e in self.of(RolloutAdvanced)
            if e.version == version
        ]


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
            town.validate(size=200.0)
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
    told = [e for e in town.once(RolloutAdvanced) if e.version == 2]
    whole_way = ("shadow", "canary 10 %", "canary 50 %", "full", "watching")
    assert [(e.step, e.verdict) for e in told] == [
        (step, verdict) for step in whole_way for verdict in ("started", "passed")
    ]
    generations = [e.generation for e in town.once(ServingDesired)]
    assert generations == list(range(1, len(generations) + 1))
    assert [e.version for e in town.once(ModelDeployed)] == [1, 2]


class Caller:
    """Asks the scorer again and again, as a light load does."""

    def __init__(self, town: Town) -> None:
        self._url = f"{town.scorer.url}/v2/models/{town.name}/infer"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.statuses: Counter[int] = Counter()
        self.versions: list[str] = []

    def _run(self) -> None:
        body = {
            "inputs": [
                {"name": "size", "shape": [1], "datatype": "FP64", "data": [1.0]},
                {"name": "colour", "shape": [1], "datatype": "BYTES", "data": ["red"]},
            ]
        }
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(headers=headers, timeout=30) as client:
            while not self._stopping.wait(0.005):
                response = client.post(self._url, json=body)
                self.statuses[response.status_code] += 1
                self.versions.append(response.headers[VERSION_HEADER])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)


def test_no_request_fails_while_versions_change(town: Town) -> None:
    """A switch, a bad version and a dead deployer: each request is answered."""
    town.apply(strategy="immediate")
    town.approve(1, town.package(1.0))
    wait_until(lambda: town.of(ModelDeployed), "no first version")
    with Caller(town) as caller:
        wait_until(lambda: "1" in caller.versions, "no answers")
        town.approve(2, town.package(samples={"prediction": [0.0, 0.0]}))
        town.wait_for(1, None, 0.0)
        town.approve(3, town.package(3.0))
        wait_until(lambda: "3" in caller.versions, "version 3 does not answer")
        town.deployer.kill()
        answered = len(caller.versions)
        wait_until(lambda: len(caller.versions) > answered + 20, "no answers")
        town.deployer.start()
    assert set(caller.statuses) == {200}
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
        answer = infer(request, metadata=metadata, timeout=30)
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
        response = httpx.post(url, json=body, headers=headers, timeout=30)
        assert response.json() == {"predictions": [-490.0]}
    town.wait_for(1, None, 0.0)
    (back,) = town.of(ModelRolledBack)
    assert back.version == 2
    assert "it failed on" in back.reason
