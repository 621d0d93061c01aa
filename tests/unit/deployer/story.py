"""Short ways to write a deployer's story in a test."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    Measurement,
    PackageRef,
    PairedComparison,
    PerformanceMeasured,
    RollbackRequested,
    RolloutSteered,
    ScorerReported,
    ServingDesired,
    ShadowReplayed,
    Span,
    VersionReport,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.deployer import core
from driftloop.deployer.state import Release, Serving

NAME = "bike-demand"
START = datetime(2011, 1, 1, tzinfo=UTC)
E = TypeVar("E", bound=Event)


def spec(**rollout: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": NAME,
            "task": "regression",
            "owner": "ada",
            "data": {"target": "cnt"},
            "rollout": rollout,
        }
    )


def heard(event: E, at: datetime = START) -> E:
    """Return an event as one that was sent at a time."""
    return event.with_meta(Meta("e", at, "/driftloop/test", Chain("c")))


def package(version: int) -> PackageRef:
    digest = f"{version:064x}"
    return PackageRef(uri=f"artifact:sha256/{digest}", digest=digest, signer="k")


def meta(version: int) -> Meta:
    return Meta(
        id=f"approval-{version}",
        time=START,
        source="/driftloop/registry",
        chain=Chain(f"chain-{version}"),
    )


def release(version: int) -> Release:
    return Release(version=version, package=package(version), origin=meta(version))


def measured(
    candidate: int,
    champion: int,
    *,
    ratio: float = 0.9,
    rows: int = 24,
    error: float = 0.5,
    loss: float = 10.0,
    at: datetime = START,
) -> PerformanceMeasured:
    """Return a measurement; ``error`` is the standard error of the difference."""
    span = Span(start=START, end=START + timedelta(days=1))
    event = PerformanceMeasured(
        pipeline=NAME,
        span=span,
        row_count=rows,
        measurements=[
            Measurement(version=champion, role="champion", metric="mae", value=loss),
            Measurement(
                version=candidate, role="candidate", metric="mae", value=loss * ratio
            ),
        ],
        comparison=PairedComparison(
            mean_difference=loss * (ratio - 1), standard_error=error, row_count=rows
        ),
    )
    return heard(event, at)


def replayed(
    generation: int,
    candidate: int,
    champion: int,
    *,
    rows: int = 24,
    failed: int = 0,
    **fields: Any,
) -> ShadowReplayed:
    """Return a replay of ``rows`` labelled rows; other fields as of `measured`."""
    seen = measured(candidate, champion, rows=max(rows, 1), **fields)
    event = ShadowReplayed(
        pipeline=NAME,
        generation=generation,
        replica="0",
        champion_version=champion,
        candidate_version=candidate,
        since=START,
        until=START + timedelta(days=7),
        learned_until=START,
        learned_count=10,
        row_count=rows + failed,
        span=seen.span if rows else None,
        labelled_count=rows,
        wanted_count=100,
        is_enough=rows >= 100,
        error_count=failed,
        champion_error_count=0,
        compared_count=rows,
        different_count=rows,
        measurements=seen.measurements if rows else [],
        comparison=seen.comparison if rows else None,
    )
    return heard(event)


def reported(
    generation: int,
    *versions: int,
    replica: str = "0",
    at: datetime = START,
    lease: float | None = None,
    **fields: Any,
) -> ScorerReported:
    event = ScorerReported(
        pipeline=NAME,
        replica=replica,
        generation=generation,
        versions=[
            VersionReport(
                version=version, role="candidate", **({"state": "ready"} | fields)
            )
            for version in versions
        ],
        lease_seconds=lease,
    )
    return heard(event, at)


def rollback(to_version: int | None = None) -> RollbackRequested:
    return heard(
        RollbackRequested(
            pipeline=NAME,
            requested_by="bob",
            reason="odd numbers",
            to_version=to_version,
        )
    )


@dataclass
class Story:
    """Runs events through the core and keeps what it tells."""

    spec: PipelineSpec = field(default_factory=spec)
    serving: Serving = field(default_factory=lambda: Serving(pipeline=NAME))
    told: list[Event] = field(default_factory=list)

    def then(self, change: core.Change) -> list[Event]:
        self.serving = change.serving
        self.told += change.events
        return change.events

    def approve(self, version: int, at: datetime = START) -> list[Event]:
        approved = release(version)
        approved = approved.model_copy(
            update={"origin": replace(approved.origin, time=at)}
        )
        return self.then(core.approve(self.serving, approved, self.spec))

    def measure(self, event: PerformanceMeasured) -> list[Event]:
        return self.then(core.measure(self.serving, event, self.spec))

    def replay(self, candidate: int, champion: int, **fields: Any) -> list[Event]:
        generation = max(self.serving.generation, 1)
        event = replayed(generation, candidate, champion, **fields)
        return self.then(core.replay(self.serving, event, self.spec))

    def report(self, *versions: int, **fields: Any) -> list[Event]:
        event = reported(self.serving.generation, *versions, **fields)
        return self.then(core.report(self.serving, event, self.spec))

    def roll_back(self, to_version: int | None = None) -> list[Event]:
        return self.then(core.roll_back(self.serving, rollback(to_version), self.spec))

    def steer(self, action: Any, version: int, at: datetime = START) -> list[Event]:
        event = RolloutSteered(
            pipeline=NAME,
            action=action,
            version=version,
            requested_by="bob",
            reason="month's end",
        )
        return self.then(core.steer(self.serving, heard(event, at), self.spec))

    def deploy(self, version: int) -> None:
        """Bring a version all the way into service, watching included."""
        self.approve(version)
        previous = self.serving.champion
        while self.serving.rollout is not None:
            if self.serving.rollout.step.kind == "full":
                self.report(version)
            elif self.step == "watching":
                assert previous is not None
                self.measure(measured(previous.version, version, ratio=1.1, rows=50))
            else:
                assert previous is not None
                self.measure(measured(version, previous.version, rows=50))

    @property
    def step(self) -> str | None:
        return self.serving.rollout.step.name if self.serving.rollout else None

    @property
    def champion(self) -> int | None:
        return self.serving.champion.version if self.serving.champion else None

    def last(self, event: type[E]) -> E:
        return [e for e in self.told if isinstance(e, event)][-1]

    def desired(self) -> tuple[int | None, int | None, float]:
        """Champion, candidate and its share, as last asked of the scorers."""
        last = self.last(ServingDesired)
        return (
            last.champion.version if last.champion else None,
            last.candidate.version if last.candidate else None,
            last.candidate_share,
        )


def of(events: list[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]
