"""One tensor with all features means what a tensor for each of them means."""

import json
from typing import Any

import numpy as np
import pytest
from driftloop.models.package import InputColumn
from driftloop.scorer.asked import ROW_ID
from driftloop.scorer.feeds import BadRequest, feeds_of
from driftloop.scorer.open_inference.bodies import request_in
from driftloop.scorer.open_inference.messages import tensors_in
from driftloop.scorer.open_inference.open_inference_pb2 import ModelInferRequest
from driftloop.scorer.open_inference.tensors import Tensor, columns_of

INPUTS = [
    InputColumn(name="a", type="number", nullable=True),
    InputColumn(name="b", type="integer"),
    InputColumn(name="c", type="boolean"),
]
ROWS = [[1.5, 2.0, 1.0], [-3.0, 4.0, 0.0]]
FLAT = [value for row in ROWS for value in row]
WANTED = np.array(ROWS, dtype=np.float32)


def fed(tensors: list[Tensor]) -> np.ndarray[Any, Any]:
    """Return (n_rows, 3) of what the model would be given."""
    columns, check = columns_of(tensors)
    check(INPUTS)
    feeds, rows = feeds_of(columns, INPUTS)
    assert list(feeds) == ["a", "b", "c"]
    assert all(values.shape == (rows, 1) for values in feeds.values())
    return np.hstack(list(feeds.values()))


def body(**fields: Any) -> bytes:
    tensor = {"name": "x", "shape": [2, 3], "datatype": "FP64", "data": FLAT}
    return json.dumps({"inputs": [tensor | fields]}).encode()


@pytest.mark.parametrize("data", [FLAT, ROWS], ids=["flat", "rows"])
def test_json_in_either_form(data: list[Any]) -> None:
    np.testing.assert_array_equal(
        fed(request_in(body(data=data), None).tensors), WANTED
    )


def test_null_is_missing_where_it_may_be() -> None:
    data = [None, *FLAT[1:]]
    found = fed(request_in(body(data=data), None).tensors)
    assert np.isnan(found[0, 0])
    np.testing.assert_array_equal(found.ravel()[1:], WANTED.ravel()[1:])
    with pytest.raises(BadRequest, match="b: row 0 is None; expected a number"):
        fed(request_in(body(data=[1.0, None, *FLAT[2:]]), None).tensors)


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT64"])
def test_bytes_behind_the_json(datatype: str) -> None:
    kind = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}[datatype]
    raw = np.array(FLAT).astype(kind).tobytes()
    parameters = {"binary_data_size": len(raw)}
    tensor = {"name": "x", "shape": [2, 3], "datatype": datatype}
    head = json.dumps({"inputs": [tensor | {"parameters": parameters}]}).encode()
    found = fed(request_in(head + raw, str(len(head))).tensors)
    np.testing.assert_array_equal(found, np.array(ROWS).astype(kind).astype("f4"))


@pytest.mark.parametrize("is_raw", [True, False])
def test_the_same_over_grpc(is_raw: bool) -> None:
    request = ModelInferRequest(model_name="m")
    given = request.inputs.add(name="x", datatype="FP32", shape=[2, 3])
    if is_raw:
        request.raw_input_contents.append(np.array(FLAT, "<f4").tobytes())
    else:
        given.contents.fp32_contents.extend(FLAT)
    np.testing.assert_array_equal(fed(tensors_in(request)), WANTED)


def test_it_says_which_rows_are_asked_about() -> None:
    ids = Tensor(ROW_ID, "BYTES", ["r1", "r2"])
    columns, check = columns_of([Tensor("x", "FP64", FLAT, 3), ids])
    check(INPUTS)
    assert columns[ROW_ID] == ["r1", "r2"]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([Tensor("x", "FP64", FLAT, 2)], "2 columns; the model has 3 inputs: a, b, c"),
        (
            [Tensor("x", "FP64", FLAT, 3), Tensor("a", "FP64", [1, 2])],
            "input 'x': has 3 columns, so it is the only input",
        ),
        (
            [Tensor("x", "FP64", FLAT, 3), Tensor("y", "FP64", FLAT, 3)],
            "so it is the only input",
        ),
    ],
)
def test_what_it_cannot_mean(tensors: list[Tensor], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        fed(tensors)


def test_a_model_of_other_types_is_asked_by_feature() -> None:
    _, check = columns_of([Tensor("x", "FP64", FLAT, 3)])
    for kind in ("category", "text", "datetime"):
        other = InputColumn(name="d", type=kind)
        with pytest.raises(BadRequest, match=f"'d' is a {kind}; send a tensor for"):
            check([*INPUTS[:2], other])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"datatype": "BYTES"}, "3 columns of BYTES"),
        ({"shape": [2, 0]}, "expected shape"),
        ({"shape": [2, 3, 1]}, "expected shape"),
        ({"data": FLAT[1:]}, r"shape \[2, 3\] does not fit 5 values"),
        ({"data": [ROWS[0], ROWS[1][:2]]}, r"shape \[2, 3\] does not fit 2 values"),
    ],
)
def test_a_shape_that_is_not_right(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        request_in(body(**fields), None)
