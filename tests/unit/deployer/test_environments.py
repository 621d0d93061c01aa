"""Versions go from staging to production, by themselves or when people say yes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from driftloop.contracts.base import Event, Meta
from driftloop.contracts.events import (
    AlertRaised,
    ModelApproved,
    ModelDeployed,
    ModelRolledBack,
    PipelineApplied,
    PromotionSteered,
    RolloutAdvanced,
    ServingDesired,
)
from driftloop.contracts.pipeline import PRODUCTION
from driftloop.deployer import handlers
from driftloop.deployer.handlers import DeployerDeps
from driftloop.deployer.state import Serving
from driftloop.deployer.tables import DeployerServing, load_serving
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import Skip
from driftloop.runtime.state import StateView
from sqlmodel import Session, select

from tests.unit.deployer.story import (
    NAME,
    START,
    heard,
    measured,
    meta,
    package,
    reported,
    rollback,
    spec,
)

E = TypeVar("E", bound=Event)
STAGING = {"name": "staging", "strategy": "immediate", "watch_rows": 50}
BY_PEOPLE = STAGING | {"promote": "approval"}
HOUR = timedelta(hours=1)


@dataclass
class Chain:
    """Runs events through the handlers and keeps what they tell."""

    deps: DeployerDeps
    told: list[Event] = field(default_factory=list)
    now: datetime = START

    def take(
        self, handler: Callable[[Any, DeployerDeps], Iterator[Event]], event: Event
    ) -> list[Event]:
        told = list(handler(event, self.deps))
        self.told += told
        for one in told:
            if isinstance(one, ServingDesired):
                self.deps.desired.put(one.with_meta(meta(1)))
        return told

    def approve(self, version: int, author: str | None = None) -> list[Event]:
        event = ModelApproved(
            pipeline=NAME, version=version, package=package(version),
            approved_by=["gate"], author=author,
        )  # fmt: skip
        return self.take(handlers.on_model_approved, event.with_meta(meta(version)))

    def serving(self, environment: str) -> Serving:
        found = load_serving(self.deps.session, NAME, environment)
        return found or Serving(pipeline=NAME, environment=environment)

    def report(self, environment: str, *versions: int, **fields: Any) -> list[Event]:
        generation = self.serving(environment).generation
        event = reported(generation, *versions, at=self.now, **fields)
        event = event.model_copy(update={"environment": environment})
        return self.take(handlers.on_scorer_reported, event)

    def measure(
        self, environment: str, candidate: int, champion: int, ratio: float
    ) -> list[Event]:
        event = measured(candidate, champion, ratio=ratio, rows=50, at=self.now)
        event = event.model_copy(update={"environment": environment})
        return self.take(handlers.on_performance_measured, event)

    def say(
        self, action: Any, version: int, by: str = "bob", *roles: str, digest: str = ""
    ) -> list[Event]:
        event = PromotionSteered(
            pipeline=NAME, action=action, version=version, by=by, reason="looked at it",
            package_digest=digest or package(version).digest, roles=list(roles),
        )  # fmt: skip
        return self.take(handlers.on_promotion_steered, heard(event, self.now))

    def first_everywhere(self) -> None:
        """Version 1 in staging and in production."""
        self.approve(1)
        self.report("staging", 1)
        if self.serving("staging").promotion:
            self.say("approve", 1)
        self.report(PRODUCTION, 1)
        assert self.champions() == (1, 1)

    def pass_staging(self, version: int, before: int) -> list[Event]:
        """A version goes through staging, compared with the one before."""
        self.approve(version)
        self.report("staging", version)
        return self.measure("staging", before, version, 1.1)

    def champions(self) -> tuple[int | None, int | None]:
        found = (self.serving(name).champion for name in ("staging", PRODUCTION))
        first, last = (one.version if one else None for one in found)
        return first, last

    def steps(self, version: int) -> list[tuple[str, str, str]]:
        return [
            (e.environment, e.step, e.verdict)
            for e in of(self.told, RolloutAdvanced)
            if e.version == version
        ]


def of(events: list[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


@contextmanager
def chain(**rollout: Any) -> Iterator[Chain]:
    engine = open_database("sqlite://", [DeployerServing])
    applied = PipelineApplied(pipeline=NAME, spec=spec(**rollout), applied_by="ada")
    with Session(engine) as session:
        pipelines = StateView(PipelineApplied, {NAME: applied})
        yield Chain(DeployerDeps(session, pipelines, StateView(ServingDesired)))
    engine.dispose()


@pytest.fixture
def automatic() -> Iterator[Chain]:
    with chain(environments=[STAGING]) as found:
        yield found


@pytest.fixture
def by_people() -> Iterator[Chain]:
    with chain(environments=[BY_PEOPLE]) as found:
        yield found


def test_a_version_goes_to_staging_first_and_on_by_itself(automatic: Chain) -> None:
    told = automatic.approve(1)
    assert [(e.key, e.environment) for e in of(told, ServingDesired)] == [
        (f"{NAME}@staging", "staging")
    ]
    told = automatic.report("staging", 1)
    assert not of(told, ModelDeployed)
    assert [(e.key, e.generation) for e in of(told, ServingDesired)] == [(NAME, 1)]
    assert len(of(automatic.report(PRODUCTION, 1), ModelDeployed)) == 1
    assert automatic.steps(1) == [
        ("staging", "full", "started"),
        ("staging", "full", "passed"),
        ("staging", "promotion", "passed"),
        ("production", "full", "started"),
        ("production", "full", "passed"),
    ]
    ids = {e.rollout_id for e in of(automatic.told, RolloutAdvanced)}
    assert len(ids) == 1, "one approval, one rollout"


def test_each_environment_has_rules_of_its_own(automatic: Chain) -> None:
    automatic.first_everywhere()
    automatic.approve(2)
    assert automatic.champions() == (1, 1)
    automatic.report("staging", 2)
    assert automatic.serving(PRODUCTION).rollout is None, "it is watched in staging"
    automatic.measure("staging", 1, 2, 1.1)
    rollout = automatic.serving(PRODUCTION).rollout
    assert rollout is not None
    assert (rollout.release.version, rollout.step.name) == (2, "shadow")


def test_a_worse_version_stops_in_staging_with_the_cause(automatic: Chain) -> None:
    automatic.first_everywhere()
    automatic.approve(2)
    automatic.report("staging", 2)
    told = automatic.measure("staging", 1, 2, 0.5)
    (step,) = [e for e in of(told, RolloutAdvanced) if e.verdict == "failed"]
    assert (step.environment, step.step) == ("staging", "watching")
    assert "clearly worse" in step.detail
    assert not of(told, ModelRolledBack), "production serves what it did"
    (alert,) = of(told, AlertRaised)
    assert (alert.severity, "(staging)" in alert.title) == ("warning", True)
    assert automatic.champions() == (1, 1)
    assert automatic.serving(PRODUCTION).generation == 1


def test_measurements_of_one_environment_say_nothing_in_another(
    automatic: Chain,
) -> None:
    automatic.first_everywhere()
    automatic.approve(2)
    automatic.report("staging", 2)
    with pytest.raises(Skip):
        automatic.measure(PRODUCTION, 1, 2, 0.5)
    assert automatic.serving("staging").rollout is not None
    automatic.measure("staging", 1, 2, 0.5)
    assert automatic.serving("staging").rollout is None


def test_a_version_waits_for_people(by_people: Chain) -> None:
    by_people.first_everywhere()
    told = by_people.pass_staging(2, 1)
    last = of(told, RolloutAdvanced)[-1]
    assert (last.environment, last.step, last.verdict) == (
        "staging", "promotion", "started",
    )  # fmt: skip
    assert "waits for 1 approver until 2011-01-04 00:00 UTC" in last.detail
    assert by_people.champions() == (2, 1)
    told = by_people.say("approve", 2)
    assert [e.environment for e in of(told, RolloutAdvanced)] == [
        "staging", "production",
    ]  # fmt: skip
    assert by_people.serving("staging").promotion is None
    rollout = by_people.serving(PRODUCTION).rollout
    assert rollout is not None
    assert rollout.release.version == 2


def test_a_version_that_people_refuse_is_taken_back_in_staging(
    by_people: Chain,
) -> None:
    by_people.first_everywhere()
    by_people.pass_staging(2, 1)
    told = by_people.say("reject", 2)
    assert by_people.champions() == (1, 1)
    (step,) = of(told, RolloutAdvanced)
    assert (step.step, step.verdict) == ("promotion", "failed")
    assert step.detail == "rejected by bob: looked at it"
    (desired,) = of(told, ServingDesired)
    assert desired.environment == "staging"
    assert desired.champion is not None
    assert desired.champion.version == 1


def test_two_people_of_the_right_roles_and_never_the_author() -> None:
    approval = {"role": "approver", "also": {"compliance": 1}}
    with chain(environments=[BY_PEOPLE], approval=approval) as story:
        story.approve(1, author="Ann")
        story.report("staging", 1)
        for action, by, roles, why in (
            ("approve", "ann", ["approver"], "asked for the training"),
            ("approve", "bob", ["approver"], ""),
            ("approve", "Bob", ["compliance"], "has said yes already"),
            ("approve", "cid", ["approver"], "waits for 1 compliance"),
        ):
            alerts = of(story.say(action, 1, by, *roles), AlertRaised)
            assert bool(alerts) is bool(why)
            assert all(why in alert.detail for alert in alerts)
        assert story.serving(PRODUCTION).generation == 0
        told = story.say("approve", 1, "dan", "compliance")
        assert "by bob, dan" in of(told, RolloutAdvanced)[0].detail
        assert story.serving(PRODUCTION).generation == 1


def test_another_package_is_not_promoted(by_people: Chain) -> None:
    by_people.approve(1)
    by_people.report("staging", 1)
    (alert,) = of(by_people.say("approve", 1, digest="0" * 64), AlertRaised)
    assert "it is about package 000000000000" in alert.detail
    assert by_people.serving(PRODUCTION).generation == 0


def test_a_question_expires_by_the_log_and_is_asked_again(by_people: Chain) -> None:
    by_people.first_everywhere()
    by_people.pass_staging(2, 1)
    by_people.now = START + 71 * HOUR
    by_people.report("staging", 2, lease=90.0)
    assert by_people.steps(2)[-1] == ("staging", "promotion", "started")
    by_people.now = START + 72 * HOUR
    told = by_people.report("staging", 2, lease=90.0)
    assert by_people.steps(2)[-1] == ("staging", "promotion", "held")
    (alert,) = of(told, AlertRaised)
    assert "driftloop request-promotion" in alert.detail
    with pytest.raises(Skip, match="changes_nothing"):  # it is told once
        by_people.report("staging", 2, lease=90.0)
    (refused,) = of(by_people.say("approve", 2), AlertRaised)
    assert "until 2011-01-04 00:00 UTC" in refused.detail
    by_people.say("ask", 2)
    by_people.say("approve", 2)
    assert by_people.serving(PRODUCTION).rollout is not None


def test_a_late_yes_does_not_count_though_no_end_was_told(by_people: Chain) -> None:
    by_people.approve(1)
    by_people.report("staging", 1)
    by_people.now = START + 72 * HOUR
    assert of(by_people.say("approve", 1), AlertRaised)
    assert by_people.serving(PRODUCTION).generation == 0


def test_a_newer_version_that_passes_takes_the_place_of_the_one_that_waits(
    by_people: Chain,
) -> None:
    by_people.first_everywhere()
    by_people.pass_staging(2, 1)
    by_people.pass_staging(3, 2)
    assert by_people.steps(2)[-1] == ("staging", "waiting", "failed")
    (alert,) = of(by_people.say("approve", 2), AlertRaised)
    assert "waits for no promotion" in alert.detail
    by_people.say("approve", 3)
    rollout = by_people.serving(PRODUCTION).rollout
    assert rollout is not None
    assert rollout.release.version == 3


def test_a_refused_version_stays_while_a_newer_one_is_compared_with_it(
    by_people: Chain,
) -> None:
    by_people.first_everywhere()
    by_people.pass_staging(2, 1)
    by_people.approve(3)
    by_people.say("reject", 2)
    serving = by_people.serving("staging")
    assert serving.promotion is None
    assert serving.rollout is not None
    assert serving.rollout.release.version == 3


def test_a_version_rolled_back_in_staging_waits_no_longer(by_people: Chain) -> None:
    by_people.first_everywhere()
    by_people.pass_staging(2, 1)
    request = rollback().model_copy(update={"environment": "staging"})
    by_people.take(handlers.on_rollback_requested, request)
    assert by_people.champions() == (1, 1)
    assert by_people.serving("staging").promotion is None
    assert by_people.steps(2)[-1] == ("staging", "promotion", "failed")


def test_people_are_asked_anew_after_the_state_was_lost(by_people: Chain) -> None:
    by_people.first_everywhere()
    by_people.pass_staging(2, 1)
    for row in by_people.deps.session.exec(select(DeployerServing)).all():
        by_people.deps.session.delete(row)
    by_people.deps.session.flush()
    by_people.say("ask", 2)
    by_people.say("approve", 2)
    rollout = by_people.serving(PRODUCTION).rollout
    assert rollout is not None
    assert (rollout.release.version, rollout.previous is not None) == (2, True)
    (alert,) = of(by_people.say("ask", 2), AlertRaised)
    assert "no promotion" in alert.detail, "it is in production's rollout already"


def test_three_environments_one_after_the_other() -> None:
    line = [STAGING, {**STAGING, "name": "canary-shop"}]
    with chain(environments=line) as story:
        story.approve(1)
        story.report("staging", 1)
        assert story.serving(PRODUCTION).generation == 0
        story.report("canary-shop", 1)
        assert story.serving(PRODUCTION).generation == 1


def test_a_report_of_an_environment_that_is_gone_is_skipped(automatic: Chain) -> None:
    automatic.first_everywhere()
    with pytest.raises(Skip, match="no_such_environment"):
        automatic.report("elsewhere", 1)


def test_a_freeze_of_production_holds_by_the_time_of_the_promotion() -> None:
    window = {"begins": "2011-01-02 00:00", "ends": "2011-01-03 00:00"}
    with chain(environments=[STAGING], freeze=[window]) as story:
        story.first_everywhere()
        story.approve(2)
        story.now = START + 25 * HOUR
        story.report("staging", 2)
        story.measure("staging", 1, 2, 1.1)
        assert story.steps(2)[-1] == ("production", "waiting", "held")
        assert story.serving(PRODUCTION).rollout is None


def test_an_old_state_without_environments_reads_as_productions() -> None:
    """What a deployer stored before there were environments."""
    with chain() as story:
        old = '{"pipeline": "bike-demand", "generation": 3}'
        story.deps.session.add(DeployerServing(pipeline=NAME, state=old))
        story.deps.session.flush()
        serving = story.serving(PRODUCTION)
        assert (serving.environment, serving.generation) == (PRODUCTION, 3)
        story.approve(1)
        (desired,) = of(story.told, ServingDesired)
        assert (desired.key, desired.generation) == (NAME, 4)


def test_the_chain_of_the_approval_goes_on(by_people: Chain) -> None:
    by_people.first_everywhere()
    origin: Meta = replace(meta(1))
    steps = of(by_people.told, RolloutAdvanced)
    assert {e.follows.id for e in steps if e.follows} == {origin.id}
    assert all(e.follows for e in steps)
