"""The command line as a person runs it, beside processes of the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.component.processes import TOKEN


def run_cli(
    home: Path, bootstrap: str, *command: str, code: int = 0, **urls: str
) -> str:
    """Run a command; return what it printed.

    Parameters
    ----------
    code : with which it has to end; unless 0, its complaint is returned.
    urls : ``REGISTRY_URL`` and the like.
    """
    done = subprocess.run(
        [
            sys.executable, "-c", "from driftloop.cli.app import main; main()",
            *command,
        ],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("DRIFTLOOP_")},
            "DRIFTLOOP_HOME": str(home),
            "DRIFTLOOP_BROKER": bootstrap,
            "DRIFTLOOP_API_TOKEN": TOKEN,
            "COLUMNS": "200",
            **{f"DRIFTLOOP_{name}": url for name, url in urls.items()},
        },
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout
