"""The Open Inference Protocol v2 over HTTP, with JSON tensors.

Source: kserve/open-inference-protocol, specification/protocol/inference_rest.md.
A model is a pipeline; its inputs are the features, of shape [n] or [n, 1].
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version as version_of
from typing import Any, TypeGuard

from driftloop.models.package import STRINGS, ColumnType, InputColumn
from driftloop.scorer.answering import Desk, NotServed, Reply
from driftloop.scorer.asked import ROW_ID
from driftloop.scorer.door import (
    VERSION_HEADER,
    Check,
    DoorRoute,
    door_router,
    json_answer,
    read_json,
    request_id_of,
)
from driftloop.scorer.feeds import BadRequest
from driftloop.scorer.shelf import Loaded, Served
from fastapi import APIRouter, Request, Response

NUMBERS = frozenset(
    {
        "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32",
        "INT64", "FP16", "FP32", "FP64",
    }
)  # fmt: skip
DATATYPES: dict[ColumnType, str] = {
    "number": "FP64",
    "integer": "INT64",
    "category": "BYTES",
    "text": "BYTES",
    "boolean": "BOOL",
}
PLATFORM = "onnxruntime_onnx"


class OpenInferenceRoute(DoorRoute):
    """Errors as the protocol has them."""

    def problem(self, status: int, text: str) -> Response:
        return json_answer({"error": text}, status)


def columns_of(
    body: dict[str, Any],
) -> tuple[dict[str, list[Any]], Callable[[Sequence[InputColumn]], None]]:
    """Return the values by input, and the test of their datatypes against a model.

    Raises
    ------
    BadRequest
        Names the input that is not right.
    """
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest("expected 'inputs': a list of tensors, one for each feature")
    columns: dict[str, list[Any]] = {}
    datatypes: dict[str, str] = {}
    for tensor in inputs:
        name, data = _tensor(tensor)
        if name in columns:
            raise BadRequest(f"input {name!r} comes twice")
        columns[name] = data
        datatypes[name] = tensor["datatype"]

    def check(wanted: Sequence[InputColumn]) -> None:
        known = {column.name: column.type for column in wanted}
        for name, datatype in datatypes.items():
            kind = known.get(name)
            if kind is None and name == ROW_ID:
                continue  # says which rows are asked about
            if kind is None:
                raise BadRequest(
                    f"the model has no input {name!r}; it has {', '.join(known)}"
                )
            if (datatype == "BYTES") != (kind in STRINGS):
                raise BadRequest(
                    f"input {name!r} is a {kind}: send {DATATYPES[kind]}, "
                    f"not {datatype}"
                )

    return columns, check


def _tensor(tensor: Any) -> tuple[str, list[Any]]:
    name = tensor.get("name") if isinstance(tensor, dict) else None
    if not isinstance(name, str):
        raise BadRequest("an input has no 'name'")
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    data = tensor.get("data")
    if datatype not in NUMBERS and datatype != "BYTES":
        raise BadRequest(f"input {name!r}: unknown datatype {datatype!r:.40}")
    if not isinstance(data, list):
        raise BadRequest(f"input {name!r}: expected 'data', a list")
    if not _is_column(shape):
        raise BadRequest(f"input {name!r}: expected shape [n] or [n, 1], got {shape!r}")
    if shape[0] != len(data):
        raise BadRequest(
            f"input {name!r}: shape {shape} does not fit {len(data)} values"
        )
    return name, data


def _is_column(shape: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(shape, list)
        and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))
        and type(shape[0]) is int
    )


def _outputs(reply: Reply, body: dict[str, Any]) -> list[dict[str, Any]]:
    said = reply.said
    is_number = said.prediction.dtype.kind == "f"
    outputs = [
        {
            "name": "prediction",
            "datatype": "FP64" if is_number else "BYTES",
            "shape": [len(said.prediction), 1],
            "data": said.prediction.tolist(),
        }
    ]
    if said.score is not None:
        columns = said.score.shape[1] if said.score.ndim == 2 else 1
        outputs.append(
            {
                "name": "score",
                "datatype": "FP64",
                "shape": [len(said.prediction), columns],
                "data": said.score.reshape(-1).tolist(),
            }
        )
    asked = body.get("outputs")
    if not asked:
        return outputs
    if not isinstance(asked, list) or not all(isinstance(o, dict) for o in asked):
        raise BadRequest("expected 'outputs': a list of {\"name\": ...}")
    by_name = {output["name"]: output for output in outputs}
    names = [output.get("name") for output in asked]
    for name in names:
        if name not in by_name:
            raise BadRequest(
                f"the model has no output {name!r}; it has {', '.join(by_name)}"
            )
    return [by_name[name] for name in names]


def _metadata(name: str, served: Served, loaded: Loaded) -> dict[str, Any]:
    manifest = loaded.manifest
    outputs: list[dict[str, Any]] = []
    for column in manifest.outputs:
        is_score = column.name == "score"
        width = len(manifest.classes) if is_score and len(manifest.classes) > 2 else 1
        datatype = "BYTES" if column.type == "category" else "FP64"
        outputs.append(
            {"name": column.name, "datatype": datatype, "shape": [-1, width]}
        )
    return {
        "name": name,
        "versions": [str(number) for number in sorted(served.loaded())],
        "platform": PLATFORM,
        "inputs": [
            {"name": column.name, "datatype": DATATYPES[column.type], "shape": [-1, 1]}
            for column in manifest.inputs
        ],
        "outputs": outputs,
    }


def _found(desk: Desk, model: str, version: str | None) -> tuple[Served, Loaded]:
    served = desk.shelf.get(model)
    if served is None or served.champion is None:
        raise NotServed(f"no model is served for {model!r}")
    if version is None:
        return served, served.champion
    loaded = served.loaded().get(_number(version, model))
    if loaded is None:
        raise NotServed(f"version {version} of {model!r} is not served")
    return served, loaded


def _number(version: str, model: str) -> int:
    if not version.isdecimal():
        raise NotServed(f"version {version!r:.40} of {model!r} is not served")
    return int(version)


def health_router(is_ready: Callable[[], bool]) -> APIRouter:
    """Return the probes, which tell nothing else and need no token."""
    router = APIRouter(prefix="/v2/health", tags=["open inference protocol"])

    @router.get("/live")
    async def live() -> Response:
        return json_answer({"live": True})

    @router.get("/ready")
    async def ready() -> Response:
        is_so = is_ready()
        return json_answer({"live": True, "ready": is_so}, 200 if is_so else 503)

    return router


def open_inference_router(desk: Desk, check: Check, max_body_bytes: int) -> APIRouter:
    """Return inference (first, as routes are tried in order) and metadata."""
    router = door_router(
        OpenInferenceRoute, check, prefix="/v2", tags=["open inference protocol"]
    )

    @router.post("/models/{model}/infer")
    @router.post("/models/{model}/versions/{version}/infer")
    async def infer(
        request: Request, model: str, version: str | None = None
    ) -> Response:
        body = await read_json(request, max_body_bytes)
        given = body.get("id")
        if given is not None and not isinstance(given, str):
            raise BadRequest("'id' must be text")
        columns, fits = columns_of(body)
        number = None if version is None else _number(version, model)
        reply = await desk.answer(
            model, columns, given or request_id_of(request), number, fits
        )
        return json_answer(
            {
                "model_name": model,
                "model_version": str(reply.version),
                "id": reply.request_id,
                "parameters": {"role": reply.role},
                "outputs": _outputs(reply, body),
            },
            headers={VERSION_HEADER: str(reply.version)},
        )

    @router.get("")
    async def server(_: Request) -> Response:
        about = {"name": "driftloop", "version": version_of("driftloop-scorer")}
        return json_answer({**about, "extensions": []})

    @router.get("/models/{model}")
    @router.get("/models/{model}/versions/{version}")
    async def metadata(_: Request, model: str, version: str | None = None) -> Response:
        return json_answer(_metadata(model, *_found(desk, model, version)))

    @router.get("/models/{model}/ready")
    @router.get("/models/{model}/versions/{version}/ready")
    async def ready(_: Request, model: str, version: str | None = None) -> Response:
        _found(desk, model, version)
        return json_answer({"name": model, "ready": True})

    return router
