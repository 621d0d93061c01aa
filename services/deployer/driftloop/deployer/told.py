"""The state of a pipeline's serving from what the deployer once told of it.

For a deployer that has lost its database. ``serving-desired`` says what scorers were
last asked for; its other events say how that came about: which step a rollout is in,
who holds it, which versions were in service before, and which approvals are dealt with.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    AlertRaised,
    ModelApproved,
    ModelDeployed,
    ModelRolledBack,
    RolloutAdvanced,
    ServedModel,
    ServingDesired,
)
from driftloop.contracts.pipeline import PRODUCTION, PipelineSpec
from driftloop.deployer.core import with_champion
from driftloop.deployer.judgement import plan
from driftloop.deployer.promoting import placed_condition
from driftloop.deployer.state import (
    Release,
    Rollout,
    Serving,
    Wanted,
    recovered,
    rollout_id,
    wanted,
)
from driftloop.deployer.telling import FREEZE, failing
from driftloop.runtime.recorded import Recorded

RUNNING = frozenset({"started", "held", "resumed"})
"""Verdicts after which a rollout goes on in its step."""
WAITING = "waiting"
Moved = ModelDeployed | ModelRolledBack


class Told(NamedTuple):
    """What the log says of a pipeline in one environment.

    Attributes
    ----------
    releases : approved versions, by number.
    steps : the last that was told of each rollout, by its id.
    moves : versions that went into service or out of it, in their order.
    conditions : of the alerts that were raised.
    """

    releases: dict[int, Release]
    steps: dict[str, RolloutAdvanced]
    moves: list[Moved]
    conditions: frozenset[str]


def told_of(recorded: Recorded, pipeline: str, environment: str) -> Told:
    """Return what the log says; nothing where the database was not lost."""
    steps = recorded.of(RolloutAdvanced, pipeline)
    moves: list[Moved] = []
    if environment == PRODUCTION:  # others do not tell of these
        moves += recorded.of(ModelDeployed, pipeline)
        moves += recorded.of(ModelRolledBack, pipeline)
    return Told(
        {e.version: release_of(e) for e in recorded.of(ModelApproved, pipeline)},
        {e.rollout_id: e for e in steps if e.environment == environment},
        sorted(moves, key=lambda e: (e.generation, isinstance(e, ModelRolledBack))),
        frozenset(e.condition for e in recorded.of(AlertRaised, pipeline)),
    )


def release_of(event: ModelApproved) -> Release:
    """Return an approved version."""
    return Release(
        version=event.version,
        package=event.package,
        origin=event.meta,
        author=event.author,
    )


def is_dealt_with(told: Told, release: Release) -> bool:
    """Whether a version's rollout is over, well or not, or was never to begin."""
    last = told.steps.get(rollout_id(release))
    return last is not None and last.verdict not in RUNNING


def restored(desired: ServingDesired, spec: PipelineSpec, told: Told) -> Serving:
    """Return the state behind what scorers were last asked for.

    By all that was told, where that leads to what was asked for; else (the log was cut,
    or only a part of a change is in it) by ``serving-desired`` alone.
    """
    state = _restored(desired, spec, told) or recovered(desired, spec)
    condition = placed_condition(failing(state), desired.environment)
    if condition in told.conditions:
        state = state.model_copy(update={"alerted_generation": state.generation})
    return state


def _restored(
    desired: ServingDesired, spec: PipelineSpec, told: Told
) -> Serving | None:
    state = _moved(desired, told)
    served = [m.version for m in (desired.champion, desired.candidate) if m]
    release = told.releases.get(max(served, default=0))
    last = told.steps.get(rollout_id(release)) if release else None
    if release and last and last.verdict in RUNNING and last.step != WAITING:
        rollout = _rollout(state, release, last, spec)
        if rollout is None:
            return None
        state = state.model_copy(update={"rollout": rollout})
    asked = Wanted(
        desired.champion,
        desired.candidate,
        desired.candidate_share,
        desired.replay,
        tuple(desired.ahead),
    )
    return state if wanted(state) == asked else None


def _moved(desired: ServingDesired, told: Told) -> Serving:
    """Return the state without a rollout: what has been in service, and when."""
    state = Serving(
        pipeline=desired.pipeline,
        environment=desired.environment,
        generation=desired.generation,
        taken_back=tuple(desired.taken_back),
    )
    for event in told.moves:
        if isinstance(event, ModelDeployed):
            served = ServedModel(version=event.version, package=event.package)
            release = _known(served, told, event)
            update = {"deployed": (*state.deployed, release)}
            state = state.model_copy(update=update)
        else:
            model = event.restored
            to = None if model is None else _known(model, told, event)
            state = with_champion(state, to)
    return state


def _known(model: ServedModel, told: Told, event: Event) -> Release:
    found = told.releases.get(model.version)
    if found is not None:
        return found
    origin = replace(event.meta, id=event.meta.causation_id or event.meta.id)
    return Release(version=model.version, package=model.package, origin=origin)


def _rollout(
    state: Serving, release: Release, last: RolloutAdvanced, spec: PipelineSpec
) -> Rollout | None:
    """Return the rollout that runs, at the begin of its step; None: no such step."""
    others: Iterable[Release] = (r for r in state.deployed if r != release)
    previous = next(reversed(list(others)), None)
    steps = plan(spec.rollout, has_champion=previous is not None)
    names = [step.name for step in steps]
    if last.step not in names:
        return None
    by = last.detail.removeprefix("by ") if last.verdict == "held" else ""
    frozen = by.removeprefix(FREEZE) if by.startswith(FREEZE) else ""
    return Rollout(
        rollout_id=rollout_id(release),
        release=release,
        previous=previous,
        rules=spec.rollout,
        steps=steps,
        position=names.index(last.step),
        held="" if frozen else by,
        frozen=frozen,
    )
