"""How much memory a training may take, whatever it uses: a GPU, several processes."""

import os
import resource
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path

GIB = 1024**3
KIB = 1024
TICK_S = 0.1
"""Between two looks: in it a process can fill a few hundred megabytes."""
FAMILY_TICKS = 10
"""Looks after which it is found out anew which processes there are."""
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Of the drivers of NVIDIA, of AMD, and of both under Windows."""
PROCESSES = Path("/proc")


def may_use_gpu(device: str) -> bool:
    """Whether a training may use a GPU; known without loading torch.

    >>> may_use_gpu("cpu"), may_use_gpu("cuda:1")
    (False, True)
    """
    if device != "auto":
        return device != "cpu"
    is_there = any(Path(name).exists() for name in GPU_FILES)
    return is_there and find_spec("torch") is not None


def bound(
    max_gib: float, *, has_gpu: bool, processes: int, exceeded: Callable[[], None]
) -> None:
    """Bound this process, and all that it starts, from now on.

    The address space is bounded where no GPU is used: a library then gets an error as
    soon as it asks for too much. CUDA reserves more addresses than any machine has
    memory, so with a GPU only what is really in use is bounded. Several processes are
    bounded each by their addresses and together by what they use.

    Parameters
    ----------
    exceeded : called in a thread when more is in use; it is to end the process.
    """
    limit = int(max_gib * GIB)
    if not has_gpu:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if has_gpu or processes > 1:
        threading.Thread(target=_watch, args=(limit, exceeded), daemon=True).start()


def _watch(limit: int, exceeded: Callable[[], None]) -> None:
    wait, pids = threading.Event(), [os.getpid()]
    for tick in count():
        if tick % FAMILY_TICKS == 0:
            pids = family(os.getpid())
        if used(pids) > limit:
            exceeded()
            return
        wait.wait(TICK_S)


def family(pid: int) -> list[int]:
    """Return a process and all below it; without Linux's ``/proc``, it alone."""
    below = defaultdict(list)
    for place in PROCESSES.glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):  # it may end meanwhile
            said = (place / "stat").read_text().rpartition(")")[2]
            below[int(said.split()[1])].append(int(place.name))
    found = [pid]
    for one in found:  # it grows
        found += below[one]
    return found


def used(pids: Iterable[int]) -> int:
    """Return the bytes that processes have for themselves.

    Files that they read are not counted: the machine may drop those. Without Linux's
    ``/proc`` it is 0.
    """
    return sum(map(_own, pids))


def _own(pid: int) -> int:
    with suppress(OSError, ValueError):
        for line in (PROCESSES / str(pid) / "status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * KIB
    return 0
