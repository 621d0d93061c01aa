"""The state of a pipeline's serving, and how each event changes it.

A reconciler: :func:`wanted` says what scorers should serve in a state, and a
change of that is a new generation. Steps of a rollout: shadow, warming, canary
shares, replica after replica, full (until a scorer serves it as champion), watching.
One rollout at a time; the newest approved version waits for its end.
"""

from datetime import datetime
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
    replica_by_replica,
    with_performance,
    with_replay,
    with_report,
)
from driftloop.deployer.state import (
    Release,
    Rollout,
    Serving,
    heard,
    is_stale,
    rollout_id,
    wanted,
)
from driftloop.deployer.telling import (
    FREEZE,
    aim,
    alert_of_failing,
    failure_over,
    impossible,
    not_steered,
    step_told,
    superseded,
)


class Change(NamedTuple):
    """A new state and what the world is told about it."""

    serving: Serving
    events: list[Event]


class Rules(NamedTuple):
    """The pipeline file, and the freeze window that holds now (empty: none)."""

    spec: PipelineSpec
    freeze: str

    @classmethod
    def of(cls, spec: PipelineSpec, now: datetime) -> "Rules":
        holding = (str(w) for w in spec.rollout.freeze if w.holds(now))
        return cls(spec, next(holding, ""))


def approve(
    serving: Serving,
    release: Release,
    spec: PipelineSpec,
    now: datetime | None = None,
) -> Change:
    """Begin a version's rollout, or let it wait for the one that runs.

    Older versions than the one in hand are superseded; a repeat changes nothing, also
    one about a version that was taken back since.

    Parameters
    ----------
    now : when it comes here; None: when it was approved.
    """
    rollout, waiting, champion = serving.rollout, serving.waiting, serving.champion
    in_hand = waiting or (rollout.release if rollout else champion)
    known = (waiting, champion, rollout.release if rollout else None)
    if any(r is not None and r.version == release.version for r in known):
        return Change(serving, [])
    if release.version in serving.taken_back:
        return Change(serving, [])
    if in_hand is not None and release.version < in_hand.version:
        return Change(serving, [superseded(serving, release, in_hand)])
    events = [superseded(serving, waiting, release)] if waiting else []
    after = serving.model_copy(update={"waiting": release})
    if rollout is None:
        rules = Rules.of(spec, now or release.origin.time)
        change = _settled(serving, after, release.origin, [], rules)
        return Change(change.serving, [*events, *change.events])
    return Change(after, events)


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
    return _judged(serving, rollout, figures, Rules.of(spec, event.meta.time))


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
    return _judged(serving, rollout, figures, Rules.of(spec, event.meta.time))


def report(serving: Serving, event: ScorerReported, spec: PipelineSpec) -> Change:
    """Add a scorer's figures to the running step and judge it.

    Signs of life come all the time, so what waits for the end of a freeze window, or
    of the last replica to be ready or gone, goes on here.
    """
    if is_stale(serving, event):
        return Change(serving, [])
    rules = Rules.of(spec, event.meta.time)
    serving, alerts = alert_of_failing(heard(serving, event), event, spec)
    rollout = serving.rollout
    if rollout is None:
        begun = _settled(serving, serving, event.meta, [], rules)
        return Change(begun.serving, [*alerts, *begun.events])
    previous = rollout.previous.version if rollout.previous else None
    figures = with_report(rollout.figures, event, rollout.release.version, previous)
    is_waiting = rollout.frozen or rollout.step.kind == "warming"
    if figures == rollout.figures and not is_waiting:
        return Change(serving, alerts)
    after, events = _judged(serving, rollout, figures, rules)
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
    rules = Rules.of(spec, request.meta.time)
    return take_back(serving, taken, target, reason, rules)


def steer(serving: Serving, request: RolloutSteered, spec: PipelineSpec) -> Change:
    """Do what a person asks of a rollout: hold it, let it go on, or cut it short.

    A held version is still judged, and taken back if it does worse. A freeze window
    does not stop a person who promotes, also not a version that has yet to begin.
    """
    rules = Rules.of(spec, request.meta.time)
    rollout, waiting = serving.rollout, serving.waiting
    is_awaited = waiting is not None and waiting.version == request.version
    if rollout is None and waiting and is_awaited and request.action == "promote":
        after = serving.model_copy(update={"waiting": None})
        rollout = _first_step(after, waiting, spec)
        started = step_told(serving.pipeline, rollout, "started", aim(rollout))
        change = _promoted(
            serving, after, rollout, f"{request.requested_by}: {request.reason}", rules
        )
        return Change(
            change.serving, [started.following(waiting.origin), *change.events]
        )
    if rollout is None or rollout.release.version != request.version:
        now = f"version {rollout.release.version} is" if rollout else "none is"
        return Change(
            serving, [not_steered(serving, request, f"{now} on its way", spec)]
        )
    who = f"{request.requested_by}: {request.reason}"
    if request.action == "promote" and not rollout.is_in_front:
        return _promoted(serving, serving, rollout, who, rules)
    if request.action == "hold" and rollout.step.kind != "full" and not rollout.held:
        return _steered(serving, rollout, "held", who, rules)
    if request.action == "resume" and rollout.held:
        return _steered(serving, rollout, "resumed", who, rules)
    state = "is held" if rollout.held else "goes on"
    if rollout.frozen and not rollout.held:
        state = f"waits for the end of {rollout.frozen}"
    why = f"it {state}, at step {rollout.step.name}"
    return Change(serving, [not_steered(serving, request, why, spec)])


