"""Arrow rows become the graph's inputs, and wrong rows are named."""

import numpy as np
import pyarrow as pa
import pytest
from driftloop.models.formats import FormatRefused
from driftloop.models.onnx_model import (
    InputRefused,
    OnnxModel,
    Predictions,
    category_array,
    number_array,
)
from driftloop.models.package import InputColumn
from onnx import TensorProto, helper

OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]


def model(with_score: bool = False) -> bytes:
    """Adds the number and 10 for each row whose colour is red."""
    nodes = [
        helper.make_node(
            "LabelEncoder", ["colour"], ["ten"], domain="ai.onnx.ml",
            keys_strings=["red"], values_floats=[10.0], default_float=0.0,
        ),
        helper.make_node("Add", ["size", "ten"], ["prediction"]),
    ]  # fmt: skip
    outputs = ["prediction"]
    if with_score:
        nodes.append(helper.make_node("Sigmoid", ["prediction"], ["score"]))
        outputs.append("score")
    graph = helper.make_graph(
        nodes,
        "sum",
        [
            helper.make_tensor_value_info("size", TensorProto.FLOAT, [None, 1]),
            helper.make_tensor_value_info("colour", TensorProto.STRING, [None, 1]),
        ],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 1])
            for n in outputs
        ],
    )
    return helper.make_model(
        graph, opset_imports=OPSETS, ir_version=10
    ).SerializeToString()


INPUTS = [
    InputColumn(name="size", type="number"),
    InputColumn(name="colour", type="category"),
]


def rows(**columns) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def test_rows_are_predicted_by_name_in_any_order():
    batch = rows(other=["a", "b"], colour=["red", "blue"], size=[1.5, 2.0])
    found = OnnxModel(model(), INPUTS).predict(batch)
    assert found.prediction.tolist() == [11.5, 2.0]
    assert found.prediction.dtype == np.float64
    assert found.score is None


def test_a_table_of_several_chunks_is_predicted():
    batch = rows(colour=["red"], size=[1])
    table = pa.Table.from_batches([batch, batch])
    assert OnnxModel(model(), INPUTS).predict(table).prediction.tolist() == [11, 11]


def test_nulls_become_nan_and_the_empty_category():
    batch = rows(colour=[None, "red"], size=[1.0, None])
    found = OnnxModel(model(), INPUTS).predict(batch)
    assert found.prediction[0] == 1.0
    assert np.isnan(found.prediction[1])
    assert found.non_finite_count() == 1


def test_no_rows_give_no_predictions():
    batch = rows(colour=["red"], size=[1.0]).slice(0, 0)
    assert len(OnnxModel(model(), INPUTS).predict(batch).prediction) == 0


def test_classification_answers_labels_and_scores():
    found = OnnxModel(model(with_score=True), INPUTS).predict(
        rows(colour=["red"], size=[0.0])
    )
    assert found.prediction.dtype.kind == "U"
    assert found.score == pytest.approx([1 / (1 + np.exp(-10))])


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"size": [1.0]}, "colour"),
        ({"colour": ["red"]}, "size"),
        ({"colour": ["red"], "size": ["big"]}, "size"),
    ],
)
def test_a_missing_or_wrong_column_is_named(columns, name):
    with pytest.raises(InputRefused, match=repr(name)):
        OnnxModel(model(), INPUTS).predict(rows(**columns))


def test_a_graph_with_other_inputs_than_the_manifest_is_refused():
    with pytest.raises(InputRefused, match="manifest"):
        OnnxModel(model(), INPUTS[:1])


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(FormatRefused):
        OnnxModel(b"\x80\x04.", INPUTS)


def test_non_finite_scores_are_counted():
    score = np.array([[0.5, 0.5], [np.nan, 0.5]])
    found = Predictions(np.array(["a", "b"]), score)
    assert found.non_finite_count() == 1
    assert Predictions(np.array(["a"]), np.array([0.1])).non_finite_count() == 0


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1, None], ["1", ""]),
        ([1.0, 2.0], ["1", "2"]),
        ([1.0, None, 0.5, float("nan")], ["1", "", "0.5", ""]),
        ([True, False], ["true", "false"]),
        (["a", None], ["a", ""]),
    ],
)
def test_a_category_is_the_same_text_however_it_is_stored(values, texts):
    assert category_array(pa.array(values)).tolist() == texts


def test_booleans_are_numbers():
    assert number_array(pa.array([True, False, None]))[:2].tolist() == [1.0, 0.0]
