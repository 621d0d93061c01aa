"""What a graph from elsewhere has to take and give; the page's recipe makes it so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from driftloop.models.formats import FormatRefused, check_onnx
from driftloop.models.onnx_graph import inputs_of
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import InputColumn
from onnx import TensorProto, helper

PAGE = Path(__file__).parents[3] / "docs/mlflow-models.md"
FEATURES: dict[str, Any] = {"heat": "number", "sky": "category", "at": "datetime"}


def graph(
    inputs: dict[str, tuple[int, list[int | None]]], outputs: tuple[str, ...]
) -> onnx.ModelProto:
    first = next(iter(inputs), "none")
    nodes = [helper.make_node("Identity", [first], [name]) for name in outputs]
    made = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, k, s) for n, (k, s) in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
    )  # fmt: skip
    return helper.make_model(made, ir_version=8)


FLOAT, TEXT, MOMENT = TensorProto.FLOAT, TensorProto.STRING, TensorProto.INT64
COLUMN: list[int | None] = [None, 1]


def test_the_features_that_it_takes_in_the_pipelines_order() -> None:
    made = graph({"sky": (TEXT, COLUMN), "heat": (FLOAT, COLUMN)}, ("prediction",))
    assert inputs_of(made, FEATURES, "regression") == {
        "heat": "number", "sky": "category",
    }  # fmt: skip
    at = graph({"at": (MOMENT, COLUMN)}, ("prediction", "score"))
    assert list(inputs_of(at, FEATURES, "binary")) == ["at"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "task", "words"),
    [
        ({"X": (FLOAT, [None, 3])}, ("prediction",), "regression", "'X' are no feat"),
        ({"heat": (FLOAT, [None, 3])}, ("prediction",), "regression", r"\(n, 3\)"),
        ({"heat": (FLOAT, [None])}, ("prediction",), "regression", r"shape \(n\)"),
        ({"heat": (TEXT, COLUMN)}, ("prediction",), "regression", "is string"),
        ({"sky": (FLOAT, COLUMN)}, ("prediction",), "regression", "not string"),
        ({"heat": (TensorProto.DOUBLE, COLUMN)}, ("prediction",), "regression", "11"),
        ({}, ("prediction",), "regression", "no inputs"),
        ({"heat": (FLOAT, COLUMN)}, ("out",), "regression", "no prediction"),
        ({"heat": (FLOAT, COLUMN)}, ("prediction",), "binary", "no score"),
    ],
)
def test_what_is_served_otherwise_is_named(
    inputs: Any, outputs: tuple[str, ...], task: Any, words: str
) -> None:
    with pytest.raises(FormatRefused, match=words):
        inputs_of(graph(inputs, outputs), FEATURES, task)


def test_the_pages_recipe_makes_a_model_that_is_served() -> None:
    """One matrix becomes one input a feature, in the order that is given."""
    [recipe] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(recipe, names)  # noqa: S102 - a page of ours
    weights = helper.make_tensor("w", FLOAT, [2, 1], [1.0, 10.0])
    made = helper.make_graph(
        [helper.make_node("MatMul", ["X", "w"], ["variable"])], "linear",
        [helper.make_tensor_value_info("X", FLOAT, [None, 2])],
        [helper.make_tensor_value_info("variable", FLOAT, COLUMN)],
        [weights],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(made, ir_version=8, opset_imports=opsets)
    with pytest.raises(FormatRefused):  # negative control: as it came
        inputs_of(model, {"a": "number", "b": "number"}, "regression")
    fit = names["for_driftloop"](model, ["b", "a"])
    data = fit.SerializeToString()
    kinds = inputs_of(check_onnx(data), {"a": "number", "b": "number"}, "regression")
    loaded = OnnxModel(data, [InputColumn(name=n, type=k) for n, k in kinds.items()])
    said = loaded.predict(pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]}))
    np.testing.assert_allclose(said.prediction, [13.0, 24.0])
