"""Rollouts: the deployer's core, and a scorer that has whatever is wanted at once."""

from dataclasses import dataclass

from driftloop.backtest.inprocess import caused, meta_of
from driftloop.contracts.base import Event, Meta, derived_id
from driftloop.contracts.events import (
    BatchScored,
    PackageRef,
    PerformanceMeasured,
    Role,
    ScorerReported,
    ServingDesired,
    VersionReport,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.deployer import core
from driftloop.deployer.state import Release, Serving, Wanted, wanted
from driftloop.scorer.core import Answers, Tally, differing
from driftloop.scorer.settings import ScorerSettings

REPLICA = "backtest"
LEASE_S = 1.0
"""Of the only replica, which is never gone."""
REPORT_EVERY: int = ScorerSettings.model_fields["report_every"].default


@dataclass(frozen=True)
class Answered:
    """A batch that was answered, by the champion and maybe a candidate."""

    event: BatchScored
    generation: int
    champion: Answers
    candidate: Answers | None


class ServingSide:
    """What answers, and how versions get there."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._spec = spec
        self._state = Serving(pipeline=spec.name)
        self._reports = 0
        self._tally = Tally()

    @property
    def wanted(self) -> Wanted:
        return wanted(self._state)

    @property
    def generation(self) -> int:
        return self._state.generation

    def approve(self, version: int, package: PackageRef, cause: Meta) -> list[Event]:
        """Take a version that has passed the gate; people say yes at once."""
        release = Release(version=version, package=package, origin=cause)
        return self._after(
            core.approve(self._state, release, self._spec, cause.time), cause
        )

    def measured(self, event: PerformanceMeasured) -> list[Event]:
        """Judge the step that runs."""
        if self._state.rollout is None:
            return []
        return self._after(core.measure(self._state, event, self._spec), event.meta)

    def scored(self, batch: Answered, cause: Meta) -> list[Event]:
        """Count a batch as the scorer does, and give a sign of life.

        It tells of some batches together, and sooner where there is a candidate.
        """
        answers: dict[int, tuple[Role, Answers]] = {
            batch.event.champion_version: ("champion", batch.champion)
        }
        compared = (0, 0)
        if batch.candidate is not None and batch.event.candidate_version is not None:
            version = batch.event.candidate_version
            answers[version] = ("candidate", batch.candidate)
            tolerance = self._spec.rollout.prediction_tolerance
            compared = differing(batch.champion, batch.candidate, tolerance)
        self._tally = self._tally.added(batch.generation, answers, None, compared)
        told: list[Event] = []
        if self._tally.is_due(REPORT_EVERY):
            versions, self._tally = self._tally.report(), Tally()
            told = self._reported(cause, batch.generation, versions)
        if self._state.rollout is not None or self._state.waiting is not None:
            told += self._loaded(cause)
        return told

    def _loaded(self, cause: Meta) -> list[Event]:
        """Say that what is wanted is in memory."""
        champion, candidate, *_ = self.wanted
        roles: tuple[Role, Role] = ("champion", "candidate")
        versions = [
            VersionReport(version=model.version, role=role, state="ready")
            for role, model in zip(roles, (champion, candidate), strict=True)
            if model is not None
        ]
        return self._reported(cause, self._state.generation, versions, LEASE_S)

    def _reported(
        self,
        cause: Meta,
        generation: int,
        versions: list[VersionReport],
        lease_s: float | None = None,
    ) -> list[Event]:
        self._reports += 1
        event = ScorerReported(
            pipeline=self._spec.name,
            replica=REPLICA,
            generation=generation,
            versions=versions,
            lease_seconds=lease_s,
        )
        number = derived_id(f"{REPLICA}/{self._reports}", event.topic(), 0)
        event = event.with_meta(meta_of(number, cause.time, cause))
        return self._after(core.report(self._state, event, self._spec), event.meta)

    def _after(self, change: core.Change, cause: Meta) -> list[Event]:
        self._state = change.serving
        told = caused(change.events, cause)
        if any(isinstance(event, ServingDesired) for event in told):
            told += self._loaded(cause)
        return told
