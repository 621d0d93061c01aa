"""The gate: each check passes on a good model and fails on its own broken input."""

import math
from datetime import timedelta

import pytest
from driftloop.contracts.pipeline import GateSection
from driftloop.registry.core import SignedFacts, approval_rule, disagreement
from driftloop.registry.gate import (
    MIN_HOLDOUT_ROWS,
    Cost,
    PackageFinding,
    judge,
    one_sided_bound,
    passes,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.registry import story
from tests.unit.registry.story import START


def costing(p99_ms: float = 1.0, memory_mib: float = 5.0) -> PackageFinding:
    return PackageFinding(cost=Cost(0.5, p99_ms, 3.0, memory_mib))


GOOD = costing()
GATE = GateSection()


def failed(checks: list) -> set[str]:
    return {check.name for check in checks if not check.passed}


def compared(mean: float, error: float) -> dict[str, float]:
    return {"mean_difference": mean, "standard_error": error, "row_count": 400}


def test_a_good_model_passes() -> None:
    checks = judge(story.evaluation(), GATE, GOOD)
    assert passes(checks)
    assert len({check.name for check in checks}) == len(checks) == 8


BROKEN = {
    "package_verified": (story.evaluation(), PackageFinding("bad signature")),
    "latency": (story.evaluation(), costing(50.1)),
    "holdout_size": (story.evaluation(holdout_row_count=MIN_HOLDOUT_ROWS - 1), GOOD),
    "better_than_no_skill": (story.evaluation(baseline=39.0), GOOD),
    "significantly_better": (story.worse(), GOOD),
    "improvement": (story.evaluation(candidate=81.0), GOOD),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_check_bites_alone(name: str) -> None:
    """Negative control of each check: it fails, and no other does."""
    evaluation, finding = BROKEN[name]
    assert failed(judge(evaluation, GATE, finding)) == {name}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["candidate", "champion", "baseline"])
def test_figures_must_be_numbers(field: str, value: float) -> None:
    evaluation = story.evaluation().model_copy(update={field: value})
    assert "finite_metrics" in failed(judge(evaluation, GATE, GOOD))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_comparison_must_be_numbers(value: float) -> None:
    for field in ("mean_difference", "standard_error"):
        comparison = story.evaluation().comparison.model_copy(update={field: value})
        evaluation = story.evaluation().model_copy(update={"comparison": comparison})
        found = failed(judge(evaluation, GATE, GOOD))
        assert {"finite_metrics", "significantly_better"} <= found


def test_no_difference_is_no_improvement() -> None:
    """The champion trained once more is not a new version."""
    same = story.evaluation(candidate=80.0, comparison=compared(0.0, 0.0))
    assert "significantly_better" in failed(judge(same, GATE, GOOD))


def test_wanted_improvement_is_a_ratio_of_the_champion() -> None:
    gate = GateSection(min_improvement_ratio=0.5)
    assert passes(judge(story.evaluation(candidate=40.0), gate, GOOD))
    assert failed(judge(story.evaluation(candidate=40.1), gate, GOOD)) == {
        "improvement"
    }


def bounded(mean: float, error: float, margin: float, **more) -> set[str]:
    """The failed checks of a candidate that only has to be no worse."""
    gate = GateSection(non_inferiority_margin=margin)
    found = story.evaluation(
        candidate=80.0 + mean, champion=80.0, comparison=compared(mean, error), **more
    )
    return failed(judge(found, gate, GOOD))


def test_a_candidate_that_is_not_worse_passes_where_the_file_says_so() -> None:
    """At a margin of 10 % of 80, z(0.95) = 1.645 errors above the mean."""
    assert bounded(0.0, 0.0, 0.0) == set()
    assert bounded(2.0, 3.0, 0.1) == set()  # bound 6.93 of 8
    assert bounded(2.0, 4.0, 0.1) == {"not_inferior"}  # bound 8.58
    assert bounded(8.1, 0.0, 0.1) == {"not_inferior"}
    assert bounded(math.nan, 0.0, 0.1) >= {"not_inferior"}


def test_the_margin_is_of_the_squares_where_a_row_loses_its_square() -> None:
    """10 % of a champion's rmse of 80 are 640 of 6,400 squared a row."""
    assert bounded(600.0, 0.0, 0.1, metric="rmse", baseline=1e4) == set()
    assert bounded(700.0, 0.0, 0.1, metric="rmse", baseline=1e4) == {"not_inferior"}


def test_a_first_model_has_to_be_better_all_the_same() -> None:
    gate = GateSection(non_inferiority_margin=0.5)
    first = story.evaluation(
        champion=None, champion_version=None, comparison=compared(1.0, 0.1)
    )
    assert failed(judge(first, gate, GOOD)) == {"significantly_better"}


def test_a_favoured_champion_is_told_of() -> None:
    for gate in (GATE, GateSection(non_inferiority_margin=0.1)):
        checks = judge(story.evaluation(champion_knows_rows=12), gate, GOOD)
        assert any("has learned 12 of them" in check.detail for check in checks)
        plain = judge(story.evaluation(), gate, GOOD)
        assert not any("has learned" in check.detail for check in plain)


def test_better_and_not_worse_are_not_asked_for_together() -> None:
    with pytest.raises(ValueError, match="remove one of them"):
        GateSection(min_improvement_ratio=0.1, non_inferiority_margin=0.1)


def test_without_champion_the_baseline_is_the_opponent() -> None:
    first = story.evaluation(champion=None, champion_version=None, candidate=100.0)
    checks = {c.name: c for c in judge(first, GATE, GOOD)}
    assert checks["improvement"].passed
    assert "no-skill" in checks["improvement"].detail


def test_bound_is_the_table_of_the_normal_distribution() -> None:
    """z(0.95) = 1.6449 and z(0.5) = 0, as printed in any table."""
    assert one_sided_bound(0.0, 1.0, 0.95) == pytest.approx(1.6449, abs=1e-4)
    assert one_sided_bound(-3.0, 1.0, 0.5) == pytest.approx(-3.0)


@given(
    mean=st.floats(-100, -0.01),
    error=st.floats(0, 50),
    low=st.floats(0.5, 0.98),
    more=st.floats(0, 0.019),
)
def test_more_confidence_is_never_easier(
    mean: float, error: float, low: float, more: float
) -> None:
    assert one_sided_bound(mean, error, low + more) >= one_sided_bound(mean, error, low)


def test_a_passing_verdict_says_nothing_of_the_clock() -> None:
    """The same model gives the same bytes however busy the machine was."""
    slow = judge(story.evaluation(), GATE, costing(40.0))
    assert slow == judge(story.evaluation(), GATE, GOOD)


def test_event_and_manifest_must_agree() -> None:
    from tests.unit.scorer.packages import MONTH

    def event(**more: object):
        from driftloop.contracts.events import (
            DatasetRef,
            ModelTrained,
            PackageRef,
            TableRef,
            Trigger,
        )

        fields = {
            "pipeline": story.NAME,
            "job_id": "job",
            "trigger": Trigger(event_id="e", event_type="t", reason="first_model"),
            "package": PackageRef(uri="u", digest="0" * 64, signer="s"),
            "algorithm": "sum",
            "dataset": DatasetRef(observations=TableRef(uri="u", version=0)),
            "train_span": MONTH,
            "tried": [],
            "evaluation": story.evaluation(),
        }
        return ModelTrained.model_validate(fields | more)

    signed = SignedFacts(story.NAME, "job", story.evaluation())
    assert disagreement(event(), signed) is None
    for field, value in (
        ("pipeline", "other"),
        ("job_id", "other"),
        ("evaluation", story.evaluation(candidate=1.0)),
    ):
        assert field in (disagreement(event(**{field: value}), signed) or "")


def test_who_is_asked() -> None:
    good = judge(story.evaluation(), GATE, GOOD)
    bad = judge(story.worse(), GATE, GOOD)
    assert approval_rule(story.spec("full"), good, START) is None
    for automation in ("approve", "advise"):
        rule = approval_rule(story.spec(automation, people=2), good, START)
        assert rule is not None
        assert (rule.role, rule.people) == ("approver", 2)
        assert rule.expires_at == START + timedelta(hours=72)
        assert approval_rule(story.spec(automation), bad, START) is None
