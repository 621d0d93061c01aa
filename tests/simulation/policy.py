"""The world of decisions: trainer, registry and deployer are real, the rest acts."""

from __future__ import annotations

from random import Random
from typing import Any

from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    DatasetVersioned,
    DriftDetected,
    DriftEnded,
    ModelDeployed,
    RetrainRequested,
    RollbackRequested,
    RolloutAdvanced,
    RolloutSteered,
    Span,
    TrainingCancelRequested,
    TrainingStarted,
)
from driftloop.contracts.pipeline import PipelineSpec

from tests.simulation.actors import AUTHOR, People, Scorers, audit
from tests.simulation.faults import FaultyWorld
from tests.simulation.kinds import KINDS
from tests.simulation.scenario import Scenario
from tests.simulation.world import Actor
from tests.unit.trainer import cases

NAME = cases.NAME
SERVICES = ("trainer", "registry", "deployer")
STORM = 6
FAULT_RATIO, ENDED_RATIO = 0.3, 0.7


def spec_of(scenario: Scenario) -> PipelineSpec:
    how = scenario.options
    rows = {"shadow_rows": 20, "step_rows": 20}
    return cases.spec(
        automation=how["automation"],
        owner="ada",
        retrain={
            "first_rows": 1000,
            "every_rows": 3000,
            "cooldown_days": how["cooldown_days"],
        },
        rollout={
            "strategy": how["strategy"],
            "steps": how["steps"],
            "watch_rows": how["watch_rows"],
            "approval": {"people": how["people"]},
            **rows,
        },
    )


class Resuming(Actor):
    """Lets a rollout go on that a person holds, once all else is done."""

    said = 0

    def act(self) -> bool:
        return False

    def settle(self) -> bool:
        told = [
            e
            for e in self.world.events(RolloutAdvanced)
            if e.verdict == "held" and e.detail.startswith("by ")
        ]
        if self.said >= len(told):
            return False
        event = told[self.said]
        self.said += 1
        self.world.say(
            RolloutSteered(
                pipeline=NAME,
                action="resume",
                version=event.version,
                requested_by="bob",
                reason="Monday",
            )
        )
        return True


class Deciding(FaultyWorld):
    """What people and the monitor may ask for in any world of decisions."""

    until = 0.0
    """Day of event time that the data have come to."""

    @property
    def champion(self) -> int | None:
        deployed = self.events(ModelDeployed)
        return max((e.version for e in deployed), default=None)

    def do_drift(self, number: int) -> None:
        dice = Random(number)
        event: DriftDetected = cases.drift(
            self.until + dice.choice([-4, 0, 1, 2]),
            version=self.champion,
            retrain_advised=dice.random() < 0.8,
        )
        if dice.random() < FAULT_RATIO:
            self._say_fault(event, dice)
        else:
            self.say(event)

    def _say_fault(self, event: DriftDetected, dice: Random) -> None:
        """Say that something is wrong, and mostly that it is over, in either order."""
        wrong: dict[str, Any] = {
            "cause": "sensor_fault",
            "retrain_advised": False,
            "features": ["a"],
            "faulty": "rows",
        }
        said: list[Event] = [event.model_copy(update=wrong)]
        if dice.random() < ENDED_RATIO:
            said.append(
                DriftEnded(
                    pipeline=NAME,
                    cause="sensor_fault",
                    features=["a"],
                    since=event.since,
                    until=event.detected_at,
                    detected_at=event.detected_at,
                )
            )
        dice.shuffle(said)
        for each in said:
            self.say(each)

    def do_storm(self, number: int) -> None:
        for each in range(STORM):
            self.do_drift(number + each)

    def do_retrain(self, number: int) -> None:
        by = (AUTHOR, "dora")[number % 2]
        self.say(RetrainRequested(pipeline=NAME, requested_by=by, reason="to see"))

    def do_cancel(self, _: int) -> None:
        started = self.events(TrainingStarted)
        job = started[-1].job_id if started else "unknown"
        self.say(
            TrainingCancelRequested(
                pipeline=NAME, job_id=job, requested_by="bob", reason="not now"
            )
        )

    def do_rollback(self, number: int) -> None:
        deployed = sorted({e.version for e in self.events(ModelDeployed)})
        to = Random(number).choice([None, None, *deployed])
        self.say(
            RollbackRequested(
                pipeline=NAME, requested_by="bob", reason="odd numbers", to_version=to
            )
        )

    def do_steer(self, number: int) -> None:
        told = self.events(RolloutAdvanced)
        if told:
            self.say(
                RolloutSteered.model_validate(
                    {
                        "pipeline": NAME,
                        "action": Random(number).choice(["hold", "resume", "promote"]),
                        "version": max(e.version for e in told),
                        "requested_by": "bob",
                        "reason": "month's end",
                    }
                )
            )

    def do_audit(self, number: int) -> None:
        self.say(audit(str(number), "carl"))


class PolicyWorld(Deciding):
    """Validator, monitor and scorers are stood in for."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(
            scenario, [KINDS[name] for name in SERVICES], spec_of(scenario)
        )
        self.scorers = Scorers(self)
        self.actors = [People(self), self.scorers, Resuming(self)]
        self._labels = self._datasets = 0

    def serves(self) -> dict[str, int | None]:
        return dict(self.scorers.serves)

    def do_data(self, count: int) -> None:
        """Tell of another dataset version, as the validator does."""
        self._labels += count
        self.until += 5.0
        self._datasets += 1
        event = DatasetVersioned(
            pipeline=NAME,
            kind="observations",
            dataset=cases.dataset(self._datasets),
            added_count=count,
            observation_count=self._labels,
            label_count=self._labels,
            span=Span(start=cases.day(0), end=cases.day(self.until)),
        )
        self.say(event)
