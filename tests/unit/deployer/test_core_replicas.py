"""Blue-green and rolling: who lives, who is ready, who goes ahead."""

from datetime import timedelta

import pytest
from driftloop.contracts.events import (
    ModelDeployed,
    ModelRolledBack,
    RolloutAdvanced,
    ServingDesired,
)

from tests.unit.deployer.story import START, Story, measured, of, spec

LEASE_S = 90.0
BEAT = timedelta(seconds=30)


class Fleet(Story):
    """A story whose replicas say what they have in memory, every 30 seconds."""

    now = START

    def beat(self, *replicas, versions=(1, 2)):
        """Let replicas report, and return what the deployer says."""
        self.now += BEAT
        told = []
        for replica in replicas:
            fields = {"replica": replica, "at": self.now, "lease": LEASE_S}
            told += self.report(*versions, **fields)
        return told

    def ahead(self):
        return self.last(ServingDesired).ahead


def fleet(strategy):
    story = Fleet(spec(strategy=strategy, step_rows=50, watch_rows=50))
    story.approve(1)
    for _ in range(5):
        story.beat("a", "b", "c", versions=[1])
    assert story.champion == 1
    story.told.clear()
    story.approve(2)
    return story


@pytest.fixture
def blue():
    return fleet("blue_green")


@pytest.fixture
def rolling():
    return fleet("rolling")


def steps(story):
    return [
        (e.step, e.verdict) for e in of(story.told, RolloutAdvanced) if e.version == 2
    ]


def test_blue_green_answers_everything_at_once_when_all_are_ready(blue):
    assert blue.desired() == (1, 2, 0.0)
    assert blue.beat("a", "b") == []
    events = blue.beat("c")
    assert blue.desired() == (2, 1, 0.0)
    (passed,) = [e for e in of(events, RolloutAdvanced) if e.verdict == "passed"]
    assert passed.detail == "in memory on every replica: a, b, c"
    blue.beat("a")
    assert of(blue.told, ModelDeployed)
    assert blue.desired() == (2, 1, 0.0)  # the old one stays loaded
    blue.measure(measured(1, 2, ratio=0.5, error=0.1))
    assert blue.desired() == (1, None, 0.0)


def test_a_replica_without_the_version_holds_everybody_up(blue):
    for _ in range(20):
        blue.beat("a", "b")
        blue.beat("c", versions=[1])
    assert blue.step == "warming"


def test_a_replica_that_is_not_heard_of_any_more_is_forgotten(blue):
    blue.beat("a", "b")
    blue.beat("a", "b")
    assert blue.step == "warming"
    blue.beat("a", "b")
    blue.beat("a", "b")
    assert blue.desired() == (2, 1, 0.0)
    assert set(blue.serving.replicas) == {"a", "b"}


def test_a_replica_that_has_lost_its_memory_is_waited_for_again(blue):
    blue.beat("a", "b")
    blue.beat("a", versions=[])
    assert blue.beat("c") == []
    blue.beat("a")
    assert blue.desired() == (2, 1, 0.0)


def test_a_new_replica_is_waited_for(blue):
    blue.beat("d", versions=[1])
    blue.beat("a", "b", "c")
    assert blue.step == "warming"
    blue.beat("d")
    assert blue.desired() == (2, 1, 0.0)


def test_a_replica_that_cannot_load_it_takes_it_back_before_it_answers(blue):
    blue.beat("a", "b")
    blue.report(2, state="failed", detail="no memory", replica="c")
    assert blue.desired() == (1, None, 0.0)
    assert "c: no memory" in blue.last(ModelRolledBack).reason


def test_a_deployer_that_has_just_begun_to_listen_waits_until_it_knows_all():
    story = Fleet(spec(strategy="blue_green"))
    story.approve(1)
    story.beat("a", versions=[1])
    story.approve(2)
    story.beat("a")
    story.beat("a")
    assert story.step == "warming"
    story.beat("a")
    assert story.step == "full"


def test_other_reports_are_no_sign_of_life(blue):
    for replica in ("a", "b", "c"):
        blue.report(1, 2, replica=replica, row_count=10)
    assert blue.step == "warming"


def test_rolling_goes_replica_by_replica_and_judges_each(rolling):
    assert rolling.ahead() == []
    rolling.beat("a", "b", "c")
    assert (rolling.step, rolling.ahead()) == ("replica 1 of 3", ["a"])
    assert rolling.desired() == (1, 2, 0.0)
    rolling.beat("a", "b", "c")
    assert rolling.step == "replica 1 of 3"
    rolling.measure(measured(2, 1, rows=50))
    assert (rolling.step, rolling.ahead()) == ("replica 2 of 3", ["a", "b"])
    rolling.measure(measured(2, 1, rows=50))
    assert (rolling.desired(), rolling.ahead()) == ((2, 1, 0.0), [])
    rolling.report(2)
    rolling.measure(measured(1, 2, ratio=1.1, rows=50))
    assert rolling.desired() == (2, None, 0.0)
    names = ("warming", "replica 1 of 3", "replica 2 of 3", "full", "watching")
    assert steps(rolling) == [
        (name, verdict) for name in names for verdict in ("started", "passed")
    ]


def test_rolling_goes_back_on_every_replica(rolling):
    rolling.beat("a", "b", "c")
    rolling.measure(measured(2, 1, ratio=3, rows=50, error=0.1))
    assert (rolling.desired(), rolling.ahead()) == ((1, None, 0.0), [])
    assert steps(rolling)[-1] == ("replica 1 of 3", "failed")


def test_rolling_over_one_replica_is_blue_green():
    story = Fleet(spec(strategy="rolling"))
    story.approve(1)
    for _ in range(5):
        story.beat("a", versions=[1])
    story.approve(2)
    story.beat("a")
    assert story.step == "full"


@pytest.mark.parametrize("strategy", ["blue_green", "rolling"])
def test_the_state_of_a_fleet_survives_being_stored(strategy):
    story = fleet(strategy)
    story.beat("a", "b", "c")
    stored = story.serving.model_dump_json()
    assert type(story.serving).model_validate_json(stored) == story.serving
