"""Rollouts: the deployer's core, and a scorer that has whatever is wanted at once."""

from driftloop.backtest.inprocess import caused, meta_of
from driftloop.contracts.base import Event, Meta, derived_id
from driftloop.contracts.events import (
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
from driftloop.scorer.core import Answers, differing

REPLICA = "backtest"
LEASE_S = 1.0
"""Of the only replica; it gives a sign of life with each batch."""


class ServingSide:
    """What answers, and how versions get there."""

    def __init__(self, spec: PipelineSpec) -> None:
        self._spec = spec
        self._state = Serving(pipeline=spec.name)
        self._reports = 0

    @property
    def wanted(self) -> Wanted:
        return wanted(self._state)

    @property
    def is_rolling_out(self) -> bool:
        return self._state.rollout is not None

    def approve(self, version: int, package: PackageRef, cause: Meta) -> list[Event]:
        """Take a version that has passed the gate; people say yes at once."""
        release = Release(version=version, package=package, origin=cause)
        return self._after(
            core.approve(self._state, release, self._spec, cause.time), cause
        )

    def measured(self, event: PerformanceMeasured) -> list[Event]:
        """Judge the step that runs."""
        if not self.is_rolling_out:
            return []
        return self._after(core.measure(self._state, event, self._spec), event.meta)

    def scored(
        self, champion: Answers, candidate: Answers | None, cause: Meta
    ) -> list[Event]:
        """Tell of a batch that was scored; a sign of life, too."""
        if not self.is_rolling_out:
            return []
        tolerance = self._spec.rollout.prediction_tolerance
        compared = (0, 0)
        if candidate is not None:
            compared = differing(champion, candidate, tolerance)
        return self._reported(cause, {"champion": champion, "candidate": candidate},
                              compared)  # fmt: skip

    def _reported(
        self,
        cause: Meta,
        answers: dict[Role, Answers | None],
        compared: tuple[int, int] = (0, 0),
    ) -> list[Event]:
        champion, candidate, *_ = self.wanted
        roles: tuple[Role, Role] = ("champion", "candidate")
        versions = [
            _report(model.version, role, answers.get(role), compared)
            for role, model in zip(roles, (champion, candidate), strict=True)
            if model is not None
        ]
        self._reports += 1
        event = ScorerReported(
            pipeline=self._spec.name,
            replica=REPLICA,
            generation=self._state.generation,
            versions=versions,
            lease_seconds=LEASE_S,
        )
        number = derived_id(f"{REPLICA}/{self._reports}", event.topic(), 0)
        event = event.with_meta(meta_of(number, cause.time, cause))
        return self._after(core.report(self._state, event, self._spec), event.meta)

    def _after(self, change: core.Change, cause: Meta) -> list[Event]:
        self._state = change.serving
        told = caused(change.events, cause)
        if any(isinstance(event, ServingDesired) for event in told):
            told += self._reported(cause, {})
        return told


def _report(
    version: int, role: Role, said: Answers | None, compared: tuple[int, int]
) -> VersionReport:
    if said is None:
        return VersionReport(version=version, role=role, state="ready")
    rows, differ = compared if role == "candidate" else (0, 0)
    return VersionReport(
        version=version,
        role=role,
        state="ready",
        row_count=len(said.prediction),
        error_count=said.error_count,
        compared_count=rows,
        differing_count=differ,
    )
