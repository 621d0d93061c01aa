"""Keeps a set of programs running as separate processes, and ends them all.

Each process leads its own session; its output goes to `logs/<name>.log` and, on
request, to the terminal behind its name. One that ends is started again after a pause
that doubles until it has run stably. When the supervisor ends, however it ends, its
processes end too.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from logging import makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from driftloop.local.output import Output, printer
from driftloop.local.processes import identity, signal_group, tied_command

WATCHDOG_EXIT_CODE = 3
# Longer than a consumer group's session (8 s): the group must have forgotten a static
# member that its watchdog ended, or it is handed the same stale assignment.
WATCHDOG_PAUSE_S = 10.0
FLAPPING_FAILURES = 5

_POLL_S = 0.1
_PROBE_TIMEOUT_S = 2.0
_PROBE_STARTING_S, _PROBE_READY_S = 0.3, 2.0
_LOG_BYTES, _LOG_FILES = 10_000_000, 3

State = Literal["waiting", "running", "restarting", "flapping", "stopped"]
Say = Callable[[str], None]


def _print(text: str) -> None:
    print(text, flush=True)


@dataclass(frozen=True)
class Backoff:
    """Pauses before a restart, in seconds."""

    first_s: float = 0.5
    longest_s: float = 10.0
    stable_s: float = 60.0
    """A run at least this long begins the pauses anew."""


@dataclass(frozen=True)
class ProcessSpec:
    """One program to keep running.

    Attributes
    ----------
    is_ready : asked repeatedly, in a thread; None: ready as soon as it runs.
    blocks_start : the processes after it start only when it is ready.
    on_ready : done once, in a thread, before the processes after it start.
    port : only passed on to whoever asks for the state.
    sockets : numbers of those that it inherits, under the same numbers.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path | None = None
    is_ready: Callable[[], bool] | None = None
    blocks_start: bool = False
    on_ready: Callable[[], object] | None = None
    port: int | None = None
    backoff: Backoff = Backoff()
    stop_grace_s: float = 15.0
    sockets: Sequence[int] = ()


def http_ready(url: str) -> Callable[[], bool]:
    """Return a test that is true while `url` answers with status 200."""
    parts = urlsplit(url)

    def is_ready() -> bool:
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=_PROBE_TIMEOUT_S
        )
        try:
            connection.request("GET", parts.path or "/")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return is_ready


