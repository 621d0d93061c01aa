"""Real service processes on a real broker, and the events between them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.topics import TOPICS
from driftloop.local.supervisor import WATCHDOG_PAUSE_S
from driftloop.runtime.admin import create_topics
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.drivers.publisher import ConfluentPublisher
from driftloop.runtime.drivers.watchdog import EXIT_STALLED
from driftloop.runtime.envelope import decode, encode
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message
from support import plain

from tests.unit.support import rest

E = TypeVar("E", bound=Event)
START_TIMEOUT_S = 120.0
MAX_RESTARTS = 3
TOKEN = "token-of-the-tests"


def wait_until(is_so: Callable[[], object], what: str, timeout_s: float = 120) -> None:
    """Return once ``is_so()`` is true; fail with ``what`` when it never is."""
    until = time.monotonic() + timeout_s
    looked_at = time.monotonic()
    while not is_so():
        assert time.monotonic() < until, f"after {timeout_s:g} s: {what}"
        rest(looked_at)
        looked_at = time.monotonic()


class ServiceProcess:
    """``python -m driftloop.<service>`` with its home, to be killed at will."""

    def __init__(
        self,
        name: str,
        broker: str,
        home: Path,
        sockets: Sequence[int] = (),
        **settings: str,
    ) -> None:
        self.name = name
        self._sockets = sockets
        self.broker = broker
        self._log = home / f"{name}{settings.get('replica', '')}.log"
        self._env = {
            key: value for key, value in os.environ.items() if "DRIFTLOOP" not in key
        } | {
            "DRIFTLOOP_BROKER": broker,
            "DRIFTLOOP_HOME": str(home),
            "DRIFTLOOP_API_TOKEN": TOKEN,
            **{f"DRIFTLOOP_{key.upper()}": value for key, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self.url = ""
        self.started: dict[str, Any] = {}

    def start(self) -> Self:
        """Start and wait until it is ready."""
        self.launch()
        self.wait_until(self.is_ready, f"{self.name} is not ready", START_TIMEOUT_S)
        return self

    def launch(self) -> None:
        """Start and wait until it listens, which is before it is ready."""
        self._restarts = 0
        self._launch()

    def wait_until(
        self, is_so: Callable[[], object], what: str, timeout_s: float = 120
    ) -> None:
        """Wait for something that it does, keeping it alive; a failure tells its log.

        It may end by itself: a consumer that finds records left out, or that stands
        still, does so on purpose, for a restart to read them.
        """

        def is_so_while_tended() -> object:
            self.tend()
            return is_so()

        try:
            wait_until(is_so_while_tended, what, timeout_s)
        except AssertionError as error:
            error.add_note(self.said())
            raise

    def _launch(self) -> None:
        written = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"driftloop.{self.name}"],
                stdout=log, stderr=log, env=self._env, pass_fds=self._sockets,
            )  # fmt: skip
        wait_until(
            lambda: self._found_url(written),
            f"{self.name} has not started",
            START_TIMEOUT_S,
        )

    def _found_url(self, offset: int) -> bool:
        assert self._process is not None
        status = self._process.poll()
        assert status is None, f"{self.name} ended with {status}:\n{self.said()}"
        for line in self._log.read_bytes()[offset:].splitlines():
            if b'"event": "started"' in line:
                self.started = json.loads(line)
                self.url = self.started["http"]
                return True
        return False

    def tend(self) -> None:
        """Start it again if it has ended by itself, as the supervisor does."""
        assert self._process is not None
        status = self._process.poll()
        if status in (1, EXIT_STALLED) and self._restarts < MAX_RESTARTS:
            self._restarts += 1
            if status == EXIT_STALLED:
                time.sleep(WATCHDOG_PAUSE_S)
            self._launch()

    def is_ready(self) -> bool:
        self.tend()
        try:
            return plain.get(f"{self.url}/readyz", timeout=30).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """End it as a crash would: no chance to finish anything."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it where it is: what it has in hand stays there, unanswered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> int:
        """Ask it to end; return its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(120)

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()


class Events:
    """Publishes events as other services would, and sees all that there are."""

    def __init__(self, broker: str, home: Path) -> None:
        self._store = FolderStore(home / "artifacts")
        self._publisher = ConfluentPublisher(broker, client_id="test")
        self._seen: dict[str, list[Event]] = defaultdict(list)
        self._follower = LogFollower(
            broker, [topic.name for topic in TOPICS], self._see
        )
        self._thread = threading.Thread(target=self._follower.run)

    def _see(self, message: Message) -> None:
        self._seen[message.topic].append(decode(message, self._store))

    def publish(self, event: Event, event_id: str, times: int = 1) -> Event:
        """Publish an event that begins a chain of its own, called ``event_id``."""
        meta = Meta(event_id, datetime.now(UTC), "/test", Chain(f"chain-{event_id}"))
        record = encode(event, meta, self._store)
        self._publisher.publish([record] * times)
        return event

    def of(self, kind: type[E]) -> list[E]:
        """Events of a kind seen so far, in their order within a key."""
        return [e for e in list(self._seen[kind.topic()]) if isinstance(e, kind)]

    def close(self) -> None:
        self._follower.stop()
        self._thread.join(120)
        self._publisher.close()

    def start(self) -> Self:
        self._thread.start()
        return self


@contextmanager
def open_events(broker: str, home: Path) -> Iterator[Events]:
    """All topics, and the events on them."""
    create_topics(broker)
    events = Events(broker, home).start()
    try:
        yield events
    finally:
        events.close()
