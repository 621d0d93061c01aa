"""Requests and answers of the protocol over HTTP: JSON, with binary tensors behind it.

Pure. With binary tensors the header ``Inference-Header-Content-Length`` says how long
the JSON is; each tensor has its size as a parameter, in the order of the inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from driftloop.scorer.door import json_object
from driftloop.scorer.feeds import BadRequest
from driftloop.scorer.open_inference.tensors import (
    Output,
    Tensor,
    chosen,
    refuse,
    size_of,
    values_in,
)

JSON_LENGTH_HEADER = "inference-header-content-length"
BINARY_SIZE = "binary_data_size"
BINARY_OUTPUT = "binary_data"
BINARY_OUTPUTS = "binary_data_output"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes
    ----------
    id : the caller's name for it; None: it has none.
    outputs : names of those wanted; empty: all.
    binary : of outputs whether it is wanted as bytes, where that is said.
    is_binary : whether the others are.
    parameters : of the request.
    """

    id: str | None
    tensors: list[Tensor]
    outputs: list[str]
    binary: Mapping[str, bool]
    is_binary: bool
    parameters: Mapping[str, Any]


def request_in(data: bytes, json_length: str | None) -> Request:
    """Return what a body asks.

    Parameters
    ----------
    json_length : of the header; None: the whole body is JSON.

    Raises
    ------
    BadRequest
        Names what is not right.
    """
    length = len(data)
    if json_length is not None:
        if not json_length.isdecimal() or int(json_length) > length:
            raise BadRequest(
                f"{JSON_LENGTH_HEADER}: {json_length!r:.40} is not the length of the "
                f"JSON at the start of these {length} bytes"
            )
        length = int(json_length)
    body = json_object(data[:length])
    given = body.get("id")
    if given is not None and not isinstance(given, str):
        raise BadRequest("'id' must be text")
    parameters = _parameters(body, "the request")
    names, binary = _outputs(body)
    return Request(
        given,
        _tensors(body, memoryview(data)[length:]),
        names,
        binary,
        parameters.get(BINARY_OUTPUTS) is True,
        parameters,
    )


def _tensors(body: dict[str, Any], rest: memoryview) -> list[Tensor]:
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest("expected 'inputs': a list of tensors, one for each feature")
    tensors: list[Tensor] = []
    at = 0
    for tensor in inputs:
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if not isinstance(name, str):
            raise BadRequest("an input has no 'name'")
        datatype, shape = tensor.get("datatype"), tensor.get("shape")
        rows, width = size_of(name, datatype, shape)
        size = _parameters(tensor, f"input {name!r}").get(BINARY_SIZE)
        data = tensor.get("data")
        if size is None:
            if not isinstance(data, list):
                raise BadRequest(f"input {name!r}: expected 'data', a list")
            if width > 1:
                data = _row_by_row(data, rows, width)
            if rows * width != len(data):
                raise BadRequest(
                    f"input {name!r}: shape {shape} does not fit {len(data)} values"
                )
            tensors.append(Tensor(name, datatype, data, width))
            continue
        if data is not None:
            raise BadRequest(f"input {name!r}: has both 'data' and {BINARY_SIZE}")
        if type(size) is not int or not 0 <= size <= len(rest) - at:
            raise BadRequest(
                f"input {name!r}: {BINARY_SIZE} is {size!r:.40}; behind the JSON are "
                f"{len(rest) - at} bytes more"
            )
        values = values_in(rest[at : at + size], name, datatype, rows * width)
        tensors.append(Tensor(name, datatype, values, width))
        at += size
    if at != len(rest):
        raise BadRequest(f"{len(rest) - at} bytes behind the JSON belong to no input")
    return tensors


def _row_by_row(data: list[Any], rows: int, width: int) -> list[Any]:
    """Return the values of a matrix flat, which may be a list of rows as well."""
    if len(data) == rows and all(type(x) is list and len(x) == width for x in data):
        return [value for row in data for value in row]
    return data


def _outputs(body: dict[str, Any]) -> tuple[list[str], dict[str, bool]]:
    asked = body.get("outputs") or []
    if not isinstance(asked, list) or not all(
        isinstance(o, dict) and isinstance(o.get("name"), str) for o in asked
    ):
        raise BadRequest("expected 'outputs': a list of {\"name\": ...}")
    binary: dict[str, bool] = {}
    for output in asked:
        name = output["name"]
        wish = _parameters(output, f"output {name!r}").get(BINARY_OUTPUT)
        if wish is not None:
            binary[name] = wish is True
    return [output["name"] for output in asked], binary


def _parameters(holder: dict[str, Any], whose: str) -> dict[str, Any]:
    parameters = holder.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise BadRequest(f"{whose}: expected 'parameters', an object")
    refuse([name for name, value in parameters.items() if value not in (0, "")], whose)
    return parameters


def answer_body(
    head: dict[str, Any],
    outputs: Sequence[Output],
    asked: Request,
    explained: Sequence[Output] | None = None,
) -> tuple[bytes, int | None]:
    """Return an answer's body, and the length of its JSON; None: all of it is JSON.

    Parameters
    ----------
    head : everything but the outputs.
    explained : see :func:`tensors.chosen`.

    Raises
    ------
    BadRequest
        When an output is asked for that there is not.
    """
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for output in chosen(outputs, asked.outputs, explained):
        about: dict[str, Any] = {
            "name": output.name,
            "datatype": output.datatype,
            "shape": output.shape,
        }
        if asked.binary.get(output.name, asked.is_binary):
            part = output.as_bytes()
            parts.append(part)
            about["parameters"] = {BINARY_SIZE: len(part)}
        else:
            about["data"] = output.values.tolist()
        described.append(about)
    text = orjson.dumps({**head, "outputs": described})
    return b"".join((text, *parts)), len(text) if parts else None
