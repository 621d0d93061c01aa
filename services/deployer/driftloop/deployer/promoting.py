"""How a version goes from one environment of a pipeline to the next.

What happens within one is :mod:`core`'s matter. Here: by which rules it happens, what
the world is told of it, and what follows when a version's rollout there has ended well.
"""

from datetime import datetime
from typing import Literal, NamedTuple

from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.approval import in_words, seats_of
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    AlertRaised,
    ModelDeployed,
    ModelRolledBack,
    PromotionSteered,
    RolloutAdvanced,
    RolloutVerdict,
)
from driftloop.contracts.pipeline import PRODUCTION, PipelineSpec
from driftloop.contracts.quorum import is_same_person, open_seats
from driftloop.deployer.core import Change, Rules, take_back
from driftloop.deployer.state import Promotion, Release, Serving, rollout_id
from driftloop.deployer.telling import superseded

STEP = "promotion"
"""In ``rollout-advanced``, after the steps within an environment."""


class Stage(NamedTuple):
    """An environment of a pipeline.

    Attributes
    ----------
    spec : the pipeline file, with this environment's rules as its ``rollout``.
    promote : how a version goes on from here; None: it is the last one.
    """

    name: str
    spec: PipelineSpec
    promote: Literal["automatic", "approval"] | None


class Promoted(NamedTuple):
    """What a person's word changes, and the version that goes on (None: none does)."""

    change: Change
    release: Release | None


def stages(spec: PipelineSpec) -> tuple[Stage, ...]:
    """Return a pipeline's environments in order; production is the last one."""
    rollout = spec.rollout
    before = (
        Stage(
            environment.name,
            spec.model_copy(update={"rollout": rollout.rules_in(environment)}),
            environment.promote,
        )
        for environment in rollout.environments
    )
    return (*before, Stage(PRODUCTION, spec, None))


def placed(change: Change, environment: str) -> Change:
    """Return a change whose events say in which environment they happened.

    What answers requests is production's: no other environment tells of it, and what
    goes wrong there wakes nobody.
    """
    if environment == PRODUCTION:
        return change
    told = (_placed(event, environment) for event in change.events)
    return Change(change.serving, [event for event in told if event is not None])


def placed_condition(condition: str, environment: str) -> str:
    """Return an alert's condition as it is told of an environment."""
    return condition if environment == PRODUCTION else f"{environment}/{condition}"


def _placed(event: Event, environment: str) -> Event | None:
    if isinstance(event, ModelDeployed | ModelRolledBack):
        return None
    if isinstance(event, AlertResolved):
        return event.model_copy(
            update={"condition": placed_condition(event.condition, environment)}
        )
    if not isinstance(event, AlertRaised):
        return event.model_copy(update={"environment": environment})
    return event.model_copy(
        update={
            "condition": placed_condition(event.condition, environment),
            "severity": "info" if event.severity == "info" else "warning",
            "title": f"{event.title} ({environment})",
        }
    )


def passed_through(before: Serving, after: Serving) -> Release | None:
    """Return the version whose rollout has just ended well; None: none has."""
    ended, champion, now = before.rollout, after.champion, after.rollout
    if ended is None or champion is None or champion.version != ended.release.version:
        return None
    is_over = now is None or now.rollout_id != ended.rollout_id
    return champion if is_over else None


def asked(
    serving: Serving, release: Release, stage: Stage, to: str, now: datetime
) -> Change:
    """Ask people whether a version may go on; an older one that waits no longer does.

    Parameters
    ----------
    to : the next environment.
    now : of the log: the time of the event that leads to the question.
    """
    approval = stage.spec.rollout.approval
    lifetime, older = approval.lifetime, serving.promotion
    promotion = Promotion(
        release=release,
        role=approval.role,
        people=approval.people,
        also=approval.also,
        expires_at=None if lifetime is None else now + lifetime,
    )
    end = promotion.expires_at
    until = f" until {end:%Y-%m-%d %H:%M} UTC" if end else ""
    name = f"{serving.pipeline}/{release.version}"
    detail = (
        f"to {to} waits for {in_words(seats_of(promotion))}{until}: "
        f'driftloop promote {name} --reason "…"'
    )
    told: list[Event] = []
    if older is not None and older.release.version != release.version:
        told.append(superseded(serving, older.release, release))
    told.append(_told(serving, release, "started", detail))
    return Change(serving.model_copy(update={"promotion": promotion}), told)


