"""A consumer process to be killed: counts effects in SQLite, publishes outputs.

Each message ``{"id": n}`` has one effect and one output. Effect, inbox row and output
are stored in one transaction, the output is published, then the driver may commit:
what the runtime does, in the fewest lines that can be counted from outside. Anything
that is not such a message becomes a dead letter with a deterministic id.
"""

import argparse
import json
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from driftloop.runtime.drivers.confluent import ConfluentDriver, ConfluentPublisher
from driftloop.runtime.drivers.watchdog import Watchdog
from driftloop.runtime.transport import Driver, Message, PublishError, Record

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS effect (id TEXT, pid INTEGER);
CREATE TABLE IF NOT EXISTS outbox (id TEXT, value BLOB);
CREATE TABLE IF NOT EXISTS delivery (id TEXT, pid INTEGER, at REAL);
"""


class Worker:
    """The handler, with the faults that a test asks for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._database = sqlite3.connect(
            options.database, timeout=100, check_same_thread=False
        )
        self._database.executescript(SCHEMA)
        self._publisher = ConfluentPublisher(
            options.bootstrap, client_id=options.instance
        )
        self._started_at = time.time()

    def process(self, messages: Sequence[Message]) -> None:
        if self._options.ack_first:  # wrong on purpose: the suite's negative control
            threading.Thread(target=self._work, args=(messages,), daemon=True).start()
        else:
            self._work(messages)

    def _work(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._handle(message)
        self._publish()

    def _handle(self, message: Message) -> None:
        name, is_good = identity(message)
        options = self._options
        if name == options.freeze_at:
            # To this thread, which then is the one that stops the others: it must not
            # get as far as the transaction, whose lock the other worker needs.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        if name == options.slow_at:
            self._note(name)
            time.sleep(options.slow_s)
        time.sleep(options.work_ms / 1000)
        with self._database as transaction:
            self._note(name)
            new = transaction.execute(
                "INSERT OR IGNORE INTO inbox VALUES (?)", (name,)
            ).rowcount
            if new or options.no_inbox:
                if is_good:
                    transaction.execute(
                        "INSERT INTO effect VALUES (?, ?)", (name, os.getpid())
                    )
                output = json.dumps({"id": name, "good": is_good}).encode()
                transaction.execute("INSERT INTO outbox VALUES (?, ?)", (name, output))
        if name == options.die_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, name: str) -> None:
        row = (name, os.getpid(), time.time())
        self._database.execute("INSERT INTO delivery VALUES (?, ?, ?)", row)

    def _publish(self) -> None:
        """Send what is stored and not yet sent, also what an earlier run stored."""
        rows = self._database.execute("SELECT rowid, value FROM outbox").fetchall()
        records = [Record(self._options.output, b"k", value) for _, value in rows]
        while records:
            try:
                self._publisher.publish(records, timeout_s=5)
                break
            except PublishError as error:
                logging.warning("publish: %s", error)
        with self._database as transaction:
            transaction.executemany(
                "DELETE FROM outbox WHERE rowid = ?", [(row,) for row, _ in rows]
            )


def identity(message: Message) -> tuple[str, bool]:
    """Return the id of a message, and whether it is a good one."""
    try:
        return str(json.loads(message.value or b"")["id"]), True
    except (ValueError, TypeError, KeyError):
        return f"{message.topic}/{message.partition}/{message.offset}", False


def driver_of(options: argparse.Namespace) -> Driver:
    settings = {"max.poll.interval.ms": str(int(options.session_s * 1000))}
    arguments = (options.bootstrap, options.group, [options.input])
    if options.driver == "confluent":
        return ConfluentDriver(
            *arguments,
            instance_id=options.instance,
            session_timeout_s=options.session_s,
            client_config=settings,
        )
    from driftloop.runtime.drivers.faust import FaustDriver

    return FaustDriver(
        *arguments, instance_id=options.instance, session_timeout_s=options.session_s
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("driver", "bootstrap", "group", "instance", "input", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--database", required=True, type=Path)
    parser.add_argument("--session-s", type=float, default=8.0)
    parser.add_argument("--work-ms", type=float, default=0.0)
    parser.add_argument("--slow-at")
    parser.add_argument("--slow-s", type=float, default=0.0)
    parser.add_argument("--die-after")
    parser.add_argument("--freeze-at")
    parser.add_argument("--watchdog-s", type=float)
    parser.add_argument("--ack-first", action="store_true")
    parser.add_argument("--no-inbox", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    driver = driver_of(options)
    worker = Worker(options)
    # As in a service: the main thread has the signals, the driver another thread.
    failures: list[BaseException] = []

    def consume() -> None:
        try:
            driver.run(worker.process, lambda _topic, _partition: None)
        except BaseException as error:
            logging.exception("the run failed")
            failures.append(error)

    thread = threading.Thread(target=consume)
    signal.signal(signal.SIGTERM, lambda *_: driver.stop())
    thread.start()
    if options.watchdog_s:
        Watchdog(driver.status, options.watchdog_s).start()
    while thread.is_alive():
        thread.join(0.1)
    sys.stdout.flush()
    os._exit(1 if failures else 0)


if __name__ == "__main__":
    main()
