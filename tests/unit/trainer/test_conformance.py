"""What every candidate keeps: one suite for all names that a pipeline file may give.

A candidate either gives a model that answers as its library does, or refuses in words
that say what to do. Nothing in between: no exception of a library, no other bytes for
the same rows. A candidate that is added to ``MODULES`` is tested here by that alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.trainer import candidates, encoding_json, fitting
from driftloop.trainer.candidates import (
    CONTINUED,
    MODULES,
    UNWATCHED,
    CandidateRefused,
    Sample,
)
from driftloop.trainer.continuing import HEADER_FILE, Header, Heritage
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.graph import RAW, Core, constant
from onnx import helper

from tests.unit.trainer.cases import rows, spec

TASKS = ("regression", "binary", "multiclass")
OF_SEQUENCES = ("gru", "tcn")
OF_TORCH = ("mlp", *OF_SEQUENCES)
LAGS = ("lag2", "lag1", "a")
"""Columns of the sequence that some candidates learn from, oldest first."""
HAS_TORCH = find_spec("torch") is not None
WIDE_COLUMNS = 10_000
CANDIDATES = [
    pytest.param(
        name,
        marks=[
            pytest.mark.torch,
            pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed"),
        ],
    )
    if name in OF_TORCH
    else name
    for name in MODULES
]
every_candidate = pytest.mark.parametrize("name", CANDIDATES)
every_task = pytest.mark.parametrize("task", TASKS)

Fit = Callable[[pa.Table, PipelineSpec], Fitted]
Going = Callable[[pa.Table, PipelineSpec, Heritage | None], Fitted]


def of(name: str) -> Fit:
    return lambda table, how: fit(name, table, how)


def fit(name: str, table: pa.Table, how: PipelineSpec) -> Fitted:
    return fitting.fit(name, with_lags(name, table), named_lags(name, how), 1)


def with_lags(name: str, table: Any) -> Any:
    """The rows, with the two values of ``a`` before each for those who need them."""
    if name in OF_SEQUENCES and "a" in table.schema.names:
        for steps in (2, 1):
            before = [None, None, *table["a"].to_pylist()][2 - steps :]
            lag = pa.array(before[: table.num_rows], pa.float64())
            table = table.append_column(f"lag{steps}", lag)
    return table


def named_lags(name: str, how: PipelineSpec) -> PipelineSpec:
    if name not in OF_SEQUENCES:
        return how
    content = how.model_dump(mode="json")
    lags = LAGS if content["data"]["features"] else ("c0", "c1", "c2")
    content["train"]["sequences"] = {"a": lags}
    if content["data"]["features"]:
        number = {"type": "number", "nullable": True}
        content["data"]["features"] |= {"lag1": number, "lag2": number}
    return PipelineSpec.model_validate(content)


def changed(table: pa.Table, column: str, values: Any) -> pa.Table:
    """The table with another column in the place of one."""
    at = table.schema.get_field_index(column)
    return table.set_column(at, column, pa.array(values))


# ── fit, export, parity ─────────────────────────────────────────────────────


def learns(fit: Fit, task: str, name: str = "") -> None:
    """Better than half of no skill on rows that it has not seen, through its graph."""
    table, how = with_lags(name, rows(600, task=task)), spec(task=task)
    rest = table.slice(500)
    fitted = fit(table.slice(0, 500), how)
    assert fitted.parity is not None
    assert fitted.parity <= fitting.PARITY_TOLERANCE
    said = fitted.loaded().predict(rest)
    truth = fitting.target_of(rest, how).values
    assert said.non_finite_count() == 0
    if task == "regression":
        error = np.mean(np.abs(said.prediction - truth))
        assert error < 0.5 * np.mean(np.abs(truth - truth.mean()))
        return
    assert np.mean(said.prediction == truth) > 0.75
    assert said.score is not None
    if task == "multiclass":
        assert said.score.sum(axis=1) == pytest.approx(1.0, abs=1e-4)


@every_task
@every_candidate
def test_it_learns_and_its_graph_answers_as_its_library(name: str, task: str) -> None:
    learns(
        lambda table, how: fitting.fit(name, table, named_lags(name, how), 1),
        task,
        name,
    )


# ── determinism ─────────────────────────────────────────────────────────────

_ELSEWHERE = """
import hashlib, json, sys
from tests.unit.trainer.cases import rows, spec
from tests.unit.trainer.test_conformance import fit
found = {}
for name in sys.argv[1:]:
    model = fit(name, rows(300, task="binary"), spec(task="binary")).model
    found[name] = hashlib.sha256(model).hexdigest()
