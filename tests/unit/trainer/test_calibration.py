"""Calibration: right probabilities and means are told from exaggerated ones."""

import numpy as np
import pytest
from driftloop.trainer.evaluation import calibration

from tests.unit.trainer.constructed import normal, scene

DRAW = np.random.default_rng(7)
CHANCE = DRAW.uniform(0.05, 0.95, 2000)
LABELS = np.where(DRAW.uniform(size=2000) < CHANCE, "yes", "no")
NONE = np.empty(0)


def exaggerated(p: np.ndarray) -> np.ndarray:
    odds = (p / (1 - p)) ** 3
    return odds / (1 + odds)


def of_two(candidate, champion=None):
    made = scene({"p": CHANCE}, LABELS, candidate, champion, classes=("no", "yes"))
    return calibration.measure(made, NONE)


def test_true_probabilities_have_no_error_beyond_chance() -> None:
    found, bins = of_two(lambda x: x["p"])
    assert found.error < 0.015
    assert found.brier == pytest.approx(np.mean(CHANCE * (1 - CHANCE)), abs=0.01)
    assert sum(one["row_count"] for one in bins["candidate"]) == 2000


def test_exaggerated_probabilities_have() -> None:
    found, bins = of_two(lambda x: exaggerated(x["p"]), lambda x: x["p"])
    assert found.error > 0.1
    assert found.champion_error < 0.015
    lowest = bins["candidate"][0]
    assert lowest["said"] < 0.02
    assert lowest["true"] > 0.05


def test_few_rows_are_not_called_badly_calibrated() -> None:
    """Bins of ten rows differ by chance; that is taken off."""
    errors = []
    for seed in range(30):
        draw = np.random.default_rng(seed)
        p = draw.uniform(0.05, 0.95, 100)
        labels = np.where(draw.uniform(size=100) < p, "yes", "no")
        made = scene({"p": p}, labels, lambda x: x["p"], classes=("no", "yes"))
        errors.append(calibration.measure(made, NONE)[0].error)
    assert np.mean(errors) < 0.03


def test_of_several_classes_the_likeliest_counts() -> None:
    classes = ("a", "b", "c")
    shares = np.array([0.6, 0.3, 0.1])
    labels = np.random.default_rng(0).choice(classes, 2000, p=shares)
    values = {"x": np.zeros(2000)}

    def says(*row):
        made = scene(
            values, labels, lambda x: np.tile(row, (len(x["x"]), 1)), classes=classes
        )
        return calibration.measure(made, NONE)[0]

    assert says(0.6, 0.3, 0.1).error < 0.03
    assert says(0.98, 0.01, 0.01).error > 0.3


A = normal(1000)
TRUTH = 10 * A + normal(1000, 1)


def of_numbers(candidate, errors=NONE):
    return calibration.measure(scene({"a": A}, TRUTH, candidate), errors)[0]


def test_a_right_mean_and_slope() -> None:
    found = of_numbers(lambda x: 10 * x["a"])
    assert found.error < 0.01
    assert found.slope == pytest.approx(1.0, abs=0.02)
    assert found.brier is None


def test_a_model_that_says_too_much_or_hides_differences() -> None:
    high = of_numbers(lambda x: 10 * x["a"] + 5)
    assert high.bias == pytest.approx(5, abs=0.2)
    assert high.error == pytest.approx(0.5, abs=0.03)  # of the spread, which is 10
    timid = of_numbers(lambda x: 5 * x["a"])
    assert timid.slope == pytest.approx(2.0, abs=0.05)


def test_errors_lie_where_the_validation_errors_say() -> None:
    same, narrow = normal(500, 5), 0.3 * normal(500, 5)
    assert of_numbers(lambda x: 10 * x["a"], same).coverage == pytest.approx(
        0.9, abs=0.04
    )
    assert of_numbers(lambda x: 10 * x["a"], narrow).coverage < 0.5


def test_a_constant_answer_has_no_slope() -> None:
    assert of_numbers(lambda x: np.zeros(len(x["a"]))).slope is None
