"""The routes for one model, and what answers each: MLflow's and Open Inference's."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import Any
from uuid import uuid4

from . import VERSION
from .answering import Answer, Desk
from .errors import BadRequest
from .forms import Values, columns_of_csv, columns_of_json, json_object
from .inference import DATATYPES, columns_of, outputs_of, wanted_outputs
from .metrics import CONTENT_TYPE
from .unfamiliar import header_of, in_words

VERSION_HEADER = "X-Driftloop-Model-Version"
REQUEST_ID_HEADER = "X-Request-Id"
UNFAMILIAR_HEADER = "X-Driftloop-Unfamiliar"
JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
JSON, CSV, TEXT = "application/json", "text/csv", "text/plain"
MAX_REQUEST_ID = 200
ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    413: "INVALID_PARAMETER_VALUE",
}
"""As MLflow names them."""
PLATFORM = "onnxruntime_onnx"


class HttpError(Exception):
    """An answer with a status of 4xx that is no matter of values."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Call:
    """A request.

    Attributes
    ----------
    headers : by name, in any case.
    parts : of the path, decoded.
    read : returns the body; see ``Handler.body``.
    waiting : returns bytes that wait to be sent home, files sent, files refused.
    """

    desk: Desk
    method: str
    path: str
    parts: list[str]
    headers: HTTPMessage
    read: Callable[[], bytes]
    waiting: Callable[[], tuple[int, int, int]]

    @property
    def is_protocol(self) -> bool:
        """Whether it speaks Open Inference."""
        return self.parts[:1] == ["v2"]

    def request_id(self) -> str | None:
        """Return the caller's id of the request, where it sends one."""
        given = self.headers.get(REQUEST_ID_HEADER, "")[:MAX_REQUEST_ID]
        return given if given.isprintable() and given else None


@dataclass
class Reply:
    """An answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] | None = None


Handle = Callable[[Call], Reply]


def _json(content: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(content, ensure_ascii=False).encode())


def problem(call: Call, status: int, text: str) -> Reply:
    """Return an error in the form of the protocol that was spoken."""
    if call.is_protocol:
        return _json({"error": text}, status)
    code = ERROR_CODES.get(status, "INTERNAL_ERROR")
    return _json({"error_code": code, "message": text}, status)


def is_open(path: str) -> bool:
    """Whether anybody may ask: probes, which tell nothing else."""
    return path.rstrip("/") in OPEN


def route(call: Call) -> Handle:
    """Return what answers a request.

    Raises
    ------
    HttpError
        404 or 405.
    """
    by_method = {**PLAIN, **PROTOCOL}.get(call.path.rstrip("/"))
    if by_method is None:
        by_method = _of_model(call)
    found = by_method.get(call.method)
    if found is None:
        raise HttpError(405, f"{call.path} takes {', '.join(by_method)}")
    return found


def _of_model(call: Call) -> Mapping[str, Handle]:
    """Return the routes below a model's name."""
    package, parts = call.desk.package, call.parts
    if parts[:1] == ["pipelines"] and parts[2:] == ["invocations"]:
        _check_name(parts[1], call.desk)
        return {"POST": _invocations}
    if parts[:2] != ["v2", "models"] or len(parts) < 3:
        raise HttpError(404, f"there is no {call.path!r:.200} here")
    _check_name(parts[2], call.desk)
    rest = parts[3:]
    if rest[:1] == ["versions"] and len(rest) > 1:
        if rest[1] != str(package.version):
            raise HttpError(
                404,
                f"version {rest[1]!r:.40} of {package.pipeline!r} is not served; "
                f"{package.version} is",
            )
        rest = rest[2:]
    found = OF_MODEL.get("/".join(rest))
    if found is None:
        raise HttpError(404, f"there is no {call.path!r:.200} here")
    return found


def _check_name(name: str, desk: Desk) -> None:
    if name != desk.package.pipeline:
        raise HttpError(
            404, f"no model is served for {name!r:.80}; {desk.package.pipeline!r} is"
        )


def _headers(desk: Desk, answer: Answer, request_id: str | None) -> dict[str, str]:
    headers = {VERSION_HEADER: str(desk.package.version)}
    if request_id is not None:
        headers[REQUEST_ID_HEADER] = request_id
    if answer.unfamiliar:
        headers[UNFAMILIAR_HEADER] = header_of(answer.unfamiliar)
    return headers


