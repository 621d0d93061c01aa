"""The output of supervised processes: read as it comes, handed on line by line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import IO

_READ_BYTES = 65_536
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95)


class Output:
    """Hands on what a process writes, line by line, as it comes."""

    def __init__(self, pipe: IO[bytes], line: Callable[[str], None]) -> None:
        self._pipe, self._line, self._rest = pipe, line, b""
        os.set_blocking(pipe.fileno(), False)
        asyncio.get_running_loop().add_reader(pipe.fileno(), self._read)

    def _read(self) -> bool:
        try:
            data = os.read(self._pipe.fileno(), _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            asyncio.get_running_loop().remove_reader(self._pipe.fileno())
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _READ_BYTES:  # no line at all: cut it
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._line(line.decode(errors="replace").rstrip("\r"))
        return True

    def close(self) -> None:
        """Read what is there still, then let go."""
        while self._read():
            pass
        if self._rest:
            self._line(self._rest.decode(errors="replace"))
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())
        self._pipe.close()


def printer(names: Sequence[str], position: int) -> Callable[[str], None]:
    """Return a function that prints lines behind one of the names, in its colour."""
    width = max(len(name) for name in names)
    prefix = f"{names[position]:<{width}} |"
    if sys.stdout.isatty():
        prefix = f"\033[{_COLOURS[position % len(_COLOURS)]}m{prefix}\033[0m"
    return lambda line: print(prefix, line, flush=True)
