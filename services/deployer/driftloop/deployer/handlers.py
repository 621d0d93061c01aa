"""What the deployer does at each event: load the state, ask the core, store it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    ModelApproved,
    PerformanceMeasured,
    PromotionSteered,
    RollbackRequested,
    RolloutSteered,
    ScorerReported,
    ServingDesired,
    ShadowReplayed,
    place_of,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.deployer import core, promoting
from driftloop.deployer.promoting import Stage, stages
from driftloop.deployer.state import Release, Serving, is_stale
from driftloop.deployer.tables import load_serving, save_serving
from driftloop.deployer.told import is_dealt_with, release_of, restored, told_of
from driftloop.runtime.errors import Skip
from driftloop.runtime.handlers import Deps, EventHandler
from driftloop.runtime.recorded import Recorded
from driftloop.runtime.state import StateView

Placed = (
    PerformanceMeasured
    | ScorerReported
    | ShadowReplayed
    | RollbackRequested
    | RolloutSteered
)
"""Events about one environment."""
P = TypeVar("P", bound=Placed)
Act = Callable[[Serving, PipelineSpec], core.Change]


@dataclass(frozen=True)
class DeployerDeps(Deps):
    """What the deployer's handlers use.

    Attributes
    ----------
    desired : what it last asked for.
    recorded : what it has told before it lost its database.
    """

    desired: StateView[ServingDesired]
    recorded: Recorded = field(default_factory=Recorded)


def on_model_approved(event: ModelApproved, deps: DeployerDeps) -> Iterator[Event]:
    """Send a version to the first environment."""
    line = stages(deps.pipeline(event.pipeline))
    release = release_of(event)
    told = told_of(deps.recorded, event.pipeline, line[0].name)
    if is_dealt_with(told, release):
        raise Skip("dealt_with_before")
    yield from _changed(
        _arrive(release, event.meta.time), line, line[0], event.meta.time, deps
    )


def on_performance_measured(
    event: PerformanceMeasured, deps: DeployerDeps
) -> Iterator[Event]:
    _check_news(event, deps)
    yield from _in_place(event, deps, core.measure)


def on_scorer_reported(event: ScorerReported, deps: DeployerDeps) -> Iterator[Event]:
    yield from _in_place(event, deps, core.report)


def on_shadow_replayed(event: ShadowReplayed, deps: DeployerDeps) -> Iterator[Event]:
    yield from _in_place(event, deps, core.replay)


def on_rollback_requested(
    event: RollbackRequested, deps: DeployerDeps
) -> Iterator[Event]:
    _check_news(event, deps)
    yield from _in_place(event, deps, core.roll_back)


def on_rollout_steered(event: RolloutSteered, deps: DeployerDeps) -> Iterator[Event]:
    _check_news(event, deps)
    yield from _in_place(event, deps, core.steer)


def on_promotion_steered(
    event: PromotionSteered, deps: DeployerDeps
) -> Iterator[Event]:
    """Let a version go on to the next environment, or not, as people say."""
    _check_news(event, deps)
    line = stages(deps.pipeline(event.pipeline))
    for stage, following in pairwise(line):
        before = _serving(event.pipeline, stage, deps)
        if not promoting.is_meant(before, stage, event):
            continue
        if event.action == "ask" and _has(event, following, deps):
            break
        change, release = promoting.answered(before, event, stage, following.name)
        yield from _stored(before, promoting.placed(change, stage.name), deps)
        if release is not None:
            yield from _gone_on(release, line, following, event.meta.time, deps)
        return
    why = "it waits for no promotion"
    owner = line[-1].spec.owner
    yield promoting.not_promoted(event.pipeline, event, why, owner)


def _check_news(event: Event, deps: DeployerDeps) -> None:
    """Make sure that an event has not been answered: its effect is in the state.

    Raises
    ------
    Skip
        When it has: with a database that was lost since.
    """
    if deps.recorded.has_answered(event.meta.id):
        raise Skip("answered_before")


def _has(event: PromotionSteered, stage: Stage, deps: DeployerDeps) -> bool:
    """Whether a version has come as far as an environment already."""
    serving = _serving(event.pipeline, stage, deps)
    rollout = serving.rollout
    there = (*serving.deployed, *serving.retired, serving.waiting)
    known = {release.version for release in there if release is not None}
    return event.version in known or (
        rollout is not None and rollout.release.version == event.version
    )


def _arrive(release: Release, now: datetime) -> Act:
    return lambda before, spec: core.approve(before, release, spec, now)


def _in_place(
    event: P,
    deps: DeployerDeps,
    decide: Callable[[Serving, P, PipelineSpec], core.Change],
) -> Iterator[Event]:
    """Change the state of the environment that an event is about.

    Raises
    ------
    Skip
        When it has no such environment any more, or a report is about what was.
    """
    line = stages(deps.pipeline(event.pipeline))
    stage = next((each for each in line if each.name == event.environment), None)
    if stage is None:
        raise Skip("no_such_environment")

    def act(before: Serving, spec: PipelineSpec) -> core.Change:
        match event:
            case ScorerReported() | ShadowReplayed() if is_stale(before, event):
                raise Skip("stale_generation")
        return decide(before, event, spec)

    yield from _changed(act, line, stage, event.meta.time, deps)


def _changed(
    act: Act,
    line: tuple[Stage, ...],
    stage: Stage,
    now: datetime,
    deps: DeployerDeps,
) -> Iterator[Event]:
    """Change the state of an environment, and take what follows for the next one."""
    before = _serving(stage.spec.name, stage, deps)
    change = act(before, stage.spec)
    if stage.promote is None:
        yield from _stored(before, change, deps)
        return
    following = line[line.index(stage) + 1]
    release = promoting.passed_through(before, change.serving)
    change = promoting.without_the_taken_back(change)
    if release is None:
        change = _then(change, promoting.expired(change.serving, stage.spec, now))
    elif stage.promote == "approval":
        question = promoting.asked(change.serving, release, stage, following.name, now)
        change = _then(change, question)
    else:
        goes_on = promoting.by_itself(change.serving, release, following.name)
        change = _then(change, goes_on)
    yield from _stored(before, promoting.placed(change, stage.name), deps)
    if release is not None and stage.promote == "automatic":
        yield from _gone_on(release, line, following, now, deps)


def _gone_on(
    release: Release,
    line: tuple[Stage, ...],
    stage: Stage,
    now: datetime,
    deps: DeployerDeps,
) -> Iterator[Event]:
    """Let a version arrive in the next environment, unless it is there already."""
    with suppress(Skip):
        yield from _changed(_arrive(release, now), line, stage, now, deps)


def _then(first: core.Change, second: core.Change) -> core.Change:
    return core.Change(second.serving, [*first.events, *second.events])


def _serving(pipeline: str, stage: Stage, deps: DeployerDeps) -> Serving:
    stored = load_serving(deps.session, pipeline, stage.name)
    if stored is not None:
        return stored
    desired = deps.desired.get(place_of(pipeline, stage.name))
    if desired is not None:
        told = told_of(deps.recorded, pipeline, stage.name)
        return restored(desired, stage.spec, told)
    return Serving(pipeline=pipeline, environment=stage.name)


def _stored(
    before: Serving, change: core.Change, deps: DeployerDeps
) -> Iterator[Event]:
    if change.serving == before and not change.events:
        raise Skip("changes_nothing")
    save_serving(deps.session, change.serving)
    yield from change.events


HANDLERS: list[EventHandler] = [
    on_model_approved,
    on_performance_measured,
    on_scorer_reported,
    on_shadow_replayed,
    on_rollback_requested,
    on_rollout_steered,
    on_promotion_steered,
]
