"""What the deployer knows of a pipeline, as plain values."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from driftloop.contracts.base import Meta, derived_id
from driftloop.contracts.events import (
    PackageRef,
    ReplayWanted,
    ScorerReported,
    ServedModel,
    ServingDesired,
    ShadowReplayed,
)
from driftloop.contracts.pipeline import PRODUCTION, PipelineSpec, RolloutSection
from driftloop.deployer.judgement import Figures, Frozen, Step, plan
from pydantic import Field


class Release(Frozen):
    """An approved version; its events continue the chain of ``origin``.

    Attributes
    ----------
    author : who asked for the training, if a person did; may not promote it.
    """

    version: int
    package: PackageRef
    origin: Meta
    author: str | None = None

    def served(self) -> ServedModel:
        return ServedModel(version=self.version, package=self.package)


class Rollout(Frozen):
    """A version on its way; rules are those of the day it began.

    Attributes
    ----------
    held : who holds it and why; empty: nobody does.
    frozen : the window that holds back its next step, once that was told.
    """

    rollout_id: str
    release: Release
    previous: Release | None
    rules: RolloutSection
    steps: tuple[Step, ...]
    position: int = 0
    figures: Figures = Figures()
    held: str = ""
    frozen: str = ""

    @property
    def step(self) -> Step:
        return self.steps[self.position]

    @property
    def is_in_front(self) -> bool:
        """Whether the version is meant to answer every request."""
        return self.step.kind in {"full", "watching"}


class Promotion(Frozen):
    """A version that waits for people to let it go to the next environment.

    Attributes
    ----------
    expires_at : what is said then or later does not count; None: there is no end.
    said_yes, spoke : who, and the roles of each of them.
    is_expired : its end was told; people can be asked anew.
    """

    release: Release
    role: str
    people: int
    also: dict[str, int] = Field(default_factory=dict)
    expires_at: datetime | None = None
    said_yes: tuple[str, ...] = ()
    spoke: tuple[frozenset[str], ...] = ()
    is_expired: bool = False


class Serving(Frozen):
    """All that the deployer knows of one pipeline in one environment.

    Attributes
    ----------
    promotion : the version that waits to go on from here, if one does.
    generation : of the last ``serving-desired``; 0: there was none.
    deployed : versions in service, oldest first; the last one is the champion.
    retired : versions that were in service and were rolled back.
    taken_back : numbers of the versions that were on their way or in service and do not
        answer any more: no approval rolls them out again.
    waiting : approved during a rollout; the newest one only.
    alerted_generation : the last one with an alert about a version that fails.
    replicas : of the scorer, and until when each is taken to live.
    heard_at : time of the newest sign of life.
    all_known_at : when each replica that lives has said so; None: none has.
    """

    pipeline: str
    environment: str = PRODUCTION
    generation: int = 0
    deployed: tuple[Release, ...] = ()
    retired: tuple[Release, ...] = ()
    taken_back: tuple[int, ...] = ()
    rollout: Rollout | None = None
    waiting: Release | None = None
    promotion: Promotion | None = None
    alerted_generation: int = 0
    replicas: dict[str, datetime] = Field(default_factory=dict)
    heard_at: datetime | None = None
    all_known_at: datetime | None = None

    @property
    def champion(self) -> Release | None:
        return self.deployed[-1] if self.deployed else None

    @property
    def alive(self) -> tuple[str, ...] | None:
        """Names of the replicas that live, sorted; None: too early to know all."""
        if (
            self.heard_at is None
            or self.all_known_at is None
            or self.heard_at < self.all_known_at
        ):
            return None
        return tuple(sorted(self.replicas))


class Wanted(NamedTuple):
    """What scorers should serve."""

    champion: ServedModel | None
    candidate: ServedModel | None
    share: float
    replay: ReplayWanted | None = None
    ahead: tuple[str, ...] = ()


def wanted(serving: Serving) -> Wanted:
    """Return what scorers should serve in this state.

    The version before stays loaded while the new one is watched.
    """
    champion, rollout = serving.champion, serving.rollout
    old = champion.served() if champion else None
    if rollout is None:
        return Wanted(old, None, 0.0)
    new, previous = rollout.release.served(), rollout.previous
    if not rollout.is_in_front:
        step = rollout.step
        return Wanted(old, new, step.share, replay_of(rollout), step.ahead)
    is_watched = previous is not None and rollout.steps[-1].kind == "watching"
    return Wanted(new, previous.served() if previous and is_watched else None, 0.0)


def replay_of(rollout: Rollout) -> ReplayWanted | None:
    """Return what of the log a shadow step is judged by as well; None: nothing."""
    rules, step = rollout.rules, rollout.step
    if step.kind != "shadow" or rules.shadow_from != "replay":
        return None
    return ReplayWanted(hours=rules.replay_hours, labelled_rows=step.rows)


def rollout_id(release: Release) -> str:
    """Return the id of a version's rollout: one approval, one rollout."""
    return derived_id(release.origin.id, "rollout", 0)


def is_stale(serving: Serving, report: ScorerReported | ShadowReplayed) -> bool:
    """Whether a report is about an earlier generation than the present one."""
    return report.generation < serving.generation


def heard(serving: Serving, report: ScorerReported) -> Serving:
    """Return the state after a sign of life: who sent it lives, who is late is gone.

    By the times of the events, so that a deployer that reads them late comes to the
    same. Other reports tell nothing of who lives.
    """
    if report.lease_seconds is None:
        return serving
    lease, now = timedelta(seconds=report.lease_seconds), report.meta.time
    if serving.heard_at is not None:
        now = max(now, serving.heard_at)
    alive = {name: until for name, until in serving.replicas.items() if until > now}
    return serving.model_copy(
        update={
            "replicas": alive | {report.replica: report.meta.time + lease},
            "heard_at": now,
            "all_known_at": serving.all_known_at or now + lease,
        }
    )


def recovered(desired: ServingDesired, spec: PipelineSpec) -> Serving:
    """Return the state behind what scorers were last asked for.

    For a deployer that has lost its database: it goes on from what is served, and
    does not take the next version for a first one. A running rollout goes on with
    its step from the beginning (a rolling one with warming); earlier champions are
    forgotten, and so is whether a version waits to be promoted. Of versions that were
    taken back the number is known: reading their approvals anew does not roll them out.
    """
    champion, candidate = desired.champion, desired.candidate
    state = Serving(
        pipeline=desired.pipeline,
        environment=desired.environment,
        generation=desired.generation,
        taken_back=tuple(desired.taken_back),
    )
    if champion is None:
        return state
    origin = replace(desired.meta, id=desired.meta.causation_id or desired.meta.id)
    old, new = _release(champion, origin), None
    if candidate is not None:
        new = _release(candidate, origin)
        if new.version < old.version:
            old, new = new, old  # the newer one answers, the older is kept for watching
    state = state.model_copy(update={"deployed": (old,)})
    if new is None:
        return state
    steps = plan(spec.rollout, has_champion=True)
    is_in_front = new.version == champion.version
    share = 1.0 if is_in_front else desired.candidate_share
    shares = [step.share for step in steps]  # those of full and watching are 1
    position = shares.index(share) if share in shares else 0
    rollout = Rollout(
        rollout_id=rollout_id(new),
        release=new,
        previous=old,
        rules=spec.rollout,
        steps=steps,
        position=position,
    )
    return state.model_copy(update={"rollout": rollout})


def _release(model: ServedModel, origin: Meta) -> Release:
    return Release(version=model.version, package=model.package, origin=origin)
