"""Talks to a scorer with Triton's client, and prints what it was told, as JSON.

Runs in the client's own environment: ``python triton_story.py HTTP GRPC TOKEN MODEL``.
"""

from __future__ import annotations

import json
import queue
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

SIZES = {"FP64": "f8", "FP32": "f4", "INT64": "i8", "UINT8": "u1"}
COLOURS = np.array(["red", "größe"], dtype=object)
ASCII = np.array(["red", "blue"], dtype=object)
"""In JSON this client counts characters where the length of a body counts bytes."""


def inputs_of(module: Any, datatype: str = "FP64", **how: Any) -> list[Any]:
    sizes = np.array([1, 2], SIZES[datatype]).reshape(2, 1)
    size = module.InferInput("size", [2, 1], datatype)
    size.set_data_from_numpy(sizes, **how)
    colour = module.InferInput("colour", [2], "BYTES")
    colour.set_data_from_numpy(ASCII if how else COLOURS, **how)
    return [size, colour]


def values_of(result: Any) -> list[Any]:
    labels = result.as_numpy("prediction").reshape(-1).tolist()
    return [
        [v.decode() if isinstance(v, bytes) else v for v in labels],
        np.round(result.as_numpy("score").reshape(-1), 6).tolist(),
    ]


WISH = {"explain": True, "explain_ms": 60_000}


def explanation_of(result: Any, columns: str) -> list[Any]:
    """Return contributions, base, and the names of the columns."""
    base = result.as_numpy("explanation_base").reshape(-1)
    return [result.as_numpy("explanation").tolist(), base.tolist(), columns]


def refused(call: Any) -> list[Any]:
    """Return status and words of a call that must fail."""
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    raise AssertionError("nothing was refused")


def http(address: str, token: str, model: str) -> dict[str, Any]:
    said: dict[str, Any] = {}
    wanted = triton_http.InferRequestedOutput
    with triton_http.InferenceServerClient(address) as client:

        def allowed() -> dict[str, Any]:
            """Return new headers: this client writes its own into them."""
            return {"headers": {"Authorization": f"Bearer {token}"}}

        said["live"] = client.is_server_live()
        said["ready"] = client.is_server_ready()
        said["model_ready"] = [
            client.is_model_ready(name, **allowed()) for name in (model, "other")
        ]
        said["server"] = client.get_server_metadata(**allowed())
        said["model"] = client.get_model_metadata(model, "3", **allowed())
        said["index"] = client.get_model_repository_index(**allowed())

        def ask(module_inputs: list[Any], **fields: Any) -> Any:
            return client.infer(model, module_inputs, **allowed(), **fields)

        result = ask(inputs_of(triton_http), request_id="order-42")
        said["answer"] = values_of(result)
        response = result.get_response()
        said["head"] = [
            response[k] for k in ("id", "model_name", "model_version", "parameters")
        ]
        said["json"] = values_of(
            ask(
                inputs_of(triton_http, binary_data=False),
                outputs=[
                    wanted(name, binary_data=False) for name in ("prediction", "score")
                ],
            )
        )
        said["compressed"] = [
            values_of(ask(inputs_of(triton_http), request_compression_algorithm=name))
            for name in ("gzip", "deflate")
        ]
        said["datatypes"] = [
            values_of(ask(inputs_of(triton_http, datatype))) for datatype in SIZES
        ]
        result = ask(inputs_of(triton_http), parameters=WISH)
        columns = result.get_response()["parameters"]["explain_columns"]
        said["explained"] = explanation_of(result, columns)
        said["async"] = values_of(
            client.async_infer(model, inputs_of(triton_http), **allowed()).get_result()
        )
        said["refused"] = [
            refused(lambda: client.infer(model, inputs_of(triton_http))),
            refused(lambda: ask(inputs_of(triton_http)[:1])),
            refused(lambda: client.infer("other", inputs_of(triton_http), **allowed())),
            refused(
                lambda: ask(
                    inputs_of(triton_http),
                    outputs=[wanted("prediction", class_count=2)],
                )
            ),
        ]
    return said


def grpc(address: str, token: str, model: str) -> dict[str, Any]:
    said: dict[str, Any] = {}
    wanted = triton_grpc.InferRequestedOutput
    with triton_grpc.InferenceServerClient(address) as client:
        allowed = {"headers": {"authorization": f"Bearer {token}"}}
        said["live"] = client.is_server_live()
        said["ready"] = client.is_server_ready()
        said["model_ready"] = [
            client.is_model_ready(name, **allowed) for name in (model, "other")
        ]
        as_json = {**allowed, "as_json": True}
        said["server"] = client.get_server_metadata(**as_json)
        said["model"] = client.get_model_metadata(model, "3", **as_json)
        result = client.infer(
            model, inputs_of(triton_grpc), request_id="order-42", **allowed
        )
        said["answer"] = values_of(result)
        head = result.get_response()
        said["head"] = [
            head.id,
            head.model_name,
            head.model_version,
            {"role": head.parameters["role"].string_param},
        ]
        result = client.infer(model, inputs_of(triton_grpc), parameters=WISH, **allowed)
        columns = result.get_response().parameters["explain_columns"].string_param
        said["explained"] = explanation_of(result, columns)
        said["datatypes"] = [
            values_of(client.infer(model, inputs_of(triton_grpc, datatype), **allowed))
            for datatype in SIZES
        ]
        said["compressed"] = values_of(
            client.infer(
                model, inputs_of(triton_grpc), compression_algorithm="gzip", **allowed
            )
        )
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client.async_infer(
            model,
            inputs_of(triton_grpc),
            lambda result, error: answers.put(error or values_of(result)),
            **allowed,
        )
        said["async"] = answers.get(timeout=100)
        said["refused"] = [
            refused(lambda: client.infer(model, inputs_of(triton_grpc))),
            refused(lambda: client.infer(model, inputs_of(triton_grpc)[:1], **allowed)),
            refused(lambda: client.infer("other", inputs_of(triton_grpc), **allowed)),
            refused(lambda: client.get_model_metadata(model, "9", **allowed)),
            refused(
                lambda: client.infer(
                    model,
                    inputs_of(triton_grpc),
                    outputs=[wanted("prediction", class_count=2)],
                    **allowed,
                )
            ),
        ]
    return said


if __name__ == "__main__":
    http_address, grpc_address, token, model = sys.argv[1:]
    told = {
        "http": http(http_address, token, model),
        "grpc": grpc(grpc_address, token, model),
    }
    sys.stdout.write(json.dumps(told))
