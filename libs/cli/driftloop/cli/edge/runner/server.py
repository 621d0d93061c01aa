"""The HTTP interface: MLflow's and Open Inference's routes for one model."""

import hmac
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from . import VERSION
from .answering import Answer, Desk
from .errors import BadRequest, ModelFailed
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
MAX_CONNECTIONS = 64
IDLE_S = 30
DRAIN_S = 10.0
ERROR_CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    413: "INVALID_PARAMETER_VALUE",
}
"""As MLflow names them."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
PLATFORM = "onnxruntime_onnx"

Handle = Callable[["Handler", "Asked"], "Reply"]


class HttpError(Exception):
    """An answer with a status of 4xx that is no matter of values."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Rules:
    """How the server behaves.

    Attributes
    ----------
    token : that callers prove themselves with; None: nobody has to.
    is_loopback : whether only this machine can call.
    spool : returns bytes that wait, files sent, files refused.
    """

    max_body_bytes: int
    token: str | None
    is_loopback: bool
    spool: Callable[[], tuple[int, int, int]]


@dataclass(frozen=True)
class Asked:
    """A request, its path taken apart."""

    method: str
    path: str
    parts: list[str]
    is_protocol: bool


@dataclass
class Reply:
    """An answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] | None = None


class Server(ThreadingHTTPServer):
    """Serves one model with a bounded number of threads."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], desk: Desk, rules: Rules) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.desk, self.rules = desk, rules
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._working = 0
        self._quiet = threading.Condition()
        super().__init__(address, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._places.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell what was not expected; a caller that hangs up is no fault of ours."""
        if not isinstance(sys.exception(), TimeoutError | ConnectionError):
            super().handle_error(request, client_address)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count a request that is being answered."""
        with self._quiet:
            self._working += 1
        try:
            yield
        finally:
            with self._quiet:
                self._working -= 1
                self._quiet.notify_all()

    def drain(self) -> None:
        """Return once the requests in work are answered, or took too long."""
        with self._quiet:
            self._quiet.wait_for(lambda: not self._working, DRAIN_S)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = f"driftloop-edge/{VERSION}"
    timeout = IDLE_S
    wbufsize = -1  # headers and body in one packet
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def version_string(self) -> str:
        """Return what the header ``Server`` says."""
        return self.server_version

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as inherited
        """Say nothing: who asked what is nobody's business here."""

    def body(self) -> bytes:
        """Return the body.

        Raises
        ------
        HttpError
            413 when it is too long; 411 when it does not say how long it is; 415 when
            it is compressed.
        """
        limit = self.server.rules.max_body_bytes
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise HttpError(411, "send the body's length (Content-Length)")
        if int(length) > limit:
            raise HttpError(413, f"at most {limit} bytes; send fewer rows")
        data = self.rfile.read(int(length))
        self._is_read = True
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise HttpError(415, "bodies are not compressed at the edge")
        return data

    def _handle(self, method: str) -> None:
        path = urlsplit(self.path).path
        parts = [unquote(part) for part in path.split("/") if part]
        asked = Asked(method, path, parts, bool(parts) and parts[0] == "v2")
        has_body = (
            "Content-Length" in self.headers or "Transfer-Encoding" in self.headers
        )
        self._is_read = not has_body
        with self.server.working():
            self._answer(asked)

    def _answer(self, asked: Asked) -> None:
        try:
            reply = self._reply(asked)
        except BadRequest as error:
            self.server.desk.refused()
            reply = _problem(asked, 400, str(error))
        except ModelFailed as error:
            reply = _problem(asked, 500, str(error))
        except HttpError as error:
            reply = _problem(asked, error.status, str(error))
        except (TimeoutError, ConnectionError):
            self.close_connection = True
            return
        self.server.desk.metrics.requested(reply.status)
        if not self._is_read:
            self.close_connection = True  # else its body would be the next request
        self._send(reply)

    def _reply(self, asked: Asked) -> Reply:
        handle, is_open = _route(asked, self.server.desk)
        self._check_host()
        if not is_open:
            self._check_token()
        return handle(self, asked)

    def _check_host(self) -> None:
        """Refuse a browser that was led here under another name (DNS rebinding)."""
        host = self.headers.get("Host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self.server.rules.is_loopback and name not in LOOPBACK_NAMES:
            raise HttpError(403, f"Host {host!r:.80} is not this machine")

    def _check_token(self) -> None:
        token = self.server.rules.token
        given = self.headers.get("Authorization", "")
        wanted = f"Bearer {token}".encode()
        if token is not None and not hmac.compare_digest(given.encode(), wanted):
            raise HttpError(401, "send Authorization: Bearer TOKEN")

    def request_id(self) -> str | None:
        """Return the caller's id of the request, where it sends one."""
        given = self.headers.get(REQUEST_ID_HEADER, "")[:MAX_REQUEST_ID]
        return given if given.isprintable() and given else None

    def _send(self, reply: Reply) -> None:
        try:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body)))
            for name, value in (reply.headers or {}).items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(reply.body)
            self.wfile.flush()
        except (TimeoutError, ConnectionError):
            self.close_connection = True


