"""Child processes that train: one waits warm, one job each, none outlives us."""

import json
import queue
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftloop.runtime.errors import Retry
from driftloop.runtime.telemetry import log
from driftloop.trainer.child import ChildJob

START_TIMEOUT_S = 120.0
RESTART_WAIT_S = 2.0
"""After a child that ended before its job: what is broken stays so for a moment."""
READY_POLL_S = 0.02
KILL_TIMEOUT_S = 120.0
"""For the end of a child that is killed, or has said its last: it needs its turn."""
TICK_S = 0.2
logger = log(__name__)


class Crashed(Exception):  # noqa: N818 - says what happened
    """The child ended, or was ended, without an answer."""


class LimitReached(Exception):  # noqa: N818 - says what happened
    """The training may not use more of time, CPU or memory; another try would too."""


class Abandoned(Exception):  # noqa: N818 - says what happened
    """The job was given up because it is no longer ours, or we stop."""


@dataclass(frozen=True)
class Answer:
    """How a training ended: ``trained`` or ``refused``, with the child's fields."""

    kind: str
    fields: dict[str, Any]


class Child:
    """A process that loads the libraries and waits for one job."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "driftloop.trainer.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            text=True,
        )
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        for line in self._process.stdout:
            with suppress(ValueError):
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def next(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the child's next message; None when there is none yet.

        Raises
        ------
        Crashed, LimitReached
            When the child has ended.
        """
        try:
            message = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if message is None:
            raise ended(self._process.wait(KILL_TIMEOUT_S))
        return message

    def send(self, job: ChildJob) -> None:
        """Give the child its job.

        Raises
        ------
        Crashed
            When it has ended meanwhile.
        """
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        try:
            self._process.stdin.write(job.model_dump_json() + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Crashed("the training process is gone") from error

    def end(self) -> None:
        """Kill the process if it is still there, and wait for its end."""
        self._process.kill()
        with suppress(OSError):
            assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
            self._process.stdin.close()
        self._process.wait(KILL_TIMEOUT_S)


def ended(code: int) -> Crashed | LimitReached:
    """Say in words how a process ended without an answer."""
    if code == -signal.SIGXCPU:
        return LimitReached(
            "the training used up its CPU time (DRIFTLOOP_TRAINER_MAX_CPU_MINUTES)"
        )
    if code >= 0:
        return Crashed(f"the training process ended with code {code}")
    name = signal.Signals(-code).name
    meaning = {
        signal.SIGKILL: "killed by the machine for lack of memory, or by hand",
        signal.SIGABRT: "aborted, as libraries do when memory runs out "
        "(DRIFTLOOP_TRAINER_MAX_MEMORY_GIB)",
        signal.SIGSEGV: "a library touched memory that is not its own",
    }.get(signal.Signals(-code), "ended by a signal")
    return Crashed(f"the training process is gone: {meaning} ({name})")


class Worker:
    """Keeps one child warm and runs a job in it.

    Not thread-safe: one loop uses it, and nobody else in the process has children.

    Attributes
    ----------
    cpu_seconds : that the last job took in its child, without loading it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._child: Child | None = None
        self._is_ready = False
        self._not_before = 0.0
        self.cpu_seconds = 0.0

    def warm(self) -> None:
        """Start a child if there is none; look whether it is ready."""
        if self._child is None:
            if time.monotonic() < self._not_before:
                return
            self._child = Child(self._environment)
            self._is_ready = False
        if not self._is_ready:
            try:
                self._is_ready = self._child.next(0.01) is not None
            except (Crashed, LimitReached) as error:
                logger.warning("warm child lost", error=str(error))
                self._not_before = time.monotonic() + RESTART_WAIT_S
                self.close()

    @property
    def is_ready(self) -> bool:
        return self._is_ready

    def close(self) -> None:
        if self._child:
            self._child.end()
        self._child, self._is_ready = None, False

    def forget(self, folder: Path) -> None:
        """Remove all that a job has left."""
        shutil.rmtree(folder, ignore_errors=True)

    def run(
        self,
        job: ChildJob,
        timeout_s: float,
        is_ours: Callable[[], bool],
        progress: Callable[[dict[str, Any]], None],
    ) -> Answer:
        """Run a job in the warm child; the child is used up by it.

        Parameters
        ----------
        is_ours : asked a few times a second; False ends the child.
        progress : given each message of that type.

        Raises
        ------
        Crashed
            When the child died or raised.
        LimitReached
            When it took too long, too much CPU or too much memory.
        Retry
            When a store or a table was away, or the machine too busy to load a child.
        Abandoned
            When ``is_ours`` said no.
        """
        before, loading_s = _children_cpu_s(), 0.0
        try:
            child = self._ready_child(is_ours)
            child.send(job)
            deadline = time.monotonic() + timeout_s
            while True:
                message = child.next(TICK_S)
                if not is_ours():
                    raise Abandoned
                if time.monotonic() > deadline:
                    raise LimitReached(
                        f"not done after {timeout_s / 60:g} minutes "
                        "(train.timeout_minutes)"
                    )
                if message is None:
                    continue
                kind = message.pop("type")
                if kind == "started":
                    loading_s = message["cpu_seconds"]
                elif kind == "progress":
                    progress(message)
                else:
                    return _answer(kind, message)
        finally:
            self.close()
            self.cpu_seconds = max(0.0, _children_cpu_s() - before - loading_s)

    def _ready_child(self, is_ours: Callable[[], bool]) -> Child:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready:
            self.warm()
            time.sleep(READY_POLL_S)
            if not is_ours():
                raise Abandoned
            if time.monotonic() > deadline:
                raise Retry(f"no child was loaded after {START_TIMEOUT_S:.0f} s")
        assert self._child is not None  # noqa: S101 - it is ready
        return self._child


def _answer(kind: str, message: dict[str, Any]) -> Answer:
    """Return a child's last message, or raise what it tells of."""
    if kind == "failed":
        raise Crashed(message["error"])
    if kind == "limit":
        raise LimitReached(message["error"])
    if kind == "away":
        raise Retry(message["error"])
    return Answer(kind, message)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
