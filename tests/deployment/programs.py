"""Programs that the tests build where their language is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL_TIMEOUT_S = 600


def built_with_go(module: str, folder: Path, without: str) -> Path:
    """Install a program into a folder and return it; skip the test where it cannot be.

    Parameters
    ----------
    module : with its version, ``path@v1.2.3``.
    without : what is said where there is no Go.
    """
    go = shutil.which("go")
    if go is None:
        pytest.skip(without)
    built = subprocess.run(
        [go, "install", module],
        env={**os.environ, "GOBIN": str(folder), "GOFLAGS": "-p=1"},
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    if built.returncode:
        pytest.skip(f"{module} cannot be built: {built.stderr[-200:]}")
    return folder
