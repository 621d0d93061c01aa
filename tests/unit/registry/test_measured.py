"""Checks on measurements: each passes, warns, blocks, or lacks its figure."""

from __future__ import annotations

from typing import Any

import pytest
from driftloop.contracts.measures import (
    Calibration,
    Degradation,
    FitVerdict,
    GroupGap,
    Measures,
    Parity,
    Refit,
    Reproducibility,
    Robustness,
    SliceResult,
)
from driftloop.contracts.pipeline import GateSection
from driftloop.registry.gate import Cost, PackageFinding, judge, passes

from tests.unit.registry import story

TRIED = PackageFinding(cost=Cost(0.5, 1.0, 3.0, 5.0))


def part(**more: Any) -> SliceResult:
    return SliceResult.model_validate(
        {
            "column": "sky", "value": "rain", "row_count": 60, "candidate": 50.0,
            "other": 40.0, "p_value": 0.001, **more,
        }
    )  # fmt: skip


def bears(**more: Any) -> Robustness:
    return Robustness.model_validate(
        {
            "row_count": 300,
            "noise": Degradation(lost=0.1, champion_lost=0.2).model_dump(),
            "missing": Degradation(lost=0.6, feature="temp").model_dump(),
            "outliers": Degradation(lost=2.0, feature="temp").model_dump(),
            "flip_ratio": 0.02,
            **more,
        }
    )


def fit(verdict: str = "good") -> FitVerdict:
    return FitVerdict.model_validate(
        {"verdict": verdict, "training_skill": 0.9, "validation_skill": 0.7,
         "holdout_skill": 0.7, "detail": f"{verdict}: as the test says"}
    )  # fmt: skip


def measures(**more: Any) -> Measures:
    """What a good model is measured to be."""
    fields = {
        "slices": [part(candidate=30.0, p_value=1.0)],
        "slice_count": 1,
        "robustness": bears(),
        "calibration": Calibration(error=0.02, bias=0.1),
        "fit": fit(),
        "parity": Parity(difference=1e-6, tolerance=1e-4),
    }
    return Measures(**{**fields, **more})


def check(name: str, found: Measures | None, **gate: Any) -> Any:
    """Return the check of this name and whether the whole gate is passed."""
    checks = judge(
        story.evaluation(measures=found and found.model_dump()),
        GateSection.model_validate(gate), TRIED,
    )  # fmt: skip
    assert len({one.name for one in checks}) == len(checks)
    mine = {one.name: one for one in checks}.get(name)
    return mine, passes(checks)


def test_a_good_model_has_all_checks_and_passes_them() -> None:
    checks = judge(
        story.evaluation(measures=measures().model_dump()), GateSection(), TRIED
    )
    assert {one.name for one in checks if not one.passed} == set()
    assert {
        "parity", "finite_answers", "no_slice_worse", "noise", "missing_features",
        "outliers", "small_changes", "calibration", "fit", "memory",
    } <= {one.name for one in checks}  # fmt: skip


BAD = {
    "no_slice_worse": ({"slices": [part()]}, {"slices": ["sky"]}),
    "noise": (
        {"robustness": bears(noise=Degradation(lost=0.6).model_dump())},
        {"robustness": {"max_noise_loss": 0.5}},
    ),
    "missing_features": (
        {"robustness": bears(missing=Degradation(lost=1.1, feature="t").model_dump())},
        {"robustness": {"max_missing_loss": 1.0}},
    ),
    "outliers": (
        {"robustness": bears(outliers=Degradation(lost=9.0, feature="t").model_dump())},
        {"robustness": {"max_outlier_loss": 5}},
    ),
    "small_changes": (
        {"robustness": bears(flip_ratio=0.2)},
        {"robustness": {"max_flip_ratio": 0.1}},
    ),
    "calibration": (
        {"calibration": Calibration(error=0.3, brier=0.2)},
        {"max_calibration_error": 0.1},
    ),
    "fit": ({"fit": fit("over_fit")}, {"fit": "block"}),
}
"""Name to a bad measurement and the key that makes it block."""


@pytest.mark.parametrize("name", BAD)
def test_a_bad_figure_warns_unless_the_file_sets_a_limit(name: str) -> None:
    bad, key = BAD[name]
    found, is_passed = check(name, measures(**bad))
    assert (found.passed, found.severity, is_passed) == (False, "warn", True)
    found, is_passed = check(name, measures(**bad), **key)
    assert (found.passed, found.severity, is_passed) == (False, "block", False)
    assert check(name, measures(), **key)[0].passed


