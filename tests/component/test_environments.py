"""A deployer and two scorers, one for staging: a version passes one, then the other.

Registry, validator and monitor are played by the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from driftloop.contracts.events import (
    AlertRaised,
    BatchScored,
    Measurement,
    ModelDeployed,
    ModelRolledBack,
    PairedComparison,
    PerformanceMeasured,
    PromotionSteered,
    RolloutAdvanced,
    ScorerReported,
    ServingDesired,
)
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.local.kafka import KafkaNode

from tests.component.support import Events, ServiceProcess, open_events, wait_until
from tests.component.town import HEADERS, ROWS, Clients, Town
from tests.unit.scorer import packages
from tests.unit.scorer.packages import Factory

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(300)]

STAGING = "staging"


@dataclass
class TwoPlaces(Town):
    """A town whose pipeline passes staging before production."""

    staging: ServiceProcess | None = None

    def begin(self, promote: str) -> None:
        """Version 1 answers in both places."""
        here = {"name": STAGING, "strategy": "immediate", "watch_rows": 48}
        self.apply(strategy="immediate", environments=[here | {"promote": promote}])
        self.approve(1, self.package(1.0))
        if promote == "approval":
            self.wait_for_step(1, STAGING, "promotion", "started")
            self.say("approve", 1)
        wait_until(lambda: self.of(ModelDeployed), "no first version in production")
        assert (self.serves(STAGING), self.serves(PRODUCTION)) == (1, 1)

    def serves(self, environment: str) -> int | None:
        """Return the champion that the scorers of an environment should have."""
        told = [e for e in self.of(ServingDesired) if e.environment == environment]
        return told[-1].champion.version if told and told[-1].champion else None

    def wait_for_champion(self, environment: str, version: int) -> None:
        wait_until(
            lambda: self.serves(environment) == version,
            f"{environment} does not serve version {version}",
        )

    def wait_for_step(self, version: int, *step: str) -> None:
        wait_until(
            lambda: step in self.steps_in(version),
            f"{step} is not among {self.steps_in(version)}",
        )

    def steps_in(self, version: int) -> list[tuple[str, ...]]:
        return [
            (e.environment, e.step, e.verdict)
            for e in self.once(RolloutAdvanced)
            if e.version == version
        ]

    def watch(self, version: int, before: int, ratio: float) -> None:
        """Publish what the monitor says of two days of a version in staging."""
        for _ in range(2):
            number, self.measurements = self.measurements, self.measurements + 1
            event = PerformanceMeasured(
                pipeline=self.name,
                environment=STAGING,
                span=packages.MONTH,
                row_count=ROWS,
                measurements=[
                    Measurement(
                        version=version, role="champion", metric="mae",
                        value=10.0 * ratio,
                    ),
                    Measurement(
                        version=before, role="candidate", metric="mae", value=10.0
                    ),
                ],
                comparison=PairedComparison(
                    mean_difference=10.0 * (1 - ratio), standard_error=1.0,
                    row_count=ROWS,
                ),
            )  # fmt: skip
            self.publish(event, f"watched-{number}", self.deliveries)

    def say(self, action: Any, version: int, by: str = "ben") -> None:
        """Publish what the registry says of a person's word."""
        digest = self.digest_of(version)
        event = PromotionSteered(
            pipeline=self.name, action=action, version=version, by=by,
            reason="looked at it", package_digest=digest, roles=["approver"],
        )  # fmt: skip
        self.publish(event, f"{action}-{version}-{by}", self.deliveries)

    def digest_of(self, version: int) -> str:
        served = (e.champion for e in self.of(ServingDesired) if e.champion)
        return next(m.package.digest for m in served if m.version == version)

    def answers(self, environment: str) -> str:
        """Return which version of the model answers at an environment's door."""
        scorer = self.scorer if environment == PRODUCTION else self.staging
        assert scorer is not None
        body = {"inputs": {"size": [1.0], "colour": ["red"]}}
        response = httpx.post(
            f"{scorer.url}/pipelines/{self.name}/invocations",
            json=body, headers=HEADERS, timeout=60,
        )  # fmt: skip
        assert response.status_code == httpx.codes.OK, response.text
        return response.headers["X-Driftloop-Model-Version"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def place(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Events, Factory, tuple[ServiceProcess, ...]]]:
    """One installation for all tests here; each test has a pipeline of its own."""
    with KafkaNode(tmp_path_factory.mktemp("kafka")) as node:
        address = node.bootstrap
        staging = {"scorer_environment": STAGING, "replica": "staging-0"}
        with (
            open_events(address, home) as events,
            ServiceProcess("deployer", address, home) as deployer,
            ServiceProcess("scorer", address, home) as scorer,
            ServiceProcess("scorer", address, home, **staging) as before,
        ):
            yield events, Factory(home), (deployer, scorer, before)


@pytest.fixture
def town(
    place: tuple[Events, Factory, tuple[ServiceProcess, ...]],
    unique_name: Callable[[str], str],
) -> TwoPlaces:
    events, factory, (deployer, scorer, staging) = place
    name = unique_name("places")
    return TwoPlaces(name, events, factory, deployer, scorer, staging=staging)


