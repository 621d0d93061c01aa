"""The Open Inference Protocol v2 in JSON: inputs of a request, outputs of an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .columns import DATETIME, FIRST_US, LAST_US, Column, Moment
from .errors import BadRequest
from .forms import Values
from .model import Predictions

BYTES = "BYTES"
ROW_ID = "id"
NUMBERS = frozenset(
    {
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32",
        "INT64", "FP16", "FP32", "FP64",
    }
)  # fmt: skip
DATATYPES = {
    "number": "FP64",
    "integer": "INT64",
    "category": BYTES,
    "text": BYTES,
    "boolean": "BOOL",
    "datetime": BYTES,
}
REFUSED = {
    "binary_data_size": "there are no binary tensors at the edge; send 'data'",
    "binary_data": "there are no binary tensors at the edge; read 'data'",
    "binary_data_output": "there are no binary tensors at the edge; read 'data'",
    "shared_memory_region": "there is no shared memory; send the values",
    "classification": "there is no classification extension; read 'score'",
    "explain": "there are no explanations at the edge; ask the scorer at home",
    "explain_ms": "there are no explanations at the edge; ask the scorer at home",
    "sequence_id": "requests do not depend on each other; there are no sequences",
}
"""Parameters that would change the answer, and why they cannot."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input of a request.

    Attributes
    ----------
    data : flat, row by row where there are several columns.
    width : columns of it: one, or all of the model's inputs in their order.
    """

    name: str
    datatype: str
    data: list[Any]
    width: int


def columns_of(body: dict[str, Any], inputs: Sequence[Column]) -> Values:
    """Return the values by input.

    Raises
    ------
    BadRequest
        Names the input that is not right.
    """
    _parameters(body, "the request")
    tensors = body.get("inputs")
    if not isinstance(tensors, list) or not tensors:
        raise BadRequest("expected 'inputs': a list of tensors, one for each feature")
    read: list[Tensor] = []
    for tensor in tensors:
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if not isinstance(name, str):
            raise BadRequest("an input has no 'name'")
        read.append(_tensor(tensor, name))
    if any(tensor.width > 1 for tensor in read):
        return _matrix(read, inputs)
    known = {column.name: column.type for column in inputs}
    columns: Values = {}
    for one in read:
        if one.name in columns:
            raise BadRequest(f"input {one.name!r} comes twice")
        columns[one.name] = _typed(one, known)
    return columns


def _tensor(tensor: dict[str, Any], name: str) -> Tensor:
    _parameters(tensor, f"input {name!r}")
    datatype, data = tensor.get("datatype"), tensor.get("data")
    rows, width = _size(name, datatype, tensor.get("shape"))
    if not isinstance(data, list):
        raise BadRequest(f"input {name!r}: expected 'data', a list")
    is_by_row = width > 1 and len(data) == rows
    if is_by_row and all(type(row) is list and len(row) == width for row in data):
        data = [value for row in data for value in row]
    if rows * width != len(data):
        raise BadRequest(
            f"input {name!r}: shape {tensor['shape']} does not fit {len(data)} values"
        )
    return Tensor(name, str(datatype), data, width)


def _size(name: str, datatype: Any, shape: Any) -> tuple[int, int]:
    """Return the rows and columns of an input, from what is said about it."""
    if datatype not in NUMBERS and datatype != BYTES:
        raise BadRequest(f"input {name!r}: unknown datatype {datatype!r:.40}")
    if not isinstance(shape, list) or not _is_shape(shape):
        raise BadRequest(
            f"input {name!r}: expected shape [n] or [n, 1] for a feature, or [n, k] "
            f"for all k of them, got {shape!r:.80}"
        )
    width = shape[1] if len(shape) == 2 else 1
    if width > 1 and datatype == BYTES:
        raise BadRequest(
            f"input {name!r}: {width} columns of BYTES; send a tensor for each feature"
        )
    return shape[0], width


def _is_shape(shape: list[Any]) -> bool:
    return (
        len(shape) in (1, 2)
        and all(type(size) is int for size in shape)
        and shape[0] >= 0
        and shape[-1] >= (len(shape) == 2)
    )


def _typed(tensor: Tensor, known: dict[str, str]) -> list[Any]:
    name, datatype = tensor.name, tensor.datatype
    kind = known.get(name)
    if kind is None:
        if name == ROW_ID:
            return tensor.data  # says which rows are asked about
        raise BadRequest(
            f"the model has no input {name!r:.80}; it has {', '.join(known)}"
        )
    if kind == DATETIME and datatype == "INT64":
        return [_moment(value, name) for value in tensor.data]
    if (datatype == BYTES) != (DATATYPES[kind] == BYTES):
        raise BadRequest(
            f"input {name!r} is a {kind}: send {DATATYPES[kind]}, not {datatype}"
        )
    return tensor.data


def _matrix(tensors: Sequence[Tensor], inputs: Sequence[Column]) -> Values:
    """Return the values where one tensor has all inputs, in their order."""
    whole = next(tensor for tensor in tensors if tensor.width > 1)
    columns = {t.name: t.data for t in tensors if t.name == ROW_ID and t.width == 1}
    if len(columns) != len(tensors) - 1:
        raise BadRequest(
            f"input {whole.name!r}: has {whole.width} columns, so it is the only "
            "input; or send a tensor for each feature"
        )
    other = next((c for c in inputs if DATATYPES[c.type] == BYTES), None)
    if other is not None:
        raise BadRequest(
            f"input {whole.name!r}: {other.name!r} is a {other.type}; send a tensor "
            "for each feature"
        )
    if len(inputs) != whole.width:
        names = ", ".join(column.name for column in inputs)
        raise BadRequest(
            f"input {whole.name!r}: {whole.width} columns; the model has "
            f"{len(inputs)} inputs: {names}"
        )
    for position, column in enumerate(inputs):
        columns[column.name] = whole.data[position :: whole.width]
    return columns


def _moment(value: Any, name: str) -> Moment | None:
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if value is None:
        return None
    if type(value) is not int or not FIRST_US <= value <= LAST_US:
        raise BadRequest(
            f"input {name!r}: {value!r:.40} is no moment; an INT64 counts the "
            "microseconds since 1970 in UTC, a BYTES is ISO 8601 text"
        )
    return Moment(value)


def refuse(parameters: Mapping[str, Any], whose: str) -> None:
    """Refuse parameters that would change the answer and cannot.

    Raises
    ------
    BadRequest
        Names the parameter, and why.
    """
    for name, why in REFUSED.items():
        if parameters.get(name) not in (None, False, 0, "", "false"):
            raise BadRequest(f"{whose}: parameter {name!r}: {why}")


def _parameters(holder: dict[str, Any], whose: str) -> None:
    parameters = holder.get("parameters")
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise BadRequest(f"{whose}: expected 'parameters', an object")
    refuse(parameters, whose)


def wanted_outputs(body: dict[str, Any]) -> list[str]:
    """Return the names of the outputs that are asked for; none: all.

    Raises
    ------
    BadRequest
        When they are not named as the protocol names them.
    """
    asked = body.get("outputs") or []
    if not isinstance(asked, list) or not all(
        isinstance(o, dict) and isinstance(o.get("name"), str) for o in asked
    ):
        raise BadRequest("expected 'outputs': a list of {\"name\": ...}")
    for output in asked:
        _parameters(output, f"output {output['name']!r}")
    return [output["name"] for output in asked]


def outputs_of(said: Predictions, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the outputs of an answer; ``names``: those that are asked for.

    Raises
    ------
    BadRequest
        Names the one that there is not.
    """
    rows = len(said.prediction)
    is_number = said.prediction.dtype.kind == "f"
    found = {
        "prediction": {
            "name": "prediction",
            "datatype": "FP64" if is_number else BYTES,
            "shape": [rows, 1],
            "data": said.prediction.tolist(),
        }
    }
    if said.score is not None:
        width = said.score.shape[1] if said.score.ndim == 2 else 1
        found["score"] = {
            "name": "score",
            "datatype": "FP64",
            "shape": [rows, width],
            "data": said.score.reshape(-1).tolist(),
        }
    for name in names:
        if name not in found:
            raise BadRequest(
                f"the model has no output {name!r:.80}; it has {', '.join(found)}"
            )
    return [found[name] for name in names] or list(found.values())
