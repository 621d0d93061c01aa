"""What holds whatever comes, in whatever order."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from driftloop.contracts.events import (
    ModelDeployed,
    ModelRolledBack,
    RolloutAdvanced,
    ServingDesired,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.deployer.story import START, Story, measured, of, spec
from tests.unit.support import examples

VERSIONS = st.integers(1, 6)
STRATEGIES = ["immediate", "canary", "shadow_then_canary", "blue_green", "rolling"]
STEPS = st.one_of(
    st.tuples(st.just("approve"), VERSIONS),
    st.tuples(
        st.just("measure"), VERSIONS, VERSIONS, st.sampled_from([0.5, 1.0, 1.05, 3.0])
    ),
    st.tuples(
        st.just("replay"), VERSIONS, VERSIONS, st.sampled_from([0.5, 1.0, 3.0])
    ),
    st.tuples(
        st.just("report"), VERSIONS, st.sampled_from(["ready", "failed"]),
        st.sampled_from([0, 0, 0, 5]),
    ),
    st.tuples(
        st.just("beat"), st.sampled_from("abc"), st.lists(VERSIONS, max_size=3)
    ),
    st.tuples(st.just("roll_back"), st.one_of(st.none(), VERSIONS)),
    st.tuples(
        st.just("steer"), st.sampled_from(["hold", "resume", "promote"]), VERSIONS
    ),
)  # fmt: skip


def told_by(steps: Sequence[tuple[Any, ...]], strategy: str) -> Story:
    story = Story(spec(strategy=strategy, shadow_rows=50, step_rows=50, watch_rows=50))
    for number, (name, *arguments) in enumerate(steps):
        if name == "measure":
            candidate, champion, ratio = arguments
            if candidate != champion:
                story.measure(measured(candidate, champion, ratio=ratio, rows=50))
        elif name == "replay":
            candidate, champion, ratio = arguments
            if candidate != champion:
                story.replay(candidate, champion, ratio=ratio, rows=50)
        elif name == "report":
            version, state, errors = arguments
            story.report(version, state=state, row_count=50, error_count=errors)
        elif name == "beat":
            replica, versions = arguments
            at = START + number * timedelta(seconds=30)
            story.report(*sorted(set(versions)), replica=replica, at=at, lease=60.0)
        else:
            getattr(story, name)(*arguments)
    return story


@settings(max_examples=examples(300))
@given(
    st.lists(STEPS, max_size=60),
    st.sampled_from(STRATEGIES),
)
def test_no_exposure_without_approval_and_generations_grow(steps, strategy):
    story = told_by(steps, strategy)
    approved = {step[1] for step in steps if step[0] == "approve"}
    generations = []
    for event in of(story.told, ServingDesired):
        generations.append(event.generation)
        shown = {m.version for m in (event.champion, event.candidate) if m}
        assert shown <= approved
        assert event.champion != event.candidate or event.champion is None
    assert generations == sorted(set(generations))
    assert story.serving.generation == max(generations, default=0)


@settings(max_examples=examples(300))
@given(st.lists(STEPS, max_size=60))
def test_no_share_before_the_shadow_is_passed(steps):
    story = told_by(steps, "shadow_then_canary")
    passed: set[int] = set()
    in_service: set[int] = set()
    for event in story.told:
        match event:
            case RolloutAdvanced(step="shadow", verdict="passed"):
                passed.add(event.version)  # by its figures, or a person promotes it
            case ModelDeployed():
                in_service.add(event.version)
            case ServingDesired() if event.candidate and event.candidate_share > 0:
                assert event.candidate.version in passed
            case ServingDesired() if event.champion and in_service:
                assert event.champion.version in passed | in_service


@settings(max_examples=examples(300))
@given(
    st.lists(STEPS, max_size=60),
    st.sampled_from(STRATEGIES),
)
def test_one_rollout_at_a_time_and_each_ends_once(steps, strategy):
    story = told_by(steps, strategy)
    running: int | None = None
    for event in story.told:
        if isinstance(event, RolloutAdvanced) and event.step != "waiting":
            if event.verdict == "started" and running is None:
                running = event.version
            assert event.version == running
            if event.verdict == "failed":
                running = None
        elif isinstance(event, ModelDeployed):
            assert event.version == running
            if strategy_has_no_rival(event):
                running = None
        if isinstance(event, RolloutAdvanced) and (event.step, event.verdict) == (
            "watching",
            "passed",
        ):
            running = None
    rollout = story.serving.rollout
    assert running == (rollout.release.version if rollout else None)
    for back in of(story.told, ModelRolledBack):
        assert back.restored is None or back.restored.version != back.version


@settings(max_examples=examples(300))
@given(st.lists(STEPS, max_size=60))
def test_a_held_rollout_takes_no_step_but_back(steps):
    held: int | None = None
    for event in told_by(steps, "shadow_then_canary").told:
        match event:
            case RolloutAdvanced(verdict="held"):
                held = event.version
            case RolloutAdvanced(verdict="resumed" | "failed"):
                held = None if event.version == held else held
            case RolloutAdvanced(verdict="passed") if event.version == held:
                assert event.detail.startswith("promoted by")
                held = None


@settings(max_examples=examples(300))
@given(st.lists(STEPS, max_size=60), st.sampled_from(["blue_green", "rolling"]))
def test_nobody_is_answered_before_every_replica_that_lives_is_ready(steps, strategy):
    story = told_by(steps, strategy)
    ready: set[int] = set()
    has_champion = False
    for event in story.told:
        match event:
            case RolloutAdvanced(step="warming", verdict="passed"):
                ready.add(event.version)
            case ModelDeployed():
                has_champion = True
            case ServingDesired() if event.ahead:
                assert event.candidate is not None
                assert event.candidate.version in ready
            case ServingDesired() if event.champion and event.candidate:
                assert has_champion
                assert event.candidate_share == 0


def strategy_has_no_rival(event: ModelDeployed) -> bool:
    """A first version is not watched: its rollout ends with the deployment."""
    return event.previous_version is None
