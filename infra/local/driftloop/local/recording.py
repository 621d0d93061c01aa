"""``python -m driftloop.local.recording``: make the file of `quick_start`.

Java watches a broker that starts, serves a client and ends, and then writes down, in a
form that it can map, what it has read. It takes some ten seconds, once for a Java and
a release of Kafka.

Source: JEP 514, the command line of Java's ahead-of-time caches.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from driftloop.local.jars import JarError, ensure_jars
from driftloop.local.kafka import KafkaError, KafkaNode
from driftloop.local.processes import tied_command
from driftloop.local.quick_start import ENDING, fits, quick_start_file

_NOTES = "-XX:AOTConfiguration=notes"  # in the broker's home
_BROKER = ("kafka.Kafka", "server.properties")
_TIMEOUT_S = 300  # of what takes some seconds on a machine that is not busy
_CLIENT_TIMEOUT_S = 30
_ERRORS_ONLY = 3  # of syslog's levels
_POLL_S = 0.1
_SAID_CHARACTERS = 2_000


class RecordingError(RuntimeError):
    """The file could not be made; brokers start without it."""


def record() -> Path:
    """Make the file unless it is there; those that fit no more are deleted.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RecordingError
        When the broker does not start and end as it should, or the file is of no use.
    JarError, KafkaError
        When a broker cannot be run here at all.
    """
    ensure_jars()
    wanted = quick_start_file()
    if wanted.is_file():
        return wanted
    with tempfile.TemporaryDirectory(prefix="driftloop-recording-") as folder:
        node = KafkaNode(Path(folder))
        node.prepare()
        java = node.argv[: -len(_BROKER)]
        _watch(node)
        fresh = node.home / "fresh"
        _run(node, [*java, "-XX:AOTMode=create", _NOTES, f"-XX:AOTCache={fresh}"])
        if not fits(java, fresh, node.home):
            raise RecordingError("Java made a file that it does not use itself")
        for old in wanted.parent.glob(f"*{ENDING}"):
            old.unlink(missing_ok=True)
        incoming = wanted.with_suffix(f".{os.getpid()}")
        shutil.copyfile(fresh, incoming)  # not moved: it may be another disk
        return incoming.replace(wanted)


def _watch(node: KafkaNode) -> None:
    """Run the broker while Java notes which classes it reads."""
    with (
        (node.home / "said").open("wb") as said,
        subprocess.Popen(
            tied_command(node.argv),
            cwd=node.home,
            env=node.env | {"JDK_JAVA_OPTIONS": f"-XX:AOTMode=record {_NOTES}"},
            stdout=said,
            stderr=said,
        ) as broker,
    ):
        try:
            deadline = time.monotonic() + _TIMEOUT_S
            while not node.is_ready():
                if broker.poll() is not None or time.monotonic() > deadline:
                    raise RecordingError(f"no broker in {node.home}: {_end(said.name)}")
                time.sleep(_POLL_S)
            _use(node.bootstrap)
            broker.terminate()
            broker.wait(_TIMEOUT_S)
        finally:
            broker.kill()


def _use(bootstrap: str) -> None:
    """Do what most clients do: create a topic, write with acknowledgement, read."""
    client = {"bootstrap.servers": bootstrap, "log_level": _ERRORS_ONLY}
    admin = AdminClient(client)
    admin.create_topics([NewTopic("any", 1)])["any"].result(_CLIENT_TIMEOUT_S)
    producer = Producer({**client, "transactional.id": "any"})
    producer.init_transactions(_CLIENT_TIMEOUT_S)
    producer.begin_transaction()
    producer.produce("any", b"any")
    producer.commit_transaction(_CLIENT_TIMEOUT_S)
    reader = {"group.id": "any", "auto.offset.reset": "earliest"}
    consumer = Consumer({**client, **reader})
    consumer.subscribe(["any"])
    if consumer.poll(_CLIENT_TIMEOUT_S) is not None:
        consumer.commit(asynchronous=False)
    consumer.close()


def _run(node: KafkaNode, command: list[str]) -> None:
    done = subprocess.run(
        command,
        cwd=node.home,
        env=node.env,
        capture_output=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise RecordingError(f"Java made no file: {said[-_SAID_CHARACTERS:]}")


def _end(file: str) -> str:
    return Path(file).read_text(errors="replace")[-_SAID_CHARACTERS:]


def main() -> int:
    """Make the file and say where it is."""
    try:
        file = record()
    except (RecordingError, KafkaError, JarError) as error:
        sys.stderr.write(f"brokers will start slowly: {error}\n")
        return 1
    sys.stdout.write(f"brokers start from {file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
