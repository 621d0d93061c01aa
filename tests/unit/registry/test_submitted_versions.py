"""A version that a client registered under a pipeline's name: its number, its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    LineageReported,
    ModelRegistered,
    ModelSubmitted,
    ModelTrained,
    TrainingCancelled,
    TrainingFailed,
    Trigger,
)
from driftloop.contracts.registered import VersionCreated
from driftloop.registry import handlers
from driftloop.registry.handlers import Deps
from driftloop.registry.mlflow.registered.rows import version_of
from driftloop.registry.mlflow.registered.shown import (
    PREFIX,
    FailedSubmission,
    ShownAlias,
    ShownTag,
)
from driftloop.runtime.drivers.memory import MemoryBroker
from driftloop.runtime.errors import Retry
from driftloop.runtime.transport import Message
from sqlmodel import select

from tests.unit.registry import story
from tests.unit.registry.story import NAME, named
from tests.unit.registry.test_handlers import (
    decision,
    deps,
    factory,
    kinds,
    open_deps,
)
from tests.unit.registry.test_mlflow_tracking import TOPIC, Store
from tests.unit.scorer.packages import Factory

__all__ = ["deps", "factory"]  # fixtures
JOB, SHA = "a-job", "ab" * 32


@pytest.fixture
def told(tmp_path: Path) -> Iterator[list[Message]]:
    """What the log says when ann has registered version 1."""
    store = Store(tmp_path, MemoryBroker({TOPIC: 1}))
    store.start()
    change = VersionCreated(
        name=NAME, version=1, source="runs:/1/m", location="runs:/1/m", user="ann",
        status="PENDING_REGISTRATION", job_id=JOB, model_sha256=SHA, model_bytes=9,
    )  # fmt: skip
    store.journal.write("ann", lambda _: change)
    yield store.broker.log(TOPIC)
    store.stop()


def submitted_trigger() -> Trigger:
    return Trigger(
        event_id="s", event_type=ModelSubmitted.topic(), reason="registered",
        requested_by="ann",
    )  # fmt: skip


def measured(factory: Factory, job: str = JOB) -> ModelTrained:
    event = story.trained(factory, job)
    submitted = event.model_copy(update={"trigger": submitted_trigger()})
    result: ModelTrained = named(submitted, f"trained-{job}")
    return result


def shown(deps: Deps, version: int) -> Any:
    deps.session.flush()
    return version_of(deps.session.connection(), NAME, version)


def test_the_trainer_is_told(deps: Deps, told: list[Message]) -> None:
    """Once for each time that the log is read, by the job's one id."""
    for _ in range(2):
        [event] = list(handlers.take_tracking(told, deps))
        assert isinstance(event, ModelSubmitted)
        assert (event.job_id, event.version, event.submitted_by) == (JOB, 1, "ann")
        assert event.model.sha256 == SHA
    assert shown(deps, 1).status == "PENDING_REGISTRATION"


def test_it_keeps_the_number_that_the_client_was_told(
    deps: Deps, told: list[Message], factory: Factory
) -> None:
    """A model of the loop's own that comes meanwhile is the next one."""
    list(handlers.take_tracking(told, deps))
    own = list(handlers.on_model_trained(story.trained(factory, "own"), deps))
    mine = list(handlers.on_model_trained(measured(factory), deps))
    versions = [e.version for e in (own + mine) if isinstance(e, ModelRegistered)]
    assert versions == [2, 1]
    found = shown(deps, 1)
    assert (found.status, found.source, found.user) == ("READY", "runs:/1/m", "ann")
    assert found.location == f"mlflow-artifacts:/pipelines/{NAME}/1"  # what was signed


def test_a_measured_model_waits_for_its_registration(
    deps: Deps, told: list[Message], factory: Factory
) -> None:
    """Topics have no order: without the registration its number is not known."""
    with pytest.raises(Retry, match="not read yet"):
        list(handlers.on_model_trained(measured(factory), deps))
    list(handlers.take_tracking(told, deps))
    assert list(handlers.on_model_trained(measured(factory), deps))


def test_who_registered_it_does_not_approve_it(
    told: list[Message], factory: Factory
) -> None:
    for asking in open_deps("approve"):
        list(handlers.take_tracking(told, asking))
        event = measured(factory)
        list(handlers.on_model_trained(event, asking))
        assert list(handlers.on_approval_given(decision(event, "Ann"), asking)) == []
        assert list(handlers.on_approval_given(decision(event, "bob"), asking))


@pytest.mark.parametrize("kind", [TrainingFailed, TrainingCancelled])
def test_what_ended_without_a_model_says_why(
    deps: Deps, told: list[Message], kind: type[Event]
) -> None:
    """Whichever is read first; a training of the loop's own is none of it."""
    fields: dict[str, Any] = {"pipeline": NAME, "job_id": JOB}
    why = {"error": "no numbers", "attempts": 1}
    if kind is TrainingCancelled:
        why = {"cancelled_by": "cid", "reason": "no numbers"}
    trigger = submitted_trigger()
    event = kind.model_validate({**fields, **why, "trigger": trigger.model_dump()})
    handle: Any = {
        TrainingFailed: handlers.on_training_failed,
        TrainingCancelled: handlers.on_training_cancelled,
    }[kind]
    told_of = list(handle(named(event, "end"), deps))
    assert {type(each) for each in told_of} <= {LineageReported}
    list(handlers.take_tracking(told, deps))
    found = shown(deps, 1)
    assert found.status == "FAILED_REGISTRATION"
    assert "no numbers" in found.status_message
    own = trigger.model_copy(update={"event_type": "drift-detected"})
    other = event.model_copy(update={"trigger": own, "job_id": "own"})
    list(handle(named(other, "other"), deps))
    assert deps.session.get(FailedSubmission, JOB) is not None
    assert deps.session.get(FailedSubmission, "own") is None


def test_what_is_shown_follows_from_the_facts(deps: Deps, factory: Factory) -> None:
    """Tags and aliases move with the state; nothing of an earlier one stays."""

    def tags(version: int) -> dict[str, str]:
        query = select(ShownTag).where(ShownTag.version == version)
        return {t.key: t.value for t in deps.session.exec(query)}

    first = story.trained(factory, "one")
    for event in (first, story.trained(factory, "two", story.worse())):
        list(handlers.on_model_trained(event, deps))
    assert kinds([first]) == [ModelTrained]
    assert tags(1)[f"{PREFIX}state"] == "approved"
    assert shown(deps, 1).stage == "Staging"
    assert tags(2)[f"{PREFIX}gate"].startswith("failed: significantly_better")
    assert "significantly_better" in shown(deps, 2).status_message
    assert [a.alias for a in deps.session.exec(select(ShownAlias))] == ["candidate"]
