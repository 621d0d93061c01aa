"""A deployer's state from what it told: the same as the one it has lost."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from driftloop.contracts.events import (
    AlertRaised,
    ModelDeployed,
    ModelRolledBack,
    RolloutAdvanced,
    ServingDesired,
)
from driftloop.deployer.state import Serving, recovered, wanted
from driftloop.deployer.told import Told, is_dealt_with, restored

from tests.unit.deployer.story import Story, measured, meta, release, spec

STRATEGIES = ("shadow_then_canary", "canary", "blue_green")
ACTIONS = 40


def told_by(story: Story, newest: int) -> Told:
    """Return what the log says after a story; see ``told.told_of``."""
    steps = [e for e in story.told if isinstance(e, RolloutAdvanced)]
    moves = [e for e in story.told if isinstance(e, ModelDeployed | ModelRolledBack)]
    alerts = [e for e in story.told if isinstance(e, AlertRaised)]
    return Told(
        {version: release(version) for version in range(1, newest + 1)},
        {e.rollout_id: e for e in steps},
        sorted(moves, key=lambda e: (e.generation, isinstance(e, ModelRolledBack))),
        frozenset(e.condition for e in alerts),
    )


def wish_of(story: Story) -> ServingDesired | None:
    wishes = [e for e in story.told if isinstance(e, ServingDesired)]
    return wishes[-1].with_meta(meta(1)) if wishes else None


def known(serving: Serving) -> dict[str, Any]:
    """Return what must not be lost: all but counts, signs of life and what waits."""
    rollout = serving.rollout
    return {
        "deployed": serving.deployed,
        "retired": {one.version for one in serving.retired},
        "taken_back": serving.taken_back,
        "generation": serving.generation,
        "alerted": serving.alerted_generation == serving.generation,
        "rollout": rollout
        and (rollout.release, rollout.previous, rollout.step, rollout.held),
    }


def act(story: Story, dice: Random, newest: int) -> int:
    """Let something happen; return the newest version."""
    rollout, champion = story.serving.rollout, story.champion
    what = dice.choice(["approve", "go on", "go on", "go on", "worse", "back", "steer"])
    if what == "approve":
        story.approve(newest + 1)
        return newest + 1
    if what == "back":
        story.roll_back(dice.choice([None, None, *range(1, newest + 1)]))
    elif what == "steer" and rollout:
        action = dice.choice(["hold", "resume", "promote"])
        story.steer(action, rollout.release.version)
    elif rollout and rollout.step.kind in {"full", "warming"}:
        failed = {"state": "failed", "detail": "NaN"} if what == "worse" else {}
        story.report(rollout.release.version, lease=90.0, **failed)
    elif rollout and rollout.previous:
        pair = (rollout.release.version, rollout.previous.version)
        ratio = 1.5 if what == "worse" else 0.9
        one, other = reversed(pair) if rollout.step.kind == "watching" else pair
        ratio = 1 / ratio if rollout.step.kind == "watching" else ratio
        story.measure(measured(one, other, ratio=ratio, rows=100))
    elif champion and what == "worse":
        story.report(champion, state="failed", detail="NaN")
    return newest


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_state_is_restored_at_any_moment(strategy: str) -> None:
    for seed in range(40):
        dice = Random(f"{strategy}/{seed}")
        rows = dice.choice([0, 20])
        story, newest = Story(spec=spec(strategy=strategy, watch_rows=rows)), 0
        for _ in range(ACTIONS):
            newest = act(story, dice, newest)
            wish = wish_of(story)
            if wish is None:
                continue
            again = restored(wish, story.spec, told_by(story, newest))
            assert wanted(again) == wanted(story.serving)
            assert known(again) == known(story.serving), (seed, story.told[-3:])


def test_without_what_was_told_more_is_forgotten() -> None:
    """The negative control: of the same moments, from the wish alone."""
    story = Story(spec=spec())
    story.deploy(1)
    story.deploy(2)
    story.approve(3)
    story.steer("hold", 3)
    wish = wish_of(story)
    assert wish is not None
    assert known(restored(wish, story.spec, told_by(story, 3))) == known(story.serving)
    plain = recovered(wish, story.spec)
    assert known(plain) != known(story.serving)
    nothing = Told({}, {}, [], frozenset())
    assert restored(wish, story.spec, nothing) == plain


def test_where_only_a_part_of_a_change_was_told_the_wish_holds() -> None:
    """The step is told of, the share of rows that goes with it is not asked for yet."""
    story = Story(spec=spec(strategy="canary"))
    story.deploy(1)
    story.approve(2)
    before = wish_of(story)
    assert before is not None
    story.measure(measured(2, 1, rows=100))
    assert story.step == "canary 50 %"
    again = restored(before, story.spec, told_by(story, 2))
    assert again.rollout is not None
    assert again.rollout.step.name == "canary 10 %"


def test_an_approval_is_dealt_with_once_its_rollout_is_over() -> None:
    story = Story(spec=spec())
    story.deploy(1)
    story.approve(2)
    story.approve(3)
    story.approve(4)  # in the place of 3
    story.report(2, state="failed", detail="NaN")  # 4 begins
    told = told_by(story, 4)
    found = [is_dealt_with(told, release(version)) for version in (1, 2, 3, 4, 5)]
    assert found == [True, True, True, False, False]
