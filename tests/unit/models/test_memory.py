"""The most memory that a process has held is its own."""

from __future__ import annotations

import subprocess
import sys

from driftloop.models.memory import peak_bytes

MIB = 2**20
SAID = "from driftloop.models.memory import peak_bytes; print(peak_bytes())"
MORE = f"x = b'1' * {200 * MIB}; del x; {SAID}"


def told(program: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", program], text=True))


def test_what_its_parent_has_held_is_not_a_childs() -> None:
    held = bytearray(b"1") * (300 * MIB)
    assert peak_bytes() > 300 * MIB
    del held
    assert peak_bytes() > 300 * MIB  # a peak stays
    small = told(SAID)
    assert small < 200 * MIB
    assert told(MORE) - small > 150 * MIB  # control: what it holds itself counts
