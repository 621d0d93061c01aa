"""The state of a pipeline's serving, and how each event changes it.

A reconciler: :func:`wanted` says what scorers should serve in a state, and a
change of that is a new generation. Steps of a rollout: shadow, canary shares,
full (until a scorer serves it as champion), watching. One rollout at a time; the
newest approved version waits for its end.
"""

from typing import Literal, NamedTuple

from driftloop.contracts.base import Event, Meta
from driftloop.contracts.events import (
    AlertRaised,
    ModelDeployed,
    ModelRolledBack,
    PerformanceMeasured,
    RollbackRequested,
    RolloutSteered,
    ScorerReported,
    ServingDesired,
    ShadowReplayed,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.deployer.judgement import (
    Advance,
    Figures,
    Hold,
    RollBack,
    judge,
    plan,
    with_performance,
    with_replay,
    with_report,
)
from driftloop.deployer.state import (
    Release,
    Rollout,
    Serving,
    is_stale,
    rollout_id,
    wanted,
)
from driftloop.deployer.telling import (
    aim,
    alert_of_failing,
    impossible,
    not_steered,
    step_told,
    superseded,
)


class Change(NamedTuple):
    """A new state and what the world is told about it."""

    serving: Serving
    events: list[Event]


def approve(serving: Serving, release: Release, spec: PipelineSpec) -> Change:
    """Begin a version's rollout, or let it wait for the one that runs.

    Older versions than the one in hand are superseded; a repeat changes nothing.
    """
    rollout, waiting, champion = serving.rollout, serving.waiting, serving.champion
    in_hand = waiting or (rollout.release if rollout else champion)
    known = (waiting, champion, rollout.release if rollout else None)
    if any(r is not None and r.version == release.version for r in known):
        return Change(serving, [])
    if in_hand is not None and release.version < in_hand.version:
        return Change(serving, [superseded(serving, release, in_hand)])
    if rollout is None:
        after = serving.model_copy(update={"waiting": release})
        return _settled(serving, after, release.origin, [], spec)
    events = [superseded(serving, waiting, release)] if waiting else []
    return Change(serving.model_copy(update={"waiting": release}), events)


def measure(serving: Serving, event: PerformanceMeasured, spec: PipelineSpec) -> Change:
    """Add a paired measurement to the running step and judge it."""
    rollout = serving.rollout
    if rollout is None or rollout.previous is None or rollout.step.kind == "full":
        return Change(serving, [])
    figures = with_performance(
        rollout.figures, event, rollout.release.version, rollout.previous.version
    )
    if figures is None:
        return Change(serving, [])
    return _judged(serving, rollout, figures, spec)


def replay(serving: Serving, event: ShadowReplayed, spec: PipelineSpec) -> Change:
    """Judge a shadow step by recorded rows; too few are where live rows go on."""
    rollout = serving.rollout
    if rollout is None or rollout.previous is None or rollout.step.kind != "shadow":
        return Change(serving, [])
    figures = with_replay(
        rollout.figures, event, rollout.release.version, rollout.previous.version
    )
    if figures is None:
        return Change(serving, [])
    return _judged(serving, rollout, figures, spec)


def report(serving: Serving, event: ScorerReported, spec: PipelineSpec) -> Change:
    """Add a scorer's figures to the running step and judge it."""
    if is_stale(serving, event):
        return Change(serving, [])
    serving, alerts = alert_of_failing(serving, event, spec)
    rollout = serving.rollout
    if rollout is None:
        return Change(serving, alerts)
    previous = rollout.previous.version if rollout.previous else None
    figures = with_report(rollout.figures, event, rollout.release.version, previous)
    if figures == rollout.figures:
        return Change(serving, alerts)
    after, events = _judged(serving, rollout, figures, spec)
    return Change(after, [*alerts, *events])


def roll_back(
    serving: Serving, request: RollbackRequested, spec: PipelineSpec
) -> Change:
    """Do what a person asks: end the rollout, restore the version named.

    Without ``to_version``: a version on its way is taken back; with none on its
    way, the one before the champion is restored.
    """
    reason = f"{request.requested_by} asked for it: {request.reason}"
    rollout, champion = serving.rollout, serving.champion
    is_on_its_way = rollout is not None and rollout.step.kind != "watching"
    target: Release | None
    if request.to_version is not None:
        known = (*serving.deployed, *serving.retired)
        target = next((r for r in known if r.version == request.to_version), None)
    elif is_on_its_way:
        target = champion
    else:
        target = serving.deployed[-2] if len(serving.deployed) > 1 else None
    is_already_so = target is not None and target == champion and not is_on_its_way
    taken = rollout.release if rollout else champion
    may_be_none = is_on_its_way and request.to_version is None
    if taken is None or is_already_so or (target is None and not may_be_none):
        return Change(serving, [impossible(serving, request, spec)])
    return _restored(serving, taken, target, reason, spec)


def steer(serving: Serving, request: RolloutSteered, spec: PipelineSpec) -> Change:
    """Do what a person asks of a rollout: hold it, let it go on, or cut it short.

    A held version is still judged, and taken back if it does worse.
    """
    rollout = serving.rollout
    if rollout is None or rollout.release.version != request.version:
        now = f"version {rollout.release.version} is" if rollout else "none is"
        return Change(
            serving, [not_steered(serving, request, f"{now} on its way", spec)]
        )
    who = f"{request.requested_by}: {request.reason}"
    if request.action == "promote" and not rollout.is_in_front:
        return _promoted(serving, rollout, who, spec)
    if request.action == "hold" and rollout.step.kind != "full" and not rollout.held:
        return _steered(serving, rollout, "held", who, spec)
    if request.action == "resume" and rollout.held:
        return _steered(serving, rollout, "resumed", who, spec)
    state = "is held" if rollout.held else "goes on"
    why = f"it {state}, at step {rollout.step.name}"
    return Change(serving, [not_steered(serving, request, why, spec)])


def _promoted(
    serving: Serving, rollout: Rollout, who: str, spec: PipelineSpec
) -> Change:
    """Go to the step in which the version is in front, as soon as a scorer has it."""
    steps = rollout.steps
    full = next(n for n, step in enumerate(steps) if step.kind == "full")
    following = rollout.model_copy(
        update={"position": full, "figures": Figures(), "held": ""}
    )
    after = serving.model_copy(update={"rollout": following})
    events: list[Event] = [
        step_told(serving.pipeline, rollout, "passed", f"promoted by {who}"),
        step_told(serving.pipeline, following, "started", aim(following)),
    ]
    return _settled(serving, after, rollout.release.origin, events, spec)


def _steered(
    serving: Serving,
    rollout: Rollout,
    verdict: Literal["held", "resumed"],
    who: str,
    spec: PipelineSpec,
) -> Change:
    told = step_told(serving.pipeline, rollout, verdict, f"by {who}")
    held = who if verdict == "held" else ""
    rollout = rollout.model_copy(update={"held": held})
    after, events = _judged(serving, rollout, rollout.figures, spec)
    return Change(after, [told.following(rollout.release.origin), *events])


def _judged(
    serving: Serving, rollout: Rollout, figures: Figures, spec: PipelineSpec
) -> Change:
    """Judge a step by its new figures and take the consequence."""
    rollout = rollout.model_copy(update={"figures": figures})
    after = serving.model_copy(update={"rollout": rollout})
    match judge(figures, rollout.step, rollout.rules):
        case Hold():
            return Change(after, [])
        case Advance() if rollout.held:
            return Change(after, [])
        case Advance(detail):
            return _advanced(serving, after, rollout, detail, spec)
        case RollBack(reason):
            return _restored(after, rollout.release, rollout.previous, reason, spec)


def _advanced(
    before: Serving, after: Serving, rollout: Rollout, detail: str, spec: PipelineSpec
) -> Change:
    release, name = rollout.release, before.pipeline
    events: list[Event] = [step_told(name, rollout, "passed", detail)]
    if rollout.step.kind == "full":
        after = after.model_copy(update={"deployed": (*after.deployed, release)})
        previous = rollout.previous
        events.append(
            ModelDeployed(
                pipeline=name,
                rollout_id=rollout.rollout_id,
                version=release.version,
                package=release.package,
                generation=before.generation,
                previous_version=previous.version if previous else None,
            )
        )
    is_last = rollout.position + 1 == len(rollout.steps)
    following = (
        None
        if is_last
        else rollout.model_copy(
            update={"position": rollout.position + 1, "figures": Figures()}
        )
    )
    if following is not None:
        events.append(step_told(name, following, "started", aim(following)))
    after = after.model_copy(update={"rollout": following})
    return _settled(before, after, release.origin, events, spec)


def _restored(
    serving: Serving,
    taken: Release,
    target: Release | None,
    reason: str,
    spec: PipelineSpec,
) -> Change:
    """Take a version out; ``target`` (None: no version) answers from now on."""
    name, rollout, champion = serving.pipeline, serving.rollout, serving.champion
    rollout_name = rollout.rollout_id if rollout else rollout_id(taken)
    restored = target.served() if target else None
    events: list[Event] = []
    if rollout is not None:
        events.append(step_told(name, rollout, "failed", reason))
    displaced = [taken]
    if champion is not None and champion not in (taken, target):
        displaced.append(champion)  # a person went back further than the rollout
    events += [
        ModelRolledBack(
            pipeline=name,
            rollout_id=rollout_name,
            version=release.version,
            generation=serving.generation,
            restored=restored,
            reason=reason,
        )
        for release in displaced
    ]
    was_in_front = rollout is None or rollout.is_in_front or len(displaced) > 1
    answers = f"version {target.version} answers" if target else "no version answers"
    events.append(
        AlertRaised(
            pipeline=name,
            condition=f"rolled-back/{rollout_name}",
            severity="critical" if was_in_front else "warning",
            title=f"Version {taken.version} of {name} was rolled back",
            detail=f"{reason}; {answers}",
            owner=spec.owner,
        )
    )
    after = _with_champion(serving, target).model_copy(update={"rollout": None})
    return _settled(serving, after, taken.origin, events, spec)


def _with_champion(serving: Serving, target: Release | None) -> Serving:
    """Return the state with ``target`` last in service; what it displaces retires."""
    if target == serving.champion:
        return serving
    if target is None:
        kept: tuple[Release, ...] = ()
    elif target in serving.deployed:
        kept = serving.deployed[: serving.deployed.index(target) + 1]
    else:
        kept = (*serving.deployed[:-1], target)
    ever = (*serving.retired, *serving.deployed)
    return serving.model_copy(
        update={"deployed": kept, "retired": tuple(r for r in ever if r not in kept)}
    )


def _settled(
    before: Serving,
    after: Serving,
    origin: Meta,
    events: list[Event],
    spec: PipelineSpec,
) -> Change:
    """Begin what waits, and give a changed wish the next generation."""
    told = [event.following(origin) for event in events]
    if after.rollout is None and after.waiting is not None:
        release, after = after.waiting, after.model_copy(update={"waiting": None})
        origin = release.origin
        rollout = Rollout(
            rollout_id=rollout_id(release),
            release=release,
            previous=after.champion,
            rules=spec.rollout,
            steps=plan(spec.rollout, has_champion=after.champion is not None),
        )
        after = after.model_copy(update={"rollout": rollout})
        started = step_told(after.pipeline, rollout, "started", aim(rollout))
        told.append(started.following(origin))
    if wanted(after) != wanted(before):
        champion, candidate, share, recorded = wanted(after)
        after = after.model_copy(update={"generation": before.generation + 1})
        told.append(
            ServingDesired(
                pipeline=after.pipeline,
                generation=after.generation,
                champion=champion,
                candidate=candidate,
                candidate_share=share,
                replay=recorded,
            ).following(origin)
        )
    return Change(after, told)
