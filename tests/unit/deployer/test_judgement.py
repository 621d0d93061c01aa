"""When a version goes on, waits or is taken back."""

import random

import pytest
from driftloop.contracts.pipeline import RolloutSection
from driftloop.deployer.judgement import (
    Advance,
    Figures,
    Hold,
    RollBack,
    Step,
    judge,
    plan,
    with_performance,
    with_report,
)

from tests.unit.deployer.story import measured, reported

RULES = RolloutSection()
SHADOW = Step(name="shadow", kind="shadow", rows=100)
WATCHING = Step(name="watching", kind="watching", share=1, rows=100)
FULL = Step(name="full", kind="full", share=1)


def after(*events, version=2, rival=1):
    figures = Figures()
    for event in events:
        changed = with_performance(figures, event, version, rival)
        assert changed is not None
        figures = changed
    return figures


def test_a_better_version_waits_for_its_rows_and_goes_on():
    days = [measured(2, 1) for _ in range(5)]
    assert judge(after(*days[:4]), SHADOW, RULES) == Hold()
    verdict = judge(after(*days), SHADOW, RULES)
    assert isinstance(verdict, Advance)
    assert "loss ratio 0.900 over 120 labelled rows" in verdict.detail


def test_a_clearly_worse_version_is_taken_back_early():
    verdict = judge(after(measured(2, 1, ratio=2.0, error=0.5)), SHADOW, RULES)
    assert isinstance(verdict, RollBack)
    assert verdict.reason.startswith("clearly worse")


def test_a_few_rows_are_never_enough_to_be_clearly_worse():
    figures = after(measured(2, 1, ratio=5.0, error=0.1, rows=19))
    assert judge(figures, SHADOW, RULES) == Hold()


def test_an_uncertain_difference_waits_for_the_whole_step():
    noisy = [measured(2, 1, ratio=1.05, error=2.0) for _ in range(5)]
    assert judge(after(*noisy[:4]), SHADOW, RULES) == Hold()
    assert isinstance(judge(after(*noisy), SHADOW, RULES), Advance)


def test_a_loss_above_the_ratio_is_taken_back_even_if_uncertain():
    noisy = [measured(2, 1, ratio=1.2, error=20.0) for _ in range(5)]
    verdict = judge(after(*noisy), SHADOW, RULES)
    assert isinstance(verdict, RollBack)
    assert "max_loss_ratio is 1.1" in verdict.reason


def test_days_that_differ_more_than_their_rows_say_are_not_certain():
    """The pooled standard error is tiny, the spread between the days is large."""
    days = [measured(2, 1, ratio=r, error=0.01) for r in (0.6, 1.6, 0.7, 1.5)]
    assert after(*days).z < 1
    same = [measured(2, 1, ratio=1.1, error=0.01) for _ in range(4)]
    assert after(*same).z > 10


def test_roles_may_have_changed_since_the_rows_were_scored():
    canary = after(measured(2, 1, ratio=0.8))
    watch = after(measured(1, 2, ratio=1.25, loss=8.0))
    assert canary.loss_ratio == pytest.approx(0.8)
    assert watch.loss_ratio == pytest.approx(0.8)
    assert canary.z == pytest.approx(watch.z) == pytest.approx(-4.0)


def test_measurements_of_other_versions_do_not_count():
    assert with_performance(Figures(), measured(3, 1), 2, 1) is None
    alone = measured(2, 1).model_copy(update={"comparison": None})
    assert with_performance(Figures(), alone, 2, 1) is None
    not_finite = measured(2, 1, loss=float("nan"))
    assert with_performance(Figures(), not_finite, 2, 1) is None


def test_a_version_that_cannot_be_loaded_is_taken_back():
    report = reported(1, 2, state="failed", detail="bad signature")
    verdict = judge(with_report(Figures(), report, 2, 1), SHADOW, RULES)
    assert verdict == RollBack("a scorer cannot serve it: 0: bad signature")


def test_errors_above_the_ratio_take_it_back_and_below_do_not():
    lenient = RULES.model_copy(update={"max_error_ratio": 0.1})
    few = with_report(Figures(), reported(1, 2, row_count=20, error_count=10), 2, 1)
    assert judge(few, SHADOW, lenient) == Hold()
    more = with_report(few, reported(1, 2, row_count=20, error_count=1), 2, 1)
    assert isinstance(judge(more, SHADOW, lenient), RollBack)
    one = with_report(Figures(), reported(1, 2, row_count=500, error_count=1), 2, 1)
    assert isinstance(judge(one, SHADOW, RULES), RollBack)


def test_full_waits_for_a_scorer():
    assert judge(Figures(), FULL, RULES) == Hold()
    ready = with_report(Figures(), reported(1, 2), 2, 1)
    assert isinstance(judge(ready, FULL, RULES), Advance)


