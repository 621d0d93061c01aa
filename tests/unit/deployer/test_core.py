"""Each phase of a rollout, each way back, and what the world is told."""

from dataclasses import replace

import pytest
from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.events import (
    AlertRaised,
    ModelDeployed,
    ModelRolledBack,
    RolloutAdvanced,
    ServingDesired,
)
from driftloop.deployer import core
from driftloop.deployer.state import recovered, wanted

from tests.unit.deployer.story import (
    Story,
    measured,
    meta,
    of,
    package,
    replayed,
    reported,
    spec,
)


@pytest.fixture
def story():
    return Story()


@pytest.fixture
def second(story):
    """Version 1 is in service, version 2 has just been approved."""
    story.deploy(1)
    story.told.clear()
    story.approve(2)
    return story


def test_a_first_version_is_full_once_a_scorer_serves_it(story):
    events = story.approve(1)
    assert [type(e) for e in events] == [RolloutAdvanced, ServingDesired]
    assert story.desired() == (1, None, 0.0)
    assert story.champion is None
    events = story.report(1)
    assert story.champion == 1
    assert story.serving.rollout is None
    (deployed,) = of(events, ModelDeployed)
    assert (deployed.version, deployed.previous_version) == (1, None)
    assert deployed.package == package(1)
    assert not of(events, ServingDesired)


def test_a_first_version_that_cannot_be_loaded_leaves_no_version(story):
    story.approve(1)
    events = story.report(1, state="failed", detail="bad signature")
    assert story.desired() == (None, None, 0.0)
    (back,) = of(events, ModelRolledBack)
    assert back.restored is None
    assert "bad signature" in back.reason
    story.deploy(2)
    assert story.champion == 2


def test_the_whole_way(second):
    days = (measured(2, 1) for _ in range(100))
    seen = [second.desired()]
    while second.serving.rollout:
        if second.step == "full":
            second.report(2)
        elif second.step == "watching":
            second.measure(measured(1, 2, ratio=1.1))
        else:
            second.measure(next(days))
        if second.desired() != seen[-1]:
            seen.append(second.desired())
    assert seen == [
        (1, 2, 0.0),
        (1, 2, 0.1),
        (1, 2, 0.5),
        (2, 1, 0.0),
        (2, None, 0.0),
    ]
    said = [(e.step, e.verdict) for e in of(second.told, RolloutAdvanced)]
    assert said == [
        (step, verdict)
        for step in ("shadow", "canary 10 %", "canary 50 %", "full", "watching")
        for verdict in ("started", "passed")
    ]
    (deployed,) = of(second.told, ModelDeployed)
    assert (deployed.version, deployed.previous_version) == (2, 1)
    assert not of(second.told, AlertRaised)


def test_every_event_continues_the_chain_of_the_approval(second):
    second.measure(measured(2, 1, rows=100))
    second.measure(measured(2, 1, ratio=3, rows=100))
    assert second.champion == 1
    follows = [e.follows for e in second.told]
    assert {f.chain.id for f in follows if f} == {"chain-2"}
    assert None not in follows


def test_the_generation_grows_with_each_change_of_what_is_wanted(second):
    second.measure(measured(2, 1, rows=100))
    second.measure(measured(2, 1, rows=100))
    generations = [e.generation for e in of(second.told, ServingDesired)]
    assert generations == [2, 3, 4]


def test_a_worse_shadow_is_taken_back_before_any_exposure(second):
    events = second.measure(measured(2, 1, ratio=1.5, error=0.1))
    assert second.desired() == (1, None, 0.0)
    (back,) = of(events, ModelRolledBack)
    assert back.version == 2
    assert back.restored is not None
    assert back.restored.version == 1
    (alert,) = of(events, AlertRaised)
    assert (alert.severity, alert.owner) == ("warning", "ada")
    shares = {e.candidate_share for e in of(second.told, ServingDesired)}
    assert shares == {0.0}


def test_a_candidate_that_fails_on_rows_is_taken_back(second):
    events = second.report(2, row_count=24, error_count=3)
    (back,) = of(events, ModelRolledBack)
    assert "failed on 3 of 24 rows" in back.reason


def test_what_fails_is_over_when_something_else_is_served():
    """Told once while it is served; the end names the same condition."""
    story = Story(spec(strategy="immediate"))
    story.deploy(1)
    (alert,) = of(story.report(1, state="failed"), AlertRaised)
    assert alert.can_end
    assert alert.condition.startswith("version-fails/")
    assert not of(story.report(1, state="failed"), AlertRaised)
    events = story.approve(2)
    (over,) = of(events, AlertResolved)
    assert over.condition == alert.condition
    assert not of(story.report(2), AlertResolved)


