"""Small real packages: prediction = size + 10 for red rows + a constant."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from driftloop.contracts.events import (
    DatasetRef,
    Evaluation,
    PackageRef,
    PairedComparison,
    Span,
    TableRef,
)
from driftloop.models.onnx_model import OnnxModel, Predictions
from driftloop.models.package import (
    InputColumn,
    Manifest,
    OutputColumn,
    read_package,
    write_package,
)
from driftloop.models.samples import samples_json
from driftloop.models.signing import Signer, TrustedKeys, generate_key
from driftloop.runtime.artifacts import FolderStore
from onnx import NodeProto, TensorProto, helper

if TYPE_CHECKING:
    from driftloop.scorer.shelf import Loaded

NAME = "bike-demand"
INPUTS = [
    InputColumn(name="size", type="number", nullable=True),
    InputColumn(name="colour", type="category"),
]
CLASSES = ["no", "yes"]
START, END = datetime(2011, 1, 1, tzinfo=UTC), datetime(2011, 2, 1, tzinfo=UTC)
MONTH = Span(start=START, end=END)
SAMPLES = pa.RecordBatch.from_pydict({"size": [1.0, 2.0], "colour": ["red", "blue"]})


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)


def constant(name: str, value: Any, kind: int = TensorProto.FLOAT) -> NodeProto:
    values = value if isinstance(value, list) else [value]
    tensor = helper.make_tensor(name, kind, [len(values)], values)
    return helper.make_node("Constant", [], [name], value=tensor)


def onnx_bytes(
    plus: float, *, is_binary: bool = False, extra: list[NodeProto] | None = None,
    inputs: tuple[str, ...] = ("size", "colour"),
) -> bytes:  # fmt: skip
    """Return the graph; ``extra`` nodes turn ``sum`` into ``said``."""
    nodes = [
        helper.make_node(
            "LabelEncoder", ["colour"], ["ten"], domain="ai.onnx.ml",
            keys_strings=["red"], values_floats=[10.0], default_float=0.0,
        ),
        constant("plus", plus),
        node("Add", [inputs[0], "ten"], "part"),
        node("Add", ["part", "plus"], "sum"),
        *(extra or [node("Identity", ["sum"], "said")]),
    ]  # fmt: skip
    column = [None, 1]
    outputs = [helper.make_tensor_value_info("prediction", TensorProto.FLOAT, None)]
    if is_binary:
        nodes += [
            node("Sigmoid", ["said"], "score"),
            constant("half", 0.5),
            node("Greater", ["score", "half"], "is_yes"),
            node("Cast", ["is_yes"], "index", to=TensorProto.INT64),
            helper.make_node(
                "LabelEncoder", ["index"], ["prediction"], domain="ai.onnx.ml",
                keys_int64s=[0, 1], values_strings=CLASSES,
            ),
        ]  # fmt: skip
        outputs = [
            helper.make_tensor_value_info("prediction", TensorProto.STRING, None),
            helper.make_tensor_value_info("score", TensorProto.FLOAT, None),
        ]
    else:
        nodes.append(node("Identity", ["said"], "prediction"))
    graph = helper.make_graph(
        nodes,
        "sum",
        [
            helper.make_tensor_value_info(inputs[0], TensorProto.FLOAT, column),
            helper.make_tensor_value_info("colour", TensorProto.STRING, column),
        ],
        outputs,
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


NAN_ABOVE_100 = [
    # log(100 - sum) is NaN for sums above 100: fine on the samples, bad on such rows
    constant("hundred", 100.0),
    node("Sub", ["hundred", "sum"], "left"),
    node("Log", ["left"], "log"),
    constant("nothing", 0.0),
    node("Mul", ["log", "nothing"], "zero"),
    node("Add", ["sum", "zero"], "said"),
]
RAISES_ABOVE_100 = [
    # a reshape of the rows to a size that depends on their values
    constant("hundred", 100.0),
    node("Less", ["sum", "hundred"], "is_less"),
    node("Cast", ["is_less"], "one", to=TensorProto.INT64),
    node("ReduceMin", ["one"], "least", keepdims=0),
    constant("two", [1], TensorProto.INT64),
    node("Sub", ["two", "least"], "bad"),
    constant("minus", [-1], TensorProto.INT64),
    constant("seven", [7919], TensorProto.INT64),
    node("Mul", ["bad", "seven"], "width"),
    node("Max", ["width", "two"], "columns"),
    helper.make_node("Concat", ["minus", "columns"], ["shape"], axis=0),
    node("Reshape", ["sum", "shape"], "said"),
]
TWICE_AS_MANY = [helper.make_node("Concat", ["sum", "sum"], ["said"], axis=0)]
TOO_MUCH_MEMORY = [
    # a tensor of 2^50 bytes
    constant("huge", [1 << 24, 1 << 24], TensorProto.INT64),
    node("ConstantOfShape", ["huge"], "zeros"),
    node("ReduceSum", ["zeros"], "zero", keepdims=0),
    node("Add", ["sum", "zero"], "said"),
]


def multiplying(size: int, times: int = 1) -> list[NodeProto]:
    """Return nodes that multiply square matrices and change no answer."""
    products = [
        node("MatMul", [f"product{number}", "product0"], f"product{number + 1}")
        for number in range(times)
    ]
    return [
        node("ReduceMax", ["sum"], "most", keepdims=0),
        constant("shape", [size, size], TensorProto.INT64),
        node("Expand", ["most", "shape"], "product0"),
        *products,
        node("ReduceMax", [f"product{times}"], "largest", keepdims=0),
        constant("nothing", [0.0]),
        node("Mul", ["largest", "nothing"], "zero"),
        node("Add", ["sum", "zero"], "said"),
    ]


def manifest(pipeline: str, inputs: list[InputColumn], is_binary: bool) -> Manifest:
    outputs = [OutputColumn(name="prediction", type="number", description="demand")]
    if is_binary:
        outputs = [
            OutputColumn(name="prediction", type="category", description="answer"),
            OutputColumn(name="score", type="number", description="of yes"),
        ]
    return Manifest(
        pipeline=pipeline,
        task="binary" if is_binary else "regression",
        target="cnt",
        inputs=inputs,
        outputs=outputs,
        classes=CLASSES if is_binary else [],
        algorithm="sum",
        evaluation=Evaluation(
            metric="log_loss" if is_binary else "mae",
            holdout_span=MONTH,
            holdout_row_count=100,
            candidate=1.0,
            baseline=2.0,
            comparison=PairedComparison(
                mean_difference=-1.0, standard_error=0.1, row_count=100
            ),
        ),
        dataset=DatasetRef(observations=TableRef(uri="folder", version=1)),
        train_span=MONTH,
        holdout_span=MONTH,
        train_row_count=1000,
        seed=0,
        code_version="test",
        environment=[],
        job_id="job",
        cause_event_id="cause",
        cause_reason="first_model",
    )


class Factory:
    """Writes packages below ``home`` as a trainer would."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = FolderStore(home / "artifacts")
        public = home / "keys" / "trusted" / "trainer.pem"
        self.signer = generate_key(home / "keys" / "trainer.key", public)

    def package(
        self,
        plus: float = 0.0,
        *,
        pipeline: str = NAME,
        is_binary: bool = False,
        extra: list[NodeProto] | None = None,
        samples: dict[str, Any] | None = None,
        signer: Signer | None = None,
        inputs: tuple[str, ...] = ("size", "colour"),
        model: bytes | None = None,
        reference: pa.RecordBatch | None = None,
    ) -> PackageRef:
        """Return a package; ``samples`` overwrites parts of the true ones.

        Parameters
        ----------
        reference : training rows for ``reference.arrow``; None: it has none.
        """
        columns = [InputColumn(name=inputs[0], type="number", nullable=True), INPUTS[1]]
        rows = SAMPLES.rename_columns([inputs[0], "colour"])
        sums = np.array([11.0, 2.0]) + plus
        said = Predictions(sums)
        if is_binary:
            score = 1 / (1 + np.exp(-sums))
            said = Predictions(np.where(score > 0.5, "yes", "no"), score)
        expected = json.loads(samples_json(rows, columns, said)) | (samples or {})
        files = {
            "model.onnx": model
            or onnx_bytes(plus, is_binary=is_binary, extra=extra, inputs=inputs),
            "samples.json": json.dumps(expected).encode(),
        }
        if reference is not None:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, reference.schema) as writer:
                writer.write_batch(reference)
            files["reference.arrow"] = sink.getvalue().to_pybytes()
        return write_package(
            manifest(pipeline, columns, is_binary),
            files,
            signer or self.signer,
            self.store,
        )

    def loaded(self, version: int, plus: float = 0.0, **fields: Any) -> Loaded:
        """Return a version in memory, without the trial in a child process."""
        # here, as services that are tested without the scorer use the rest
        from driftloop.scorer.explaining.explainer import explainer_of
        from driftloop.scorer.shelf import Loaded, Pace

        ref = self.package(plus, **fields)
        trusted = TrustedKeys.from_folder(self.home / "keys" / "trusted")
        package = read_package(ref, self.store, trusted)
        model = OnnxModel.from_package(package)
        reference = package.files.get("reference.arrow")
        explainer = explainer_of(model, package.manifest, reference)
        pace = Pace(1e-5, 1e-5)
        return Loaded(version, ref, package.manifest, model, pace, explainer)