def by_itself(serving: Serving, release: Release, to: str) -> Change:
    """Tell that a version goes on without anybody's word."""
    return Change(serving, [_told(serving, release, "passed", f"to {to}, by itself")])


def expired(serving: Serving, spec: PipelineSpec, now: datetime) -> Change:
    """End a question that nobody answered in time, and say so once."""
    promotion = serving.promotion
    if promotion is None or promotion.is_expired or not _is_over(promotion, now):
        return Change(serving, [])
    over = promotion.model_copy(update={"is_expired": True})
    release, detail = promotion.release, _end_of(serving, promotion)
    alert = AlertRaised(
        pipeline=serving.pipeline,
        condition=f"promotion-expired/{release.version}/{promotion.expires_at}",
        severity="warning",
        title=f"the promotion of v{release.version} expired",
        detail=detail,
        owner=spec.owner,
    )
    return Change(
        serving.model_copy(update={"promotion": over}),
        [_told(serving, release, "held", detail), alert.following(release.origin)],
    )


def without_the_taken_back(change: Change) -> Change:
    """Ask nobody any more about a version that was taken out of its environment."""
    serving, promotion = change.serving, change.serving.promotion
    served = {release.version for release in serving.deployed}
    if promotion is None or promotion.release.version in served:
        return change
    told = _told(serving, promotion.release, "failed", "it was taken back")
    serving = serving.model_copy(update={"promotion": None})
    return Change(serving, [*change.events, told])


def is_meant(serving: Serving, stage: Stage, event: PromotionSteered) -> bool:
    """Whether a person's word is about the version that waits, or may wait, here.

    People may be asked about the version in service here, too, as a deployer that has
    lost its database has forgotten that they were.
    """
    promotion, champion = serving.promotion, serving.champion
    if promotion is not None and promotion.release.version == event.version:
        return True
    is_free = event.action == "ask" and stage.promote == "approval"
    return is_free and champion is not None and champion.version == event.version


def answered(
    serving: Serving, event: PromotionSteered, stage: Stage, to: str
) -> Promoted:
    """Do what a person says of a version that waits to go on.

    A version that is refused is taken back here too, unless a newer one is compared
    with it just now.
    """
    promotion, now = serving.promotion, event.meta.time
    if event.action == "ask":
        is_open = promotion is not None and not _is_over(promotion, now)
        release = promotion.release if promotion else serving.champion
        if is_open or release is None:
            return _refused(serving, event, "it waits for people already", stage)
        return Promoted(asked(serving, release, stage, to, now), None)
    if promotion is None:
        return _refused(serving, event, "it waits for nobody", stage)
    if problem := _objection(serving, promotion, event):
        return _refused(serving, event, problem, stage)
    if event.action == "reject":
        return Promoted(_rejected(serving, promotion, event, stage), None)
    return _agreed(serving, promotion, event, to)


def not_promoted(
    pipeline: str, event: PromotionSteered, why: str, owner: str | None
) -> Event:
    """Tell people why a word of theirs did not count."""
    return AlertRaised(
        pipeline=pipeline,
        condition=f"not-promoted/{event.meta.id}",
        severity="warning",
        title=f"The word on version {event.version} of {pipeline} did not count",
        detail=f"{event.by} said {event.action}: {why}",
        owner=owner,
    )


