"""Freeze windows: no step forward, always back, and on by themselves when they end."""

from datetime import UTC, datetime, timedelta

import pytest
from driftloop.contracts.events import ModelRolledBack, RolloutAdvanced

from tests.unit.deployer.story import Story, measured, of, spec

THURSDAY = datetime(2026, 11, 26, 12, tzinfo=UTC)
SATURDAY = datetime(2026, 11, 28, 12, tzinfo=UTC)
MONDAY = datetime(2026, 11, 30, 8, tzinfo=UTC)
WEEKEND = {"begins": "fri 18:00", "ends": "mon 08:00"}


def frozen_story(**rollout):
    story = Story(spec(freeze=[WEEKEND], **rollout))
    story.approve(1, at=SATURDAY)  # nothing is served yet that could be disturbed
    story.report(1, at=SATURDAY)
    assert story.champion == 1
    story.told.clear()
    return story


@pytest.fixture
def second():
    story = frozen_story()
    story.approve(2, at=THURSDAY)
    return story


def alive(story, at):
    return story.report(at=at, lease=90.0)


def verdicts(events):
    return [(e.step, e.verdict) for e in of(events, RolloutAdvanced)]


def test_outside_of_the_window_a_step_is_passed(second):
    second.measure(measured(2, 1, rows=100, at=THURSDAY))
    assert second.step == "canary 10 %"


def test_in_the_window_no_step_is_passed_and_that_is_said_once(second):
    events = second.measure(measured(2, 1, rows=100, at=SATURDAY))
    assert verdicts(events) == [("shadow", "held")]
    (told,) = of(events, RolloutAdvanced)
    assert told.detail == "by rollout.freeze: fri 18:00 to mon 08:00 UTC"
    assert second.measure(measured(2, 1, rows=100, at=SATURDAY)) == []
    assert alive(second, SATURDAY + timedelta(days=1)) == []
    assert second.step == "shadow"


def test_the_first_sign_of_life_after_the_window_lets_it_go_on(second):
    second.measure(measured(2, 1, rows=100, at=SATURDAY))
    events = alive(second, MONDAY)
    assert verdicts(events) == [
        ("shadow", "resumed"),
        ("shadow", "passed"),
        ("canary 10 %", "started"),
    ]
    assert second.desired() == (1, 2, 0.1)


def test_in_the_window_a_worse_version_is_taken_back(second):
    second.measure(measured(2, 1, ratio=3, rows=100, at=SATURDAY))
    assert second.last(ModelRolledBack).version == 2


def test_a_person_goes_back_in_the_window(second):
    second.measure(measured(2, 1, rows=100, at=THURSDAY))
    second.roll_back()
    assert second.desired() == (1, None, 0.0)


def test_a_person_promotes_in_the_window(second):
    second.measure(measured(2, 1, rows=100, at=SATURDAY))
    second.steer("promote", 2, at=SATURDAY)
    assert second.desired() == (2, 1, 0.0)
    second.report(2, at=SATURDAY)
    assert second.champion == 2


def test_no_rollout_begins_in_the_window_and_it_begins_after_it():
    story = frozen_story()
    assert verdicts(story.approve(2, at=SATURDAY)) == [("waiting", "held")]
    assert alive(story, SATURDAY + timedelta(hours=1)) == []
    assert verdicts(story.approve(3, at=SATURDAY)) == [
        ("waiting", "failed"),
        ("waiting", "held"),
    ]
    assert verdicts(alive(story, MONDAY)) == [("shadow", "started")]
    assert story.desired() == (1, 3, 0.0)


@pytest.mark.parametrize("strategy", ["shadow_then_canary", "immediate"])
def test_a_person_promotes_a_version_that_waits_for_the_end_of_the_window(strategy):
    story = frozen_story(strategy=strategy)
    story.approve(2, at=SATURDAY)
    events = story.steer("promote", 2, at=SATURDAY)
    assert story.desired() == (2, 1, 0.0)
    assert verdicts(events)[-1] == (
        ("full", "started") if strategy != "immediate" else ("full", "passed")
    )
    assert story.serving.waiting is None


def test_a_held_rollout_stays_held_after_the_window(second):
    second.steer("hold", 2)
    second.measure(measured(2, 1, rows=100, at=SATURDAY))
    alive(second, MONDAY)
    assert second.step == "shadow"


def test_watching_goes_on_and_the_old_version_stays_loaded(second):
    while second.step != "watching":
        if second.step == "full":
            second.report(2, at=SATURDAY)  # it is in front already, so no step forward
        else:
            second.measure(measured(2, 1, rows=100, at=THURSDAY))
    second.measure(measured(1, 2, ratio=1.1, rows=200, at=SATURDAY))
    assert second.desired() == (2, 1, 0.0)
    alive(second, MONDAY)
    assert second.desired() == (2, None, 0.0)


def test_a_window_added_today_holds_for_the_rollout_that_runs():
    story = Story()
    story.deploy(1)
    story.approve(2)
    story.spec = spec(freeze=[WEEKEND])
    story.measure(measured(2, 1, rows=100, at=SATURDAY))
    assert story.step == "shadow"
