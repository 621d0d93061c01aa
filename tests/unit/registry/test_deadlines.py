"""Requests for approval end in time and remind people, once, whatever is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.events import (
    AlertRaised,
    ApprovalExpired,
    ApprovalGiven,
    ApprovalReminded,
    ApprovalRequested,
    ModelApproved,
    ModelDeployed,
    ModelRegistered,
    ModelRejected,
)
from driftloop.registry.rebuild.state import snapshot_of

from tests.unit.registry.approvals import HOUR, TABLE, Installation, Killed
from tests.unit.registry.story import NAME, START
from tests.unit.scorer.packages import Factory

Make = Callable[..., Installation]


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


@pytest.fixture
def make(tmp_path: Path, factory: Factory) -> Iterator[Make]:
    made: list[Installation] = []

    def installation(**approval: Any) -> Installation:
        made.append(Installation(tmp_path, factory, **approval))
        return made[-1]

    yield installation
    for each in made:
        each.kill()


def test_nobody_decides_in_time(make: Make) -> None:
    """Two reminders, then the end: the version is out, people know, each is once."""
    world = make(people=2)
    world.train()
    [asked] = world.told(ApprovalRequested)
    assert asked.expires_at == START + 72 * HOUR
    assert asked.remind_at == [START + 24 * HOUR, START + 48 * HOUR]
    assert world.wait(23) == 0
    world.answer("ann")
    world.deliver()
    assert [world.wait(2), world.wait(1)] == [1, 0]
    assert [world.wait(23), world.wait(1)] == [1, 0]
    reminded = world.told(ApprovalReminded)
    assert [(e.number, e.said_yes) for e in reminded] == [(1, ["ann"]), (2, ["ann"])]
    assert [world.wait(22.1), world.wait(1)] == [1, 0]

    [expired] = world.told(ApprovalExpired)
    assert (expired.said_yes, expired.people) == (["ann"], 2)
    assert expired.meta.chain.id == "trained-job"
    [rejected] = world.told(ModelRejected)
    assert rejected.rejected_by == "expiry"
    assert (
        "expired at 2012-01-04 00:00:00 UTC with 1 of 2 approver"
        in (rejected.reasons[0])
    )
    [alert] = world.told(AlertRaised)
    assert "ask again: driftloop request-approval bike-demand/1" in alert.detail
    assert world.standing().state == "expired"
    assert world.due() == []
    assert world.told(AlertResolved) == []
    world.ask_again("ann")
    [over] = world.told(AlertResolved)
    assert over.condition == alert.condition


def test_what_is_said_after_the_end_does_not_count(make: Make) -> None:
    """Also before anybody was told of it; what was said in time counts, read late."""
    late = make()
    late.train()
    late.now += 72 * HOUR
    late.answer("ann")
    late.deliver()
    assert late.standing().state == "awaiting_approval"
    assert "ask again" in next(iter(late.standing().ignored.values()))
    assert late.wait(1) == 1
    assert late.standing().state == "expired"
    assert late.told(ModelApproved) == []


def test_an_answer_that_is_not_read_yet_holds_the_end_back(make: Make) -> None:
    world = make()
    world.train()
    world.answer("ann", at=START + 71 * HOUR)
    world.now += 80 * HOUR
    assert world.deadlines.look() == 0
    world.deliver()
    assert world.standing().state == "approved"
    assert world.wait(1) == 0
    assert world.told(ApprovalExpired) == []


def test_asked_again(make: Make) -> None:
    """The same package, other answers; the first request's do not count any more."""
    world = make(people=2)
    world.train(requested_by="eve")
    world.answer("ann")
    world.deliver()
    world.wait(73)
    world.ask_again("dan")
    world.ask_again("cid")  # at the same time; the first holds
    asked = world.told(ApprovalRequested)
    assert [(e.request, e.people) for e in asked] == [(1, 2), (2, 1)]
    assert asked[1].expires_at == world.now + 72 * HOUR
    assert world.standing().state == "awaiting_approval"
    assert world.standing().decided_by == ()
    world.answer("bob", request=1)
    world.answer("eve", request=2)
    world.deliver()
    ignored = world.standing().ignored
    assert (
        "expired" in ignored["approve-bob-1"] or "request" in ignored["approve-bob-1"]
    )
    assert "another must approve" in ignored["approve-eve-2"]
    world.answer("bob", request=2)
    world.deliver()
    assert world.standing().state == "approved"
    assert [e.approved_by for e in world.told(ModelApproved)] == [["bob"]]


