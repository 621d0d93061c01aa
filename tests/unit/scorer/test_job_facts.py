"""What the log says of a pipeline: which requests can be answered, which cannot."""

from __future__ import annotations

import itertools

import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    DatasetRef,
    DatasetVersioned,
    ModelDeployed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    PackageRef,
    ServedModel,
    TableRef,
)
from driftloop.contracts.scoring import (
    ScoringCancelled,
    ScoringFailed,
    ScoringPlan,
    ScoringStarted,
)
from driftloop.scorer.jobs.facts import CannotScore, Facts

from tests.unit.scorer import packages
from tests.unit.scorer.packages import INPUTS, MONTH, NAME

PACKAGE = PackageRef(uri="artifact:x", digest="a" * 64, signer="trainer")


def dataset(observations: int, labels: int | None = None) -> DatasetRef:
    later = None if labels is None else TableRef(uri="labels", version=labels)
    return DatasetRef(
        observations=TableRef(uri="rows", version=observations), labels=later
    )


def versioned(observations: int, labels: int | None = None) -> Event:
    return DatasetVersioned(
        pipeline=NAME, kind="observations", dataset=dataset(observations, labels),
        added_count=1, observation_count=1, label_count=0, span=MONTH,
    )  # fmt: skip


def registered(version: int) -> Event:
    evaluation = packages.manifest(NAME, INPUTS, is_binary=False).evaluation
    return ModelRegistered(
        pipeline=NAME, version=version, job_id="job", package=PACKAGE,
        algorithm="sum", evaluation=evaluation, gate=[],
    )  # fmt: skip


def deployed(version: int, generation: int) -> Event:
    return ModelDeployed(
        pipeline=NAME, rollout_id="r", version=version, package=PACKAGE,
        generation=generation,
    )  # fmt: skip


def back(version: int, generation: int, restored: int | None = None) -> Event:
    served = None if restored is None else model(restored)
    return ModelRolledBack(
        pipeline=NAME, rollout_id="r", version=version, generation=generation,
        restored=served, reason="it was worse",
    )  # fmt: skip


def model(version: int) -> ServedModel:
    return ServedModel(version=version, package=PACKAGE)


def facts(*events: Event, wanted: str = "latest") -> Facts:
    found = Facts(NAME, wanted)
    for event in events:
        found.take(event)
    return found


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("latest", dataset(2, 5)),
        ("1", dataset(1, 4)),  # the last labels before the observations went on
        ("1.3", dataset(1, 3)),
        ("0", dataset(0)),
        ("0.0", dataset(0)),
    ],
)
def test_a_version_has_the_name_that_people_give_it(
    name: str, found: DatasetRef
) -> None:
    told = [versioned(0), versioned(1, 3), versioned(1, 4), versioned(2, 5)]
    for order in itertools.permutations(told):
        assert facts(*order, wanted=name).dataset() == found


@pytest.mark.parametrize("name", ["3", "1.5", "-1", "", "x", "1.", "01"])
def test_another_name_is_none(name: str) -> None:
    with pytest.raises(CannotScore, match="it goes from 1.3 to 2.0") as error:
        facts(versioned(1, 3), versioned(2), wanted=name).dataset()
    assert error.value.remedy.endswith(f"datasets show {NAME} --all")


def test_without_rows_there_is_no_dataset() -> None:
    with pytest.raises(CannotScore, match="has no dataset"):
        facts().dataset()


def test_the_champion_is_taken_unless_another_one_is_named() -> None:
    told = facts(versioned(0), registered(1), registered(2))
    assert told.choose(None, model(1)) == (dataset(0), model(1))
    assert told.choose(2, model(1)) == (dataset(0), model(2))
    assert told.choose(2, None) == (dataset(0), model(2))


@pytest.mark.parametrize(
    ("version", "why"),
    [
        (None, "no version of bike-demand is in service"),
        (9, "has no version 9"),
        (2, "version 2 was refused: too slow"),
        (3, "version 3 was taken back: it was worse"),
    ],
)
def test_other_versions_cannot_be_asked(version: int | None, why: str) -> None:
    told = [
        versioned(0), registered(1), registered(2), registered(3),
        ModelRejected(pipeline=NAME, version=2, reasons=["too slow"], rejected_by="x"),
        deployed(3, 7), back(3, 7, restored=1),
    ]  # fmt: skip
    for order in (told, told[::-1]):
        with pytest.raises(CannotScore, match=why) as error:
            facts(*order).choose(version, None)
        assert error.value.remedy
        assert facts(*order).choose(1, None)[1] == model(1)  # control


def test_a_version_that_came_back_may_be_asked_again() -> None:
    """By a later rollout, or as the one that another one's end has restored."""
    told = [registered(3), back(3, 4), deployed(3, 6)]
    for order in itertools.permutations(told):
        assert facts(*order).model(3, None) == model(3)
    told = [registered(3), back(3, 4), back(5, 8, restored=3)]
    for order in itertools.permutations(told):
        assert facts(*order).model(3, None) == model(3)


def test_what_was_said_of_a_job_is_known() -> None:
    plan = ScoringPlan(
        dataset=dataset(0), version=1, package=PACKAGE, answers_uri="x", row_count=1
    )
    told = facts(
        ScoringStarted(pipeline=NAME, job_id="a", plan=plan, requested_by="ann"),
        ScoringCancelled(pipeline=NAME, job_id="b", cancelled_by="x", reason=""),
        ScoringFailed(
            pipeline=NAME, job_id="c", dataset="1", error="e", remedy="r",
            attempts=1, requested_by="ann",
        ),
    )  # fmt: skip
    assert told.ends == {"b": "cancelled", "c": "failed"}
    assert [told.plan_of(job) for job in "ab"] == [plan, None]
