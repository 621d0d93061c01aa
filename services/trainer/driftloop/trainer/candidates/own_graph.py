"""The ONNX graph of an own candidate: by its ``to_onnx()``, or converted by skl2onnx.

It is put behind the encoding under names of its own, and run once as it will be
served, so that what the runtime would not take is refused here.
"""

import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
from driftloop.models.formats import FormatRefused, check_onnx
from driftloop.trainer.candidates.sample import CandidateRefused, Sample
from driftloop.trainer.encoding import MATRIX
from driftloop.trainer.graph import IR_VERSION, OPSETS, RAW
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx.compose import add_prefix_graph

PREFIX = "own/"
OPSET = {opset.domain: opset.version for opset in OPSETS}
TRIED_ROWS = (2, 1)
"""Rows of the trial runs: a graph has to take any number."""


def core_nodes(
    estimator: Any, sample: Sample
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes from ``features`` to ``raw`` that answer as a fitted estimator.

    Raises
    ------
    CandidateRefused
        When it cannot be exported, or not into what is served.
    """
    width = sample.matrix.shape[1]
    if callable(getattr(estimator, "to_onnx", None)):
        graph, answer = _exported(estimator)
    else:
        graph, answer = _converted(estimator, width, is_classes=bool(sample.classes))
    if graph.sparse_initializer:
        raise CandidateRefused("its graph has sparse constants, which are not served")
    graph = add_prefix_graph(graph, PREFIX)
    nodes = [
        helper.make_node("Identity", [MATRIX], [graph.input[0].name]),
        *graph.node,
        helper.make_node("Cast", [PREFIX + answer], [RAW], to=TensorProto.FLOAT),
    ]
    constants = list(graph.initializer)
    _try(nodes, constants, sample)
    return nodes, constants


def _exported(estimator: Any) -> tuple[GraphProto, str]:
    """Return the graph that the estimator gives itself."""
    model = estimator.to_onnx()
    if isinstance(model, bytes):
        model = onnx.load_from_string(model)
    if not isinstance(model, ModelProto):
        raise CandidateRefused(
            "to_onnx() has to give an onnx.ModelProto or its bytes, not "
            f"{type(model).__name__}"
        )
    found = _checked(model)
    for opset in found.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        newest = OPSET.get(domain, 0)
        if opset.version > newest or (domain == "" and opset.version != newest):
            raise CandidateRefused(
                f"to_onnx() gave operator set {opset.domain or 'ai.onnx'} "
                f"{opset.version}; give ai.onnx {OPSET['']}, and of ai.onnx.ml "
                f"{OPSET['ai.onnx.ml']} at most"
            )
    names = [v.name for v in found.graph.input], [v.name for v in found.graph.output]
    if names != ([MATRIX], [RAW]):
        raise CandidateRefused(
            f"to_onnx() gave a graph from {names[0]} to {names[1]}; it has to be from "
            f"{MATRIX!r} to {RAW!r}"
        )
    return found.graph, RAW


def _converted(
    estimator: Any, width: int, *, is_classes: bool
) -> tuple[GraphProto, str]:
    """Return the graph that skl2onnx makes of a scikit-learn estimator."""
    from sklearn.base import BaseEstimator

    if not isinstance(estimator, BaseEstimator):
        raise CandidateRefused(
            f"{type(estimator).__name__} has no to_onnx() and is no estimator of "
            "scikit-learn, which could be converted; give it the method"
        )
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise CandidateRefused(
            "skl2onnx is not installed, which converts estimators of scikit-learn; "
            "install driftloop-trainer[own] or give the estimator a to_onnx()"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own use of other libraries
        model = convert_sklearn(
            estimator,
            initial_types=[(MATRIX, FloatTensorType([None, width]))],
            options={id(estimator): {"zipmap": False}} if is_classes else None,
            target_opset={"": OPSET[""], "ai.onnx.ml": OPSET["ai.onnx.ml"]},
        )
    found = _checked(model)
    return found.graph, found.graph.output[1 if is_classes else 0].name


def _checked(model: ModelProto) -> ModelProto:
    """Return the model if what is in it may be served, in our version of the format."""
    found = ModelProto()
    found.CopyFrom(model)
    found.ir_version = IR_VERSION
    try:
        return check_onnx(found.SerializeToString())
    except FormatRefused as error:
        raise CandidateRefused(f"its graph may not be served: {error}") from error


def _try(nodes: list[NodeProto], constants: list[TensorProto], sample: Sample) -> None:
    """Run the nodes as they will be served; their answer has to have its shape."""
    width, outputs = sample.matrix.shape[1], max(1, len(sample.classes))
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info(MATRIX, TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(RAW, TensorProto.FLOAT, [None, outputs])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for count in TRIED_ROWS:
        rows = np.ascontiguousarray(sample.matrix[:count])
        (found,) = session.run([RAW], {MATRIX: rows})
        if found.shape != (len(rows), outputs):
            raise CandidateRefused(
                f"its graph answers {len(rows)} rows with {found.shape}, not "
                f"{(len(rows), outputs)}"
            )