print(json.dumps(found))
"""


@every_candidate
def test_the_same_rows_give_the_same_bytes(name: str) -> None:
    table, how = rows(300, task="binary"), spec(task="binary")
    first, second = (fit(name, table, how).model for _ in range(2))
    assert first == second
    # The control: other rows give other bytes.
    assert fit(name, rows(300, task="binary", seed=1), how).model != first


@pytest.mark.timeout(300)  # fits them all; a busy machine is several times slower
def test_another_process_gives_the_same_bytes() -> None:
    """With another order of its sets and another number of threads."""
    names = [name for name in MODULES if HAS_TORCH or name not in OF_TORCH]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    said = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, *names],
        env=environment, capture_output=True, check=True, text=True, timeout=240,
        cwd=Path(__file__).parents[3],
    ).stdout.splitlines()[-1]  # fmt: skip
    table, how = rows(300, task="binary"), spec(task="binary")
    here = {
        name: hashlib.sha256(fit(name, table, how).model).hexdigest() for name in names
    }
    assert json.loads(said) == here


@every_candidate
def test_a_finished_fit_is_resumed_from_its_checkpoint(
    name: str, tmp_path: Path
) -> None:
    fitted = fit(name, rows(150), spec())
    assert fitting.saved(tmp_path, "try", name) is None
    fitting.save(fitted, tmp_path, "try")
    assert fitting.saved(tmp_path, "try", name) == fitted


# ── bad data ────────────────────────────────────────────────────────────────


def survives(
    fit: Fit, table: pa.Table, how: PipelineSpec, name: str = ""
) -> Fitted | None:
    """A model with finite answers, or a refusal in words."""
    try:
        fitted = fit(table, how)
    except CandidateRefused as error:
        words = str(error).split()
    else:
        asked = with_lags(name, table)
        assert fitted.loaded().predict(asked).non_finite_count() == 0
        return fitted
    assert len(words) >= 5, words
    return None


@every_candidate
def test_infinite_and_missing_numbers(name: str) -> None:
    """Rows that no validator has seen: the largest number is not special."""
    a = np.where(np.arange(300) % 50 == 7, np.inf, rows(300)["a"].to_pylist())
    a = np.array(a, dtype=float)
    a[3], a[4] = -np.inf, 1e300
    survives(of(name), changed(rows(300), "a", a), spec(), name)


@every_candidate
def test_a_column_without_values(name: str) -> None:
    table = changed(rows(300), "a", pa.nulls(300, pa.float64()))
    survives(of(name), table, spec(), name)


@every_candidate
def test_a_target_that_is_not_finite_is_refused(name: str) -> None:
    y = rows(300)["y"].to_numpy().copy()
    y[5] = np.nan
    with pytest.raises(CandidateRefused, match="'y'"):
        fit(name, changed(rows(300), "y", y), spec())


@every_task
@every_candidate
def test_a_constant_column_and_a_constant_target(name: str, task: str) -> None:
    table, how = rows(300, task=task), spec(task=task)
    assert survives(of(name), changed(table, "a", np.ones(300)), how, name)
    same = [table["y"][0].as_py()] * 300
    fitted = survives(of(name), changed(table, "y", same), how, name)
    if task == "regression":
        assert fitted is not None
        said = fitted.loaded().predict(with_lags(name, table)).prediction
        assert said == pytest.approx(same, rel=0.01)
    else:
        assert fitted is None  # one class is nothing to tell apart


@every_task
@every_candidate
def test_one_row(name: str, task: str) -> None:
    table, how = rows(1, task=task), spec(task=task)
    survives(of(name), table, how, name)


@every_candidate
def test_a_class_that_training_never_saw(name: str) -> None:
    """The file names three, the rows have two: the graph answers with the two."""
    how = spec(task="multiclass", data={"classes": ["low", "middle", "high"]})
    table = rows(400, task="multiclass")
    table = table.filter(pa.compute.not_equal(table["y"], "high"))
    fitted = survives(of(name), table, how, name)
    assert fitted is not None
    assert fitted.classes == ("low", "middle")


@every_candidate
def test_a_category_that_training_never_saw(name: str) -> None:
    fitted = fit(name, rows(300), spec())
    strange = pa.RecordBatch.from_pydict(
        {"a": [None, 1.0, np.nan], "kind": ["new", None, ""]}
    )
    strange = with_lags(name, pa.Table.from_batches([strange]))
    assert fitted.loaded().predict(strange).non_finite_count() == 0


@every_candidate
def test_ten_thousand_columns(name: str) -> None:
    draw = np.random.default_rng(0)
    signal = draw.normal(size=60)
    values = draw.normal(size=(WIDE_COLUMNS, 60)).astype(np.float32)
    values[0] = signal
    table = rows(60).select(["id", "event_time", "source"])
    names = [f"c{number}" for number in range(WIDE_COLUMNS)]
    wide = pa.table(
        [*table.columns, *map(pa.array, values), pa.array(3 * signal)],
        names=[*table.column_names, *names, "y"],
    )
    how = spec(data={"features": {}})
    fitted = survives(of(name), wide, how, name)
    if fitted is not None:
        assert len(fitted.inputs) == WIDE_COLUMNS


# ── going on ────────────────────────────────────────────────────────────────


def goes_on(fit_on: Going, table: pa.Table, how: PipelineSpec) -> None:
    """In two steps from a state it comes to the same bytes as in one.

    The state is of the first rows, so that both ways have the same encoding.
    """
    first = fit_on(table.slice(0, 200), how, None)
    assert first.state, first.note
    one = fit_on(table, how, left_by(first))
    half = fit_on(table.slice(0, 300), how, left_by(first))
    two = fit_on(table, how, left_by(half))
    assert two.model == one.model
    assert two.state == one.state
    assert one.model not in (first.model, half.model)
    assert one.parity is not None
    assert one.parity <= fitting.PARITY_TOLERANCE


def left_by(fitted: Fitted) -> Heritage:
    header = Header.model_validate_json(fitted.state[HEADER_FILE])
    encoding = encoding_json.of_json(header.encoding)
    return Heritage(1, header, fitted.state[header.state_file], encoding)


def going(name: str) -> Going:
    return lambda table, how, heritage: fitting.fit(
        name, table, how, 1, heritage=heritage
    )


def continuing_spec(task: str) -> PipelineSpec:
    return spec(task=task, train={"continue_from_champion": True})


@every_task
@pytest.mark.parametrize("name", CONTINUED)
def test_it_goes_on_from_its_state(name: str, task: str) -> None:
    goes_on(going(name), rows(400, task=task), continuing_spec(task))


@pytest.mark.parametrize(
    "name", [n for n in MODULES if n not in (*CONTINUED, *OF_TORCH)]
)
def test_the_others_keep_no_state(name: str) -> None:
    """Networks do: their weights, to begin at; see ``test_network_start``."""
    assert not fitting.fit(name, rows(150), continuing_spec("regression"), 1).state


def forgetful(sample: Sample) -> Core:
    """Begins with its state and learns all rows once more."""
    start = sample.start and replace(sample.start, first=0)
    return candidates.candidate("online_linear")(replace(sample, start=start))


def test_a_forgetful_candidate_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "candidate", lambda _: forgetful)
    with pytest.raises(AssertionError):
        goes_on(going("linear"), rows(400), continuing_spec("regression"))


# ── the control: a candidate that keeps none of it is found out ─────────────


def careless(sample: Sample) -> Core:
    """Answers at random, in its library otherwise than in its graph."""
    weight = np.random.default_rng().normal(size=(sample.matrix.shape[1], 1))
    nodes = [helper.make_node("MatMul", ["features", "careless/weight"], [RAW])]
    return Core(
        nodes,
        [constant("careless/weight", weight)],
        "identity",
        lambda matrix: np.zeros(len(matrix)),
        {},
    )


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> Fit:
    """The careless one, with its own answer taken for right if asked to."""
    monkeypatch.setattr(fitting, "candidate", lambda _: careless)
    return lambda table, how: fit("linear", table, how)


def test_a_careless_candidate_is_refused_for_its_graph(bad: Fit) -> None:
    with pytest.raises(CandidateRefused, match="differs"):
        learns(bad, "regression")


def test_a_careless_candidate_fails_the_other_checks(
    bad: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "check_parity", lambda *_: 0.0)
    table = rows(300)
    assert bad(table, spec()).model != bad(table, spec()).model
    with pytest.raises(AssertionError):  # NaN goes straight through
        survives(bad, table, spec())
    with pytest.raises(AssertionError):
        learns(bad, "regression")


def test_all_names_of_the_file_are_candidates() -> None:
    from typing import get_args

    from driftloop.contracts.pipeline import CandidateName

    assert set(get_args(CandidateName)) == set(MODULES)
    assert candidates.UNWATCHED is UNWATCHED
