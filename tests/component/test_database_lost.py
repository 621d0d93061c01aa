"""A service that loses its database says nothing anew, on a real broker."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from deltalake import write_deltalake
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    DatasetRef,
    DatasetVersioned,
    ModelApproved,
    ModelDeployed,
    ModelTrained,
    PipelineApplied,
    RetrainRequested,
    RollbackRequested,
    RolloutAdvanced,
    RolloutSteered,
    ScorerReported,
    ServingDesired,
    Span,
    TableRef,
    TrainingCancelRefused,
    TrainingCancelRequested,
    TrainingSkipped,
    TrainingStarted,
    VersionReport,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.topics import produced_by
from driftloop.local.kafka import KafkaNode
from driftloop.runtime.admin import create_topics
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message

from tests.component.processes import Log, ServiceProcess, with_id
from tests.component.test_trainer import drift
from tests.component.trainer_process import WAIT_S, rows, spec_of
from tests.unit.deployer import story
from tests.unit.support import wait_until

pytestmark = pytest.mark.timeout(900)
E = TypeVar("E", bound=Event)
FORGETFUL = """
from dataclasses import replace
from driftloop.runtime.service import run_service
from driftloop.{name}.app import SERVICE
run_service(replace(SERVICE, recorded=()))
"""
"""A service that does not read back what it has said."""


@dataclass
class Place:
    """One service on one broker, and the log around it."""

    service: str
    home: Path
    bootstrap: str

    def __post_init__(self) -> None:
        create_topics(self.bootstrap)
        self.log = Log(self.bootstrap, self.home)
        self.process = ServiceProcess(self.service, self.home, self.bootstrap)
        self.name = f"{self.service}-lost"
        self._count = 0

    def say(self, event: Event) -> str:
        self._count += 1
        event_id = f"{self.name}-{self._count}"
        self.log.publish(with_id(event, event_id))
        return event_id

    def told(self, kind: type[E], count: int) -> list[E]:
        """Wait until so many events of a kind are in the log."""

        def found() -> list[Any]:
            return self.log.read(kind, pipeline=self.name)

        wait_until(lambda: len(found()) >= count, WAIT_S)
        return found()

    def records(self) -> list[tuple[Any, ...]]:
        """Return all that the service has published, byte for byte."""
        seen: list[tuple[Any, ...]] = []

        def take(message: Message) -> None:
            headers = dict(message.headers)
            if headers.get("ce_source") == f"/driftloop/{self.service}".encode():
                place = (message.topic, message.partition, message.offset)
                seen.append((*place, headers["ce_id"], message.key, message.value))

        topics = [topic.name for topic in produced_by(self.service)]
        assert LogFollower(self.bootstrap, topics, take).read_to_end(120)
        return sorted(seen, key=lambda one: one[:3])

    @property
    def database(self) -> Path:
        return self.home / "databases" / f"{self.service}-0.db"

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.database) as connection:
            return connection.execute(query, {"name": self.name}).fetchall()

    def lose_database(self, command: list[str] | None = None) -> None:
        """Kill the process with SIGKILL, delete its database, start it again."""
        self.process.kill()
        for path in self.database.parent.glob(f"{self.database.name}*"):
            path.unlink()
        assert not self.database.exists()
        self.process.command = command or self.process.command
        self.process.start()  # returns once it has read everything

    def forget(self) -> None:
        """As above, and what it has said is not read back."""
        self.lose_database(["-c", FORGETFUL.format(name=self.service)])


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with KafkaNode(tmp_path_factory.mktemp("kafka")) as node:
        yield node.bootstrap


@pytest.fixture
def open_place(bootstrap: str, tmp_path: Path) -> Iterator[Callable[[str], Place]]:
    opened: list[Place] = []

    def open_(service: str) -> Place:
        opened.append(Place(service, tmp_path, bootstrap))
        return opened[-1]

    yield open_
    for place in opened:
        place.process.__exit__()
        place.log.close()


def jobs_of(place: Place) -> list[tuple[Any, ...]]:
    """Return the jobs; model-trained tells of their cost in milliseconds."""
    return place.rows(
        "SELECT id, number, state, data_end, label_count, champion_version, "
        "failure_count, round(cpu_seconds, 3) FROM trainer_job WHERE pipeline = :name "
        "ORDER BY number"
    )


def knows(place: Place) -> list[Any]:
    """Return what the trainer knows; of a trigger that waits: which, since when."""
    [(*known, pending, asked)] = place.rows(
        "SELECT champion, generation, dataset, label_count, labelled_span, pending, "
        "asked FROM trainer_pipeline WHERE name = :name"
    )
    kept = [json.loads(each) if each else {} for each in (pending, asked)]
    return [*known, *((one.get("trigger"), one.get("since")) for one in kept)]


def test_a_trainer_trains_nothing_again(open_place: Callable[[str], Place]) -> None:
    place = open_place("trainer")
    name, table = place.name, rows(450)
    uri = f"{place.home}/datasets/{name}/observations"
    write_deltalake(uri, table)
    times = table["event_time"].to_pylist()
    versioned = DatasetVersioned(
        pipeline=name,
        kind="observations",
        dataset=DatasetRef(observations=TableRef(uri=uri, version=0)),
        added_count=450,
        observation_count=450,
        label_count=450,
        span=Span(start=times[0], end=times[-1]),
    )
    early = place.say(drift(name, "concept_drift", 10, advised=True))
    place.say(
        PipelineApplied(pipeline=name, spec=spec_of(name, "linear"), applied_by="a")
    )
    place.process.start()
    [skipped] = place.told(TrainingSkipped, 1)  # there were no rows yet
    assert (skipped.trigger.event_id, skipped.reason) == (early, "not_enough_data")
    assert skipped.waits is not None
    place.say(versioned)
    [trained] = place.told(ModelTrained, 1)
    package = trained.package
    place.say(ModelDeployed(pipeline=name, rollout_id="r", version=1, package=package))
    place.say(RetrainRequested(pipeline=name, requested_by="ann", reason="to see"))
    place.told(TrainingStarted, 2)
    late = place.say(drift(name, "concept_drift", 600, advised=True))
    place.say(
        TrainingCancelRequested(
            pipeline=name, job_id="none", requested_by="bob", reason="a slip"
        )
    )
    place.told(TrainingCancelRefused, 1)
    place.told(ModelTrained, 2)
    [_, waits] = place.told(TrainingSkipped, 2)
    assert (waits.trigger.event_id, bool(waits.waits)) == (late, True)
    wait_until(lambda: all(job[2] == "done" for job in jobs_of(place)), WAIT_S)
    said, jobs, known = place.records(), jobs_of(place), knows(place)

    place.lose_database()
    assert place.records() == said
    assert jobs_of(place) == jobs
    assert knows(place) == known

    place.forget()  # and this would have been noticed
    wait_until(lambda: place.records() != said, WAIT_S)


def state_of(place: Place) -> dict[str, Any]:
    [(text,)] = place.rows("SELECT state FROM deployer_serving WHERE pipeline = :name")
    state = json.loads(text)
    rollout, waiting = state["rollout"], state["waiting"]
    return {
        "generation": state["generation"],
        "deployed": [release["version"] for release in state["deployed"]],
        "retired": [release["version"] for release in state["retired"]],
        "taken_back": state["taken_back"],
        "rollout": rollout["rollout_id"],
        "step": rollout["steps"][rollout["position"]]["name"],
        "held": rollout["held"],
        "waiting": waiting and waiting["version"],
    }


def test_a_deployer_goes_on_where_it_was(open_place: Callable[[str], Place]) -> None:
    place = open_place("deployer")
    name = place.name
    spec = PipelineSpec.model_validate(
        {
            "name": name,
            "task": "regression",
            "data": {"target": "y"},
            "rollout": {"strategy": "canary", "steps": [0.5], "step_rows": 50},
        }
    )

    def approve(version: int) -> None:
        place.say(
            ModelApproved(
                pipeline=name,
                version=version,
                package=story.package(version),
                approved_by=["ann"],
            )
        )

    def report(version: int) -> None:
        """Say as a scorer that a version is what it serves."""
        wish = place.told(ServingDesired, 1)[-1]
        ready = VersionReport(version=version, role="champion", state="ready")
        place.say(
            ScorerReported(
                pipeline=name,
                replica="0",
                generation=wish.generation,
                versions=[ready],
                lease_seconds=90,
            )
        )

    def steer(action: str) -> None:
        place.say(
            RolloutSteered.model_validate(
                {
                    "pipeline": name,
                    "action": action,
                    "version": 2,
                    "requested_by": "bob",
                    "reason": "month's end",
                }
            )
        )

    place.say(PipelineApplied(pipeline=name, spec=spec, applied_by="ann"))
    place.process.start()
    approve(1)
    report(1)
    place.told(ModelDeployed, 1)
    approve(2)
    place.told(ServingDesired, 2)
    steer("hold")
    wait_until(
        lambda: any(e.verdict == "held" for e in place.told(RolloutAdvanced, 1)), WAIT_S
    )
    approve(3)
    wait_until(lambda: state_of(place)["waiting"] == 3, WAIT_S)
    place.say(
        RollbackRequested(
            pipeline=name, requested_by="bob", reason="a slip", to_version=9
        )
    )
    wait_until(lambda: "rollback-impossible/9" in str(place.records()), WAIT_S)
    said, state = place.records(), state_of(place)
    assert (state["deployed"], state["step"]) == ([1], "canary 50 %")
    assert state["held"] == "bob: month's end"

    place.lose_database()
    assert place.records() == said
    assert state_of(place) == state
    steer("promote")  # and it goes on from there
    wait_until(lambda: state_of(place)["step"] == "full", WAIT_S)
    report(2)
    place.told(ModelDeployed, 2)
    said = place.records()

    place.forget()  # and this would have been noticed
    wait_until(lambda: place.records() != said, WAIT_S)