def test_a_worse_new_champion_is_taken_back_while_it_is_watched(second):
    while second.step != "watching":
        if second.step == "full":
            second.report(2)
        else:
            second.measure(measured(2, 1, rows=100))
    assert second.champion == 2
    assert second.desired() == (2, 1, 0.0)
    events = second.measure(measured(1, 2, ratio=0.5, error=0.1, rows=50))
    assert second.champion == 1
    assert second.desired() == (1, None, 0.0)
    (back,) = of(events, ModelRolledBack)
    assert (back.version, back.restored and back.restored.version) == (2, 1)
    (alert,) = of(events, AlertRaised)
    assert alert.severity == "critical"


def test_late_rows_of_the_canary_count_with_their_own_roles(second):
    while second.step != "watching":
        if second.step == "full":
            second.report(2)
        else:
            second.measure(measured(2, 1, rows=100))
    second.measure(measured(2, 1, ratio=0.8, rows=200))
    assert second.champion == 2
    assert second.serving.rollout is None


def test_a_full_that_cannot_be_served_keeps_the_old_champion():
    story = Story(spec(strategy="immediate"))
    story.deploy(1)
    story.approve(2)
    assert story.desired() == (2, 1, 0.0)
    events = story.report(2, state="failed")
    assert story.champion == 1
    assert story.desired() == (1, None, 0.0)
    assert not of(events, ModelDeployed)
    (alert,) = of(events, AlertRaised)
    assert alert.severity == "critical"


def test_reports_of_an_earlier_generation_are_ignored(second):
    stale = reported(second.serving.generation - 1, 2, state="failed")
    change = core.report(second.serving, stale, second.spec)
    assert change == core.Change(second.serving, [])
    assert second.report(2, state="failed")


def test_measurements_without_a_rollout_change_nothing(story):
    story.deploy(1)
    assert story.measure(measured(2, 1)) == []


def test_the_newest_approved_version_waits_and_older_ones_are_superseded(second):
    assert second.approve(3) == []
    (superseded,) = second.approve(4)
    assert isinstance(superseded, RolloutAdvanced)
    assert (superseded.version, superseded.verdict) == (3, "failed")
    assert superseded.detail == "superseded by version 4"
    assert superseded.follows is not None
    assert superseded.follows.chain.id == "chain-3"
    (older,) = second.approve(3)
    assert isinstance(older, RolloutAdvanced)
    assert second.serving.waiting is not None
    assert second.serving.waiting.version == 4
    events = second.measure(measured(2, 1, ratio=2, error=0.1))
    assert second.desired() == (1, 4, 0.0)
    assert second.serving.waiting is None
    (desired,) = of(events, ServingDesired)
    assert desired.follows is not None
    assert desired.follows.chain.id == "chain-4"


def test_an_approval_older_than_the_champion_is_superseded(story):
    story.deploy(5)
    (told,) = story.approve(4)
    assert isinstance(told, RolloutAdvanced)
    assert told.detail == "superseded by version 5"
    assert story.desired() == (5, None, 0.0)


def test_a_repeated_approval_changes_nothing(second):
    second.approve(3)
    for version in (1, 2, 3):
        assert second.approve(version) == []


def test_a_person_takes_back_a_version_on_its_way(second):
    events = second.roll_back()
    assert second.desired() == (1, None, 0.0)
    (back,) = of(events, ModelRolledBack)
    assert back.version == 2
    assert back.reason == "bob asked for it: odd numbers"


def test_a_held_rollout_goes_on_when_it_is_resumed(second):
    (told,) = second.steer("hold", 2)
    assert (told.step, told.verdict) == ("shadow", "held")
    assert told.detail == "by bob: month's end"
    assert second.measure(measured(2, 1, rows=150)) == []
    told, passed, started, desired = second.steer("resume", 2)
    assert [e.verdict for e in (told, passed, started)] == [
        "resumed",
        "passed",
        "started",
    ]
    assert second.step == "canary 10 %"
    assert desired.candidate_share == 0.1
    assert {e.follows.chain.id for e in (told, passed, started)} == {"chain-2"}


def test_a_held_rollout_that_does_worse_is_taken_back(second):
    second.steer("hold", 2)
    second.measure(measured(2, 1, ratio=3, rows=150))
    assert second.last(ModelRolledBack).version == 2
    assert second.desired() == (1, None, 0.0)


@pytest.mark.parametrize("is_held", [False, True])
def test_a_promoted_version_is_in_front_as_soon_as_it_can_be(second, is_held):
    if is_held:
        second.steer("hold", 2)
    passed, started, _ = second.steer("promote", 2)
    assert (passed.step, passed.detail) == ("shadow", "promoted by bob: month's end")
    assert (started.step, started.verdict) == ("full", "started")
    assert second.desired() == (2, 1, 0.0)
    assert second.champion == 1
    second.report(2)
    assert (second.champion, second.step) == (2, "watching")
    second.measure(measured(1, 2, ratio=0.3, rows=150))
    assert second.desired() == (1, None, 0.0)


