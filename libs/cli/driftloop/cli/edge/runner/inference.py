"""The Open Inference Protocol v2 in JSON: inputs of a request, outputs of an answer."""

from collections.abc import Sequence
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
    "sequence_id": "requests do not depend on each other; there are no sequences",
}
"""Parameters that would change the answer, and why they cannot."""


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
    known = {column.name: column.type for column in inputs}
    columns: Values = {}
    for tensor in tensors:
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if not isinstance(name, str):
            raise BadRequest("an input has no 'name'")
        if name in columns:
            raise BadRequest(f"input {name!r} comes twice")
        columns[name] = _values(tensor, name, known)
    return columns


def _values(tensor: dict[str, Any], name: str, known: dict[str, str]) -> list[Any]:
    _parameters(tensor, f"input {name!r}")
    datatype, shape, data = (tensor.get(key) for key in ("datatype", "shape", "data"))
    if datatype not in NUMBERS and datatype != BYTES:
        raise BadRequest(f"input {name!r}: unknown datatype {datatype!r:.40}")
    if not isinstance(shape, list) or not _is_column(shape):
        raise BadRequest(
            f"input {name!r}: expected shape [n] or [n, 1], got {shape!r:.80}"
        )
    if not isinstance(data, list):
        raise BadRequest(f"input {name!r}: expected 'data', a list")
    if shape[0] != len(data):
        raise BadRequest(
            f"input {name!r}: shape {shape} does not fit {len(data)} values"
        )
    kind = known.get(name)
    if kind is None:
        if name == ROW_ID:
            return data  # says which rows are asked about
        raise BadRequest(
            f"the model has no input {name!r:.80}; it has {', '.join(known)}"
        )
    if kind == DATETIME and datatype == "INT64":
        return [_moment(value, name) for value in data]
    if (datatype == BYTES) != (DATATYPES[kind] == BYTES):
        raise BadRequest(
            f"input {name!r} is a {kind}: send {DATATYPES[kind]}, not {datatype}"
        )
    return data


def _is_column(shape: list[Any]) -> bool:
    return (
        (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))
        and type(shape[0]) is int
        and shape[0] >= 0
    )


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


def _parameters(holder: dict[str, Any], whose: str) -> None:
    parameters = holder.get("parameters")
    if parameters is None:
        return
    if not isinstance(parameters, dict):
        raise BadRequest(f"{whose}: expected 'parameters', an object")
    for name, why in REFUSED.items():
        if parameters.get(name) not in (None, False, 0, ""):
            raise BadRequest(f"{whose}: parameter {name!r}: {why}")


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
