"""Verdicts on a training, from constructed losses and from real trainings."""

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from driftloop.trainer import fitting
from driftloop.trainer.candidates import linear
from driftloop.trainer.evaluation.fit import Losses, judge

from tests.unit.trainer.cases import job, rows, spec
from tests.unit.trainer.test_training import Place

CELLS = [
    ((0.1, 0.2, 0.2), {}, "good"),
    ((0.95, 0.97, 0.97), {}, "under_fit"),
    ((0.0, 0.6, 0.6), {}, "over_fit"),
    ((0.1, 0.2, 0.8), {}, "fades"),
    ((0.1, 0.2, 0.2), {"iterations": 500, "max_iter": 500}, "not_converged"),
    ((0.1, 0.2, 0.2), {"iterations": 12, "max_iter": 500}, "good"),
    ((0.1, 0.2, 0.2), {"max_iter": 200}, "good"),
]


@pytest.mark.parametrize(("of_one", "parameters", "verdict"), CELLS)
def test_each_verdict(of_one, parameters, verdict) -> None:
    found = judge(*(Losses(loss, 1.0) for loss in of_one), parameters)
    assert found.verdict == verdict
    assert "no skill" in found.detail


def test_no_skill_of_nothing_is_none() -> None:
    assert Losses(0.0, 0.0).skill == 0.0


def verdict_of(folder, y: np.ndarray, candidate: str) -> str:
    place = Place(folder)
    table = rows(500).set_column(5, "y", pa.array(y))
    write_deltalake(str(folder / "other"), table)
    how = spec(train={"candidates": [candidate]})
    trained = place.train("two", job(folder / "other", table, how))
    return trained.evaluation.measures.fit.verdict


def test_boosting_learns_noise_by_heart(tmp_path) -> None:
    noise = np.random.default_rng(99).normal(size=500)
    assert verdict_of(tmp_path, noise, "gradient_boosting") == "over_fit"


def test_a_line_does_not_even_know_a_parabola(tmp_path) -> None:
    a = np.array([0.0 if v is None else v for v in rows(500)["a"].to_pylist()])
    assert verdict_of(tmp_path, a**2, "linear") == "under_fit"


def test_a_solver_that_is_cut_short_says_so(monkeypatch) -> None:
    monkeypatch.setattr(linear, "LOGISTIC", {"C": 1.0, "max_iter": 2})
    found = fitting.fit("linear", rows(300, task="binary"), spec(task="binary"), 1)
    assert found.parameters["iterations"] == found.parameters["max_iter"] == 2
    monkeypatch.undo()
    found = fitting.fit("linear", rows(300, task="binary"), spec(task="binary"), 1)
    assert found.parameters["iterations"] < found.parameters["max_iter"]
