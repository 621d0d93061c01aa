"""A training outside of the trainer: its own program, for one request."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from driftloop.cli.context import CommandError
from driftloop.runtime.children import child_environment

PROGRAM = "driftloop.trainer.child"
LOADING_S = 120.0
"""That the program may take before it is ready, as the trainer's own patience."""
TOLD_CHARACTERS = 1000
THREADS = "DRIFTLOOP_TRAINER_THREADS"
"""The trainer's own setting; its default is one."""
Progress = Callable[[dict[str, Any]], None]


def train(request: str, home: Path, folder: Path, progress: Progress) -> dict[str, Any]:
    """Train in a child process and return its last message.

    Parameters
    ----------
    request : as the package's manifest has it.
    home : of the installation whose tables and packages the request names.
    folder : for checkpoints and, in ``package``, the files; empty.

    Raises
    ------
    CommandError
        When no model came of it, with the reason.
    """
    if find_spec(PROGRAM.rpartition(".")[0]) is None:
        raise CommandError(
            "the trainer is not installed here, and a model is made by it alone; "
            "run this where driftloop-trainer is"
        )
    job = {"request": request, "folder": str(folder)}
    limit_minutes = json.loads(request)["spec"]["train"]["timeout_minutes"]
    patience_s = LOADING_S + 60 * limit_minutes
    with tempfile.TemporaryFile("w+") as errors:
        answer = _answer(job, home, patience_s, errors, progress)
        if answer is None:
            errors.seek(0)
            told = errors.read()[-TOLD_CHARACTERS:].strip()
            raise CommandError(
                f"the training ended without an answer, or not within "
                f"{patience_s / 60:g} minutes: {told}"
            )
    if answer["type"] != "trained":
        raise CommandError(f"the training gave no model: {answer['error']}")
    return answer


def _answer(
    job: dict[str, Any], home: Path, patience_s: float, errors: Any, progress: Progress
) -> dict[str, Any] | None:
    process = subprocess.Popen(
        [sys.executable, "-m", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=child_environment(int(os.environ.get(THREADS, "1")), home.resolve()),
        text=True,
    )
    assert process.stdin is not None  # noqa: S101 - a pipe was asked for
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    limit = threading.Timer(patience_s, process.kill)
    limit.start()
    try:
        for line in process.stdout:
            message: dict[str, Any] = json.loads(line)
            if message["type"] == "ready":
                with suppress(OSError):  # it is gone, and what it said ends
                    process.stdin.write(json.dumps(job) + "\n")
                    process.stdin.flush()
            elif message["type"] == "progress":
                progress(message)
            elif message["type"] != "started":
                return message
        return None
    finally:
        limit.cancel()
        process.kill()
        with suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        process.wait()
