"""Losses and what their difference is worth."""

import numpy as np
import pytest
from driftloop.models.onnx_model import Predictions
from driftloop.trainer.losses import (
    Target,
    metric_value,
    paired_comparison,
    row_losses,
    standard_error,
)


def test_regression_losses() -> None:
    target = Target(np.array([1.0, 2.0]))
    said = Predictions(np.array([2.0, 5.0]))
    assert row_losses("mae", target, said).tolist() == [1.0, 3.0]
    assert row_losses("rmse", target, said).tolist() == [1.0, 9.0]
    assert metric_value("rmse", np.array([1.0, 9.0])) == pytest.approx(5**0.5)


def test_log_loss_of_two_and_of_more_classes() -> None:
    target = Target(np.array(["no", "yes"]), ("no", "yes"))
    said = Predictions(np.array(["no", "yes"]), np.array([0.2, 0.7]))
    assert row_losses("log_loss", target, said) == pytest.approx(-np.log([0.8, 0.7]))
    target = Target(np.array(["b", "unseen"]), ("a", "b", "c"))
    score = np.array([[0.1, 0.6, 0.3], [0.5, 0.25, 0.25]])
    found = row_losses("log_loss", target, Predictions(np.array(["b", "a"]), score))
    assert found == pytest.approx([-np.log(0.6), -np.log(1e-6)])


def test_a_log_loss_needs_scores() -> None:
    with pytest.raises(ValueError, match="scores"):
        row_losses("log_loss", Target(np.array(["a"]), ("a",)), Predictions(np.ones(1)))


def test_independent_rows_have_the_plain_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=4000)
    plain = values.std(ddof=1) / np.sqrt(len(values))
    assert standard_error(values) == pytest.approx(plain, rel=0.1)


def test_rows_that_resemble_those_before_have_a_wider_one() -> None:
    """An autoregression with 0.8 has (1 + 0.8) / (1 - 0.8) = 9 times the variance."""
    draw = np.random.default_rng(0)
    found, true = [], []
    for _ in range(60):
        noise, values = draw.normal(size=2000), np.empty(2000)
        values[0] = noise[0]
        for i in range(1, 2000):
            values[i] = 0.8 * values[i - 1] + noise[i]
        found.append(standard_error(values))
        true.append(values.mean())
    plain = 1 / 0.6 / np.sqrt(2000)
    assert np.mean(found) == pytest.approx(3 * plain, rel=0.2)
    assert np.mean(found) == pytest.approx(np.std(true), rel=0.35)


def test_equal_models_differ_by_nothing() -> None:
    losses = np.arange(10.0)
    found = paired_comparison(losses, losses)
    assert (found.mean_difference, found.standard_error) == (0.0, 0.0)


def test_a_better_candidate_has_a_negative_difference() -> None:
    found = paired_comparison(np.zeros(10), np.ones(10))
    assert found.mean_difference == -1.0
    assert found.row_count == 10
