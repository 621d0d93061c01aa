"""Models of the pipeline's own package: the page's example, and all that is refused."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.compute as pc
import pytest
import yaml
from deltalake import write_deltalake
from driftloop.contracts.pipeline import PipelineFileError, PipelineSpec, parse_pipeline
from driftloop.runtime.settings import load_settings
from driftloop.trainer import child, fitting
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.settings import TrainerSettings
from numpy.exceptions import AxisError
from onnx import TensorProto, helper
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeRegressor

from tests.unit.trainer.cases import job, rows, spec

HERE = __name__
ALLOWED = ("tests.unit.trainer",)
converts = pytest.mark.skipif(
    find_spec("skl2onnx") is None, reason="the extra own is not installed"
)
SETTING = "DRIFTLOOP_TRAINER_ALLOWED_IMPORTS"


def how(name: str, task: str = "regression", **entry: Any) -> PipelineSpec:
    """A pipeline with one candidate, imported from this file."""
    own = {"import": f"{HERE}:{name}", "name": "mine", **entry}
    return spec(task=task, train={"candidates": [own]})


def fit(name: str, task: str = "regression", count: int = 300, **entry: Any) -> Any:
    table = rows(count, task=task)
    if name == "nearest":  # rows that are equally near are in no certain order
        table = table.filter(pc.is_valid(table["a"]))
    return fitting.fit(
        "mine", table, how(name, task, **entry), 1,
        allowed_imports=ALLOWED,
    )  # fmt: skip


# ── the page's example ──────────────────────────────────────────────────────


def page(name: str, heading: str) -> dict[str, str]:
    """The blocks of the page's section, by language."""
    text = (Path(__file__).parents[3] / "docs" / name).read_text("utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL))


TRAINING = page("training.md", "A model of your own")
GUIDE = page("guides/own-parts.md", "A candidate")


@converts
@pytest.mark.parametrize(
    ("page", "names"),
    [
        (TRAINING, {"linear", "non_negative", "extra_trees"}),
        (GUIDE, {"linear", "huber"}),
    ],
    ids=["training", "guide"],
)
def test_the_pages_example_is_trained_by_the_child_process(
    page: dict[str, str], names: set[str], tmp_path: Path
) -> None:
    package = tmp_path / "installed" / "bikes"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models.py").write_text(page["python"])
    table = rows(400)
    write_deltalake(str(tmp_path / "table"), table)
    request = job(tmp_path / "table", table, spec(**yaml.safe_load(page["yaml"])))
    work = tmp_path / "work"
    work.mkdir()
    line = child.ChildJob(request=request.model_dump_json(), folder=work)
    name, value = TRAINING["sh"].split("#")[0].strip().split("=")
    assert name == SETTING
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path / 'installed'}",
        "DRIFTLOOP_HOME": str(tmp_path),
        name: value,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "driftloop.trainer.child"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(line.model_dump_json().encode() + b"\n")
        process.stdin.flush()
        *_, last = process.stdout
    said = yaml.safe_load(last)
    assert said["type"] == "trained", said
    losses = {t["name"]: t["validation_loss"] for t in said["tried"]}
    assert set(losses) == names
    assert all(losses.values()), said["tried"]


# ── estimators of scikit-learn ──────────────────────────────────────────────


def trees(**parameters: Any) -> Any:
    return make_pipeline(SimpleImputer(), ExtraTreesClassifier(**parameters))


def nearest() -> Any:
    return make_pipeline(SimpleImputer(), KNeighborsRegressor())


def bayes() -> Any:
    return make_pipeline(SimpleImputer(), GaussianNB())


@converts
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_converted_classifier_answers_as_its_library(task: str) -> None:
    fitted = fit("trees", task, parameters={"n_estimators": 20})
    assert fitted.parity <= fitting.PARITY_TOLERANCE
    assert fitted.parameters == {"import": f"{HERE}:trees", "n_estimators": 20}
    asked = rows(100, task=task, seed=1)
    truth = fitting.target_of(asked, how("trees", task)).values
    assert np.mean(fitted.loaded().predict(asked).prediction == truth) > 0.75


_ELSEWHERE = """
import hashlib
from tests.unit.trainer.test_own import fit
print(hashlib.sha256(fit("trees", "binary").model).hexdigest())
"""


