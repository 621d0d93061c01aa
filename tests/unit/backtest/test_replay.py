"""Recorded events in the order that the log proves, and decisions made again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from driftloop.backtest.errors import BacktestError
from driftloop.backtest.replay import (
    Decision,
    RecordedEvent,
    ReplayPlan,
    decisions,
    handled,
    replay,
)
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    DatasetRef,
    PipelineApplied,
    TableRef,
    TrainingFailed,
    TrainingStarted,
)

from tests.unit.trainer.cases import NAME, START, drift, spec, versioned


def at(event: Event, seconds: float, name: str, cause: str | None = None) -> Event:
    time = START + timedelta(seconds=seconds)
    return event.with_meta(Meta(name, time, "/test", Chain(name), cause))


def version(number: int, labels: int, end: float) -> Event:
    table = DatasetRef(observations=TableRef(uri="t", version=number))
    return versioned(labels, end).model_copy(update={"dataset": table})


def started(number: int, template: TrainingStarted) -> TrainingStarted:
    table = DatasetRef(observations=TableRef(uri="t", version=number))
    return template.model_copy(update={"dataset": table})


@pytest.fixture
def log() -> list[Event]:
    """A first model, a verdict in its cooldown, new rows, a verdict after it."""
    taken = [
        at(version(1, 1500, 60), 0, "v1"),
        at(drift(60), 10, "d1"),
        at(version(2, 2000, 70), 20, "v2"),
        at(drift(70), 30, "d2"),
        at(drift(71, cause="sensor_fault", retrain_advised=False), 40, "d3"),
    ]
    made = decisions_with_ends(taken)
    return [at(_applied(), 0, "file"), *taken, *made]


def _applied() -> PipelineApplied:
    return PipelineApplied(pipeline=NAME, spec=spec(), applied_by="ada")


def decisions_with_ends(taken: list[Event]) -> list[Event]:
    """Return what the trainer says, and that each job failed a second after it."""
    known: list[Event] = []
    for count in range(1, len(taken) + 1):
        order = handled([*taken[:count], *known])
        found = decisions(order, spec(), _recorded(known))
        for decision in found[len(_recorded(known)) :]:
            cause = decision.event.trigger.event_id
            number = f"{cause}-{len(known)}"
            seconds = (decision.at - START).total_seconds() + 1
            known.append(at(decision.event, seconds, number, cause))
            if isinstance(decision.event, TrainingStarted):
                known.append(at(_failed(decision.event), seconds + 1, f"{number}-end"))
    return known


def _failed(event: TrainingStarted) -> TrainingFailed:
    return TrainingFailed(
        pipeline=NAME,
        job_id=event.job_id,
        trigger=event.trigger,
        error="no",
        attempts=1,
    )


def _recorded(events: list[Event]) -> list[Decision]:
    said = [e for e in events if e.topic() in ("training-started", "training-skipped")]
    return [Decision(event, event.meta.time) for event in said]  # type: ignore[arg-type]


def plan_of(events: list[Event], *policies: str, name: str = NAME) -> ReplayPlan:
    def entry(event: Event) -> RecordedEvent:
        meta = event.meta
        return RecordedEvent(
            topic=event.topic(), body=event.model_dump_json(), id=meta.id,
            time=meta.time, source=meta.source, chain_id=meta.chain.id,
            causation_id=meta.causation_id,
        )  # fmt: skip

    entries = [entry(event) for event in events]
    return ReplayPlan(
        kind="replay", pipeline=name, policies=list(policies), entries=entries
    )


def of(answer: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(p for p in answer["policies"] if p["name"] == name)
    return found


def test_the_same_policy_makes_the_same_decisions(log: list[Event]) -> None:
    answer = replay(plan_of(list(reversed(log))))
    assert len(answer["recorded"]) >= 3
    assert of(answer, "pipeline")["differences"] == []


def test_another_policy_differs_where_it_says_so(log: list[Event], tmp_path) -> None:
    eager = tmp_path / "eager.yaml"
    eager.write_text("{retrain: {on_drift: false}, gate: {confidence: 0.9}}")
    found = of(replay(plan_of(log, str(eager))), "eager")
    assert found["differences"][0]["replayed"]["outcome"] == "automation_advise"
    assert found["as_recorded"] == ["gate"]
    assert found["trainings"] < sum(isinstance(event, TrainingStarted) for event in log)


def test_a_decision_that_is_missing_in_the_record_is_told(log: list[Event]) -> None:
    cut = [event for event in log if event.meta.causation_id != "d3"]
    assert len(cut) == len(log) - 1
    (difference,) = of(replay(plan_of(cut)), "pipeline")["differences"]
    assert difference["recorded"] is None


@pytest.mark.parametrize(("planned_on", "order"), [(1, "v1 d v2"), (2, "v1 v2 d")])
def test_a_version_was_known_when_a_training_was_planned_on_it(
    log: list[Event], planned_on: int, order: str
) -> None:
    template = next(event for event in log if isinstance(event, TrainingStarted))
    events = [
        at(version(2, 3000, 70), 1.5, "v2"),
        at(drift(70), 1, "d"),
        at(version(1, 1500, 60), 0, "v1"),
        at(started(planned_on, template), 2, "t", cause="d"),
    ]
    assert " ".join(event.meta.id for event in handled(events)) == order


def test_a_version_that_was_written_late_was_not_known(log: list[Event]) -> None:
    """By the clocks it came first; the training did not know it."""
    template = next(event for event in log if isinstance(event, TrainingStarted))
    events = [
        at(version(1, 1500, 60), 0, "v1"),
        at(version(2, 3000, 70), 0.5, "v2"),
        at(drift(70), 1, "d"),
        at(started(1, template), 2, "t", cause="d"),
    ]
    assert [event.meta.id for event in handled(events)] == ["v1", "d", "v2"]


def test_a_pipeline_that_is_not_in_the_log_is_named(log: list[Event]) -> None:
    with pytest.raises(BacktestError, match="no pipeline 'city'"):
        replay(plan_of(log, name="city"))
