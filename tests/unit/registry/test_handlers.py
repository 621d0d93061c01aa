"""Handlers store facts and tell what follows; the same in any order of topics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    ApprovalGiven,
    ApprovalRequested,
    LineageReported,
    ModelApproved,
    ModelDeployed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ModelTrained,
    RolloutAdvanced,
    ServedModel,
    TrackingChanged,
)
from driftloop.contracts.registered import VersionCreated
from driftloop.contracts.topics import consumed_by
from driftloop.contracts.tracking import RunTagDeleted
from driftloop.registry import handlers, tables
from driftloop.registry.handlers import Deps
from driftloop.registry.resources.deployments import _view, rollouts_of
from driftloop.runtime.envelope import encode
from driftloop.runtime.errors import Retry, Skip
from driftloop.runtime.handlers import handler_table
from driftloop.runtime.transport import Message

from tests.unit.registry import story
from tests.unit.registry.bench import open_deps
from tests.unit.registry.story import NAME, START, named
from tests.unit.scorer.packages import Factory


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture
def deps() -> Iterator[Deps]:
    yield from open_deps("full")


@pytest.fixture
def asking() -> Iterator[Deps]:
    """A registry whose pipeline asks two people."""
    yield from open_deps("approve", people=2)


def kinds(events: list[Event]) -> list[type[Event]]:
    """Return what was told; reports for OpenLineage have tests of their own."""
    return [type(event) for event in events if not isinstance(event, LineageReported)]


def decision(event: ModelTrained, by: str, what: str = "approve") -> ApprovalGiven:
    given = ApprovalGiven.model_validate(
        {
            "pipeline": NAME,
            "version": 1,
            "decision": what,
            "by": by,
            "reason": "because",
            "package_digest": event.package.digest,
        }
    )
    result: ApprovalGiven = named(given, f"{what}-{by}")
    return result


def test_versions_count_up(deps: Deps, factory: Factory) -> None:
    for number in (1, 2):
        event = story.trained(factory, f"job-{number}")
        told = list(handlers.on_model_trained(event, deps))
        assert kinds(told) == [ModelRegistered, ModelApproved]
        assert [e.version for e in told[:2]] == [number, number]
    assert told[1].approved_by == ["gate"]


def test_a_job_is_registered_once(deps: Deps, factory: Factory) -> None:
    event = story.trained(factory, "job")
    list(handlers.on_model_trained(event, deps))
    with pytest.raises(Skip, match="job_already_registered"):
        list(handlers.on_model_trained(named(event, "another-event"), deps))
    assert tables.last_version(deps.session, NAME) == 1


def test_a_poor_model_is_rejected(deps: Deps, factory: Factory) -> None:
    event = story.trained(factory, "job", story.worse())
    told = list(handlers.on_model_trained(event, deps))
    assert kinds(told) == [ModelRegistered, ModelRejected]
    assert told[1].rejected_by == "gate"
    assert "significantly_better" in told[1].reasons[0]


def test_people_are_asked(asking: Deps, factory: Factory) -> None:
    event = story.trained(factory, "job")
    told = list(handlers.on_model_trained(event, asking))
    assert kinds(told) == [ModelRegistered, ApprovalRequested]
    assert list(handlers.on_approval_given(decision(event, "ann"), asking)) == []
    assert (
        list(handlers.on_approval_given(decision(event, "ann", "reject"), asking)) == []
    )
    told = list(handlers.on_approval_given(decision(event, "bob"), asking))
    assert kinds(told) == [ModelApproved]
    assert told[0].approved_by == ["ann", "bob"]
    assert told[0].package == event.package
    assert list(handlers.on_approval_given(decision(event, "cid"), asking)) == []
    assert len(tables.decisions_of(asking.session, NAME)) == 4


def test_a_person_rejects(asking: Deps, factory: Factory) -> None:
    event = story.trained(factory, "job")
    list(handlers.on_model_trained(event, asking))
    told = list(handlers.on_approval_given(decision(event, "ann", "reject"), asking))
    assert kinds(told) == [ModelRejected]
    assert (told[0].rejected_by, told[0].reasons) == ("ann", ["because"])


def test_decisions_read_before_the_version(asking: Deps, factory: Factory) -> None:
    """Topics have no order among each other when the log is read anew."""
    event = story.trained(factory, "job")
    for by in ("ann", "bob"):
        assert list(handlers.on_approval_given(decision(event, by), asking)) == []
    told = list(handlers.on_model_trained(event, asking))
    assert kinds(told) == [ModelRegistered, ApprovalRequested, ModelApproved]
    assert told[2].approved_by == ["ann", "bob"]


def test_a_recorded_verdict_is_repeated(
    deps: Deps, asking: Deps, factory: Factory
) -> None:
    """What the log says was decided holds, whatever pipeline and package say now."""
    old, new = story.trained(factory, "old"), story.trained(factory, "new")
    first = list(handlers.on_model_trained(old, asking))
    for event in first:
        deps.recorded.add(event.model_copy(update={"version": 7}))
    told = list(handlers.on_model_trained(new, deps))
    assert kinds(told) == [ModelRegistered, ModelApproved]
    assert told[0].version == 8
    told = list(handlers.on_model_trained(old, deps))
    assert kinds(told) == [ModelRegistered, ApprovalRequested]
    assert told[0] == first[0].model_copy(update={"version": 7})


def test_nothing_is_judged_before_the_log_was_read(
    deps: Deps, factory: Factory
) -> None:
    deps.recorded.complete.clear()
    with pytest.raises(Retry):
        list(handlers.on_model_trained(story.trained(factory, "job"), deps))


def test_serving_changes_are_facts(deps: Deps, factory: Factory) -> None:
    for number in (1, 2):
        event = story.trained(factory, f"job-{number}")
        list(handlers.on_model_trained(event, deps))
        deployed = ModelDeployed(
            pipeline=NAME,
            rollout_id=f"r{number}",
            version=number,
            package=event.package,
            generation=number * 2,
        )
        told = handlers.on_model_deployed(named(deployed, f"deployed-{number}"), deps)
        assert list(told) == []
    back = ModelRolledBack(
        pipeline=NAME,
        rollout_id="r2",
        version=2,
        generation=4,
        restored=ServedModel(version=1, package=event.package),
        reason="worse",
    )
    told = list(handlers.on_model_rolled_back(named(back, "back"), deps))
    assert kinds(told) == []
    book = tables.ledger_of(deps.session, NAME)
    assert book.aliases == {"champion": 1}
    assert book.standings[2].state == "rolled_back"


def test_figures_that_are_no_numbers_can_be_stored(factory, deps) -> None:
    """PostgreSQL's JSON takes no NaN; the check that found it has to get there."""
    worth = story.evaluation(candidate=float("nan"))
    event = story.trained(factory, "nan").model_copy(update={"evaluation": worth})
    told = list(handlers.on_model_trained(event, deps))
    assert ModelRejected in kinds(told)
    row = deps.session.get(tables.RegistryVersion, (NAME, 1))
    json.dumps([row.gate, row.trained], allow_nan=False)