def test_watching_ends_when_there_is_nothing_left_to_compare_with():
    report = reported(1, 1, state="failed", detail="gone")
    figures = with_report(Figures(), report, 2, 1)
    assert isinstance(judge(figures, WATCHING, RULES), Advance)
    assert judge(figures, SHADOW, RULES) == Hold()


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        ("immediate", ["full", "watching"]),
        ("canary", ["canary 10 %", "canary 50 %", "full", "watching"]),
    ],
)
def test_strategies(strategy, names):
    rules = RolloutSection(strategy=strategy)
    assert [s.name for s in plan(rules, has_champion=True)] == names
    unwatched = rules.model_copy(update={"watch_rows": 0})
    assert [s.name for s in plan(unwatched, has_champion=True)] == names[:-1]


def test_looking_after_each_measurement_seldom_takes_back_an_equal_version():
    """False alarms of the sequential bound over 2,000 equal pairs: about 2.5 %."""
    noise = random.Random(20)
    rules = RolloutSection(max_loss_ratio=100)
    alarms = 0
    for _ in range(2000):
        figures = Figures()
        for _ in range(20):
            difference = noise.gauss(0, 1)
            event = measured(
                2, 1, rows=20, error=1.0, ratio=1 + difference / 10, loss=10
            )
            changed = with_performance(figures, event, 2, 1)
            assert changed is not None
            figures = changed
            step = SHADOW.model_copy(update={"rows": 400})
            if isinstance(judge(figures, step, rules), RollBack):
                alarms += 1
                break
    assert alarms / 2000 < 0.03


def timed(candidate_s: float, champion_s: float, calls: int = 5, **fields: int):
    """Return a report on version 2, the candidate, and version 1."""
    both = reported(1, 1, 2, call_count=calls).versions
    seconds = {1: champion_s, 2: candidate_s}
    said = [
        one.model_copy(
            update={"latency_p50_seconds": seconds[one.version]}
            | (fields if one.version == 2 else {})
        )
        for one in both
    ]
    return reported(1).model_copy(update={"versions": said})


def verdict_of(report, rules=RULES, step=SHADOW):
    return judge(with_report(Figures(), report, 2, 1), step, rules)


def test_a_version_far_slower_than_the_other_is_taken_back():
    verdict = verdict_of(timed(0.3, 0.01))
    assert isinstance(verdict, RollBack)
    assert "a call takes 300 ms, the other version's 10 ms" in verdict.reason


@pytest.mark.parametrize(
    ("report", "rules"),
    [
        (timed(0.3, 0.02), RULES),  # within the ratio
        (timed(0.04, 0.0001), RULES),  # nobody notices
        (timed(0.3, 0.01, calls=4), RULES),  # too few calls
        (timed(0.3, 0.01), RolloutSection(max_latency_ratio=None)),
    ],
)
def test_a_version_not_clearly_slower_is_not_taken_back(report, rules):
    assert verdict_of(report, rules) == Hold()


def test_one_slow_report_among_many_is_no_verdict():
    figures = Figures()
    for report in (timed(0.3, 0.01), *[timed(0.01, 0.01)] * 9):
        figures = with_report(figures, report, 2, 1)
    assert judge(figures, SHADOW, RULES) == Hold()


SHIFT = RolloutSection(max_prediction_shift=0.3)


def test_predictions_that_differ_too_often_are_taken_back_without_labels():
    many = timed(0.01, 0.01, compared_count=60, differing_count=60)
    verdict = verdict_of(many, SHIFT)
    assert isinstance(verdict, RollBack)
    assert "differ on 60 of 60 rows" in verdict.reason
    assert verdict_of(many) == Hold()  # off by default
    few = timed(0.01, 0.01, compared_count=19, differing_count=19)
    assert verdict_of(few, SHIFT) == Hold()


def test_a_share_just_above_the_bound_waits_for_the_whole_step():
    half = timed(0.01, 0.01, compared_count=50, differing_count=16)
    assert verdict_of(half, SHIFT) == Hold()
    whole = timed(0.01, 0.01, compared_count=100, differing_count=32)
    assert isinstance(verdict_of(whole, SHIFT), RollBack)
    allowed = timed(0.01, 0.01, compared_count=100, differing_count=30)
    assert verdict_of(allowed, SHIFT) == Hold()


def test_a_step_is_not_passed_before_its_predictions_are_compared():
    labelled = after(*[measured(2, 1) for _ in range(5)])
    assert isinstance(judge(labelled, SHADOW, RULES), Advance)
    assert judge(labelled, SHADOW, SHIFT) == Hold()
    seen = timed(0.01, 0.01, compared_count=100, differing_count=10)
    both = with_report(labelled, seen, 2, 1)
    assert isinstance(judge(both, SHADOW, SHIFT), Advance)


def test_the_older_version_may_be_the_candidate_while_the_new_one_is_watched():
    report = reported(1, 1, compared_count=100, differing_count=90)
    report = report.model_copy(
        update={"versions": [*report.versions, *reported(1, 2).versions]}
    )
    verdict = judge(with_report(Figures(), report, 2, 1), WATCHING, SHIFT)
    assert isinstance(verdict, RollBack)
