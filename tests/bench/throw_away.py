"""Environments for other projects, made for one measurement and then forgotten."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

INSTALL_TIMEOUT_S = 600


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """Install packages into a new environment and return its interpreter.

    Raises
    ------
    subprocess.CalledProcessError
        When they do not install; its ``stderr`` says why.
    """
    uv = str(Path(sys.executable).with_name("uv"))
    python = folder / "bin" / "python"
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(python), *packages],
    ):
        subprocess.run(
            command,
            check=True,
            timeout=INSTALL_TIMEOUT_S,
            capture_output=True,
            text=True,
        )
    return python