def test_a_version_passes_staging_and_goes_on_by_itself(town: TwoPlaces) -> None:
    """Each delivered twice: nothing happens twice."""
    town.deliveries = 2
    town.begin("automatic")
    town.approve(2, town.package(2.0))
    town.wait_for_step(2, STAGING, "watching", "started")
    assert town.serves(PRODUCTION) == 1
    assert (town.answers(STAGING), town.answers(PRODUCTION)) == ("2", "1")
    town.watch(2, 1, 0.9)
    town.wait_for_step(2, PRODUCTION, "full", "passed")
    wait_until(lambda: town.answers(PRODUCTION) == "2", "2 does not answer")
    assert town.steps_in(2)[:6] == [
        (STAGING, "full", "started"),
        (STAGING, "full", "passed"),
        (STAGING, "watching", "started"),
        (STAGING, "watching", "passed"),
        (STAGING, "promotion", "passed"),
        (PRODUCTION, "full", "started"),
    ]
    assert [e.version for e in town.once(ModelDeployed)] == [1, 2]
    chains = {e.meta.chain.id for e in town.of(RolloutAdvanced) if e.version == 2}
    assert chains == {f"chain-{town.name}-approved-2"}


def test_each_environment_scores_the_stream_with_its_own_version(
    town: TwoPlaces,
) -> None:
    town.begin("automatic")
    town.approve(2, town.package(2.0))
    town.wait_for_step(2, STAGING, "watching", "started")
    town.validate(count=2)
    wait_until(lambda: len(town.once(BatchScored)) == 4, "not all were scored")
    scored = sorted((e.environment, e.champion_version) for e in town.once(BatchScored))
    assert scored == [(PRODUCTION, 1)] * 2 + [(STAGING, 2)] * 2
    assert len({e.meta.id for e in town.once(BatchScored)}) == 4
    sources = {e.environment: e.meta.source for e in town.of(BatchScored)}
    assert sources == {
        PRODUCTION: "/driftloop/scorer", STAGING: "/driftloop/scorer/staging",
    }  # fmt: skip
    replicas = {(e.environment, e.replica) for e in town.of(ScorerReported)}
    assert replicas == {(PRODUCTION, "0"), (STAGING, "staging-0")}


def test_a_bad_version_stops_in_staging_and_nobody_notices(town: TwoPlaces) -> None:
    town.begin("automatic")
    with Clients(town.name, [town.scorer]) as caller:
        wait_until(lambda: "1" in caller.versions, "no answers")
        town.approve(2, town.package(2.0))
        town.wait_for_step(2, STAGING, "watching", "started")
        town.watch(2, 1, 3.0)
        town.wait_for_step(2, STAGING, "watching", "failed")
        broken = town.package(samples={"prediction": [0.0, 0.0]})
        town.approve(3, broken)
        town.wait_for_step(3, STAGING, "full", "failed")
        town.wait_for_champion(STAGING, 1)
        wait_until(lambda: town.answers(STAGING) == "1", "1 is not back in staging")
    assert caller.failed == []
    assert set(caller.versions) == {"1"}
    steps = [*town.steps_in(2), *town.steps_in(3)]
    assert {environment for environment, _, _ in steps} == {STAGING}
    (worse, *_) = [
        e for e in town.of(RolloutAdvanced) if (e.version, e.verdict) == (2, "failed")
    ]
    assert "worse" in worse.detail
    assert all(e.severity == "warning" for e in town.of(AlertRaised))
    assert not town.of(ModelRolledBack)


def test_a_person_lets_a_version_go_on_though_the_deployer_dies(
    town: TwoPlaces,
) -> None:
    """It is killed at the word, and again while production changes."""
    town.deliveries = 2
    town.begin("approval")
    town.approve(2, town.package(2.0))
    town.wait_for_step(2, STAGING, "watching", "started")
    town.deployer.kill()
    town.watch(2, 1, 0.9)
    town.deployer.start()
    town.wait_for_step(2, STAGING, "promotion", "started")
    assert town.serves(PRODUCTION) == 1
    town.say("approve", 2, "ada")
    town.deployer.kill()
    town.deployer.start()
    town.wait_for_step(2, PRODUCTION, "full", "started")
    town.deployer.kill()
    town.deployer.start()
    town.wait_for_step(2, PRODUCTION, "full", "passed")
    wait_until(lambda: town.answers(PRODUCTION) == "2", "2 does not answer")
    assert [e.version for e in town.once(ModelDeployed)] == [1, 2]
    for environment in (STAGING, PRODUCTION):
        told = [e for e in town.once(ServingDesired) if e.environment == environment]
        numbers = [e.generation for e in told]
        assert numbers == list(range(1, len(numbers) + 1)), environment
    steps = town.steps_in(2)
    assert len(steps) == len(set(steps)), "no step was taken twice"


def test_a_version_that_a_person_refuses_is_taken_back(town: TwoPlaces) -> None:
    town.begin("approval")
    town.approve(2, town.package(2.0))
    town.wait_for_step(2, STAGING, "watching", "started")
    town.watch(2, 1, 0.9)
    town.wait_for_step(2, STAGING, "promotion", "started")
    town.say("reject", 2)
    town.wait_for_step(2, STAGING, "promotion", "failed")
    town.wait_for_champion(STAGING, 1)
    town.say("approve", 2, "eve")
    wait_until(
        lambda: any("waits for no promotion" in e.detail for e in town.of(AlertRaised)),
        "nobody was told that the word came too late",
    )
    assert town.serves(PRODUCTION) == 1


def test_a_pipeline_without_environments_is_served_in_production_alone(
    town: TwoPlaces,
) -> None:
    """Its keys are what they were; the scorer of staging knows nothing of it."""
    town.apply(strategy="immediate")
    town.approve(1, town.package(1.0))
    wait_until(lambda: town.of(ModelDeployed), "no first version")
    assert [(e.key, e.generation) for e in town.of(ServingDesired)] == [(town.name, 1)]
    assert town.staging is not None
    missing = httpx.post(
        f"{town.staging.url}/pipelines/{town.name}/invocations",
        json={"inputs": {"size": [1.0], "colour": ["red"]}},
        headers=HEADERS, timeout=60,
    )  # fmt: skip
    assert missing.status_code == httpx.codes.NOT_FOUND
