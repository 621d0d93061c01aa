"""Handlers load the state, ask the core and store what it says."""

from collections.abc import Iterator

import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    ModelApproved,
    ModelDeployed,
    PipelineApplied,
    RolloutAdvanced,
    ServingDesired,
)
from driftloop.contracts.topics import consumed_by, produced_by
from driftloop.deployer import handlers
from driftloop.deployer.handlers import DeployerDeps
from driftloop.deployer.tables import DeployerServing, load_serving
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import Retry, Skip
from driftloop.runtime.handlers import handler_table
from driftloop.runtime.state import StateView
from sqlmodel import Session

from tests.unit.deployer.story import (
    NAME,
    Story,
    measured,
    meta,
    of,
    package,
    replayed,
    reported,
    rollback,
    spec,
)


@pytest.fixture
def deps() -> Iterator[DeployerDeps]:
    engine = open_database("sqlite://", [DeployerServing])
    applied = PipelineApplied(pipeline=NAME, spec=spec(), applied_by="ada")
    with Session(engine) as session:
        pipelines = StateView(PipelineApplied, {NAME: applied})
        yield DeployerDeps(session, pipelines, StateView(ServingDesired))
    engine.dispose()


def approved(version: int) -> ModelApproved:
    event = ModelApproved(
        pipeline=NAME, version=version, package=package(version), approved_by=["gate"]
    )
    return event.with_meta(meta(version))


def test_a_first_version_goes_into_service(deps: DeployerDeps) -> None:
    told: list[Event] = list(handlers.on_model_approved(approved(1), deps))
    assert [type(e) for e in told] == [RolloutAdvanced, ServingDesired]
    told = list(handlers.on_scorer_reported(reported(1, 1), deps))
    assert [type(e) for e in told] == [RolloutAdvanced, ModelDeployed]
    serving = load_serving(deps.session, NAME)
    assert serving is not None
    assert serving.champion is not None
    assert serving.champion.version == 1


def test_what_changes_nothing_is_skipped(deps: DeployerDeps) -> None:
    with pytest.raises(Skip, match="changes_nothing"):
        list(handlers.on_performance_measured(measured(2, 1), deps))
    list(handlers.on_model_approved(approved(1), deps))
    with pytest.raises(Skip, match="changes_nothing"):
        list(handlers.on_model_approved(approved(1), deps))
    with pytest.raises(Skip, match="stale_generation"):
        list(handlers.on_scorer_reported(reported(0, 1), deps))


def test_a_replay_that_an_earlier_generation_asked_for_is_skipped(
    deps: DeployerDeps,
) -> None:
    list(handlers.on_model_approved(approved(1), deps))
    list(handlers.on_model_approved(approved(2), deps))
    with pytest.raises(Skip, match="changes_nothing"):
        list(handlers.on_shadow_replayed(replayed(1, 2, 1), deps))
    stale = replayed(1, 2, 1).model_copy(update={"generation": 0})
    with pytest.raises(Skip, match="stale_generation"):
        list(handlers.on_shadow_replayed(stale, deps))


def test_a_pipeline_that_is_not_applied_is_waited_for(deps: DeployerDeps) -> None:
    unknown = rollback().model_copy(update={"pipeline": "other"})
    with pytest.raises(Retry):
        list(handlers.on_rollback_requested(unknown, deps))


def test_handlers_and_outputs_are_those_of_the_topic_table(deps: DeployerDeps) -> None:
    table = handler_table(handlers.HANDLERS)
    assert set(table.topics) == {topic.name for topic in consumed_by("deployer")}
    told = [
        *handlers.on_model_approved(approved(1), deps),
        *handlers.on_scorer_reported(reported(1, 1), deps),
        *handlers.on_rollback_requested(rollback(), deps),
    ]
    allowed = {topic.name for topic in produced_by("deployer")}
    assert {event.topic() for event in told} <= allowed


def test_without_its_database_it_goes_on_from_what_is_served(
    deps: DeployerDeps,
) -> None:
    """The next version is compared with the champion, not taken for a first one."""
    story = Story()
    story.deploy(1)
    served = story.last(ServingDesired).with_meta(meta(1))
    deps.desired.put(served)
    told = list(handlers.on_model_approved(approved(2), deps))
    (desired,) = of(told, ServingDesired)
    assert desired.generation == served.generation + 1
    assert desired.champion is not None
    assert desired.champion.version == 1
    assert desired.candidate is not None
    assert desired.candidate.version == 2
