"""What the deployer does at each event: load the state, ask the core, store it."""

from collections.abc import Iterator
from dataclasses import dataclass

from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    ModelApproved,
    PerformanceMeasured,
    RollbackRequested,
    RolloutSteered,
    ScorerReported,
    ServingDesired,
    ShadowReplayed,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.deployer import core
from driftloop.deployer.state import Release, Serving, is_stale, recovered
from driftloop.deployer.tables import load_serving, save_serving
from driftloop.runtime.errors import Skip
from driftloop.runtime.handlers import Deps, EventHandler
from driftloop.runtime.state import StateView


@dataclass(frozen=True)
class DeployerDeps(Deps):
    """What the deployer's handlers use; ``desired`` is what it last asked for."""

    desired: StateView[ServingDesired]


def on_model_approved(event: ModelApproved, deps: DeployerDeps) -> Iterator[Event]:
    spec = deps.pipeline(event.pipeline)
    before = _serving(spec, deps)
    release = Release(version=event.version, package=event.package, origin=event.meta)
    yield from _stored(before, core.approve(before, release, spec), deps)


def on_performance_measured(
    event: PerformanceMeasured, deps: DeployerDeps
) -> Iterator[Event]:
    spec = deps.pipeline(event.pipeline)
    before = _serving(spec, deps)
    yield from _stored(before, core.measure(before, event, spec), deps)


def on_scorer_reported(event: ScorerReported, deps: DeployerDeps) -> Iterator[Event]:
    spec = deps.pipeline(event.pipeline)
    before = _serving(spec, deps)
    if is_stale(before, event):
        raise Skip("stale_generation")
    yield from _stored(before, core.report(before, event, spec), deps)


def on_shadow_replayed(event: ShadowReplayed, deps: DeployerDeps) -> Iterator[Event]:
    spec = deps.pipeline(event.pipeline)
    before = _serving(spec, deps)
    if is_stale(before, event):
        raise Skip("stale_generation")
    yield from _stored(before, core.replay(before, event, spec), deps)


def on_rollback_requested(
    event: RollbackRequested, deps: DeployerDeps
) -> Iterator[Event]:
    spec = deps.pipeline(event.pipeline)
    before = _serving(spec, deps)
    yield from _stored(before, core.roll_back(before, event, spec), deps)


def on_rollout_steered(event: RolloutSteered, deps: DeployerDeps) -> Iterator[Event]:
    spec = deps.pipeline(event.pipeline)
    before = _serving(spec, deps)
    yield from _stored(before, core.steer(before, event, spec), deps)


def _serving(spec: PipelineSpec, deps: DeployerDeps) -> Serving:
    stored = load_serving(deps.session, spec.name)
    if stored is not None:
        return stored
    desired = deps.desired.get(spec.name)
    return recovered(desired, spec) if desired else Serving(pipeline=spec.name)


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
]