@pytest.mark.parametrize("name", BAD)
def test_what_the_file_asks_for_has_to_be_measured(name: str) -> None:
    _, key = BAD[name]
    found, is_passed = check(name, None, **key)
    assert (found.passed, is_passed) == (False, False)
    assert "could not be measured" in found.detail
    assert check(name, None) == (None, True)  # nobody asked


HARD = {
    "parity": {"parity": Parity(difference=2e-4, tolerance=1e-4)},
    "finite_answers": {
        "robustness": bears(noise=Degradation(lost=0, non_finite_count=3).model_dump())
    },
}


@pytest.mark.parametrize("name", HARD)
def test_some_block_without_being_asked(name: str) -> None:
    found, is_passed = check(name, measures(**HARD[name]))
    assert (found.passed, found.severity, is_passed) == (False, "block", False)


@pytest.mark.parametrize(
    ("change", "is_worse"),
    [
        ({}, True),
        ({"p_value": 0.051}, False),  # may be chance
        ({"candidate": 43.9}, False),  # not material: less than 10 %
        ({"candidate": 44.1}, True),
    ],
)
def test_a_slice_is_worse_when_it_is_sure_and_matters(change, is_worse) -> None:
    found, _ = check("no_slice_worse", measures(slices=[part(**change)]))
    assert found.passed is not is_worse


def test_slices_are_named_and_the_rest_counted() -> None:
    slices = [part(value=f"v{i}") for i in range(5)]
    found, _ = check("no_slice_worse", measures(slices=slices, slice_count=5))
    assert found.detail.startswith(
        "worse on sky v0: mae 50 against 40 on 60 rows (p = 0.001); sky v1"
    )
    assert found.detail.endswith("and 2 more")
    assert (found.value, found.limit) == (5, 0)


def fair(**gap: Any) -> Measures:
    return measures(fairness=[GroupGap(column="sex", group_count=2, **gap)])


@pytest.mark.parametrize(
    ("gap", "is_passed"),
    [
        ({"difference": 0.1}, True),
        ({"difference": 0.11}, False),
        ({"loss_ratio": 1.25}, True),
        ({"loss_ratio": 1.26}, False),
        ({"detail": "one group only"}, True),
    ],
)
def test_groups_are_treated_alike(gap, is_passed) -> None:
    gate = {"fairness": {"columns": ["sex"]}}
    found, whole = check("fairness", fair(**gap), **gate)
    assert found.passed is whole is is_passed
    assert check("fairness", fair(**gap)) == (None, True)  # off by default
    missing, _ = check("fairness", measures(), **gate)
    assert "could not be measured" in missing.detail


@pytest.mark.parametrize("same", [True, False])
def test_reproducible_where_asked(same: bool) -> None:
    found = measures(reproducibility=Reproducibility(same=same, row_count=500))
    assert check("reproducible", found)[0] is None
    mine, whole = check("reproducible", found, reproducible=True)
    assert mine.passed is whole is same
    assert not check("reproducible", measures(), reproducible=True)[1]


@pytest.mark.parametrize(
    ("mean", "error", "is_passed"),
    [(-5.0, 1.0, True), (0.0, 0.0, True), (1.6, 1.0, True), (1.7, 1.0, False)],
)
def test_a_refit_must_know_the_rows_that_it_has_learned(mean, error, is_passed) -> None:
    """As the one that was judged at least, but for chance: 1.645 errors at 95 %."""
    assert check("refit", measures())[0] is None
    again = Refit(row_count=900, loss=30, mean_difference=mean, standard_error=error)
    mine, whole = check("refit", measures(refit=again))
    assert mine.passed is whole is is_passed
    assert ("worse" in mine.detail) is not is_passed


@pytest.mark.parametrize(
    ("memory", "gate", "severity", "is_passed"),
    [
        (511.0, {}, "warn", True),
        (513.0, {}, "warn", False),
        (513.0, {"max_memory_mib": 600}, "block", True),
        (601.0, {"max_memory_mib": 600}, "block", False),
    ],
)
def test_memory(memory, gate, severity, is_passed) -> None:
    finding = PackageFinding(cost=Cost(0.5, 1.0, 3.0, memory))
    checks = judge(story.evaluation(), GateSection.model_validate(gate), finding)
    [found] = [one for one in checks if one.name == "memory"]
    assert (found.severity, found.passed) == (severity, is_passed)
    assert (found.value is None) is is_passed  # a busy machine does not change bytes
