"""The served graph: encoding, the candidate's own nodes, labels and scores."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from driftloop.models.formats import RUNTIME_DOMAIN
from driftloop.trainer.encoding import MATRIX, ML, Encoding
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

OPSETS = (
    helper.make_opsetid("", 21),
    helper.make_opsetid(ML, 3),
    helper.make_opsetid(RUNTIME_DOMAIN, 1),
)
IR_VERSION = 10
RAW, ANSWER, PREDICTION = "raw", "answer/all", "prediction"
Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Link = Literal["identity", "sigmoid", "softmax", "probability"]


@dataclass(frozen=True)
class State:
    """What a later training goes on from, as a file of the package.

    Attributes
    ----------
    file : its name there.
    data : in the candidate's own form; no code. Empty: it is not kept.
    why : it is not kept.
    """

    file: str
    data: bytes
    why: str = ""


@dataclass(frozen=True)
class Core:
    """A fitted candidate behind the encoding.

    Attributes
    ----------
    nodes : compute ``raw`` (n_rows, n_outputs) from ``features`` (n_rows, width).
    link : what turns ``raw`` into the answer; ``sigmoid`` has one output (of the
        second class), ``softmax`` and ``probability`` one a class.
    predict : the library's own answer to a matrix, for the parity check: (n_rows,)
        for regression, else (n_rows, n_classes) probabilities.
    parameters : what the manifest says about it.
    state : after the last row, where the sample asked for it and the candidate has one.
    """

    nodes: list[NodeProto]
    constants: list[TensorProto]
    link: Link
    predict: Callable[[Matrix], Floats]
    parameters: dict[str, Any] = field(default_factory=dict)
    state: State | None = None


def constant(name: str, value: npt.ArrayLike, dtype: Any = np.float32) -> TensorProto:
    """Return a named constant of the graph."""
    return numpy_helper.from_array(np.asarray(value, dtype=dtype), name)


def imputation(
    medians: Matrix, output: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes that write ``features`` with NaN replaced, under ``output``.

    Parameters
    ----------
    medians : (width,) one for each column.
    """
    nodes = [
        helper.make_node("IsNaN", [MATRIX], ["impute/is_nan"]),
        helper.make_node("Where", ["impute/is_nan", "impute/by", MATRIX], [output]),
    ]
    return nodes, [constant("impute/by", medians.reshape(1, -1))]


def medians_of(matrix: Matrix) -> Matrix:
    """Return the (width,) medians of what is there; 0 for a column without values."""
    filled = np.where(np.isnan(matrix).all(axis=0), np.float32(0), matrix)
    return np.nanmedian(filled, axis=0).astype(np.float32)


def assemble(encoding: Encoding, core: Core, classes: tuple[str, ...]) -> bytes:
    """Return the ONNX bytes of a whole model; see :func:`finished`."""
    nodes, constants = encoding.nodes()
    nodes += core.nodes
    constants += core.constants
    if core.link == "identity":
        nodes.append(helper.make_node("Identity", [RAW], [PREDICTION]))
    else:
        for more_nodes, more_constants in (_answer(core.link), label_nodes(classes)):
            nodes += more_nodes
            constants += more_constants
    return finished(nodes, constants, encoding.graph_inputs(), classes)


def finished(
    nodes: list[NodeProto],
    constants: list[TensorProto],
    inputs: list[ValueInfoProto],
    classes: tuple[str, ...],
) -> bytes:
    """Return ONNX bytes of nodes that compute the outputs.

    Outputs: ``prediction`` (n_rows, 1), and for classification ``score``: (n_rows, 1)
    probability of the second of two classes, or (n_rows, n_classes).
    """
    kind = TensorProto.STRING if classes else TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info(PREDICTION, kind, [None, 1])]
    if classes:
        width = 1 if len(classes) == 2 else len(classes)
        outputs.append(
            helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, width])
        )
    graph = helper.make_graph(nodes, "driftloop", inputs, outputs, constants)
    model = helper.make_model(
        graph,
        opset_imports=list(OPSETS),
        ir_version=IR_VERSION,
        producer_name="driftloop",
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _answer(link: Link) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes from ``raw`` to a probability for each class."""
    if link == "softmax":
        return [helper.make_node("Softmax", [RAW], [ANSWER], axis=1)], []
    if link != "sigmoid":
        return [helper.make_node("Identity", [RAW], [ANSWER])], []
    nodes = [
        helper.make_node("Sigmoid", [RAW], ["answer/second"]),
        helper.make_node("Sub", ["answer/one", "answer/second"], ["answer/first"]),
        helper.make_node("Concat", ["answer/first", "answer/second"], [ANSWER], axis=1),
    ]
    return nodes, [constant("answer/one", [[1.0]])]


def label_nodes(classes: tuple[str, ...]) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes from a probability for each class to both outputs."""
    nodes = [
        helper.make_node("ArgMax", [ANSWER], ["answer/best"], axis=1),
        helper.make_node(
            "LabelEncoder", ["answer/best"], [PREDICTION], domain=ML,
            keys_int64s=list(range(len(classes))), values_strings=list(classes),
        ),
    ]  # fmt: skip
    if len(classes) > 2:
        return [*nodes, helper.make_node("Identity", [ANSWER], ["score"])], []
    gather = helper.make_node("Gather", [ANSWER, "answer/column"], ["score"], axis=1)
    return [*nodes, gather], [constant("answer/column", [1], np.int64)]
