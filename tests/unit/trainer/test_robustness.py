"""Wrong inputs: what a model loses by them is known where its formula is."""

import numpy as np
import pytest
from driftloop.contracts.pipeline import Feature
from driftloop.trainer.evaluation import adversarial, robustness

from tests.unit.trainer.constructed import normal, scene

A, B = normal(400, 1), normal(400, 2)
TRUTH = 3 * A + 0.1 * normal(400, 3)


def filled(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0.0)


def good(x):
    return 3 * filled(x["a"])


def found(candidate, champion=None, **options):
    values = {"a": A, "b": B}
    short, full = robustness.measure(
        scene(values, TRUTH, candidate, champion, **options)
    )
    assert short is not None
    return short, {(one.kind, one.feature): one for one in full["candidate"]}


def test_a_feature_that_is_not_used_costs_nothing_and_the_used_one_all() -> None:
    short, full = found(good)
    assert full["missing", "b"].lost == full["outliers", "b"].lost == 0
    # without a the answer is 0, which is no skill
    assert full["missing", "a"].lost == pytest.approx(1.0, abs=0.03)
    assert (short.missing.feature, short.outliers.feature) == ("a", "a")


def test_what_the_file_does_not_let_be_missing_does_not_count() -> None:
    short, full = found(good, types={"a": "number", "b": "number?"})
    assert full["missing", "a"].lost > 0.9
    assert short.missing.lost == 0
    assert short.missing.feature == "b"


def test_noise_costs_a_smooth_model_little_and_a_jumpy_one_much() -> None:
    def jumpy(x):  # right on the rows, by heart: what lies between is wrong
        known = {np.float32(a): t for a, t in zip(A, TRUTH, strict=True)}
        return np.array([known.get(v, 30.0) for v in x["a"]])

    smooth, _ = found(good)
    brittle, _ = found(jumpy, champion=good)
    assert smooth.noise.lost < 0.15
    assert brittle.noise.lost > 5
    assert brittle.noise.champion_lost == pytest.approx(smooth.noise.lost)


def test_a_wild_value_is_followed_by_a_line_and_not_by_a_bounded_model() -> None:
    line, _ = found(good)
    bounded, _ = found(lambda x: 3 * np.clip(filled(x["a"]), -2, 2))
    assert line.outliers.lost > 8
    assert bounded.outliers.lost < 4
    limited, _ = found(good, features={"a": Feature(min=-2, max=2)})
    assert limited.outliers.lost == pytest.approx(bounded.outliers.lost, rel=0.1)


def test_answers_that_are_no_numbers_are_counted() -> None:
    short, _ = found(lambda x: 3 * x["a"])  # NaN for what is missing
    assert short.missing.non_finite_count == short.row_count
    assert found(good)[0].missing.non_finite_count == 0


def test_a_model_without_skill_has_nothing_to_lose() -> None:
    values = {"a": A, "b": B}
    short, _ = robustness.measure(scene(values, TRUTH, lambda x: 0 * x["a"] + 50))
    assert short is None


def test_rows_are_bounded() -> None:
    many = normal(5000)
    big = scene({"a": many}, many, lambda x: filled(x["a"]))
    short, _ = robustness.measure(big)
    assert short.row_count == robustness.MAX_ROWS
    assert big.candidate.model.calls < 10_000


# ── small changes ───────────────────────────────────────────────────────────

FAR = np.sign(A) * (1 + np.abs(A))
LABELS = np.where(FAR > 0, "yes", "no")


def flips(candidate, values=None, truth=LABELS, classes=("no", "yes"), **options):
    values = values or {"a": FAR, "b": B}
    made = scene(values, truth, candidate, classes=classes, **options)
    return adversarial.flip_ratios(made)


def test_a_wide_margin_is_not_turned_over_and_stripes_are() -> None:
    wide = flips(lambda x: np.where(x["a"] > 0, 0.9, 0.1))
    stripes = flips(lambda x: 0.5 + 0.4 * np.sign(np.sin(60 * x["a"])))
    assert wide == {"candidate": 0.0}
    assert stripes["candidate"] > 0.9


def test_an_unsure_answer_that_turns_over_is_no_fault() -> None:
    def stripes(lead: float):
        return lambda x: 0.5 + lead / 2 * np.sign(np.sin(60 * x["a"]))

    assert flips(stripes(0.51))["candidate"] > 0.9
    assert flips(stripes(0.49)) == {}  # nothing is sure


def test_features_are_moved_together() -> None:
    """None of ten features alone turns the sum over; together they do."""
    values = {f"f{i}": normal(200, i) for i in range(10)}
    signs = [1, -1] * 5

    def together(x):
        return sum(s * x[f"f{i}"] for i, s in enumerate(signs))

    truth = np.where(together(values) > 0, "y", "n")
    found = flips(
        lambda x: 1 / (1 + np.exp(-4 * together(x))), values, truth, ("n", "y")
    )["candidate"]
    # sure are rows with |sum| > 0.27, in reach of ten features those below 0.6 or so:
    # 9 % of N(0, 10); a single feature moves the sum by 0.1 and turns none over
    assert 0.03 < found < 0.16


def test_a_number_turns_over_when_it_moves_far() -> None:
    flat = flips(good, truth=3 * FAR, classes=())
    steep = flips(lambda x: 3 * filled(x["a"]) + 9 * np.sin(50 * x["a"]),
                  truth=3 * FAR, classes=())  # fmt: skip
    assert flat == {"candidate": 0.0}
    assert steep["candidate"] > 0.9


def test_integers_move_by_whole_steps_or_not_at_all() -> None:
    code = np.arange(200) % 4
    truth = np.where(code > 1, "yes", "no")
    assert flips(
        lambda x: np.where(x["c"] % 1 == 0, 0.9, 0.1), {"c": code}, truth,
        types={"c": "integer"},
    ) == {}  # fmt: skip
    hour = np.arange(480) % 48
    moved = flips(
        lambda x: np.where(x["h"] % 1 == 0, 0.9, 0.1), {"h": hour},
        np.full(480, "yes"), types={"h": "integer"},
    )  # fmt: skip
    assert moved == {"candidate": 0.0}
