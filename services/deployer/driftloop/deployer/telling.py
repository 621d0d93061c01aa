"""What the deployer tells of a rollout, as events."""

from datetime import datetime

from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    AlertRaised,
    RollbackRequested,
    RolloutAdvanced,
    RolloutSteered,
    RolloutVerdict,
    ScorerReported,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.deployer.state import Release, Rollout, Serving, replay_of, rollout_id

FREEZE = "rollout.freeze: "
"""Before the window that holds a rollout, in what is told of it."""


def step_told(
    name: str,
    rollout: Rollout,
    verdict: RolloutVerdict,
    detail: str,
) -> RolloutAdvanced:
    return RolloutAdvanced(
        pipeline=name,
        rollout_id=rollout.rollout_id,
        version=rollout.release.version,
        step=rollout.step.name,
        verdict=verdict,
        detail=detail,
    )


def aim(rollout: Rollout) -> str:
    """Say what the step is waiting for."""
    previous = rollout.previous
    if rollout.step.kind == "full":
        return "until a scorer serves it as champion"
    if rollout.step.kind == "warming":
        return "until every replica has it in memory"
    against = f"version {previous.version}" if previous else "nothing"
    ahead = ", ".join(rollout.step.ahead)
    where = f", with {ahead} ahead" if ahead else ""
    recorded = replay_of(rollout)
    first = f", first of {recorded.hours:g} recorded hours" if recorded else ""
    return f"{rollout.step.rows} labelled rows against {against}{where}{first}"


def superseded(serving: Serving, old: Release, new: Release) -> Event:
    return RolloutAdvanced(
        pipeline=serving.pipeline,
        rollout_id=rollout_id(old),
        version=old.version,
        step="waiting",
        verdict="failed",
        detail=f"superseded by version {new.version}",
    ).following(old.origin)


def alert_of_failing(
    serving: Serving, event: ScorerReported, spec: PipelineSpec
) -> tuple[Serving, list[Event]]:
    """Tell of a version in service that fails; the rollout's own is judged."""
    on_its_way = serving.rollout.release.version if serving.rollout else None
    allowed = spec.rollout.max_error_ratio
    bad = [
        said
        for said in event.versions
        if said.version != on_its_way
        and (said.state == "failed" or said.error_count > allowed * said.row_count)
    ]
    if not bad or serving.alerted_generation == serving.generation:
        return serving, []
    alert = AlertRaised(
        pipeline=serving.pipeline,
        condition=failing(serving),
        severity="critical",
        title=f"A version of {serving.pipeline} in service fails",
        detail="; ".join(
            f"version {said.version} ({said.role}) on {event.replica}: "
            + (said.detail or f"{said.error_count} of {said.row_count} rows failed")
            for said in bad
        ),
        owner=spec.owner,
        can_end=True,
    )
    update = {"alerted_generation": serving.generation}
    return serving.model_copy(update=update), [alert]


def failure_over(serving: Serving, at: datetime) -> list[AlertResolved]:
    """End the alert about what was served, when something else is to be."""
    if not serving.generation or serving.alerted_generation != serving.generation:
        return []
    return [
        AlertResolved(
            pipeline=serving.pipeline,
            condition=failing(serving),
            at=at,
            why="What is served has changed; if it still fails, that is told anew.",
        )
    ]


def failing(serving: Serving) -> str:
    """Return the condition of the alert about what is served now."""
    return f"version-fails/{serving.generation}"


def impossible(
    serving: Serving, request: RollbackRequested, spec: PipelineSpec
) -> Event:
    served = sorted({r.version for r in (*serving.deployed, *serving.retired)})
    to = request.to_version
    asked = "the previous version" if to is None else f"version {to}"
    champion = serving.champion
    return AlertRaised(
        pipeline=serving.pipeline,
        condition=f"rollback-impossible/{request.to_version}/{serving.generation}",
        severity="warning",
        title=f"Rollback of {serving.pipeline} to {asked} is not possible",
        detail=(
            f"{request.requested_by} asked for it; in service now: "
            f"{champion.version if champion else 'none'}, ever in service: "
            f"{', '.join(map(str, served)) or 'none'}"
        ),
        owner=spec.owner,
    )


def not_steered(
    serving: Serving, request: RolloutSteered, why: str, spec: PipelineSpec
) -> Event:
    about = f"{request.action}/{request.version}/{serving.generation}"
    return AlertRaised(
        pipeline=serving.pipeline,
        condition=f"rollout-not-steered/{about}",
        severity="warning",
        title=f"The rollout of {serving.pipeline} was not steered",
        detail=f"{request.requested_by} asked to {request.action} version "
        f"{request.version}: {why}",
        owner=spec.owner,
    )