@converts
def test_the_same_rows_give_the_same_bytes_in_any_process() -> None:
    """The seed that the estimator leaves open is the pipeline file's."""
    said = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, check=True,
        text=True, timeout=120, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    mine = fit("trees", "binary").model
    assert said.stdout.split()[-1] == hashlib.sha256(mine).hexdigest()
    other = fit("trees", "binary", parameters={"random_state": 5}).model
    assert other != mine  # the control: a seed that is given is kept


@converts
@pytest.mark.parametrize(("name", "task"), [("nearest", "regression"),
                                            ("bayes", "multiclass")])  # fmt: skip
def test_graphs_of_many_operators_are_put_behind_the_encoding(
    name: str, task: str
) -> None:
    assert fit(name, task).parity <= fitting.PARITY_TOLERANCE


@converts
def test_a_graph_with_loops_is_refused_within_an_ensemble() -> None:
    from driftloop.trainer import blending

    members = [fit("nearest"), fitting.fit("linear", rows(300), spec(), 1)]
    shares = blending.equal_shares(2)
    with pytest.raises(CandidateRefused, match=r"loops .*train\.ensembles"):
        blending.blended("average", members, shares, [{}, {}])


def unconverted() -> Any:
    return HistGradientBoostingRegressor(max_iter=5)


def takes_missing() -> Any:
    return DecisionTreeRegressor()


@converts
def test_what_cannot_be_converted_is_refused() -> None:
    with pytest.raises(CandidateRefused, match="the export of mine raised"):
        fit("unconverted")


@converts
def test_a_conversion_that_answers_otherwise_is_refused() -> None:
    """Missing values go to another branch in the graph than in the library."""
    with pytest.raises(CandidateRefused, match="differs"):
        fit("takes_missing")


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(CandidateRefused, match=r"driftloop-trainer\[own\]"):
        fit("bayes", "binary")


# ── estimators with a graph of their own ────────────────────────────────────


