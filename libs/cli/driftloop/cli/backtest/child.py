"""The backtest's own program, since the command line imports no service."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from driftloop.cli.context import CommandError
from driftloop.runtime.children import child_environment

PROGRAM = "driftloop.backtest"
TOLD_CHARACTERS = 1000
Progress = Callable[[dict[str, Any]], None]


def ask(asked: dict[str, Any], home: Path, progress: Progress) -> dict[str, Any]:
    """Run the program on what is asked and return its result.

    It works in several processes; all of them end with this call, however it ends.

    Raises
    ------
    CommandError
        When nothing came of it, with the reason.
    """
    if find_spec(PROGRAM) is None:
        raise CommandError(
            "driftloop-backtest is not installed here; a backtest runs the services' "
            "own code, so it is a distribution of its own"
        )
    with tempfile.TemporaryFile("w+") as errors:
        answer = _answer(asked, home, errors, progress)
        if answer is None:
            errors.seek(0)
            told = errors.read()[-TOLD_CHARACTERS:].strip()
            raise CommandError(f"the backtest ended without an answer: {told}")
    if answer["type"] == "refused":
        raise CommandError(answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def _answer(
    asked: dict[str, Any], home: Path, errors: Any, progress: Progress
) -> dict[str, Any] | None:
    process = subprocess.Popen(
        [sys.executable, "-m", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=child_environment(1, home.resolve()),
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - a pipe was asked for
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    try:
        with suppress(OSError):  # it is gone, and what it said ends
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            message: dict[str, Any] = json.loads(line)
            if message["type"] != "progress":
                return message
            progress(message)
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        process.wait()