def test_handlers_are_those_of_the_topic_table() -> None:
    table = handler_table(handlers.HANDLERS)
    assert set(table.topics) == {topic.name for topic in consumed_by("registry")}


CREATED: dict[str, Any] = {"name": NAME, "version": 1, "source": "s", "location": "l"}


@pytest.mark.parametrize(
    ("revision", "change", "is_known"),
    [
        (3, RunTagDeleted(run_id="a" * 32, key="k"), True),
        (4, RunTagDeleted(run_id="a" * 32, key="k"), False),
        (3, VersionCreated(**CREATED), True),
        (3, VersionCreated(**CREATED, tags={"k": '"job_id":""'}, job_id="j"), False),
    ],
    ids=["here already", "of others", "of no pipeline", "leads to a training"],
)
def test_changes_asked_for_here_are_passed_over(
    deps: Deps, revision: int, change: Any, is_known: bool
) -> None:
    event = TrackingChanged(revision=revision, at_ms=1, by="ann", change=change)
    record = encode(event, Meta("id", START, "registry", Chain("id")), deps.store)
    message = Message(record.topic, 0, 0, record.key, record.value, record.headers)
    assert handlers.is_known(message, deps) is is_known


def test_real_packages_are_opened(factory: Factory, tmp_path: Path) -> None:
    """The child tries the model; a false answer, a forged event or no key is found."""
    from driftloop.registry.inspection import Inspection

    inspection = Inspection(factory.store, factory.home / "keys" / "trusted")
    try:
        good = inspection(story.trained(factory, "a"))
        assert good.problem is None
        assert good.cost is not None
        assert 0 < good.cost.p50_ms <= good.cost.p99_ms
        assert good.cost.hundred_rows_ms > 0
        assert 0 <= good.cost.memory_mib < 500
        false = inspection(story.trained(factory, "b", expected=12.0))
        assert "sample 0" in (false.problem or "")
        forged = story.trained(factory, "c").model_copy(update={"job_id": "other"})
        assert "differ in job_id" in (inspection(forged).problem or "")
    finally:
        inspection.close()
    nobody = Inspection(factory.store, tmp_path)
    found = nobody(story.trained(factory, "a"))
    nobody.close()
    assert "not trusted" in (found.problem or "")


@pytest.mark.parametrize(
    ("environment", "step", "verdict", "state"),
    [
        ("staging", "watching", "failed", "rolled_back"),
        ("staging", "promotion", "failed", "rolled_back"),
        ("staging", "waiting", "failed", "approved"),  # a newer one was quicker
        ("staging", "watching", "passed", "approved"),
        ("production", "shadow", "failed", "approved"),  # model-rolled-back follows
    ],
)
def test_a_version_that_ends_before_production_is_not_on_its_way(
    deps: Deps,
    factory: Factory,
    environment: str,
    step: str,
    verdict: Literal["passed", "failed"],
    state: str,
) -> None:
    """And what is in service does not change by it."""
    for number in (1, 2):
        list(handlers.on_model_trained(story.trained(factory, f"job-{number}"), deps))
    deployed = ModelDeployed(
        pipeline=NAME, rollout_id="r1", version=1, generation=2,
        package=story.trained(factory, "job-1").package,
    )  # fmt: skip
    list(handlers.on_model_deployed(named(deployed, "deployed-1"), deps))
    told = RolloutAdvanced(
        pipeline=NAME, rollout_id="r2", version=2, environment=environment,
        step=step, verdict=verdict, detail="worse",
    )  # fmt: skip
    list(handlers.on_rollout_advanced(named(told, "step"), deps))
    book = tables.ledger_of(deps.session, NAME)
    assert book.standings[2].state == state
    assert book.aliases["champion"] == 1
    assert ("candidate" in book.aliases) is (state == "approved")
    (shown,) = [
        _view(name, found)
        for name, found in rollouts_of(deps.session, [NAME])
        if name == "r2"
    ]
    assert shown.state == ("failed" if verdict == "failed" else "running")
    assert shown.steps[0].environment == environment
