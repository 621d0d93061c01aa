"""Samples tell a model that answers as trained from one that does not."""

import json

import numpy as np
import pyarrow as pa
import pytest
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import InputColumn
from driftloop.models.samples import SamplesRefused, check_samples, samples_json
from onnx import TensorProto, helper

INPUTS = [
    InputColumn(name="size", type="number", nullable=True),
    InputColumn(name="is_new", type="boolean"),
]


def plus(constant: float) -> OnnxModel:
    """Return size + is_new + constant, and its sigmoid as score."""
    vector = [None, 1]
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["size", "is_new"], ["sum"]),
            helper.make_node(
                "Constant", [], ["c"], value=helper.make_tensor("c", 1, [1], [constant])
            ),
            helper.make_node("Add", ["sum", "c"], ["prediction"]),
        ],
        "plus",
        [helper.make_tensor_value_info(c.name, TensorProto.FLOAT, vector) for c in
         INPUTS],
        [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, vector)],
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    return OnnxModel(model.SerializeToString(), INPUTS)


ROWS = pa.RecordBatch.from_pydict({"size": [1.5, 2.5], "is_new": [True, False]})


@pytest.fixture
def samples() -> bytes:
    return samples_json(ROWS, INPUTS, plus(1).predict(ROWS))


def test_the_same_model_passes(samples):
    assert check_samples(plus(1), INPUTS, samples).num_rows == 2
    assert json.loads(samples)["prediction"] == [3.5, 3.5]


def test_a_model_that_answers_otherwise_is_refused(samples):
    with pytest.raises(SamplesRefused, match="sample 0: prediction is 4.5, expected"):
        check_samples(plus(2), INPUTS, samples)


def test_a_model_that_answers_nan_is_refused(samples):
    with pytest.raises(SamplesRefused, match="2 of 2 samples get no finite answer"):
        check_samples(plus(np.nan), INPUTS, samples)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": {"size": [1.0]}}, "is_new"),
        ({"inputs": {"size": [], "is_new": []}}, "no rows"),
        ({"inputs": {"size": ["x"], "is_new": [True]}}, "not right"),
        ({"prediction": [3.5]}, "shape"),
        ({"prediction": ["a", "b"]}, "expected numbers"),
    ],
)
def test_broken_samples_are_refused(samples, change, message):
    content = json.loads(samples) | change
    with pytest.raises(SamplesRefused, match=message):
        check_samples(plus(1), INPUTS, json.dumps(content).encode())


def test_no_json_is_refused():
    with pytest.raises(SamplesRefused, match="not right"):
        check_samples(plus(1), INPUTS, b"[")