@pytest.mark.parametrize(
    ("before", "action", "version", "why"),
    [
        ((), "hold", 3, "version 2 is on its way"),
        ((), "resume", 2, "it goes on, at step shadow"),
        (("hold",), "hold", 2, "it is held, at step shadow"),
        (("promote",), "promote", 2, "it goes on, at step full"),
        (("promote",), "hold", 2, "it goes on, at step full"),
    ],
)
def test_a_rollout_that_cannot_be_steered_so(second, before, action, version, why):
    for one in before:
        second.steer(one, 2)
    state = second.serving
    (alert,) = second.steer(action, version)
    assert isinstance(alert, AlertRaised)
    assert alert.detail == f"bob asked to {action} version {version}: {why}"
    assert second.serving == state


def test_there_is_nothing_to_steer(story):
    story.deploy(1)
    (alert,) = story.steer("hold", 1)
    assert alert.detail == "bob asked to hold version 1: none is on its way"


def test_a_person_restores_the_previous_version(story):
    for version in (1, 2, 3):
        story.deploy(version)
    story.roll_back()
    assert story.desired() == (2, None, 0.0)
    story.roll_back()
    assert story.desired() == (1, None, 0.0)
    (alert,) = story.roll_back()
    assert isinstance(alert, AlertRaised)
    assert "not possible" in alert.title
    assert alert.detail.endswith("in service now: 1, ever in service: 1, 2, 3")


def test_a_person_restores_any_version_that_was_in_service(story):
    for version in (1, 2, 3):
        story.deploy(version)
    story.roll_back(1)
    assert story.champion == 1
    story.roll_back(3)
    assert story.champion == 3
    (alert,) = story.roll_back(7)
    assert isinstance(alert, AlertRaised)
    assert story.champion == 3


def test_a_person_goes_back_further_than_the_rollout(story):
    story.deploy(1)
    story.deploy(2)
    story.approve(3)
    events = story.roll_back(1)
    assert story.desired() == (1, None, 0.0)
    back = [(e.version, e.restored and e.restored.version) for e in
            of(events, ModelRolledBack)]  # fmt: skip
    assert back == [(3, 1), (2, 1)]


def test_a_version_never_in_service_is_not_restored(second):
    """Version 2 is only in shadow: a person cannot jump over the comparison."""
    (alert,) = second.roll_back(2)
    assert isinstance(alert, AlertRaised)
    assert second.step == "shadow"


def test_one_alert_a_generation_for_a_champion_that_fails(story):
    story.deploy(1)
    (alert,) = story.report(1, row_count=10, error_count=2)
    assert isinstance(alert, AlertRaised)
    assert "2 of 10 rows failed" in alert.detail
    assert story.report(1, row_count=10, error_count=2) == []


def test_rules_hold_for_a_rollout_from_its_start(second):
    second.spec = spec(shadow_rows=10_000)
    second.measure(measured(2, 1, rows=100))
    assert second.step == "canary 10 %"


def test_the_state_survives_being_stored(second):
    second.approve(3)
    second.measure(measured(2, 1))
    stored = second.serving.model_dump_json()
    assert type(second.serving).model_validate_json(stored) == second.serving


@pytest.mark.parametrize("measurements", [0, 1, 2, 3])
def test_a_rollout_is_recovered_from_what_scorers_were_asked_for(second, measurements):
    """Shadow, both canaries and full: the same step, the same id, the same way on."""
    for _ in range(measurements):
        second.measure(measured(2, 1, rows=100))
    origin = replace(meta(2), id="e", causation_id=meta(2).id)
    served = second.last(ServingDesired).with_meta(origin)
    again = Story(serving=recovered(served, second.spec))
    assert again.step == second.step
    assert wanted(again.serving) == wanted(second.serving)
    assert again.serving.rollout is not None
    assert second.serving.rollout is not None
    assert again.serving.rollout.rollout_id == second.serving.rollout.rollout_id
    assert again.champion == 1
    while again.step != "watching":
        if again.step == "full":
            again.report(2)
        else:
            again.measure(measured(2, 1, rows=100))
    assert again.champion == 2


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_version_that_was_taken_back_is_not_approved_anew(second, is_lost):
    """Approvals come again where the log is read anew, of a deployer or a registry."""
    second.report(2, state="failed", detail="NaN")
    served = of(second.told, ServingDesired)[-1]
    assert served.taken_back == [2]
    if is_lost:
        second.serving = recovered(served.with_meta(meta(1)), second.spec)
    second.told.clear()
    assert second.approve(2) == []
    assert second.serving.rollout is None
    assert of(second.approve(3), RolloutAdvanced)
    assert of(second.told, ServingDesired)[-1].taken_back == [2]


