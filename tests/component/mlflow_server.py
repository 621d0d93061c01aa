"""MLflow's own server, installed into an environment that is thrown away."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from driftloop.local.processes import free_port

from tests.component.mlflow_client import QUIET
from tests.unit.support import wait_until

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 600


@dataclass(frozen=True)
class MlflowServer:
    """A running server."""

    url: str
    pid: int


@contextmanager
def mlflow_server(version: str) -> Iterator[MlflowServer]:
    """Install and start one on loopback, with SQLite and one worker."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        python = folder / "venv/bin/python"
        install = [ROOT / ".venv/bin/uv", "pip", "install", "--quiet"]
        lock = ["--constraint", ROOT / "requirements-mlflow.lock"]
        subprocess.run(
            [*install, "--python", python, *lock, f"mlflow=={version}"], check=True
        )
        with _running(folder, python) as server:
            yield server


@contextmanager
def _running(folder: Path, python: Path) -> Iterator[MlflowServer]:
    url = f"http://127.0.0.1:{free_port()}"
    port = url.rpartition(":")[2]
    server = [python, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    server += ["--port", port, "--workers", "1"]
    server += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    server += ["--artifacts-destination", str(folder / "artifacts")]
    process = subprocess.Popen(
        server, env=QUIET | {"PATH": str(python.parent)}, cwd=folder
    )
    try:
        wait_until(lambda: _answers(url), START_TIMEOUT_S)
        yield MlflowServer(url, process.pid)
    finally:
        process.terminate()
        process.wait(120)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False
