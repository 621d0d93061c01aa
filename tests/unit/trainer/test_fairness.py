"""Fairness against groups whose treatment is known."""

import numpy as np
import pytest
from driftloop.trainer.evaluation import fairness
from driftloop.trainer.training import TrainingRefused

from tests.unit.trainer.cases import spec
from tests.unit.trainer.constructed import scene
from tests.unit.trainer.test_training import Place

GROUP = np.array(["f", "m"] * 200)
DRAW = np.random.default_rng(0)
TRUE = np.where(DRAW.uniform(size=400) < 0.5, "yes", "no")


def of_two(candidate, champion=None, group=GROUP):
    pytest.importorskip("fairlearn")
    made = scene(
        {"sex": group.tolist(), "said": (TRUE == "yes").astype(float)},
        TRUE, candidate, champion, classes=("no", "yes"),
    )  # fmt: skip
    return fairness.measure(made, ["sex"])


def fair(x):
    return np.where(x["said"] > 0.5, 0.9, 0.1)


def unfair(x):
    """Nobody of the one group is ever chosen."""
    return np.where((x["said"] > 0.5) & (x["sex"] == "m"), 0.9, 0.1)


def test_a_model_that_never_chooses_one_group() -> None:
    [gap], groups = of_two(unfair, champion=fair)
    assert gap.difference == pytest.approx(1.0)  # of true positives: all and none
    assert gap.champion_difference < 0.1
    assert groups["sex"]["candidate"]["f"]["selection_rate"] == 0
    assert groups["sex"]["candidate"]["m"]["true_positive_rate"] == 1


def test_a_model_that_is_right_about_both() -> None:
    [gap], _ = of_two(fair)
    assert gap.difference < 0.1
    assert gap.group_count == 2


def test_of_numbers_the_losses_are_compared() -> None:
    pytest.importorskip("fairlearn")
    error = np.where(GROUP == "f", 3.0, 1.0)
    made = scene(
        {"sex": GROUP.tolist(), "e": error}, np.zeros(400), lambda x: x["e"],
        lambda x: np.ones(400),
    )  # fmt: skip
    [gap], groups = fairness.measure(made, ["sex"])
    assert (gap.loss_ratio, gap.champion_loss_ratio) == (3.0, 1.0)
    assert groups["sex"]["candidate"]["f"] == {"loss": 3.0, "rows": 200}


def test_of_several_classes_the_share_of_right_answers_is_compared() -> None:
    pytest.importorskip("fairlearn")
    truth = np.array(["a", "b", "b", "c"] * 100)
    right = {"a": [1, 0, 0], "b": [0, 1, 0], "c": [0, 0, 1]}
    answers = np.array([right[t] for t in truth], dtype=float)
    answers[GROUP == "f"] = [0, 1, 0]  # always b
    made = scene(
        {"sex": GROUP.tolist()}, truth, lambda x: answers, classes=("a", "b", "c")
    )
    [gap], _ = fairness.measure(made, ["sex"])
    assert gap.difference == pytest.approx(0.5)


def test_groups_of_few_rows_are_left_out() -> None:
    few = np.array(["f"] * 20 + ["m"] * 380)
    [gap], groups = of_two(fair, group=few)
    assert (gap.difference, groups) == (None, {})
    assert "1 of 2 groups have too few rows" in gap.detail


def test_without_fairlearn_nothing_is_trained(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fairness, "find_spec", lambda _: None)
    place = Place(tmp_path, gate={"fairness": {"columns": ["kind"]}})
    with pytest.raises(TrainingRefused, match=r"install driftloop-trainer\[fairness\]"):
        place.train()


def test_a_training_measures_it(tmp_path) -> None:
    pytest.importorskip("fairlearn")
    place = Place(tmp_path, gate={"fairness": {"columns": ["kind", "a"]}})
    gaps = place.train().evaluation.measures.fairness
    assert [gap.column for gap in gaps] == ["a", "kind"]
    assert all(gap.loss_ratio is None or gap.loss_ratio >= 1 for gap in gaps)


def test_a_column_that_the_rows_lack_is_named(tmp_path) -> None:
    """Where the schema is inferred the pipeline file cannot know."""
    place = Place(tmp_path)
    inferred = spec(data={"features": {}}, gate={"slices": ["colour"]})
    request = place.request.model_copy(update={"spec": inferred})
    with pytest.raises(TrainingRefused, match=r"gate\.slices names colour.*kind"):
        place.train("two", request)
