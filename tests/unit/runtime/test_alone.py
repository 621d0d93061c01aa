"""One process at a time on an SQLite database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from driftloop.runtime.alone import DatabaseInUseError, alone_on

HOLD = """
import sys
from driftloop.runtime.alone import alone_on
with alone_on(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_held_until_the_process_ends_however_it_ends(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a/x.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DatabaseInUseError, match="stop it first"), alone_on(url):
            pass
        with alone_on(f"sqlite:///{tmp_path}/a/y.db"):
            pass  # another one is free
        other.kill()
    with alone_on(url, patience_s=10):
        pass


def test_other_databases_have_replicas() -> None:
    """And one in memory is nobody else's."""
    for url in ("postgresql://h/d", "sqlite://"):
        with alone_on(url), alone_on(url):
            pass