def test_a_version_that_people_bring_back_is_taken_back_no_more(story):
    story.deploy(1)
    story.deploy(2)
    for to, gone in ((1, [2]), (2, [1])):
        story.roll_back(to)
        assert of(story.told, ServingDesired)[-1].taken_back == gone


def test_a_quiet_state_is_recovered(story):
    story.deploy(1)
    story.deploy(2)
    origin = replace(meta(2), causation_id=meta(2).id)
    served = story.last(ServingDesired).with_meta(origin)
    again = recovered(served, story.spec)
    assert again.generation == story.serving.generation
    assert again.champion is not None
    assert again.champion.version == 2
    assert again.rollout is None
    empty = served.model_copy(update={"champion": None}).with_meta(origin)
    assert recovered(empty, story.spec).champion is None


@pytest.fixture
def recorded():
    """Version 2 has just been approved where the shadow is one by replay."""
    story = Story(spec(shadow_from="replay", replay_hours=24))
    story.deploy(1)
    story.told.clear()
    story.approve(2)
    return story


def test_a_shadow_step_asks_for_a_replay_and_no_other_step_does(recorded):
    wish = of(recorded.told, ServingDesired)[-1]
    assert (wish.replay.hours, wish.replay.labelled_rows) == (24, 100)
    started = of(recorded.told, RolloutAdvanced)[-1]
    assert started.detail.endswith("first of 24 recorded hours")
    recorded.replay(2, 1, rows=100)
    assert of(recorded.told, ServingDesired)[-1].replay is None
    assert recorded.desired() == (1, 2, 0.1)


def test_a_live_shadow_asks_for_no_replay(second):
    assert of(second.told, ServingDesired)[-1].replay is None


def test_a_better_version_passes_the_shadow_by_recorded_rows(recorded):
    events = recorded.replay(2, 1, rows=100)
    told = [(e.step, e.verdict) for e in of(events, RolloutAdvanced)]
    assert told == [("shadow", "passed"), ("canary 10 %", "started")]


def test_a_worse_version_is_taken_back_by_recorded_rows(recorded):
    events = recorded.replay(2, 1, rows=100, ratio=2.0)
    (back,) = of(events, ModelRolledBack)
    assert "over 100 labelled rows" in back.reason
    assert recorded.desired() == (1, None, 0.0)


def test_a_version_that_fails_on_recorded_rows_is_taken_back(recorded):
    (back,) = of(recorded.replay(2, 1, rows=0, failed=3), ModelRolledBack)
    assert "failed on 3 of 3 rows" in back.reason


def test_live_rows_go_on_from_too_few_recorded_ones(recorded):
    assert recorded.replay(2, 1, rows=60) == []
    assert recorded.measure(measured(2, 1, rows=39)) == []
    assert recorded.desired() == (1, 2, 0.0)
    recorded.measure(measured(2, 1, rows=1))
    assert recorded.desired() == (1, 2, 0.1)


def test_no_recorded_labels_are_no_verdict(recorded):
    assert recorded.replay(2, 1, rows=0) == []
    assert recorded.desired() == (1, 2, 0.0)


def test_a_replay_counts_in_the_shadow_step_alone(recorded):
    recorded.replay(2, 1, rows=100)
    before = recorded.serving
    assert recorded.replay(2, 1, rows=100, ratio=3.0) == []
    assert recorded.serving == before


def test_a_replay_of_other_versions_counts_for_nothing(recorded):
    before = recorded.serving
    event = replayed(before.generation, 3, 1, rows=100)
    assert core.replay(before, event, recorded.spec) == (before, [])


def test_a_held_version_waits_with_its_replay(recorded):
    recorded.steer("hold", 2)
    recorded.replay(2, 1, rows=100)
    assert recorded.desired() == (1, 2, 0.0)
    recorded.steer("resume", 2)
    assert recorded.desired() == (1, 2, 0.1)


def test_recorded_rows_that_differ_too_much_are_a_verdict_without_labels():
    for allowed, is_taken_back in ((0.5, True), (1.0, False)):
        rules = {"max_prediction_shift": allowed, "prediction_tolerance": 1.0}
        story = Story(spec(shadow_from="replay", replay_hours=24, **rules))
        story.deploy(1)
        story.approve(2)
        events = story.replay(2, 1, rows=100)
        assert bool(of(events, ModelRolledBack)) is is_taken_back, allowed