class Supervisor:
    """Runs processes until it is told to stop.

    Parameters
    ----------
    specs
        In the order of their start. They are stopped in reverse: first, together, all
        after the last one that blocks the start, and so on.
    logs
        Folder of the log files.
    echo
        Also print each process's output.
    on_change
        Called with `snapshot()` whenever a process's state has changed.
    say
        Receives the supervisor's own messages.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        logs: Path,
        *,
        echo: bool = False,
        on_change: Callable[[dict[str, dict[str, Any]]], None] | None = None,
        say: Say = _print,
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._on_change = on_change
        self._stopping = asyncio.Event()
        names = [spec.name for spec in specs]
        self._processes = [
            _Process(spec, logs, printer(names, n) if echo else None, self._report, say)
            for n, spec in enumerate(specs)
        ]

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """Return the state of each process by its name, as plain JSON values."""
        return {process.spec.name: process.snapshot() for process in self._processes}

    @property
    def is_stopping(self) -> bool:
        """Whether the stop was asked for."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Stop in good order; when called again, kill at once."""
        if self._stopping.is_set():
            for process in self._processes:
                process.kill()
        self._stopping.set()

    async def run(self) -> None:
        """Run until `stop`, SIGTERM, SIGINT or SIGHUP. Main thread only."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop)
        work: set[asyncio.Task[None]] = set()
        try:
            starting = asyncio.create_task(self._start(work))
            work.add(starting)
            stopped = asyncio.create_task(self._stopping.wait())
            while not self._stopping.is_set():
                done, _ = await asyncio.wait(
                    {stopped, *work}, return_when=asyncio.FIRST_COMPLETED, timeout=1
                )
                for task in work & done:
                    task.result()  # an error here is a bug, or a failed `on_ready`
                work -= done
            if not starting.done():
                starting.cancel()
        finally:
            self._stopping.set()
            await self._stop_all()
            await asyncio.gather(*work, return_exceptions=True)
            for process in self._processes:
                process.close()

    async def _start(self, work: set[asyncio.Task[None]]) -> None:
        for process in self._processes:
            work.add(asyncio.create_task(process.keep_running(self._stopping)))
            if process.spec.blocks_start:
                await process.ready.wait()
                if process.spec.on_ready:
                    await asyncio.to_thread(process.spec.on_ready)

    async def _stop_all(self) -> None:
        stages: list[list[_Process]] = [[]]
        for process in self._processes:
            stages[-1].append(process)
            if process.spec.blocks_start:
                stages.append([])
        for stage in reversed(stages):
            await asyncio.gather(*(process.stop() for process in stage))

    def _report(self) -> None:
        if self._on_change:
            self._on_change(self.snapshot())


class _Process:
    """One process with its restarts."""

    def __init__(
        self,
        spec: ProcessSpec,
        logs: Path,
        echo: Say | None,
        changed: Callable[[], None],
        say: Say,
    ) -> None:
        self.spec = spec
        self.ready = asyncio.Event()
        self._echo = echo
        self._changed = changed
        self._say = say
        self._log = RotatingFileHandler(
            logs / f"{spec.name}.log", maxBytes=_LOG_BYTES, backupCount=_LOG_FILES,
            encoding="utf-8", delay=True,
        )  # fmt: skip
        self._state: State = "waiting"
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = asyncio.Event()
        self._ended.set()
        self._restarts = 0
        self._last_exit: int | None = None

    def snapshot(self) -> dict[str, Any]:
        pid = self._process.pid if self._process else None
        return {
            "pid": pid,
            "identity": identity(pid) if pid else None,
            "state": self._state,
            "ready": self.ready.is_set(),
            "port": self.spec.port,
            "restarts": self._restarts,
            "last_exit": self._last_exit,
            "log": self._log.baseFilename,
        }

    async def keep_running(self, stopping: asyncio.Event) -> None:
        failures, pause = 0, self.spec.backoff.first_s
        while not stopping.is_set():
            began = time.monotonic()
            code = await self._run_once()
            if stopping.is_set():
                break
            if time.monotonic() - began >= self.spec.backoff.stable_s:
                failures, pause = 0, self.spec.backoff.first_s
            failures += 1
            self._restarts += 1
            wait = WATCHDOG_PAUSE_S if code == WATCHDOG_EXIT_CODE else pause
            pause = min(2 * pause, self.spec.backoff.longest_s)
            self._tell(code, failures, wait)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), wait)
        self._set("stopped")

    async def stop(self) -> None:
        """End the process; SIGKILL after the grace time."""
        process = self._process
        if process:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
            try:
                await asyncio.wait_for(self._ended.wait(), self.spec.stop_grace_s)
            except TimeoutError:
                self._say(
                    f"{self.spec.name} did not stop within "
                    f"{self.spec.stop_grace_s:g} s and is killed"
                )
                self.kill()
                await self._ended.wait()
        self._set("stopped")

    def kill(self) -> None:
        if self._process:
            signal_group(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the log file."""
        self._log.close()

    async def _run_once(self) -> int:
        """Start the process, wait for its end, return its exit code."""
        try:
            process = subprocess.Popen(
                tied_command(self.spec.argv),
                env=dict(self.spec.env),
                cwd=self.spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self.spec.sockets,
            )
        except OSError as error:
            self._line(f"cannot be started: {error}")
            return os.EX_UNAVAILABLE
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        self._process = process
        self._ended.clear()
        self._set("running")
        output = Output(process.stdout, self._line)
        probe = asyncio.create_task(self._probe())
        try:
            while (code := process.poll()) is None:
                await asyncio.sleep(_POLL_S)
        finally:
            probe.cancel()
            # What it has started and left behind goes with it.
            signal_group(process.pid, signal.SIGKILL)
            output.close()
            self._process = None
            self.ready.clear()
            self._ended.set()
        self._last_exit = code
        return code

    async def _probe(self) -> None:
        is_ready = self.spec.is_ready or (lambda: True)
        while True:
            try:
                ready = await asyncio.to_thread(is_ready)
            except (OSError, RuntimeError) as error:
                ready = False
                self._line(f"not ready: {error}")
            if ready != self.ready.is_set():
                (self.ready.set if ready else self.ready.clear)()
                self._changed()
            await asyncio.sleep(_PROBE_READY_S if ready else _PROBE_STARTING_S)

    def _tell(self, code: int, failures: int, wait: float) -> None:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"code {code}"
        flapping = failures >= FLAPPING_FAILURES
        again = f" {failures} times in a row" if flapping else ""
        self._say(
            f"{self.spec.name} ended ({how}){again}; next start in {wait:g} s; "
            f"log: {self._log.baseFilename}"
        )
        self._set("flapping" if flapping else "restarting")

    def _set(self, state: State) -> None:
        self._state = state
        self._changed()

    def _line(self, line: str) -> None:
        self._log.emit(makeLogRecord({"msg": line}))
        if self._echo:
            self._echo(line)