def _json(content: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(content, ensure_ascii=False).encode())


def _problem(asked: Asked, status: int, text: str) -> Reply:
    """Return an error in the form of the protocol that was spoken."""
    if asked.is_protocol:
        return _json({"error": text}, status)
    code = ERROR_CODES.get(status, "INTERNAL_ERROR")
    return _json({"error_code": code, "message": text}, status)


def _route(asked: Asked, desk: Desk) -> tuple[Handle, bool]:
    """Return what answers a request, and whether anybody may ask it.

    Raises
    ------
    HttpError
        404 or 405.
    """
    by_method = {**PLAIN, **PROTOCOL}.get(asked.path.rstrip("/") or "/")
    if by_method is None:
        by_method = _of_model(asked, desk)
    found = by_method.get(asked.method)
    if found is None:
        raise HttpError(405, f"{asked.path} takes {', '.join(by_method)}")
    return found, asked.path.rstrip("/") in OPEN


def _of_model(asked: Asked, desk: Desk) -> Mapping[str, Handle]:
    """Return the routes below a model's name."""
    package, parts = desk.package, asked.parts
    if parts[:1] == ["pipelines"] and parts[2:] == ["invocations"]:
        _check_name(parts[1], desk)
        return {"POST": _invocations}
    if parts[:2] != ["v2", "models"] or len(parts) < 3:
        raise HttpError(404, f"there is no {asked.path!r:.200} here")
    _check_name(parts[2], desk)
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
        raise HttpError(404, f"there is no {asked.path!r:.200} here")
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


def _invocations(handler: Handler, _: Asked) -> Reply:
    desk = handler.server.desk
    content_type = handler.headers.get("Content-Type", "")
    data = handler.body()
    if problem := _content_problem(content_type):
        raise HttpError(415, problem)
    columns: Values
    if content_type.lower().startswith(CSV):
        columns = columns_of_csv(data, desk.package.inputs)
    else:
        columns = columns_of_json(json_object(data), desk.package.inputs)
    request_id = handler.request_id()
    answer = desk.answer(columns, request_id)
    reply = _json({"predictions": answer.said.prediction.tolist()})
    reply.headers = _headers(desk, answer, request_id)
    return reply


def _infer(handler: Handler, _: Asked) -> Reply:
    desk = handler.server.desk
    data = handler.body()
    if handler.headers.get(JSON_LENGTH_HEADER) is not None:
        raise BadRequest("there are no binary tensors at the edge; send 'data'")
    body = json_object(data)
    given = body.get("id")
    if given is not None and not isinstance(given, str):
        raise BadRequest("'id' must be text")
    named = given or handler.request_id()
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


def _metadata(handler: Handler, _: Asked) -> Reply:
    package = handler.server.desk.package
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


def _model_ready(handler: Handler, _: Asked) -> Reply:
    return _json({"name": handler.server.desk.package.pipeline, "ready": True})


def _metrics(handler: Handler, _: Asked) -> Reply:
    page = handler.server.desk.metrics.page(*handler.server.rules.spool())
    return Reply(200, page.encode(), CONTENT_TYPE)


def _ping(handler: Handler, _: Asked) -> Reply:
    del handler
    return Reply(200, b"\n", TEXT)


def _version(handler: Handler, _: Asked) -> Reply:
    del handler
    return Reply(200, VERSION.encode(), TEXT)


def _server(handler: Handler, _: Asked) -> Reply:
    del handler
    return _json({"name": "driftloop-edge", "version": VERSION, "extensions": []})


def _live(handler: Handler, _: Asked) -> Reply:
    del handler
    return _json({"live": True})


def _ready(handler: Handler, _: Asked) -> Reply:
    del handler  # a runner that serves has its model in memory and tried
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
"""Probes, which tell nothing else; and nobody has to prove anything to ask them."""
