"""Memory is bounded, whether by addresses or by what is in use, of all processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from driftloop.trainer import memory

MIB = 1024**2
LONG_S = 100.0
"""More than a watch ever needs to notice: it ends what it watches long before."""
SOME_TICKS_S = 10 * memory.TICK_S
FILL = f"b = bytearray({300 * MIB}); b[::4096] = b'x' * len(b[::4096])"
PROGRAM = f"""
import os, subprocess, sys, time
from driftloop.trainer import memory

def exceeded():
    print("too much", flush=True)
    os._exit(5)

limit_gib, has_gpu, processes, where, patience_s = sys.argv[1:]
memory.bound(float(limit_gib), has_gpu=has_gpu == "gpu", processes=int(processes),
             exceeded=exceeded)
if where == "here":
    {FILL}
else:
    below = "{FILL}; print('filled', flush=True); input()"
    two = [subprocess.Popen([sys.executable, "-c", below], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE) for _ in range(2)]
    for one in two:
        one.stdout.readline()
time.sleep(float(patience_s))
print("done", flush=True)
"""
only_linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="this system has no /proc"
)


def run(
    limit_gib: float, device: str, processes: int, where: str, patience_s: float
) -> str:
    """Return how a program ends that is watched, at most, for so long."""
    words = (str(limit_gib), device, str(processes), where, str(patience_s))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@only_linux
def test_with_a_gpu_what_is_in_use_is_bounded_and_no_address() -> None:
    assert run(0.2, "gpu", 1, "here", LONG_S) == "too much"
    assert run(4, "gpu", 1, "here", SOME_TICKS_S) == "done"  # the control
    assert run(0.2, "none", 1, "here", LONG_S) == "MemoryError"


@only_linux
def test_several_processes_are_bounded_together() -> None:
    """Each of the two keeps below half a gigabyte; together they do not."""
    assert run(0.5, "none", 2, "below", LONG_S) == "too much"
    assert run(4, "none", 2, "below", SOME_TICKS_S) == "done"  # the control
    # nobody watches them together
    assert run(0.5, "none", 1, "below", SOME_TICKS_S) == "done"


@only_linux
def test_what_is_used_is_counted_with_what_is_below() -> None:
    """Of a process that waits for the one that fills its memory."""
    below = f"{FILL}; print('filled', flush=True); input()"
    program = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {below!r}])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    pids = memory.family(process.pid)
    found = memory.used(pids), memory.used([process.pid])
    assert set(pids) <= set(memory.family(os.getpid()))
    process.communicate(b"\n", timeout=100)
    assert len(pids) == 2
    assert 250 * MIB < found[0] < 500 * MIB
    assert found[1] < 100 * MIB  # the control: alone it has little
    assert not set(pids) & set(memory.family(os.getpid()))
    assert memory.used([2**22 + 1]) == 0
    assert memory.used([2**22 + 1]) == 0


def test_a_gpu_may_be_used_where_a_driver_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "GPU_FILES", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setattr(memory, "find_spec", lambda _: object())
    assert not memory.may_use_gpu("auto")
    assert not memory.may_use_gpu("cpu")
    assert memory.may_use_gpu("cuda:1")
    (tmp_path / "nvidiactl").touch()
    assert memory.may_use_gpu("auto")
    monkeypatch.setattr(memory, "find_spec", lambda _: None)
    assert not memory.may_use_gpu("auto")  # nothing here would use it