class Mean:
    """The mean of the target; broken in the way that a test asks for."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.random_state: int | None = None

    def fit(self, matrix: Any, target: Any) -> Mean:
        if self.fault == "fit":
            raise AxisError("no such axis")
        if self.fault == "memory":
            raise MemoryError
        self.mean = float(np.mean(target))
        return self

    def predict(self, matrix: Any) -> Any:
        width = 2 if self.fault == "shape" else 1
        return np.full((len(matrix), width), self.mean)

    def to_onnx(self) -> Any:
        output = "answer" if self.fault == "names" else "raw"
        nodes = [
            helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=1),
            helper.make_node("Sub", ["sum", "sum"], ["nan"]),
            helper.make_node("IsNaN", ["nan"], ["is_nan"]),
            helper.make_node("Where", ["is_nan", "mean", "mean"], [output]),
        ]
        mean = self.mean + (1.0 if self.fault == "parity" else 0.0)
        constants = [
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("mean", TensorProto.FLOAT, [1, 1], [mean]),
        ]
        if self.fault == "rows":
            nodes[-1] = helper.make_node("Identity", ["mean"], [output])
        if self.fault == "domain":
            nodes[-1].domain = "elsewhere"
        kinds = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None])
            for name in ("features", output)
        ]
        graph = helper.make_graph(nodes, "mean", kinds[:1], kinds[1:], constants)
        version = 13 if self.fault == "opset" else 21
        opsets = [helper.make_opsetid("", version)]
        if self.fault == "domain":
            opsets.append(helper.make_opsetid("elsewhere", 1))
        model = helper.make_model(graph, opset_imports=opsets)
        return "model" if self.fault == "type" else model.SerializeToString()


def test_a_graph_of_its_own_is_served() -> None:
    fitted = fit("Mean")
    onnx.checker.check_model(onnx.load_from_string(fitted.model))
    said = fitted.loaded().predict(rows(10)).prediction
    assert said == pytest.approx(np.mean(rows(300)["y"].to_numpy()), rel=1e-5)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("fit", "fit of mine raised AxisError: no such axis"),
        ("shape", r"answers with \(300, 2\), not \(300,\)"),
        ("names", "it has to be from 'features' to 'raw'"),
        ("parity", "differs"),
        ("rows", r"answers 2 rows with \(1, 1\)"),
        ("domain", "may not be served"),
        ("opset", "gave operator set ai.onnx 13; give ai.onnx 21"),
        ("type", "not str"),
    ],
)
def test_each_fault_is_refused_in_words(fault: str, words: str) -> None:
    with pytest.raises(CandidateRefused, match=words):
        fit("Mean", parameters={"fault": fault})


def test_lack_of_memory_is_the_trainings_and_not_the_candidates() -> None:
    with pytest.raises(MemoryError):
        fit("Mean", parameters={"fault": "memory"})


def test_weights_need_sample_weight() -> None:
    table = rows(300)

    def weigh(found: Any) -> Any:
        return np.ones(found.num_rows)

    with pytest.raises(CandidateRefused, match="no sample_weight"):
        fitting.fit("mine", table, how("Mean"), 1, weigh=weigh, allowed_imports=ALLOWED)


def test_what_is_no_estimator_is_refused() -> None:
    with pytest.raises(CandidateRefused, match="has no predict_proba"):
        fit("Mean", "binary")
    with pytest.raises(CandidateRefused, match="no function or class"):
        fit("ALLOWED")
    with pytest.raises(CandidateRefused, match="raised TypeError"):
        fit("Mean", parameters={"unknown": 1})


# ── what may be imported ────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "allowed",
    [(), ("tests.unit.train",), ("tests.unit.trainer.test_own.more",)],
)
def test_no_module_is_imported_that_the_installation_does_not_allow(
    allowed: tuple[str, ...],
) -> None:
    with pytest.raises(CandidateRefused, match=f"{SETTING}={HERE}"):
        fitting.fit("mine", rows(100), how("Mean"), 1, allowed_imports=allowed)


@converts
def test_what_an_allowed_module_only_imported_is_not_allowed() -> None:
    """Else the functions of every library that it uses would be."""
    with pytest.raises(CandidateRefused, match="does not allow module 'sklearn"):
        fit("DecisionTreeRegressor")
    own = {"import": f"{HERE}:DecisionTreeRegressor", "name": "mine"}
    both = (*ALLOWED, "sklearn.tree")
    table = rows(200).drop_columns(["a"])
    fitting.fit(
        "mine", table,
        spec(
            data={"features": {"kind": {"type": "category", "nullable": True}}},
            train={"candidates": [own]},
        ),
        1, allowed_imports=both,
    )  # fmt: skip


def test_a_path_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(CandidateRefused, match="AttributeError"):
        fit("nothing")


def test_the_setting_is_a_list_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(TrainerSettings, "trainer").import_prefixes == ()
    monkeypatch.setenv(SETTING, " bikes, sklearn.ensemble,")
    found = load_settings(TrainerSettings, "trainer").import_prefixes
    assert found == ("bikes", "sklearn.ensemble")


# ── the pipeline file ───────────────────────────────────────────────────────

OWN = {"import": "bikes.models:make", "name": "mine"}


def parsed(*candidates: Any) -> PipelineSpec:
    content = {
        "name": "bikes", "task": "binary", "data": {"target": "y"},
        "train": {"candidates": list(candidates)},
    }  # fmt: skip
    return parse_pipeline(yaml.safe_dump(content))


def test_an_event_says_it_as_the_file_does() -> None:
    found = parsed("linear", OWN)
    said = found.model_dump(mode="json")["train"]["candidates"]
    assert said == ["linear", {**OWN, "parameters": {}}]
    assert PipelineSpec.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    ("candidates", "words"),
    [
        ([{**OWN, "name": "linear"}], "the name 'linear' is not free"),
        ([{**OWN, "name": "stacking"}], "the name 'stacking' is not free"),
        ([OWN, OWN], "the name 'mine' is not free"),
        ([{**OWN, "name": "../mine"}], r"candidates\.0\.own\.name"),
        ([{**OWN, "import": "bikes.models"}], r"candidates\.0\.own\.import"),
        ([{**OWN, "paramters": {}}], "unknown key; did you mean 'parameters'"),
        (["liner"], r"candidates\.0\.name: Input should be 'gradient_boosting'"),
    ],
)
def test_the_file_is_refused_by_the_wrong_key_alone(
    candidates: list[Any], words: str
) -> None:
    with pytest.raises(PipelineFileError, match=words) as caught:
        parsed(*candidates)
    assert len(str(caught.value).splitlines()) == 1