def _agreed(
    serving: Serving, promotion: Promotion, event: PromotionSteered, to: str
) -> Promoted:
    said_yes = (*promotion.said_yes, event.by)
    spoke = (*promotion.spoke, _speaks_for(promotion, event))
    release, missing = promotion.release, open_seats(seats_of(promotion), spoke)
    if missing:
        waiting = promotion.model_copy(update={"said_yes": said_yes, "spoke": spoke})
        detail = f"{event.by} said yes: {event.reason}; waits for {in_words(missing)}"
        after = serving.model_copy(update={"promotion": waiting})
        told = _told(serving, release, "held", detail)
        return Promoted(Change(after, [told]), None)
    detail = f"to {to}, by {', '.join(said_yes)}: {event.reason}"
    after = serving.model_copy(update={"promotion": None})
    told = _told(serving, release, "passed", detail)
    return Promoted(Change(after, [told]), release)


def _rejected(
    serving: Serving, promotion: Promotion, event: PromotionSteered, stage: Stage
) -> Change:
    release, reason = promotion.release, f"rejected by {event.by}: {event.reason}"
    told = _told(serving, release, "failed", reason)
    after = serving.model_copy(update={"promotion": None})
    champion = serving.champion
    if serving.rollout is not None or champion is None:
        return Change(after, [told])
    before = serving.deployed[-2] if len(serving.deployed) > 1 else None
    rules = Rules.of(stage.spec, event.meta.time)
    back = take_back(after, champion, before, reason, rules)
    return Change(back.serving, [told, *back.events])


def _refused(
    serving: Serving, event: PromotionSteered, why: str, stage: Stage
) -> Promoted:
    told = not_promoted(serving.pipeline, event, why, stage.spec.owner)
    return Promoted(Change(serving, [told]), None)


def _objection(
    serving: Serving, promotion: Promotion, event: PromotionSteered
) -> str | None:
    """Return why a decision does not count; None: it does."""
    release = promotion.release
    if promotion.is_expired or _is_over(promotion, event.meta.time):
        return _end_of(serving, promotion)
    if event.package_digest != release.package.digest:
        return (
            f"it is about package {event.package_digest[:12]}…, the version is "
            f"package {release.package.digest[:12]}…"
        )
    return None if event.action == "reject" else _surplus(promotion, event)


def _surplus(promotion: Promotion, event: PromotionSteered) -> str | None:
    """Return why one more yes is of no use; None: it is of use."""
    author = promotion.release.author
    if any(is_same_person(event.by, name) for name in promotion.said_yes):
        return f"{event.by} has said yes already"
    if author and is_same_person(event.by, author):
        return f"{event.by} asked for the training; another must say yes"
    seats, spoke = seats_of(promotion), promotion.spoke
    missing = open_seats(seats, spoke)
    left = open_seats(seats, (*spoke, _speaks_for(promotion, event)))
    if sum(left.values()) == sum(missing.values()):
        return f"it waits for {in_words(missing)}, of which {event.by} is none"
    return None


def _speaks_for(promotion: Promotion, event: PromotionSteered) -> frozenset[str]:
    return frozenset(event.roles or [promotion.role])


def _is_over(promotion: Promotion, now: datetime) -> bool:
    return promotion.expires_at is not None and now >= promotion.expires_at


def _end_of(serving: Serving, promotion: Promotion) -> str:
    said = ", ".join(promotion.said_yes) or "nobody"
    return (
        f"until {promotion.expires_at:%Y-%m-%d %H:%M} UTC {said} said yes, "
        f"{in_words(seats_of(promotion))} had to; ask again: driftloop "
        f"request-promotion {serving.pipeline}/{promotion.release.version}"
    )


def _told(
    serving: Serving, release: Release, verdict: RolloutVerdict, detail: str
) -> Event:
    return RolloutAdvanced(
        pipeline=serving.pipeline,
        rollout_id=rollout_id(release),
        version=release.version,
        step=STEP,
        verdict=verdict,
        detail=detail,
    ).following(release.origin)