def _content_problem(content_type: str) -> str | None:
    """Say why a content type cannot be read."""
    kind, *parameters = (part.strip() for part in content_type.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() != "charset":
            return f"unrecognized content type parameter {name!r:.80}"
        if value.strip().strip('"').lower() not in {"utf-8", "utf8"}:
            return "only UTF-8 is read"
    if kind.lower() not in {JSON, CSV}:
        return f"send {JSON} or {CSV}; got {content_type!r:.80}"
    return None


def _invocations(call: Call) -> Reply:
    desk = call.desk
    content_type = call.headers.get("Content-Type", "")
    data = call.read()
    if problem := _content_problem(content_type):
        raise HttpError(415, problem)
    columns: Values
    if content_type.lower().startswith(CSV):
        columns = columns_of_csv(data, desk.package.inputs)
    else:
        columns = columns_of_json(json_object(data), desk.package.inputs)
    request_id = call.request_id()
    answer = desk.answer(columns, request_id)
    reply = _json({"predictions": answer.said.prediction.tolist()})
    reply.headers = _headers(desk, answer, request_id)
    return reply


def _infer(call: Call) -> Reply:
    desk = call.desk
    data = call.read()
    if call.headers.get(JSON_LENGTH_HEADER) is not None:
        raise BadRequest("there are no binary tensors at the edge; send 'data'")
    body = json_object(data)
    given = body.get("id")
    if given is not None and not isinstance(given, str):
        raise BadRequest("'id' must be text")
    named = given or call.request_id()
    wanted = wanted_outputs(body)
    answer = desk.answer(columns_of(body, desk.package.inputs), named)
    request_id = named or str(uuid4())
    parameters = {"role": "edge"}
    if answer.unfamiliar:
        parameters["warnings"] = in_words(answer.unfamiliar)
    reply = _json(
        {
            "model_name": desk.package.pipeline,
            "model_version": str(desk.package.version),
            "id": request_id,
            "parameters": parameters,
            "outputs": outputs_of(answer.said, wanted),
        }
    )
    shown = request_id if request_id.isprintable() and request_id.isascii() else None
    reply.headers = _headers(desk, answer, shown)
    return reply


def _metadata(call: Call) -> Reply:
    package = call.desk.package
    outputs = []
    for column in package.outputs:
        is_wide = column["name"] == "score" and len(package.classes) > 2
        outputs.append(
            {
                "name": column["name"],
                "datatype": "BYTES" if column["type"] == "category" else "FP64",
                "shape": [-1, len(package.classes) if is_wide else 1],
            }
        )
    return _json(
        {
            "name": package.pipeline,
            "versions": [str(package.version)],
            "platform": PLATFORM,
            "inputs": [
                {"name": c.name, "datatype": DATATYPES[c.type], "shape": [-1, 1]}
                for c in package.inputs
            ],
            "outputs": outputs,
        }
    )


def _model_ready(call: Call) -> Reply:
    return _json({"name": call.desk.package.pipeline, "ready": True})


def _metrics(call: Call) -> Reply:
    page = call.desk.metrics.page(*call.waiting())
    return Reply(200, page.encode(), CONTENT_TYPE)


def _ping(call: Call) -> Reply:
    del call
    return Reply(200, b"\n", TEXT)


def _version(call: Call) -> Reply:
    del call
    return Reply(200, VERSION.encode(), TEXT)


def _server(call: Call) -> Reply:
    del call
    return _json({"name": "driftloop-edge", "version": VERSION, "extensions": []})


def _live(call: Call) -> Reply:
    del call
    return _json({"live": True})


def _ready(call: Call) -> Reply:
    del call  # a runner that serves has its model in memory and tried
    return _json({"live": True, "ready": True})


PLAIN: Mapping[str, Mapping[str, Handle]] = {
    "/ping": {"GET": _ping},
    "/health": {"GET": _ping},
    "/version": {"GET": _version},
    "/metrics": {"GET": _metrics},
    "/invocations": {"POST": _invocations},
}
PROTOCOL: Mapping[str, Mapping[str, Handle]] = {
    "/v2": {"GET": _server},
    "/v2/health/live": {"GET": _live},
    "/v2/health/ready": {"GET": _ready},
}
OF_MODEL: Mapping[str, Mapping[str, Handle]] = {
    "": {"GET": _metadata},
    "ready": {"GET": _model_ready},
    "infer": {"POST": _infer},
}
OPEN = frozenset({"/ping", "/health", "/v2/health/live", "/v2/health/ready"})
