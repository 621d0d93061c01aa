"""What is done to a running installation; each fault heals itself before it returns."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Producer
from driftloop.cli import models
from driftloop.cli.context import CommandError, Installation
from driftloop.contracts.topics import SERVICES, TOPICS
from driftloop.local import stack
from driftloop.runtime.transport import Message

POLL_S = 0.1
READY_TIMEOUT_S = 180.0
FREEZE_S = (3.0, 12.0)
AWAY_S = (3.0, 12.0)
HANDLING = [name for name in SERVICES if name != "console"]
"""The console has no state and handles nothing."""
REBUILT = [name for name in HANDLING if name != "ingest"]
"""Who builds its database anew from the log; that of ingest is to be backed up."""
POISONED = ("retrain-requested", "model-approved", "drift-detected", "batch-scored")

REPEATED = frozenset(t.name for t in TOPICS if not t.compacted)
"""Of compacted topics the last record holds: an old one again would be a new wish."""


@dataclass
class Done:
    """A fault, and how long it took until all was ready again."""

    kind: str
    target: str
    recovered_s: float


@dataclass
class Chaos:
    """Does faults to an installation, drawn from a seed.

    Attributes
    ----------
    poison : places of records that nobody can read, as they were written.
    wiped : services whose database was deleted.
    """

    installation: Installation
    pipeline: str
    dice: random.Random
    log: Callable[[], list[Message]]
    done: list[Done] = field(default_factory=list)
    poison: list[tuple[str, int, int]] = field(default_factory=list)
    wiped: set[str] = field(default_factory=set)
    _killed: dict[str, int] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.installation.home

    def one(self, kind: str | None = None) -> Done:
        """Do a fault, drawn if none is named, and wait until all is ready again."""
        kind = kind or self.dice.choice(sorted(FAULTS))
        began = time.monotonic()
        target = FAULTS[kind](self)
        self._wait_until_ready()
        found = Done(kind, target, time.monotonic() - began)
        self.done.append(found)
        return found

    @property
    def _pipeline(self) -> tuple[Installation, str]:
        return self.installation, self.pipeline

    def _kill(self, name: str, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self._killed[name] = pid

    def _pid(self, name: str) -> int:
        """Return a process that runs; a supervisor may be starting it again."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            pid = stack.status(self.home)["processes"][name]["pid"]
            if pid:
                return int(pid)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not start again")
            time.sleep(POLL_S)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._is_ready():
            if time.monotonic() > deadline:
                raise TimeoutError(json.dumps(stack.status(self.home), indent=1))
            time.sleep(POLL_S)

    def _is_ready(self) -> bool:
        """Whether all are up, each killed one as another process."""
        found = stack.status(self.home)["processes"]
        return all(
            each["pid"] and each["ready"] and each["pid"] != self._killed.get(name)
            for name, each in found.items()
        )

    # ── faults ──────────────────────────────────────────────────────────────

    def kill(self) -> str:
        name = self.dice.choice(HANDLING)
        self._kill(name, self._pid(name))
        return name

    def kill_several(self) -> str:
        names = self.dice.sample(HANDLING, 3)
        pids = {name: self._pid(name) for name in names}
        for name, pid in pids.items():
            self._kill(name, pid)
        return ", ".join(names)

    def kill_broker(self) -> str:
        self._kill(stack.BROKER, self._pid(stack.BROKER))
        return stack.BROKER

    def freeze(self) -> str:
        name = self.dice.choice([*HANDLING, stack.BROKER])
        pid = self._pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(self.dice.uniform(*FREEZE_S))
        finally:
            os.kill(pid, signal.SIGCONT)
        return name

    def wipe(self) -> str:
        """Delete a service's database; it builds it anew from the log."""
        name = self.dice.choice(REBUILT)
        pid = self._pid(name)
        os.kill(pid, signal.SIGSTOP)  # so that it writes nothing meanwhile
        for file in (self.home / "databases").glob(f"{name}-*"):
            file.unlink()
        self._kill(name, pid)
        self.wiped.add(name)
        return name

    def lock_database(self) -> str:
        """Hold a service's database, so that it can write nothing."""
        name = self.dice.choice(HANDLING)
        (file,) = (self.home / "databases").glob(f"{name}-*.db")
        with closing(sqlite3.connect(file, timeout=60)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(self.dice.uniform(*AWAY_S))
            connection.execute("ROLLBACK")
        return name

    def store_away(self) -> str:
        """Put something else where the artifact store is."""
        folder = self.home / "artifacts"
        folder.mkdir(exist_ok=True)  # nothing was stored yet
        aside = folder.with_name("artifacts-aside")
        folder.rename(aside)
        folder.write_text("not a folder")
        try:
            time.sleep(self.dice.uniform(*AWAY_S))
        finally:
            folder.unlink()
            aside.rename(folder)
        return "artifacts"

    def poisoned(self) -> str:
        """Write a record that nobody can read, as a broken client would."""
        topic = self.dice.choice(POISONED)
        key = self.pipeline.encode()
        value = self.dice.randbytes(self.dice.randrange(64))
        self._produce(topic, key, value, [], None, self.poison)
        return topic

    def repeat(self) -> str:
        """Write a record of the log again, as a producer that lost the answer would."""
        known = [
            m
            for m in self.log()
            if m.topic in REPEATED and dict(m.headers).get("ce_id")
        ]
        if not known:
            return "nothing yet"
        again = self.dice.choice(known)
        self._produce(
            again.topic, again.key, again.value, [*again.headers], again.partition, None
        )
        return again.topic

    def storm(self) -> str:
        """Ask for trainings faster than they can be done."""
        for number in range(6):
            why = f"storm {number} of {uuid.uuid4()}"
            self._ask(partial(models.retrain, *self._pipeline, "mallory", why))
        return "6 requests"

    def roll_back(self) -> str:
        ask = partial(models.rollback, *self._pipeline, "olga", "chaos", None)
        asked = self._ask(ask)
        return "taken" if asked else "refused"

    def _ask(self, ask: Callable[[], Any]) -> bool:
        """Ask the registry; it may refuse, or be away."""
        try:
            ask()
        except (CommandError, httpx.HTTPError):
            return False
        return True

    def _produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
        partition: int | None,
        places: list[tuple[str, int, int]] | None,
    ) -> None:
        def delivered(error: Any, message: Any) -> None:
            assert error is None, error
            if places is not None:
                places.append((topic, message.partition(), message.offset()))

        producer = Producer(
            {"bootstrap.servers": self.installation.bootstrap, "acks": "all"}
        )
        where = {} if partition is None else {"partition": partition}
        producer.produce(
            topic, value, key, headers=headers, on_delivery=delivered, **where
        )
        assert producer.flush(60) == 0


FAULTS: dict[str, Callable[[Chaos], str]] = {
    "kill": Chaos.kill,
    "kill_several": Chaos.kill_several,
    "kill_broker": Chaos.kill_broker,
    "freeze": Chaos.freeze,
    "wipe": Chaos.wipe,
    "lock_database": Chaos.lock_database,
    "store_away": Chaos.store_away,
    "poison": Chaos.poisoned,
    "repeat": Chaos.repeat,
    "storm": Chaos.storm,
    "roll_back": Chaos.roll_back,
}
__all__ = ["FAULTS", "HANDLING", "Chaos", "Done"]
