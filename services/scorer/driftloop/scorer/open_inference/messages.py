"""Requests and answers of the protocol over gRPC; pure.

Values are in ``raw_input_contents``, as in binary tensors, or typed in each input's
``contents``. The answer has them in the way in which they came.
"""

from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np
from driftloop.scorer.feeds import BadRequest
from driftloop.scorer.open_inference.open_inference_pb2 import (
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)
from driftloop.scorer.open_inference.tensors import (
    BYTES,
    Output,
    Tensor,
    Values,
    chosen,
    refuse,
    size_of,
    values_in,
)

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Where typed values of a datatype are; FP16 comes as raw bytes only."""


def parameters_in(request: ModelInferRequest) -> dict[str, Any]:
    """Return the parameters of a request as plain values; None: one without."""
    found: dict[str, Any] = {}
    for name, parameter in request.parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        found[name] = None if kind is None else getattr(parameter, kind)
    return found


def set_parameters(
    answer: ModelInferResponse, parameters: dict[str, str | int | bool]
) -> None:
    """Write an answer's parameters, each as what it is."""
    for name, value in parameters.items():
        if isinstance(value, bool):
            answer.parameters[name].bool_param = value
        elif isinstance(value, int):
            answer.parameters[name].int64_param = value
        else:
            answer.parameters[name].string_param = value


def tensors_in(request: ModelInferRequest) -> list[Tensor]:
    """Return the inputs of a request.

    Raises
    ------
    BadRequest
        Names what is not right.
    """
    refuse(request.parameters, "the request")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(
            f"raw_input_contents: {len(raw)} for {len(request.inputs)} inputs; "
            "it is all of them or none"
        )
    tensors: list[Tensor] = []
    for position, given in enumerate(request.inputs):
        name, datatype = given.name, given.datatype
        refuse(given.parameters, f"input {name!r}")
        rows, width = size_of(name, datatype, list(given.shape))
        if raw:
            if given.HasField("contents"):
                raise BadRequest(f"input {name!r}: has both contents and raw contents")
            values = values_in(raw[position], name, datatype, rows * width)
        else:
            values = _typed(given.contents, name, datatype, rows * width)
        tensors.append(Tensor(name, datatype, values, width))
    return tensors


def _typed(
    contents: InferTensorContents, name: str, datatype: str, rows: int
) -> Values:
    field = CONTENTS.get(datatype)
    if field is None:
        raise BadRequest(f"input {name!r}: send {datatype} in raw_input_contents")
    values = list(getattr(contents, field))
    if len(values) != rows:
        raise BadRequest(
            f"input {name!r}: {rows} values expected in {field}, {len(values)} found"
        )
    if datatype == BYTES:
        try:
            return [value.decode() for value in values]
        except UnicodeDecodeError as error:
            raise BadRequest(f"input {name!r}: not UTF-8 text: {error}") from error
    return [None if isnan(value) else value for value in values]


def answer_message(
    head: dict[str, str],
    outputs: list[Output],
    asked: ModelInferRequest,
    explained: Sequence[Output] | None = None,
) -> ModelInferResponse:
    """Return the answer.

    Parameters
    ----------
    head : its texts: model_name, model_version, id.
    explained : see :func:`tensors.chosen`.

    Raises
    ------
    BadRequest
        When an output is asked for that there is not.
    """
    answer = ModelInferResponse(**head)
    for wanted in asked.outputs:
        refuse(wanted.parameters, f"output {wanted.name!r}")
    names = [wanted.name for wanted in asked.outputs]
    for output in chosen(outputs, names, explained):
        message = answer.outputs.add(
            name=output.name, datatype=output.datatype, shape=output.shape
        )
        if asked.raw_input_contents:
            answer.raw_output_contents.append(output.as_bytes())
        elif output.datatype == BYTES:
            texts = (str(value).encode() for value in output.values)
            message.contents.bytes_contents.extend(texts)
        else:
            numbers = output.values.astype(np.float64, copy=False)
            message.contents.fp64_contents.extend(numbers)
    return answer
