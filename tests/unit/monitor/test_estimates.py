"""Performance before labels: how good estimates are, and when there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from driftloop.monitor.estimates.arrays import (
    Rows,
    expected_roc_auc,
    roc_auc,
    row_losses,
)
from driftloop.monitor.estimates.combining import (
    Combined,
    Past,
    combined,
    scored,
    variance_of,
    weights_of,
)
from driftloop.monitor.estimates.experts import LEVEL, opinions
from driftloop.monitor.estimates.judging import judge, reason_not_to, reason_unlike
from driftloop.monitor.estimates.measuring import calibration, metric_of
from driftloop.monitor.estimates.shift import effective_count, shift_of

Floats = np.ndarray[Any, Any]


def numbers(seed: int, count: int, centre: float = 0.0) -> Rows:
    """A regression whose noise grows with the first input."""
    dice = np.random.default_rng(seed)
    points = dice.normal(centre, 1.0, (count, 3))
    said = points.sum(axis=1)
    noise = (0.5 + np.clip(points[:, 0], 0, 4)) * dice.normal(size=count)
    return Rows(points, said, said + noise, np.zeros(count))


def classes(seed: int, count: int, sureness: float = 1.0, centre: float = 0.0) -> Rows:
    """Two classes; at a sureness above 1 the answers exaggerate."""
    dice = np.random.default_rng(seed)
    points = dice.normal(centre, 1.0, (count, 3))
    odds = points[:, 0] + 0.5 * points[:, 1]
    truth = (dice.random(count) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    second = 1 / (1 + np.exp(-sureness * odds))
    return Rows(points, np.column_stack([1 - second, second]), truth, np.zeros(count))


def unlabelled(rows: Rows) -> Rows:
    return replace(rows, truth=None)


def estimate(known: Rows, window: Rows, metric: str) -> dict[str, Combined]:
    found = combined(opinions(known, unlabelled(window), metric), window.count, {})
    return {one.metric: one for one in found}


def test_a_loss_that_grows_with_the_inputs_is_foreseen() -> None:
    """More than half of it: rows further out than any labelled one tell no more."""
    known, window = numbers(1, 1200), numbers(2, 400, centre=0.8)
    said = estimate(known, window, "mae")["mae"]
    true = float(np.mean(row_losses("mae", window)))
    assert said.level < said.low < true
    assert abs(said.value - true) < 0.6 * abs(said.level - true)


@pytest.mark.parametrize(("centre", "is_further"), [(1.0, True), (0.0, False)])
def test_where_rows_are_further_out_the_interval_holds_what_is_not_foreseen(
    centre: float, is_further: bool
) -> None:
    """Wider on the side of the worse; the control: as before where all is alike."""
    held = without = 0
    for seed in range(40):
        known, window = numbers(seed, 800), numbers(seed + 900, 300, centre=centre)
        found = opinions(known, unlabelled(window), "mae")
        said = combined(found, window.count, {})[0]
        true = float(np.mean(row_losses("mae", window)))
        narrow = combined(replace(found, unseen=0.0), window.count, {})[0]
        assert (said.value, said.low) == (narrow.value, narrow.low)
        assert (found.unseen > 0.1) == is_further
        held += said.low < true < said.high
        without += narrow.low < true < narrow.high
    assert held >= 37  # nineteen of twenty, and a draw for chance
    assert (without < 34) == is_further


def test_the_same_population_gives_the_known_loss() -> None:
    known, window = numbers(1, 1200), numbers(3, 400)
    said = estimate(known, window, "mae")["mae"]
    assert said.value == pytest.approx(said.level, rel=0.15)
    assert said.high - said.value == pytest.approx(said.value - said.low, rel=0.1)


def test_answers_that_exaggerate_are_not_believed() -> None:
    known, window = classes(1, 1500, sureness=3.0), classes(2, 500, sureness=3.0)
    said = estimate(known, window, "log_loss")
    true = float(np.mean(row_losses("log_loss", window)))
    held = np.clip(window.said, 1e-15, 1)
    believed = float(np.mean(-np.sum(window.said * np.log(held), axis=1)))
    assert abs(said["log_loss"].value - true) < abs(believed - true) / 3
    assert set(said) == {"log_loss", "accuracy", "roc_auc"}


def test_several_classes_are_estimated_too() -> None:
    dice = np.random.default_rng(4)
    odds = dice.normal(size=(1600, 3))
    shares = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    truth = np.array([dice.choice(3, p=row) for row in shares])
    whole = Rows(odds, shares, truth, np.zeros(1600))
    known = Rows(odds[:1200], shares[:1200], truth[:1200], np.zeros(1200))
    window = Rows(odds[1200:], shares[1200:], truth[1200:])
    said = estimate(known, window, "log_loss")
    true = float(np.mean(row_losses("log_loss", window)))
    assert said["log_loss"].low < true < said["log_loss"].high
    assert "roc_auc" not in said
    assert whole.class_count == 3


def test_a_change_of_the_law_alone_cannot_be_seen() -> None:
    """The negative control: without labels nobody can know of a concept drift."""
    known, window = classes(1, 1500), classes(2, 500)
    turned = replace(window, truth=1 - window.labels())
    said = estimate(known, turned, "log_loss")["log_loss"]
    assert not said.low < float(np.mean(row_losses("log_loss", turned))) < said.high
    assert said.value == estimate(known, window, "log_loss")["log_loss"].value


def test_rows_that_nobody_labelled_the_like_of_are_not_estimated() -> None:
    far, near = numbers(2, 300, centre=8.0), numbers(3, 300)
    count = opinions(numbers(1, 300), unlabelled(far), "mae").alike_count
    assert reason_unlike(300, count) is not None
    count = opinions(numbers(1, 300), unlabelled(near), "mae").alike_count
    assert reason_unlike(300, count) is None


def test_weights_follow_the_window_only_where_it_differs() -> None:
    dice = np.random.default_rng(5)
    known = dice.normal(size=(600, 2))
    calm = shift_of(known, dice.normal(size=(300, 2)))
    assert not calm.is_there
    assert (calm.alike_count, calm.overlap) == (600, 1.0)
    moved = shift_of(known, dice.normal(1.5, 1.0, (300, 2)))
    assert np.corrcoef(moved.weights, known.sum(axis=1))[0, 1] > 0.5
    assert effective_count(moved.weights) < 600
    assert moved.overlap > 0.3
    assert shift_of(known, dice.normal(8.0, 1.0, (300, 2))).overlap < 0.05


def past(value: float, realised: float, **experts: float) -> Past:
    one = Combined(
        metric="mae", value=value, low=value - 1, high=value + 1, experts=experts
    )
    return Past(one, realised)


def test_experts_that_were_wrong_count_less() -> None:
    told = [past(6.0, 5.0, level=9.0, conditional=5.1) for _ in range(8)]
    weights = weights_of(["level", "conditional"], told)
    assert weights["conditional"] > 0.8
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights_of(["level", "conditional"], []) == {
        "level": 0.5,
        "conditional": 0.5,
    }


def test_an_estimator_that_was_off_has_wide_intervals() -> None:
    found = opinions(numbers(1, 900), unlabelled(numbers(2, 200)), "mae")
    (calm,) = combined(found, 200, {"mae": [past(1, 1, level=1.0)] * 9})
    (wild,) = combined(found, 200, {"mae": [past(9, 1, level=9.0)] * 9})
    assert wild.high - wild.low > 3 * (calm.high - calm.low)


def test_the_score_says_what_intervals_and_the_last_labels_were_worth() -> None:
    score = scored([past(5.0, 5.5, level=7.5), past(5.0, 8.0, level=5.0)])
    assert score.window_count == 2
    assert score.mean_absolute_error == pytest.approx(1.75)
    assert score.level_error == pytest.approx(2.5)
    assert score.coverage == 0.5


def test_verdicts_need_a_hold_out_and_a_sure_rise() -> None:
    def one(low: float, value: float) -> Combined:
        return Combined(
            metric="mae", value=value, low=low, high=2 * value - low,
            experts={LEVEL: value},
        )  # fmt: skip

    assert judge(one(7.0, 8.0), 5.0, 0.25).verdict == "degrading"
    assert judge(one(6.0, 8.0), 5.0, 0.25).verdict == "ok"  # perhaps by chance
    assert judge(one(7.0, 8.0), None, 0.25).verdict == "ok"
    assert "1.6 times" in judge(one(7.0, 8.0), 5.0, 0.25).reason


@pytest.mark.parametrize(
    ("known", "window", "fault", "said"),
    [
        (59, 100, None, "59 labelled rows"),
        (60, 5, None, "5 rows of the window"),
        (60, 100, "temp", "values of temp are wrong"),
    ],
)
def test_nothing_is_estimated_from_too_little_or_from_wrong_values(
    known: int, window: int, fault: str | None, said: str
) -> None:
    assert said in str(reason_not_to(known, window, fault))
    assert reason_not_to(60, 20, None) is None


# ── measuring ───────────────────────────────────────────────────────────────


def test_calibration_tells_right_answers_from_those_that_exaggerate() -> None:
    right, wrong = classes(1, 2000), classes(1, 2000, sureness=4.0)
    assert calibration(right).error < 0.01
    assert calibration(wrong).error > 0.1
    brier = [calibration(rows).brier or 0.0 for rows in (right, wrong)]
    assert brier[0] < brier[1]


def test_few_rows_have_few_bins() -> None:
    assert calibration(classes(1, 50)).bin_count == 2
    assert calibration(classes(1, 15)).bin_count == 1
    assert calibration(classes(1, 5000)).bin_count == 10


def test_numbers_that_are_too_high_on_average_are_told() -> None:
    rows = numbers(1, 500)
    assert calibration(rows).error < 0.1
    high = calibration(replace(rows, said=rows.said + 2))
    assert high.bias == pytest.approx(2.0, abs=0.3)
    assert high.error > 0.5


def test_intervals_shrink_with_rows() -> None:
    few, many = (metric_of("mae", numbers(1, n)) for n in (50, 5000))
    assert few is not None
    assert many is not None
    assert few[0].high - few[0].low > 5 * (many[0].high - many[0].low)


def test_one_class_alone_has_no_area_under_a_curve() -> None:
    rows = classes(1, 50)
    assert metric_of("roc_auc", replace(rows, truth=np.ones(50, np.int64))) is None
    assert roc_auc(np.zeros(4), np.array([0.0, 1.0, 0.0, 1.0])) == 0.5
    assert expected_roc_auc(np.zeros(3), np.zeros(3)) is None


def test_the_expected_area_is_that_of_drawn_classes() -> None:
    dice = np.random.default_rng(6)
    score = dice.random(400)
    chance = np.clip(score + dice.normal(0, 0.2, 400), 0.02, 0.98)
    drawn = [
        roc_auc(score, (dice.random(400) < chance).astype(float)) for _ in range(200)
    ]
    known = [area for area in drawn if area is not None]
    assert expected_roc_auc(score, chance) == pytest.approx(np.mean(known), abs=0.01)
    spread = variance_of("roc_auc", float(np.mean(known)), {}, 400) ** 0.5
    assert np.std(known) / 2 < spread < 2 * np.std(known)
