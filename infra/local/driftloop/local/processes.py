"""Operating-system facts about processes and ports that the local stack rests on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

LOOPBACK = "127.0.0.1"

# Below Linux' default ephemeral range (32768-60999): while a server is down, a client
# that keeps dialling its port cannot be given that very port as its own source port,
# so a killed server always gets its port back.
_FIRST_PORT, _LAST_PORT = 20_000, 32_000
_PORT_ATTEMPTS = 200
_POLL_S = 0.05

# Source: Linux uapi/linux/prctl.h
_PR_SET_PDEATHSIG = 1

# Runs in the child before the program: asks the kernel for SIGKILL at the parent's
# death, makes sure that the parent has not died in between, becomes the program.
# (`preexec_fn` could do it without a second start, but may deadlock beside threads.)
_TIE_AND_EXEC = (
    "import ctypes,os,sys;"
    f"ctypes.CDLL(None,use_errno=True).prctl({_PR_SET_PDEATHSIG},9,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);"
    "os.execvp(sys.argv[2],sys.argv[2:])"
)


class PortTakenError(RuntimeError):
    """Another process listens on a port that was asked for."""

    def __init__(self, port: int, what: str) -> None:
        super().__init__(
            f"port {port} of {LOOPBACK} is taken, {what} cannot use it; "
            "stop the other process or choose another port"
        )
        self.port = port


def is_port_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As servers do: the remains of closed connections do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port(taken: frozenset[int] = frozenset()) -> int:
    """Return a loopback port that nobody listens on and that is not in `taken`.

    Raises
    ------
    RuntimeError
        When no free port is found.
    """
    numbers = random.SystemRandom()
    for _ in range(_PORT_ATTEMPTS):
        port = numbers.randint(_FIRST_PORT, _LAST_PORT)
        if port not in taken and is_port_free(port):
            return port
    raise RuntimeError(f"no free port between {_FIRST_PORT} and {_LAST_PORT}")


class PortClaims:
    """Ports that were chosen but that nobody listens on yet.

    Two stacks of one user that start at the same time must not choose the same port:
    each claims its own before it looks whether it is free. A claim is a lock on a file
    of the user's cache, so it ends with the process, however that ends.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with PortClaims(Path(folder)) as mine, PortClaims(Path(folder)) as theirs:
    ...         mine.claim(9092), theirs.claim(9092), theirs.claim(9093)
    (True, False, True)
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[int, IO[bytes]] = {}

    def claim(self, port: int) -> bool:
        """Claim a port; False when another process has."""
        if port in self._files:
            return True
        file = (self._folder / str(port)).open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._files[port] = file
        return True

    def close(self) -> None:
        """Let go of all ports."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tied_command(argv: Sequence[str]) -> list[str]:
    """Return a command that runs `argv` and is killed when this process ends.

    However the parent ends, the kernel sends SIGKILL (Linux; elsewhere the command is
    returned as it is). Linux means the *thread* that starts the command, so this is
    allowed in the main thread only.

    Raises
    ------
    RuntimeError
        When called outside the main thread.
    """
    if sys.platform != "linux":
        return list(argv)
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "a process that dies with its parent must be started in the main "
            "thread: it would be killed at the end of this thread"
        )
    tie = [sys.executable, "-I", "-S", "-c", _TIE_AND_EXEC, str(os.getpid())]
    return [*tie, *argv]


def end_process(process: subprocess.Popen[bytes], grace_s: float) -> bool:
    """End a child and its process group: SIGTERM, after `grace_s` SIGKILL.

    Returns
    -------
    bool
        Whether it ended within the grace time.
    """
    graceful = True
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)  # a paused process cannot handle SIGTERM
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            graceful = False
    signal_group(process.pid, signal.SIGKILL)
    process.wait()
    return graceful


def signal_group(group_id: int, number: signal.Signals) -> None:
    """Send a signal to all of a process group; a group that is gone is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group_id, number)


def identity(pid: int) -> str | None:
    """Return a text that no other process has or will have; None if it is gone.

    A pid is used again after its process, the moment of its start in this boot of the
    machine is not. A zombie counts as gone.

    Source: proc_pid_stat(5), fields 3 (state) and 22 (starttime).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot.strip()}/{fields[19]}"


def wait_until_gone(pid: int, known_identity: str, timeout_s: float) -> bool:
    """Wait for the end of one process; say whether it came in time."""
    deadline = time.monotonic() + timeout_s
    while identity(pid) == known_identity:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def kill_marked(marker: str) -> list[int]:
    """Kill each process whose environment holds `marker` (``NAME=value``).

    The marker is inherited by children, so it finds what is left of a family whose
    head is gone. It must be unguessable to prove that the processes are ours.

    Returns
    -------
    list of int
        Process ids of those that were killed; empty where there is no ``/proc``.
    """
    wanted, killed = marker.encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            handle = os.pidfd_open(pid)  # from here on this very process is meant
        except OSError:
            continue
        try:
            if pid != os.getpid() and wanted in _environment(folder):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                killed.append(pid)
        except OSError:
            continue  # somebody else's, or gone by now
        finally:
            os.close(handle)
    return killed


def _environment(folder: Path) -> list[bytes]:
    return (folder / "environ").read_bytes().split(b"\0")
