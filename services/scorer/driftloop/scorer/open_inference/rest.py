"""The protocol over HTTP: inference, metadata, probes, the index of models."""

from collections.abc import Callable
from importlib.metadata import version as version_of
from typing import Any

from driftloop.runtime.identity.routing import (
    GuardedRouter,
    caller_in,
    guard_of,
    openly,
)
from driftloop.scorer.answering import Desk, NotServed, Reply
from driftloop.scorer.door import (
    VERSION_HEADER,
    DoorRoute,
    door_router,
    json_answer,
    read_body,
    request_id_of,
)
from driftloop.scorer.explaining.wish import wish_in
from driftloop.scorer.open_inference import explained
from driftloop.scorer.open_inference.bodies import (
    JSON_LENGTH_HEADER,
    answer_body,
    request_in,
)
from driftloop.scorer.open_inference.tensors import (
    BINARY_EXTENSION,
    BYTES,
    DATATYPES,
    columns_of,
    outputs_of,
)
from driftloop.scorer.shelf import Loaded, Served
from fastapi import Request, Response

PLATFORM = "onnxruntime_onnx"
SERVER = {
    "name": "driftloop",
    "version": version_of("driftloop-scorer"),
    "extensions": [BINARY_EXTENSION, "model_repository(index)"],
}


class OpenInferenceRoute(DoorRoute):
    """Errors as the protocol has them."""

    def problem(self, status: int, text: str) -> Response:
        return json_answer({"error": text}, status)


def metadata_of(name: str, served: Served, loaded: Loaded) -> dict[str, Any]:
    manifest = loaded.manifest
    outputs: list[dict[str, Any]] = []
    for column in manifest.outputs:
        is_score = column.name == "score"
        width = len(manifest.classes) if is_score and len(manifest.classes) > 2 else 1
        datatype = BYTES if column.type == "category" else "FP64"
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


def parameters_of(reply: Reply) -> dict[str, str | int | bool]:
    """Return what an answer says beside its outputs."""
    told: dict[str, str | int | bool] = {"role": reply.role}
    if warnings := reply.warnings():
        told["warnings"] = warnings
    return told | explained.parameters_of(reply.explanation)


def states_of(name: str, served: Served | None) -> list[dict[str, str]]:
    """Return a pipeline's versions as the model repository extension has them."""
    if served is None:
        return []
    ready = dict.fromkeys(served.loaded(), ("READY", ""))
    failed = {number: ("UNAVAILABLE", why) for number, why in served.failed.items()}
    return [
        {"name": name, "version": str(number), "state": state, "reason": reason}
        for number, (state, reason) in sorted({**failed, **ready}.items())
    ]


def found(desk: Desk, model: str, version: str | None) -> tuple[Served, Loaded]:
    served = desk.shelf.get(model)
    if served is None or served.champion is None:
        raise NotServed(f"no model is served for {model!r}")
    if version is None:
        return served, served.champion
    loaded = served.loaded().get(number_of(version, model))
    if loaded is None:
        raise NotServed(f"version {version} of {model!r} is not served")
    return served, loaded


def number_of(version: str, model: str) -> int:
    if not version.isdecimal():
        raise NotServed(f"version {version!r:.40} of {model!r} is not served")
    return int(version)


def health_router(is_ready: Callable[[], bool]) -> GuardedRouter:
    """Return the probes, which tell nothing else and ask nobody."""
    router = GuardedRouter(
        prefix="/v2/health",
        tags=["open inference protocol"],
        dependencies=[openly("probes of orchestrators: alive and ready, or not")],
    )

    @router.get("/live")
    async def live() -> Response:
        return json_answer({"live": True})

    @router.get("/ready")
    async def ready() -> Response:
        is_so = is_ready()
        return json_answer({"live": True, "ready": is_so}, 200 if is_so else 503)

    return router


def open_inference_router(desk: Desk, max_body_bytes: int) -> GuardedRouter:
    """Return inference (first, as routes are tried in order) and metadata."""
    router = door_router(
        OpenInferenceRoute, prefix="/v2", tags=["open inference protocol"]
    )

    @router.post("/models/{model}/infer")
    @router.post("/models/{model}/versions/{version}/infer")
    async def infer(
        request: Request, model: str, version: str | None = None
    ) -> Response:
        data = await read_body(request, max_body_bytes)
        asked = request_in(data, request.headers.get(JSON_LENGTH_HEADER))
        columns, fits = columns_of(asked.tensors)
        number = None if version is None else number_of(version, model)
        reply = await desk.answer(
            model, columns, asked.id or request_id_of(request), number, fits,
            explain=wish_in(asked.parameters, desk.explaining.times),
        )  # fmt: skip
        head = {
            "model_name": model,
            "model_version": str(reply.version),
            "id": reply.request_id,
            "parameters": parameters_of(reply),
        }
        body, json_length = answer_body(
            head,
            outputs_of(reply.said),
            asked,
            explained.tensors_of(reply.explanation),
        )
        headers = {VERSION_HEADER: str(reply.version), **reply.headers()}
        if json_length is None:
            return Response(body, headers=headers, media_type="application/json")
        headers[JSON_LENGTH_HEADER] = str(json_length)
        return Response(body, headers=headers, media_type="application/octet-stream")

    @router.get("")
    async def server(_: Request) -> Response:
        return json_answer(SERVER)

    @router.post("/repository/index")
    async def index(request: Request) -> Response:
        guard, caller = guard_of(request), caller_in(request)
        return json_answer(
            [
                state
                for name in desk.shelf.pipelines()
                if guard.allows(caller, "score", name)
                for state in states_of(name, desk.shelf.get(name))
            ]
        )

    @router.get("/models/{model}")
    @router.get("/models/{model}/versions/{version}")
    async def metadata(_: Request, model: str, version: str | None = None) -> Response:
        return json_answer(metadata_of(model, *found(desk, model, version)))

    @router.get("/models/{model}/ready")
    @router.get("/models/{model}/versions/{version}/ready")
    async def ready(_: Request, model: str, version: str | None = None) -> Response:
        found(desk, model, version)
        return json_answer({"name": model, "ready": True})

    return router