def _promoted(
    before: Serving, after: Serving, rollout: Rollout, who: str, rules: Rules
) -> Change:
    """Go to the step in which the version is in front, as soon as a scorer has it."""
    steps = rollout.steps
    full = next(n for n, step in enumerate(steps) if step.kind == "full")
    following = rollout.model_copy(
        update={"position": full, "figures": Figures(), "held": "", "frozen": ""}
    )
    after = after.model_copy(update={"rollout": following})
    name = before.pipeline
    events: list[Event] = [step_told(name, rollout, "passed", f"promoted by {who}")]
    if rollout.position != full:
        events.append(step_told(name, following, "started", aim(following)))
    return _settled(before, after, rollout.release.origin, events, rules)


def _steered(
    serving: Serving,
    rollout: Rollout,
    verdict: Literal["held", "resumed"],
    who: str,
    rules: Rules,
) -> Change:
    told = step_told(serving.pipeline, rollout, verdict, f"by {who}")
    held = who if verdict == "held" else ""
    rollout = rollout.model_copy(update={"held": held})
    after, events = _judged(serving, rollout, rollout.figures, rules)
    return Change(after, [told.following(rollout.release.origin), *events])


def _judged(
    serving: Serving, rollout: Rollout, figures: Figures, rules: Rules
) -> Change:
    """Judge a step by its new figures and take the consequence."""
    rollout = rollout.model_copy(update={"figures": figures})
    after = serving.model_copy(update={"rollout": rollout})
    match judge(figures, rollout.step, rollout.rules, serving.alive):
        case Hold():
            return Change(after, [])
        case Advance() if rollout.held:
            return Change(after, [])
        case Advance() if rules.freeze and rollout.step.kind != "full":
            return _frozen(after, rollout, rules.freeze)
        case Advance(detail):
            return _advanced(serving, after, rollout, detail, rules)
        case RollBack(reason):
            return take_back(after, rollout.release, rollout.previous, reason, rules)


def _frozen(serving: Serving, rollout: Rollout, window: str) -> Change:
    """Stand still, and say so once."""
    if rollout.frozen:
        return Change(serving, [])
    told = step_told(serving.pipeline, rollout, "held", f"by {FREEZE}{window}")
    rollout = rollout.model_copy(update={"frozen": window})
    return Change(
        serving.model_copy(update={"rollout": rollout}),
        [told.following(rollout.release.origin)],
    )


def _advanced(
    before: Serving, after: Serving, rollout: Rollout, detail: str, rules: Rules
) -> Change:
    release, name = rollout.release, before.pipeline
    events: list[Event] = []
    if rollout.frozen:
        over = f"the freeze is over: {rollout.frozen}"
        events.append(step_told(name, rollout, "resumed", over))
    events.append(step_told(name, rollout, "passed", detail))
    if rollout.step.kind == "warming" and rollout.rules.strategy == "rolling":
        one_by_one = replica_by_replica(before.alive or (), rollout.rules)
        done, left = rollout.position + 1, rollout.steps[rollout.position + 1 :]
        steps = (*rollout.steps[:done], *one_by_one, *left)
        rollout = rollout.model_copy(update={"steps": steps})
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
            update={
                "position": rollout.position + 1,
                "figures": Figures(),
                "frozen": "",
            }
        )
    )
    if following is not None:
        events.append(step_told(name, following, "started", aim(following)))
    after = after.model_copy(update={"rollout": following})
    return _settled(before, after, release.origin, events, rules)


def take_back(
    serving: Serving,
    taken: Release,
    target: Release | None,
    reason: str,
    rules: Rules,
) -> Change:
    """Take a version out; ``target`` (None: no version) answers from now on.

    With the rollout that runs, if one does.
    """
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
            owner=rules.spec.owner,
        )
    )
    after = with_champion(serving, target)
    gone = {release.version for release in (*displaced, *after.retired)}
    gone = {*serving.taken_back, *gone} - {r.version for r in after.deployed}
    update = {"rollout": None, "taken_back": tuple(sorted(gone))}
    after = after.model_copy(update=update)
    return _settled(serving, after, taken.origin, events, rules)


def with_champion(serving: Serving, target: Release | None) -> Serving:
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
    before: Serving, after: Serving, origin: Meta, events: list[Event], rules: Rules
) -> Change:
    """Begin what waits, and give a changed wish the next generation.

    In a freeze window it waits on, unless there is nothing yet that could be disturbed.
    """
    told = [event.following(origin) for event in events]
    release = after.waiting
    if after.rollout is None and release is not None:
        rollout = _first_step(after, release, rules.spec)
        name = after.pipeline
        if rules.freeze and after.champion is not None:
            if (before.rollout, before.waiting) != (None, release):
                why = f"by {FREEZE}{rules.freeze}"
                waits = step_told(name, rollout, "held", why)
                waits = waits.model_copy(update={"step": "waiting"})
                told.append(waits.following(release.origin))
        else:
            origin = release.origin
            after = after.model_copy(update={"waiting": None, "rollout": rollout})
            started = step_told(name, rollout, "started", aim(rollout))
            told.append(started.following(origin))
    if wanted(after) != wanted(before):
        champion, candidate, share, recorded, ahead = wanted(after)
        after = after.model_copy(update={"generation": before.generation + 1})
        told += [each.following(origin) for each in failure_over(before, origin.time)]
        told.append(
            ServingDesired(
                pipeline=after.pipeline,
                environment=after.environment,
                generation=after.generation,
                champion=champion,
                candidate=candidate,
                candidate_share=share,
                replay=recorded,
                ahead=list(ahead),
                taken_back=list(after.taken_back),
            ).following(origin)
        )
    return Change(after, told)


def _first_step(serving: Serving, release: Release, spec: PipelineSpec) -> Rollout:
    return Rollout(
        rollout_id=rollout_id(release),
        release=release,
        previous=serving.champion,
        rules=spec.rollout,
        steps=plan(spec.rollout, has_champion=serving.champion is not None),
    )
