"""Shapley values against their definition, curves, and what changed in words."""

from itertools import combinations
from math import factorial

import numpy as np
import pytest
from driftloop.contracts.measures import SliceResult
from driftloop.trainer.evaluation import changes, shapley

from tests.unit.trainer.constructed import normal, scene

VALUES = {"a": normal(300, 1), "b": normal(300, 2), "c": normal(300, 3)}
TRUTH = np.zeros(300)


def explained(answer, **options):
    made = scene(VALUES, options.pop("truth", TRUTH), answer, **options)
    index = shapley.rows_to_explain(made.candidate)
    return made.candidate, index, shapley.explain(made.candidate, index, 0)


def background(count: int = 300) -> np.ndarray:
    return np.linspace(0, count - 1, shapley.BACKGROUND_ROWS).astype(int)


def test_a_line_is_explained_exactly() -> None:
    _, index, found = explained(lambda x: 2 * x["a"] - 5 * x["b"] + 7)
    base = {n: v[background()].mean() for n, v in VALUES.items()}
    wanted = np.column_stack(
        [
            2 * (VALUES["a"][index] - base["a"]),
            -5 * (VALUES["b"][index] - base["b"]),
            np.zeros(len(index)),
        ]
    )
    assert found.values == pytest.approx(wanted, abs=1e-5)
    assert list(found.importance()) == ["b", "a", "c"]


def curved(x):
    return x["a"] * x["b"] + np.abs(x["c"]) + 0.5 * x["a"]


def test_contributions_sum_up_to_the_answer() -> None:
    subject, index, found = explained(curved)
    assert found.base + found.values.sum(axis=1) == pytest.approx(found.answers)
    assert found.answers == pytest.approx(subject.predict().prediction[index])


def by_definition(answer, row: int) -> dict[str, float]:
    """Weighted marginal contributions over all coalitions, mean over the background."""
    names = list(VALUES)

    def worth(known) -> float:
        feeds = {
            n: np.full(len(background()), v[row], np.float32)
            if n in known else v[background()].astype(np.float32)
            for n, v in VALUES.items()
        }  # fmt: skip
        return float(np.mean(answer(feeds)))

    result = dict.fromkeys(names, 0.0)
    for name in names:
        others = [n for n in names if n != name]
        for size in range(len(names)):
            weight = factorial(size) * factorial(len(names) - size - 1)
            for known in combinations(others, size):
                gain = worth({*known, name}) - worth(set(known))
                result[name] += weight / factorial(len(names)) * gain
    return result


def test_where_features_act_together_the_estimate_is_near_the_definition() -> None:
    _, index, found = explained(curved)
    wanted = np.array([list(by_definition(curved, row).values()) for row in index])
    assert np.abs(found.values - wanted).mean() < 0.15 * np.abs(wanted).mean()
    # two features only meet in pairs of reverse orders: exact
    _, index, found = explained(lambda x: x["a"] * x["b"])
    wanted = [list(by_definition(lambda x: x["a"] * x["b"], r).values()) for r in index]
    assert found.values == pytest.approx(np.array(wanted), abs=1e-5)


def test_of_classes_the_log_odds_of_the_likeliest_are_explained() -> None:
    labels = np.where(VALUES["a"] > 0, "yes", "no")
    _, index, found = explained(
        lambda x: 1 / (1 + np.exp(-(2 * x["a"] + x["b"]))),
        truth=labels, classes=("no", "yes"),
    )  # fmt: skip
    sign = np.where(np.array(found.classes) == "yes", 1, -1)
    base = VALUES["a"][background()].mean()
    wanted = sign * 2 * (VALUES["a"][index] - base)
    assert found.values[:, 0] == pytest.approx(wanted, abs=1e-3)


def test_many_features_are_explained_on_fewer_rows() -> None:
    many = {f"f{i}": normal(100, i) for i in range(60)}
    made = scene(many, np.zeros(100), lambda x: x["f0"])
    assert len(shapley.rows_to_explain(made.candidate)) == 12


def test_a_curve_has_the_formulas_shape() -> None:
    made = scene(
        {"a": VALUES["a"], "kind": ["p", "q", "q"] * 100}, TRUTH,
        lambda x: x["a"] ** 2 + np.where(x["kind"] == "q", 5.0, 0.0),
        lambda x: x["a"],
    )  # fmt: skip
    importance = {"candidate": {"a": 2.0, "kind": 1.0}, "champion": {"a": 1.0}}
    found = {curve.feature: curve for curve in changes.curves(made, importance)}
    shape = np.array(found["a"].values, np.float32) ** 2
    mine = np.array(found["a"].means["candidate"])
    assert mine - shape == pytest.approx(np.full(10, (mine - shape)[0]), abs=1e-4)
    assert found["a"].means["champion"] == pytest.approx(found["a"].values)
    low, high = found["kind"].means["candidate"]
    assert (found["kind"].values, high - low) == (["p", "q"], pytest.approx(5.0))


def part(value: str, worse: float, better: float) -> SliceResult:
    return SliceResult(
        column="kind", value=value, row_count=50, candidate=2.0, other=1.0,
        p_value=worse, p_better=better,
    )  # fmt: skip


def test_what_changed_is_said() -> None:
    slices = [part("big", 0.001, 1.0), part("small", 1.0, 0.01), part("odd", 0.4, 0.6)]
    words = changes.in_words(
        0.25, True, {"a": 0.7, "b": 0.3}, {"a": 0.2, "b": 0.8}, slices
    )
    assert words[0] == (
        "The two models' answers differ on average by 0.25 standard deviations of "
        "the target."
    )
    assert "More depends on a: 20% of the contributions before, 70% now." in words
    assert "Worse than the champion where kind big (1 to 2, 50 rows)." in words
    assert "Better than the champion where kind small (1 to 2, 50 rows)." in words
    assert not any("odd" in word for word in words)


def test_the_same_model_changed_nothing() -> None:
    made = scene(VALUES, TRUTH, curved, curved)
    apart = changes.disagreement(scene(VALUES, VALUES["a"], curved, curved))
    words = changes.in_words(apart, True, {"a": 1.0}, {"a": 1.0}, [])
    assert apart == 0.0
    assert len(words) == 2
    assert "same features" in words[1]
    assert made.champion is not None
    assert "no champion" in changes.in_words(None, True, {"a": 1.0}, None, [])[0]
