"""``python -m driftloop.registry rebuild``: JSON lines, for programs and for the log.

A line ``{"done": 500, "total": 9000}`` after each chunk, then one ``{"report": …}``; or
``{"refused": "why"}``.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import structlog
from driftloop.registry.rebuild.reading import RebuildRefusedError
from driftloop.registry.rebuild.work import rebuild
from driftloop.registry.settings import RegistrySettings
from driftloop.runtime.alone import DatabaseInUseError
from driftloop.runtime.database import WrongDatabaseError
from driftloop.runtime.follower import LogSilentError
from driftloop.runtime.settings import load_settings
from sqlalchemy.exc import DBAPIError

EXIT_DIFFERS, EXIT_REFUSED = 1, 2
TELL_INTERVAL_S = 0.1
EXPECTED = (
    RebuildRefusedError,
    DatabaseInUseError,
    LogSilentError,
    WrongDatabaseError,
    DBAPIError,
)


def main(arguments: Sequence[str]) -> int:
    """Rebuild; return 0, or 1 if the database that is there holds something else."""
    parser = argparse.ArgumentParser(prog="python -m driftloop.registry rebuild")
    parser.add_argument("--into", metavar="URL", help="of a new, empty database")
    parser.add_argument("--replace", action="store_true", help="change it for the old")
    asked = parser.parse_args(arguments)
    logging.getLogger("driftloop").setLevel(logging.CRITICAL)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = load_settings(RegistrySettings, "registry")
    try:
        report = rebuild(settings, asked.into, asked.replace, _Progress())
    except EXPECTED as error:
        _say(refused=str(error))
        return EXIT_REFUSED
    _say(report=asdict(report))
    return 0 if report.is_good else EXIT_DIFFERS


class _Progress:
    """Says how far it is, some times a second."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._next_s or done == total:
            self._next_s = now + TELL_INTERVAL_S
            _say(done=done, total=total)


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