def test_never(make: Make) -> None:
    world = make(expires_after="never", remind_after=[])
    world.train()
    assert world.due() == []
    assert world.wait(10_000) == 0
    world.answer("ann")
    world.deliver()
    assert world.standing().state == "approved"


def test_after_a_long_pause_one_reminder_is_enough(make: Make) -> None:
    world = make(expires_after="never", remind_after=["1h", "2h", "30h"])
    world.train()
    assert world.wait(24) == 1
    assert [e.number for e in world.told(ApprovalReminded)] == [2]
    assert world.due() == [3]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("hours", [25, 80], ids=["reminder", "end"])
def test_killed_between_write_and_publish(
    make: Make, moment: str, hours: float
) -> None:
    """Nothing is lost, and nothing has a second effect."""
    world = make()
    world.train()
    world.now += hours * HOUR
    world.kill_at = moment
    with pytest.raises(Killed):
        world.deadlines.look()
    world.kill_at = None
    world.kill()
    world.start()
    for _ in range(3):
        world.wait(0)
        world.restart()
    kind = ApprovalReminded if hours < 72 else ApprovalExpired
    assert len({event.meta.id for event in world.told(kind)}) == 1
    rejected = {event.meta.id for event in world.told(ModelRejected)}
    assert len(rejected) == (hours > 72)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_verdict_survives_a_kill_between_write_and_publish(
    make: Make, moment: str
) -> None:
    """Also the answer to it; what goes out again has the same id and bytes."""
    world = make()
    for step in (world.train, lambda: (world.answer("ann"), world.deliver())):
        world.kill_after_what_is_said(step, moment)
    for kind in (ModelRegistered, ApprovalRequested, ModelApproved):
        told = world.told(kind)
        assert len({event.meta.id for event in told}) == 1, kind
        assert len({event.model_dump_json() for event in told}) == 1
    assert world.standing().state == "approved"


@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "topics reversed"])
def test_the_log_gives_the_same(make: Make, reverse: bool) -> None:
    """Without its database: the same rows, in whatever order topics are read."""
    world = make()
    world.train()
    world.wait(25)
    world.wait(50)
    world.ask_again("dan")
    world.wait(1)

    def rows() -> dict[str, str]:
        with world.engine.connect() as connection:
            return snapshot_of(connection).digests

    before, due = rows(), world.due()
    assert due == [0]
    world.kill()
    world.database.unlink()
    world.start()
    topics = sorted(set(world.log) & set(TABLE.by_topic), reverse=reverse)
    world.deliver(*topics)
    assert rows() == before
    assert world.wait(0) == 0
    assert len({e.meta.id for e in world.told(ApprovalExpired)}) == 1


def test_a_yes_to_a_version_that_was_overtaken_is_told(make: Make) -> None:
    """A newer one went into service meanwhile: the deployer says it comes too late."""
    world = make()
    world.train("old")
    old = world.digest
    world.train("new")
    world.say(given(2, world.digest), "yes-2")
    world.deliver()
    assert [e.version for e in world.told(ModelApproved)] == [2]
    [first] = world.told(ModelApproved)
    deployed = ModelDeployed(
        pipeline=NAME, rollout_id="r", version=2, package=first.package, generation=1
    )
    world.say(deployed, "deployed-2")
    world.deliver()
    assert world.standing().state == "awaiting_approval"
    world.say(given(1, old), "yes-1")
    world.deliver()
    assert [e.version for e in world.told(ModelApproved)] == [2, 1]
    assert world.standing().state == "superseded"


@pytest.mark.parametrize("what", ["approve", "reject"])
def test_a_registry_that_is_built_anew_tells_no_outcome_twice(
    make: Make, what: str
) -> None:
    """Decisions may be read before the version: another cause, so another id."""
    world = make()
    world.train()
    world.answer("bob", what)
    world.deliver()
    world.kill()
    world.database.unlink()
    world.start()
    world.deliver("approval-given")
    world.deliver()
    told = [*world.told(ModelApproved), *world.told(ModelRejected)]
    assert len(told) == 1
    state = "approved" if what == "approve" else "rejected"
    assert world.standing().state == state


def given(version: int, digest: str) -> ApprovalGiven:
    return ApprovalGiven(
        pipeline=NAME, version=version, decision="approve", by="bob", reason="better",
        package_digest=digest,
    )  # fmt: skip
