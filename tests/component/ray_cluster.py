"""A Ray cluster of several nodes on this machine, each with an address of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
from driftloop.local.processes import free_port
from support import plain

MARK = "DRIFTLOOP_TEST_RAY_NODE"
POLL_S = 0.1
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
STARTS = 4
OBJECT_STORE_BYTES = 80_000_000  # the least that Ray takes, nearly
STARTED = "Ray runtime started"
DROPPED = ("PYTHONDONTWRITEBYTECODE",)
"""Else each of Ray's many processes compiles its libraries anew."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


def _is_dropped(name: str) -> bool:
    return name in DROPPED or "DRIFTLOOP" in name


class RayCluster:
    """One head without processors, and nodes with one each; it asks for a token.

    Ray takes 127.0.0.1 for "this machine" and looks for an outside address then; any
    other address of the loopback network is taken as it is, and makes each node a
    machine of its own.

    Parameters
    ----------
    environment : of the nodes: what their owner gives all jobs, such as secrets.
    """

    def __init__(self, nodes: int, environment: dict[str, str]) -> None:
        self.token = secrets.token_hex(32)
        # Not below pytest's folders: the path of a socket has 107 characters at most.
        self._place = Path(tempfile.mkdtemp(prefix="driftloop-ray-", dir="/tmp"))
        self._marks = [f"{self._place.name}-{number}" for number in range(nodes + 1)]
        number = os.getpid()
        self._net = f"127.{1 + number // 250 % 250}.{1 + number % 250}"
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        self._port, self._door = free_port(), free_port()
        self._environment = {
            **{k: v for k, v in os.environ.items() if not _is_dropped(k)},
            **environment,
            **QUIET,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
        }

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._door}"

    def start(self) -> Self:
        """Start all nodes; return when they run and the head takes jobs."""
        head = [
            "--head", f"--port={self._port}", f"--temp-dir={self._place}",
            "--num-cpus=0", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self._door}",
            f"--ray-client-server-port={free_port()}", "--no-monitor",
            "--disable-usage-stats",
        ]  # fmt: skip
        self._launch(0, head)
        for number in range(1, len(self._marks)):
            address = f"--address={self._net}.1:{self._port}"
            # Two that start at the same moment may choose the same names of sockets.
            self._launch(number, [address, "--num-cpus=1"])
        self._wait(self._answers, lambda: False)
        return self

    def _launch(self, number: int, arguments: list[str]) -> None:
        """Start a node until it is up: on a busy machine Ray gives up after 30 s."""
        command = [
            str(Path(sys.executable).with_name("ray")), "start", "--block", *arguments,
            f"--node-ip-address={self._net}.{number + 1}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            "--dashboard-agent-listen-port=0", "--include-log-monitor=false",
        ]  # fmt: skip
        path = self._place / f"node-{number}.log"
        for _ in range(STARTS):
            with path.open("wb") as log:
                started = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    env=self._environment | {MARK: self._marks[number]},
                )
            self._started[number] = started
            self._wait(
                lambda: STARTED in path.read_text(errors="replace"),
                lambda: started.poll() is not None,  # noqa: B023
            )
            if started.poll() is None:
                return
            self.kill(number)
        raise AssertionError(self.said())

    def _wait(self, is_so: Callable[[], bool], is_over: Callable[[], bool]) -> None:
        until = time.monotonic() + START_TIMEOUT_S
        while not is_so() and not is_over():
            assert time.monotonic() < until, self.said()
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        headers = {"Authorization": f"Bearer {self.token}"}
        with suppress(httpx.HTTPError):
            url = f"{self.address}/api/version"
            return plain.get(url, headers=headers, timeout=5).is_success
        return False

    def said(self) -> str:
        logs = sorted(self._place.glob("node-*.log"))
        return "\n".join(log.read_text(errors="replace")[-2000:] for log in logs)

    def processes(self, words: str = "", node: int | None = None) -> dict[int, int]:
        """Return the pids of a node's processes, or of all nodes', with their node."""
        marks = self._marks if node is None else [self._marks[node]]
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = (place / "environ").read_bytes().split(b"\0")
                for mark in marks:
                    if f"{MARK}={mark}".encode() not in environment:
                        continue
                    command = (place / "cmdline").read_bytes().replace(b"\0", b" ")
                    if words.encode() in command:
                        found[int(place.name)] = self._marks.index(mark)
        return found

    def kill(self, node: int) -> None:
        """End all that runs on a node, as when the machine is switched off."""
        while found := self.processes(node=node):  # some have just been started
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)
        self._started.pop(node).wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        for node in list(self._started):
            self.kill(node)
        shutil.rmtree(self._place, ignore_errors=True)
