"""Runs the story of ``mlflow_story.py`` with MLflow's own client, and compares."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
CLIENT = FOLDER.parents[1] / ".venv-mlflow/bin/python"
ANSWERS = FOLDER / "mlflow-3.17.2.json"
"""What MLflow's server answered; written by ``make mlflow-answers``."""
STORY_TIMEOUT_S = 300
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def tell(
    url: str,
    file: Path,
    *,
    python: Path = CLIENT,
    timeout_s: float = STORY_TIMEOUT_S,
    sections: Sequence[str] = (),
    **environment: str,
) -> dict[str, Any]:
    """Let the client do the story at ``url``; return its steps by section.

    Parameters
    ----------
    sections : that are told; none: all.
    """
    env = {
        **os.environ,
        **QUIET,
        "MLFLOW_TRACKING_URI": url,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        **environment,
    }
    done = subprocess.run(
        [python, FOLDER / "mlflow_story.py", file, *sections],
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    told: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return told


def differences(theirs: Any, ours: Any, place: str = "") -> Iterator[str]:
    """Name each field whose answer is another one."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in sorted({*theirs, *ours}):
            there, here = theirs.get(name, "nothing"), ours.get(name, "nothing")
            yield from differences(there, here, f"{place}/{name}")
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            yield f"{place}: {len(theirs)} there, {len(ours)} here"
            return
        for number, (there, here) in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(there, here, f"{place}/{number}")
    elif theirs != ours:
        yield f"{place}: {theirs!r} there, {ours!r} here"
