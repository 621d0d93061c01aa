"""An HTTP server with the routes of a Kubernetes API server that Jobs need.

It checks each Job by Kubernetes' own schema and really runs its pod: the container's
command as a process, with the container's environment and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import kubernetes_validate

VERSION = "1.34"
PATH = re.compile(
    r"/apis/batch/v1/namespaces/(?P<space>[\w-]+)/jobs(/(?P<name>[\w-]+))?"
)
PODS = re.compile(r"/api/v1/namespaces/[\w-]+/pods")
Json = dict[str, Any]


class Pod:
    """A Job with the process that is its container."""

    def __init__(self, job: Json, secrets: Path, log: Path) -> None:
        self.job = job
        [container] = job["spec"]["template"]["spec"]["containers"]
        given = {one["name"]: one["value"] for one in container["env"]}
        places = {"DRIFTLOOP_SECRETS_DIR": str(secrets), "TMPDIR": str(log.parent)}
        environment = {name: places.get(name, value) for name, value in given.items()}
        assert container["command"] == ["python"]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, *container["args"]],
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(log.parent),
                    **environment,
                },
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def status(self) -> Json:
        code = self.process.poll()
        if code is None:
            return {"active": 1}
        kind = "Failed" if code else "Complete"
        reason = {"reason": "BackoffLimitExceeded"} if code else {}
        return {"conditions": [{"type": kind, "status": "True", **reason}]}

    def pod(self) -> Json:
        code = self.process.poll()
        state: Json = {"running": {}}
        if code is not None:
            reason = "OOMKilled" if code == -signal.SIGKILL else "Error"
            state = {"terminated": {"reason": reason, "exitCode": code % 256}}
        return {"status": {"containerStatuses": [{"state": state}]}}

    def end(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        self.process.wait(120)


class KubernetesApi:
    """The server, on a free loopback port.

    Parameters
    ----------
    place : new folder: an account for clients, and the pods' logs.
    secrets : what the Secret that a Job names holds, as files.
    """

    token = "token-of-the-service-account"

    def __init__(self, place: Path, secrets: dict[str, str]) -> None:
        self.account, self.secrets = place / "account", place / "secrets"
        self._log = place / "pods.log"
        for folder, files in (
            (self.account, {"token": self.token, "namespace": "driftloop"}),
            (self.secrets, secrets),
        ):
            folder.mkdir(parents=True)
            for name, text in files.items():
                (folder / name).write_text(text)
        self.pods: dict[str, Pod] = {}
        self.problems: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

            def _handle(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                authorization = self.headers.get("authorization")
                code, found = server.answer(
                    self.command, self.path, body, authorization
                )
                data = json.dumps(found).encode()
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - http.server's names

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def answer(
        self, method: str, path: str, body: Json | None, authorization: str | None
    ) -> tuple[int, Json]:
        """Return status and body of an answer."""
        if authorization != f"Bearer {self.token}":
            return 401, {"kind": "Status", "message": "Unauthorized"}
        return self._answer(method, path, body)

    def _answer(self, method: str, path: str, body: Json | None) -> tuple[int, Json]:
        path, _, query = path.partition("?")
        if method == "GET" and PODS.fullmatch(path):
            pod = self.pods.get(query.removeprefix("labelSelector=job-name%3D"))
            return 200, {"items": [pod.pod()] if pod else []}
        match = PATH.fullmatch(path)
        if match is None:
            return 403, {"kind": "Status", "message": f"not allowed: {path}"}
        if method == "POST" and body is not None:
            return self._create(body)
        pod = self.pods.get(str(match["name"]))
        if pod is None:
            return 404, {"kind": "Status", "message": "not found"}
        if method == "DELETE":
            pod.end(signal.SIGTERM)
            del self.pods[str(match["name"])]
            return 200, {"kind": "Status", "status": "Success"}
        return 200, {**pod.job, "status": pod.status()}

    def _create(self, job: Json) -> tuple[int, Json]:
        name = job["metadata"]["name"]
        if name in self.pods:
            return 409, {"kind": "Status", "message": "already exists"}
        try:
            kubernetes_validate.validate(job, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            self.problems.append(str(error))
            return 422, {"kind": "Status", "message": str(error)}
        self.pods[name] = Pod(job, self.secrets, self._log)
        return 201, job

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        for pod in self.pods.values():
            pod.end(signal.SIGKILL)
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(120)

    def said(self) -> str:
        return self._log.read_text() if self._log.exists() else ""
