"""Each candidate's served graph answers what the library answers."""

from importlib.util import find_spec

import numpy as np
import pytest
from driftloop.trainer import fitting
from driftloop.trainer.candidates import MODULES, CandidateRefused
from driftloop.trainer.trees import largest_float32_not_above

from tests.unit.trainer.cases import rows, spec

HAS_TORCH = find_spec("torch") is not None
SEQUENTIAL = ("gru", "tcn")
CANDIDATES = [
    pytest.param(name, marks=pytest.mark.torch) if name == "mlp" else name
    for name in MODULES
    if name not in SEQUENTIAL  # test_networks.py
]


def how(task: str):
    return spec(task=task)


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
@pytest.mark.parametrize("name", CANDIDATES)
def test_a_candidate_learns_and_its_graph_is_exact(name: str, task: str) -> None:
    """``fit`` itself refuses a graph that differs from the library's answer."""
    if name == "mlp" and not HAS_TORCH:
        pytest.skip("torch is not installed")
    table = rows(600, task=task)
    fitted = fitting.fit(name, table.slice(0, 500), how(task), 1)
    rest = table.slice(500)
    said = fitted.loaded().predict(rest)
    truth = fitting.target_of(rest, how(task)).values
    if task == "regression":
        error = np.mean(np.abs(said.prediction - truth))
        assert error < 0.5 * np.mean(np.abs(truth - truth.mean()))
    else:
        assert np.mean(said.prediction == truth) > 0.75
        assert said.score is not None
        sums = said.score.sum(axis=1) if task == "multiclass" else None
        assert sums is None or sums == pytest.approx(1.0, abs=1e-4)
    assert said.non_finite_count() == 0


@pytest.mark.parametrize("name", ["gradient_boosting", "random_forest", "linear"])
def test_the_same_rows_give_the_same_bytes(name: str) -> None:
    table = rows(300)
    first, second = (fitting.fit(name, table, how("regression"), 1) for _ in range(2))
    assert first.model == second.model


@pytest.mark.parametrize("name", ["adaptive_forest", "hoeffding_adaptive_tree"])
def test_river_gives_the_same_bytes(name: str) -> None:
    table = rows(200)
    first, second = (fitting.fit(name, table, how("regression"), 1) for _ in range(2))
    assert first.model == second.model


def test_a_graph_that_answers_otherwise_is_refused() -> None:
    table = rows(300)
    fitted = fitting.fit("linear", table, how("regression"), 1)
    right = fitted.loaded().predict(table).prediction
    spread = np.array([0.0, 100.0])
    fitting.check_parity(fitted, table, right, spread)
    with pytest.raises(CandidateRefused, match="differs"):
        fitting.check_parity(fitted, table, right + 1.0, spread)
    with pytest.raises(CandidateRefused, match="differs"):
        fitting.check_parity(fitted, table, right * np.nan, spread)


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed")
def test_without_torch_the_network_says_so() -> None:
    with pytest.raises(CandidateRefused, match="torch is not installed"):
        fitting.fit("mlp", rows(100), how("regression"), 1)


def test_one_class_is_not_enough() -> None:
    table = rows(100, task="binary")
    import pyarrow.compute as pc

    only = table.filter(pc.equal(table["y"], "no"))
    with pytest.raises(CandidateRefused, match="needs two"):
        fitting.fit("linear", only, how("binary"), 1)


def test_classes_come_in_the_files_order() -> None:
    named = spec(task="binary", data={"classes": ["yes", "no"]})
    fitted = fitting.fit("linear", rows(300, task="binary"), named, 1)
    assert fitted.classes == ("yes", "no")


def test_a_checkpoint_is_what_was_saved(tmp_path) -> None:
    fitted = fitting.fit("linear", rows(100), how("regression"), 1)
    assert fitting.saved(tmp_path, "try", "linear") is None
    fitting.save(fitted, tmp_path, "try")
    assert fitting.saved(tmp_path, "try", "linear") == fitted


def test_unknown_categories_and_missing_values_are_answered() -> None:
    fitted = fitting.fit("gradient_boosting", rows(300), how("regression"), 1)
    import pyarrow as pa

    strange = pa.RecordBatch.from_pydict({"a": [None, 1.0], "kind": ["new", None]})
    assert fitted.loaded().predict(strange).non_finite_count() == 0


def test_features_are_inferred_where_the_file_names_none() -> None:
    inferred = spec(data={"features": {}})
    fitted = fitting.fit("linear", rows(100), inferred, 1)
    assert [(c.name, c.type) for c in fitted.inputs] == [
        ("a", "number"),
        ("kind", "category"),
    ]


def test_thresholds_keep_float32_rows_on_their_side() -> None:
    draw = np.random.default_rng(0)
    thresholds = draw.normal(size=1000)
    rounded = largest_float32_not_above(thresholds)
    for x in (rounded, np.nextafter(rounded, np.float32(np.inf))):
        assert np.array_equal(x.astype(np.float64) <= thresholds, x <= rounded)
