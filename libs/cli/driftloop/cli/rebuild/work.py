"""Lets a service build its database anew, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from driftloop.cli.context import CommandError
from driftloop.local.home import Home
from driftloop.local.kafka import KafkaNode
from driftloop.local.stack import status as stack_status

SERVICES = ("registry",)
EXIT_REFUSED = 2
Tell = Callable[[int, int], None]
"""Called with how many events are read, of how many."""


def rebuild(
    home: Path, service: str, into: str | None, is_to_replace: bool, tell: Tell
) -> dict[str, Any]:
    """Return what came out; see ``python -m driftloop.registry rebuild``.

    Raises
    ------
    CommandError
        With the service's own explanation.
    """
    if service not in SERVICES:
        raise CommandError(
            f"{service}: only {', '.join(SERVICES)} can be built anew beside what "
            "runs; any other service does it by itself at its start: stop it, delete "
            "its database, start it"
        )
    arguments = ["--replace"] if is_to_replace else []
    arguments += ["--into", into] if into else []
    with _broker(home, is_to_replace) as broker:
        environment = {
            **os.environ,
            "DRIFTLOOP_HOME": str(home.resolve()),
            "DRIFTLOOP_BROKER": broker,
        }
        return _run(service, arguments, environment, tell)


@contextmanager
def _broker(home: Path, is_to_replace: bool) -> Iterator[str]:
    """Give the log's broker: one elsewhere, the stack's, or the stack's alone.

    Raises
    ------
    CommandError
        When the stack would have to be stopped first, or there is none.
    """
    if "DRIFTLOOP_BROKER" in os.environ:
        yield os.environ["DRIFTLOOP_BROKER"]
        return
    report = stack_status(home)
    if report["state"] != "stopped":
        if is_to_replace:
            raise CommandError(
                "the registry works on its database: stop the stack (driftloop down), "
                "then this starts its broker alone and replaces the database"
            )
        yield report["broker"]
        return
    place = Home(home.resolve())
    if not (place.path / "kafka").exists():
        raise CommandError(
            f"there is no log in {place.path}; name another home: --home, or a broker: "
            "DRIFTLOOP_BROKER"
        )
    with ExitStack() as stack:
        stack.enter_context(place.locked())  # so that nobody starts the stack beside
        yield stack.enter_context(KafkaNode(place.path / "kafka")).bootstrap


def _run(
    service: str, arguments: Sequence[str], environment: dict[str, str], tell: Tell
) -> dict[str, Any]:
    command = [sys.executable, "-m", f"driftloop.{service}", "rebuild", *arguments]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for
        assert process.stderr is not None  # noqa: S101 - asked for
        found: dict[str, Any] = {}
        for line in process.stdout:
            found = json.loads(line)
            if "total" in found:
                tell(found["done"], found["total"])
        said = process.stderr.read()
    if "report" in found:
        report: dict[str, Any] = found["report"]
        return report
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    raise CommandError(found.get("refused") or f"{service} failed: {last}")
