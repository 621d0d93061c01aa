"""A service as a real process against a real broker, to be used and killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.topics import TOPICS
from driftloop.local.processes import free_port
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.drivers.confluent import ConfluentPublisher
from driftloop.runtime.envelope import decode, encode
from driftloop.runtime.errors import Reject
from driftloop.runtime.follower import LogFollower
from driftloop.runtime.transport import Message

from tests.unit.support import wait_until

TOKEN = "a-token-of-the-tests"
START_TIMEOUT_S = 120
LOOPBACK = "127.0.0.1"


class ServiceProcess:
    """``python -m driftloop.<name>``; a restart has the same port and home."""

    def __init__(
        self,
        name: str,
        home: Path,
        bootstrap: str,
        *,
        environment: Mapping[str, str] | None = None,
        token: str | None = TOKEN,
        **settings: object,
    ) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.log = home / f"{name}.log"
        self.command = ["-m", f"driftloop.{name}"]
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("DRIFTLOOP_")},
            "DRIFTLOOP_HOME": str(home),
            "DRIFTLOOP_BROKER": bootstrap,
            **({"DRIFTLOOP_API_TOKEN": token} if token else {}),
            "DRIFTLOOP_OPERATOR_DECIDES": "true",
            f"DRIFTLOOP_{name.upper()}_HTTP_PORT": str(self.port),
            **{f"DRIFTLOOP_{name.upper()}_{k}": str(v) for k, v in settings.items()},
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=100
        )

    def start(self, *, wait: bool = True) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.command],
                env=self._env,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if wait:
            wait_until(self.is_ready, START_TIMEOUT_S)
        return self

    def is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-5000:]
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(120)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(120)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        self.client.close()


class Log:
    """Writes events to the broker and reads back what is there."""

    def __init__(self, bootstrap: str, home: Path) -> None:
        self._bootstrap = bootstrap
        self._store = FolderStore(home / "artifacts")
        self._publisher = ConfluentPublisher(bootstrap, client_id="test")

    def publish(self, *events: Event) -> None:
        """Publish events that carry their meta."""
        records = [encode(event, event.meta, self._store) for event in events]
        self._publisher.publish(records)

    def read(self, *wanted: type[Event], pipeline: str | None = None) -> list[Event]:
        """Return what the topics hold now, by time; all topics by default.

        A repeat has the same id and bytes, which is checked, and is left out.

        Parameters
        ----------
        pipeline : whose events are read. Where several tests' services have read one
            broker, each with a database of its own, only those of the test's own
            pipeline are what one service said.
        """
        topics = [event.topic() for event in wanted] or [
            t.name for t in TOPICS if "arrived" not in t.name
        ]
        found: dict[str, Event] = {}
        problems: list[str] = []

        def take(message: Message) -> None:
            try:
                event = decode(message, self._store)
            except Reject as error:
                problems.append(str(error))
                return
            if pipeline is not None and event.pipeline != pipeline:
                return
            first = found.setdefault(event.meta.id, event)
            if first.model_dump_json() != event.model_dump_json():
                problems.append(f"{event.meta.id} came twice, with other bytes")

        follower = LogFollower(self._bootstrap, topics, take)
        assert follower.read_to_end(120)
        assert not problems, problems
        return sorted(found.values(), key=lambda event: event.meta.time)

    def close(self) -> None:
        self._publisher.close()


def with_id(event: Event, event_id: str, **more: Any) -> Event:
    """Give an event the meta it would have been published with."""
    return event.with_meta(
        Meta(
            id=event_id,
            time=more.pop("time", datetime.now(UTC)),
            source="/driftloop/test",
            chain=Chain(more.pop("chain", event_id)),
            **more,
        )
    )


def example(name: str) -> dict[str, Any]:
    """Return the contracts' example of a topic's event."""
    root = Path(__file__).parents[2]
    text = (root / f"libs/contracts/examples/{name}.json").read_text("utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
