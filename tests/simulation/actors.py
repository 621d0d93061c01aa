"""Who is outside of a world's services: people, and scorers with those who measure.

They act on the log as the real ones do: with ids that follow from what they act on, so
that one who is asked twice says the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from driftloop.contracts.events import (
    ApprovalExpired,
    ApprovalGiven,
    ApprovalRequested,
    Measurement,
    ModelRegistered,
    ModelTrained,
    PairedComparison,
    PerformanceMeasured,
    ScorerReported,
    ServedModel,
    ServingDesired,
    Span,
    VersionReport,
)
from driftloop.contracts.identity import AuditNoted

from tests.simulation.kinds import fate_of
from tests.simulation.world import Actor
from tests.unit.trainer.cases import day

AUTHOR = "ann"
ROWS = 24
LEASE_S = 90.0
MOST_MEASUREMENTS = 30
"""Of one generation: a step that does not end by so many is held, or a fault."""
REPLICAS = ("a", "b")


def audit(number: str, subject: str) -> AuditNoted:
    return AuditNoted(
        subject=subject,
        credential="token:0123456789abcdef",
        service="registry",
        action="approve",
        method="POST",
        path=f"/api/v1/models/{number}/approve",
        outcome="asked",
    )


@dataclass
class People(Actor):
    """They answer each question once, some late, some at the same moment."""

    answered: set[tuple[int, int]] = field(default_factory=set)

    def act(self) -> bool:
        return self._answer(is_last_call=False)

    def settle(self) -> bool:
        return self._answer(is_last_call=True)

    def _answer(self, *, is_last_call: bool) -> bool:
        for asked in self.world.events(ApprovalRequested):
            key = (asked.version, asked.request)
            if key in self.answered:
                continue
            dice = Random(f"people/{self.world.seed}/{key}")
            mood = dice.choice(
                ["yes"] * 5 + ["no", "both", "author", "wrong", "late", "late"]
            )
            if mood == "late" and not is_last_call:
                continue
            if any(e.version == asked.version for e in self._expired()):
                mood = "yes"
            self.answered.add(key)
            self._say(asked, mood)
            return True
        return False

    def _expired(self) -> list[ApprovalExpired]:
        return self.world.events(ApprovalExpired)

    def _say(self, asked: ApprovalRequested, mood: str) -> None:
        """Say what the mood leads to; enough others say yes unless one says no."""
        if mood == "author":
            self._give(asked, AUTHOR, "approve")
        if mood == "wrong":
            self._give(asked, "carl", "approve", digest="0" * 64)
        yes = [f"bob{number}" for number in range(asked.people)]
        if mood in {"no", "both"}:
            self._give(asked, "eve", "reject")
        if mood != "no":
            for name in yes:
                self._give(asked, name, "approve")

    def _give(
        self, asked: ApprovalRequested, by: str, decision: str, digest: str = ""
    ) -> None:
        name = f"{decision}-{by}-{asked.version}-{asked.request}"
        self.world.say(audit(name, by), f"audit-{name}")
        given = ApprovalGiven.model_validate(
            {
                "pipeline": asked.pipeline,
                "version": asked.version,
                "decision": decision,
                "by": by,
                "reason": "as I see it",
                "package_digest": digest or asked.package.digest,
                "request": asked.request,
            }
        )
        self.world.say(given, name)


@dataclass
class Scorers(Actor):
    """Two replicas that load what is desired, and the monitor that compares versions.

    Attributes
    ----------
    serves : version that each replica answers with.
    """

    serves: dict[str, int | None] = field(default_factory=dict)
    reported: dict[str, int] = field(default_factory=dict)
    measured: int = 0
    measurements: dict[int, int] = field(default_factory=dict)

    def act(self) -> bool:
        wish = self._wish()
        if wish is None:
            return False
        for replica in REPLICAS:
            if self.reported.get(replica, 0) < wish.generation:
                self._load(replica, wish)
                return True
        return self.world.dice.random() < 0.1 and self._measure(wish)

    def settle(self) -> bool:
        wish = self._wish()
        return wish is not None and self._measure(wish)

    def _wish(self) -> ServingDesired | None:
        wishes = self.world.events(ServingDesired)
        return max(wishes, key=lambda wish: wish.generation, default=None)

    def fate(self, version: int) -> str:
        digest = next(
            e.package.digest
            for e in self.world.events(ModelRegistered)
            if e.version == version
        )
        job = next(
            e.job_id
            for e in self.world.events(ModelTrained)
            if e.package.digest == digest
        )
        return fate_of(self.world.seed, job)

    def _load(self, replica: str, wish: ServingDesired) -> None:
        states = []
        loaded = []
        for role in ("champion", "candidate"):
            model: ServedModel | None = getattr(wish, role)
            if model is None:
                continue
            is_bad = self.fate(model.version) == "cannot_be_served"
            if not is_bad:
                loaded.append(model.version)
            states.append(
                VersionReport.model_validate(
                    {
                        "version": model.version,
                        "role": role,
                        "state": "failed" if is_bad else "ready",
                        "detail": "it answers NaN" if is_bad else "",
                    }
                )
            )
        champion = wish.champion
        if champion is None:
            self.serves[replica] = None
        elif champion.version in loaded:
            self.serves[replica] = champion.version
        self.reported[replica] = wish.generation
        self._report(replica, wish, states, f"{replica}/{wish.generation}")

    def _report(
        self,
        replica: str,
        wish: ServingDesired,
        states: list[VersionReport],
        name: str,
    ) -> None:
        report = ScorerReported(
            pipeline=wish.pipeline,
            replica=replica,
            generation=wish.generation,
            versions=states,
            lease_seconds=LEASE_S,
        )
        self.world.say(report, f"report-{name}")

    def _measure(self, wish: ServingDesired) -> bool:
        """Measure both versions of a comparison on some more rows."""
        champion, candidate = wish.champion, wish.candidate
        count = self.measurements.get(wish.generation, 0)
        if champion is None or candidate is None or count > MOST_MEASUREMENTS:
            return False
        self.measurements[wish.generation] = count + 1
        self.measured += 1
        if self.measured % 3 == 0:
            for replica in REPLICAS:
                self._beat(replica, wish)
        one, other = self._loss(champion.version), self._loss(candidate.version)
        number = self.measured
        span = Span(start=day(100 + number), end=day(101 + number))
        self.world.say(
            PerformanceMeasured(
                pipeline=wish.pipeline,
                span=span,
                row_count=ROWS,
                measurements=[
                    Measurement(
                        version=champion.version, role="champion", metric="mae",
                        value=one,
                    ),
                    Measurement(
                        version=candidate.version, role="candidate", metric="mae",
                        value=other,
                    ),
                ],
                comparison=PairedComparison(
                    mean_difference=other - one, standard_error=0.5, row_count=ROWS
                ),
            )
        )  # fmt: skip
        return True

    def _beat(self, replica: str, wish: ServingDesired) -> None:
        """Give a sign of life, which names what is in memory."""
        roles = (("champion", wish.champion), ("candidate", wish.candidate))
        states = [
            VersionReport.model_validate(
                {"version": model.version, "role": role, "state": "ready"}
            )
            for role, model in roles
            if model is not None and self.fate(model.version) != "cannot_be_served"
        ]
        self._report(replica, wish, states, f"beat-{replica}-{self.measured}")

    def _loss(self, version: int) -> float:
        is_worse = self.fate(version) == "worse_live"
        return 15.0 if is_worse else 10.0 - 0.1 * version


__all__ = ["AUTHOR", "People", "Scorers", "audit"]
