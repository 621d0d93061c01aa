"""The networks: embeddings, sequences, early stopping, and data that is no use."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.pipeline import PipelineFileError, parse_pipeline
from driftloop.trainer import fitting
from driftloop.trainer.candidates import CandidateRefused, Sample, Watch
from driftloop.trainer.candidates.network_input import LIMIT, learn_inputs
from driftloop.trainer.candidates.torch_fit import batch_rows

from tests.unit.trainer.cases import rows, spec
from tests.unit.trainer.test_checkpoints import Counting, Cut, CutOffError

torch_only = [
    pytest.mark.torch,
    pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed"),
]
STEPS = 12
LAGS = [f"load_{STEPS - number}h" for number in range(STEPS)]
HEATS = [f"heat_{STEPS - number}h" for number in range(STEPS)]


def sequence_spec(task: str = "regression", **train: Any):
    features = {name: {"type": "number", "nullable": True} for name in LAGS + HEATS}
    named = {"sequences": {"load": LAGS, "heat": HEATS}, **train}
    return spec(
        task=task,
        data={"features": {**features, "kind": {"type": "category"}}},
        train=named,
    )


def sequence_rows(count: int = 500, task: str = "regression") -> pa.Table:
    """What counts is how the newest step of one sequence differs from its past."""
    draw = np.random.default_rng(1)
    table = rows(count).drop_columns(["a", "y", "kind"])
    load = draw.normal(size=(count, STEPS)).cumsum(axis=1)
    heat = draw.normal(size=(count, STEPS))
    y: Any = 2 * (load[:, -1] - load[:, -4]) + heat[:, -1]
    if task == "binary":
        y = np.where(y > 0, "yes", "no")
    load[::19, 3] = np.nan
    for names, values in ((LAGS, load), (HEATS, heat)):
        for name, column in zip(names, values.T, strict=True):
            table = table.append_column(name, pa.array(column, from_pandas=True))
    kinds = pa.array(draw.choice(["p", "q"], count).tolist())
    return table.append_column("kind", kinds).append_column("y", pa.array(y.tolist()))


@pytest.mark.parametrize("task", ["regression", "binary"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=torch_only) for name in ("gru", "tcn")]
)
def test_a_sequence_is_learned_and_its_graph_is_exact(name: str, task: str) -> None:
    table = sequence_rows(700, task)
    fitted = fitting.fit(name, table.slice(0, 600), sequence_spec(task), 1)
    rest = table.slice(600)
    said = fitted.loaded().predict(rest).prediction
    truth = fitting.target_of(rest, sequence_spec(task)).values
    if task == "binary":
        assert np.mean(said == truth) > 0.85
    else:
        assert np.mean((said - truth) ** 2) < 0.2 * np.var(truth)
    assert fitted.parameters["steps"] == STEPS
    assert fitted.parameters["channels"] == 2
    one = fitted.loaded().predict(rest.slice(0, 1)).prediction
    assert task == "binary" or one == pytest.approx(said[:1], abs=1e-3)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=torch_only) for name in ("gru", "tcn")]
)
def test_a_sequential_fit_that_is_cut_off_ends_in_the_same_bytes(
    name: str, tmp_path: Path
) -> None:
    table, how = sequence_rows(220), sequence_spec()
    counting = Counting()
    whole = fitting.fit(name, table, how, 1, counting).model
    path = tmp_path / "it.checkpoint"
    for cut in (6, counting.last - 1):
        with pytest.raises(CutOffError):
            fitting.fit(name, table, how, 1, Cut(path, cut))
    assert fitting.fit(name, table, how, 1, Cut(path)).model == whole


@pytest.mark.parametrize("name", ["gru", "tcn"])
def test_without_sequences_the_setting_is_named(name: str) -> None:
    with pytest.raises(CandidateRefused, match=r"train\.sequences"):
        fitting.fit(name, rows(100), spec(), 1)


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        ("{l: [a]}", "at least 2"),
        ("{l: [a, b], m: [c]}", "at least 2"),
        ("{l: [a, b], m: [c, d, e]}", "different lengths"),
        ("{l: [a, b], m: [b, c]}", "b comes more than once"),
        ("{l: [a, bb]}", "did you mean 'b'"),
        ("{l: [a, kind]}", "of type category"),
    ],
)
def test_a_sequence_that_is_none_is_refused_in_words(sequences: str, words: str):
    def text(value: str) -> str:
        numbers = "a: {}, b: {}, c: {}, d: {type: integer}, e: {}"
        return (
            "{name: x, task: regression, data: {target: y, features: "
            f"{{{numbers}, kind: {{type: category}}}}}}, "
            f"train: {{sequences: {value}}}}}"
        )

    assert parse_pipeline(text("{l: [a, b], m: [c, d]}")).train.sequences
    with pytest.raises(PipelineFileError, match=words):
        parse_pipeline(text(sequences))


def test_where_the_columns_are_inferred_the_training_checks_them() -> None:
    how = spec(data={"features": {}}, train={"sequences": {"l": ["a", "b"]}})
    with pytest.raises(CandidateRefused, match="'b', which is no feature"):
        fitting.fit("linear", rows(100), how, 1)


# ── categories of many values ───────────────────────────────────────────────


def many_kinds(count: int = 900, kinds: int = 30) -> pa.Table:
    draw = np.random.default_rng(2)
    table = rows(count).drop_columns(["kind", "y"])
    kind = draw.integers(kinds, size=count)
    effect = draw.normal(scale=5, size=kinds)
    y = effect[kind] + draw.normal(scale=0.3, size=count)
    texts = pa.array([f"k{number:02d}" for number in kind])
    return table.append_column("kind", texts).append_column("y", pa.array(y))


@pytest.mark.torch
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("encoding", ["one_hot", "hashing"])
def test_a_category_of_many_values_becomes_a_vector(encoding: str) -> None:
    how = spec(train={"preprocessing": {"columns": {"kind": {"encoding": encoding}}}})
    table = many_kinds()
    fitted = fitting.fit("mlp", table.slice(0, 800), how, 1)
    rest = table.slice(800)
    truth = fitting.target_of(rest, how).values
    said = fitted.loaded().predict(rest).prediction
    assert np.mean((said - truth) ** 2) < 0.2 * np.var(truth)
    assert len(fitted.parameters["embedded_categories"]) == 1
    unseen = pa.RecordBatch.from_pydict({"a": [0.0], "kind": ["never seen"]})
    assert fitted.loaded().predict(unseen).non_finite_count() == 0


@pytest.mark.torch
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_noise_is_not_learned_for_all_epochs() -> None:
    draw = np.random.default_rng(3)
    table = rows(600).drop_columns(["y"])
    table = table.append_column("y", pa.array(draw.normal(size=600)))
    noise = fitting.fit("mlp", table, spec(), 1).parameters
    assert noise["best_epoch"] < noise["epochs"] < noise["max_epochs"]
    few = fitting.fit("mlp", table.slice(0, 100), spec(), 1).parameters
    assert few["epochs"] == few["best_epoch"] == few["max_epochs"]


# ── what a network cannot use, or must bear ─────────────────────────────────


def sample_of(matrix: Any, **more: Any) -> Sample:
    matrix = np.asarray(matrix, dtype=np.float32)
    return Sample(matrix, np.zeros(len(matrix)), (), 0, 1, Watch(), **more)


def test_inputs_bear_what_comes() -> None:
    big = np.finfo(np.float32).max
    nan, inf = np.nan, np.inf
    columns = [
        [nan] * 6,
        [5.0] * 6,
        [inf, -inf, 1, 2, 3, nan],
        [big, -big, big, 0, 1, big],
        [1e-40, 2e-40, 0, 0, 0, 0],
    ]
    matrix = np.array(columns, dtype=np.float32).T
    scaled = learn_inputs(sample_of(matrix)).scaled(matrix)
    assert np.isfinite(scaled).all()
    assert np.abs(scaled).max() <= LIMIT
    assert (scaled[:, :2] == 0).all()


def test_the_steps_of_a_sequence_are_scaled_alike() -> None:
    matrix = np.array([[0, 10, 7], [2, 12, 8]], dtype=np.float32)
    inputs = learn_inputs(sample_of(matrix, channels=((0, 1),)), np.array([[0, 1]]))
    assert inputs.means.tolist()[:2] == [6, 6]
    assert inputs.scales[0] == inputs.scales[1] == pytest.approx(np.std([0, 10, 2, 12]))
    assert inputs.numbers.tolist() == [2]


@pytest.mark.torch
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_a_target_without_bounds_is_refused_in_words() -> None:
    table = rows(60)
    at = table.column_names.index("y")
    wild = table.set_column(at, "y", pa.array([1e308, -1e308] * 30))
    with (
        pytest.raises(CandidateRefused, match="not finite"),
        np.errstate(all="ignore"),
    ):
        fitting.fit("mlp", wild, spec(), 1)


@pytest.mark.torch
@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("name", ["mlp", "gru", "tcn"])
@pytest.mark.parametrize("count", [2, 3, 70])
def test_few_rows_give_a_model(name: str, count: int) -> None:
    fitted = fitting.fit(name, sequence_rows(count), sequence_spec(), 1)
    assert fitted.loaded().predict(sequence_rows(3)).non_finite_count() == 0


def test_batches_grow_with_the_rows() -> None:
    sizes = [batch_rows(count) for count in (1, 300, 32_768, 32_769, 10**6, 10**9)]
    assert sizes == [64, 64, 64, 128, 2048, 4096]
