"""Connections: bounded, with time limits, and who may ask."""

import hmac
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from . import VERSION
from .answering import Desk
from .errors import BadRequest, ModelFailed
from .routes import Call, HttpError, Reply, is_open, problem, route

MAX_CONNECTIONS = 64
IDLE_S = 30
DRAIN_S = 10.0
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


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
    headers: HTTPMessage
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
        headers = self.headers
        self._is_read = (
            "Content-Length" not in headers and "Transfer-Encoding" not in headers
        )
        call = Call(
            desk=self.server.desk,
            method=method,
            path=path,
            parts=[unquote(part) for part in path.split("/") if part],
            headers=headers,
            read=self.body,
            waiting=self.server.rules.spool,
        )
        with self.server.working():
            self._answer(call)

    def _answer(self, call: Call) -> None:
        try:
            reply = self._reply(call)
        except BadRequest as error:
            self.server.desk.refused()
            reply = problem(call, 400, str(error))
        except ModelFailed as error:
            reply = problem(call, 500, str(error))
        except HttpError as error:
            reply = problem(call, error.status, str(error))
        except (TimeoutError, ConnectionError):
            self.close_connection = True
            return
        self.server.desk.metrics.requested(reply.status)
        if not self._is_read:
            self.close_connection = True  # else its body would be the next request
        self._send(reply)

    def _reply(self, call: Call) -> Reply:
        self._check_host()
        if not is_open(call.path):
            self._check_token()
        return route(call)(call)

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
