"""The local Kafka node: a real broker, with its crashes, and its locked jars."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka import KafkaError as KafkaClientError
from confluent_kafka.admin import AdminClient, NewTopic
from driftloop.local import quick_start
from driftloop.local.jars import JarError, cache_folder, ensure_jars, locked_jars
from driftloop.local.kafka import KafkaError, KafkaNode
from driftloop.local.processes import PortTakenError, identity, wait_until_gone

from tests.unit.support import wait_until

_TIMEOUT_S = 120.0


def _create_topic(bootstrap: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(_TIMEOUT_S)


def _produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for value in values:
        producer.produce(
            topic, value, on_delivery=lambda error, _: failures.append(error)
        )
    assert producer.flush(_TIMEOUT_S) == 0
    assert failures == [None] * len(values)


def _consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [m.value() for m in consumer.consume(count, timeout=_TIMEOUT_S)]
    finally:
        consumer.close()


def _version(java: list[str], home: Path) -> str:
    asked = [*java, "-version"]
    done = subprocess.run(asked, cwd=home, capture_output=True, text=True, check=True)
    return done.stderr


def test_starts_from_what_was_recorded(kafka: KafkaNode) -> None:
    """The file of `make setup-broker` fits, and is what the broker has mapped."""
    file = quick_start.quick_start_file()
    if not file.is_file():
        pytest.skip("there is no recording; `make setup-broker` makes it")
    assert quick_start.fits(kafka.argv[:1], file, kafka.home) is False  # other jars
    assert quick_start.fits(kafka.argv[:-2], file, kafka.home)
    assert str(file) in Path(f"/proc/{kafka.pid}/maps").read_text(encoding="ascii")


def test_a_recording_that_does_not_fit_is_not_used(
    kafka: KafkaNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Java then starts as it does without one, and says nothing of it."""
    file = tmp_path / "broker.aot"
    monkeypatch.setattr(quick_start, "quick_start_file", lambda: file)
    without = kafka.argv[:-2]
    assert str(file) not in " ".join(without)

    file.write_bytes(b"of another Java")
    with_it = kafka.argv[:-2]
    assert f"-XX:AOTCache={file}" in with_it
    assert not quick_start.fits(with_it, file, kafka.home)
    assert len(_version(with_it, kafka.home).splitlines()) == 3  # the version alone


def test_carries_records(kafka: KafkaNode, topic_prefix: str) -> None:
    """What is produced is consumed."""
    topic = topic_prefix + "records"
    _create_topic(kafka.bootstrap, topic)
    _produce(kafka.bootstrap, topic, [b"one", b"two"])
    assert _consume(kafka.bootstrap, topic, 2) == [b"one", b"two"]


def test_carries_a_batch_of_one_mebibyte(kafka: KafkaNode, topic_prefix: str) -> None:
    """A record above Kafka's default limit, as Arrow batches can be, is accepted."""
    topic = topic_prefix + "large"
    value = bytes(1024 * 1024 + 512)
    _create_topic(kafka.bootstrap, topic)
    delivered: list[object] = []
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "message.max.bytes": 2 * 1024 * 1024}
    )
    producer.produce(topic, value, on_delivery=lambda e, _: delivered.append(e))
    assert producer.flush(_TIMEOUT_S) == 0
    assert delivered == [None]


def test_unknown_topics_are_not_created(kafka: KafkaNode, topic_prefix: str) -> None:
    """A misspelt topic is an error, not a new topic."""
    failures: list[KafkaClientError] = []
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "topic.metadata.propagation.max.ms": 500,
        }
    )
    producer.produce(
        topic_prefix + "misspelt", b"", on_delivery=lambda e, _: failures.append(e)
    )
    assert producer.flush(_TIMEOUT_S) == 0
    assert [e.code() for e in failures] == [KafkaClientError.UNKNOWN_TOPIC_OR_PART]


def test_listens_on_loopback_only(kafka: KafkaNode) -> None:
    """Neither listener is bound to the addresses of the machine."""
    host, _, port = kafka.bootstrap.partition(":")
    assert host == "127.0.0.1"
    listening = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    everywhere = f"00000000:{int(port):04X}"
    assert not [line for line in listening if everywhere in line]


@pytest.mark.slow
def test_keeps_data_and_address_over_stop_and_crash(
    own_kafka: KafkaNode, topic_prefix: str
) -> None:
    """Records survive a restart and a kill -9; address and cluster stay."""
    topic, bootstrap = topic_prefix + "kept", own_kafka.bootstrap
    cluster = own_kafka.cluster_id
    _create_topic(bootstrap, topic)
    _produce(bootstrap, topic, [b"before the stop"])

    own_kafka.stop()
    assert not own_kafka.is_running
    own_kafka.start()
    _produce(bootstrap, topic, [b"before the crash"])

    pid = own_kafka.pid
    own_kafka.kill()
    assert identity(pid) is None
    own_kafka.start()

    assert (own_kafka.bootstrap, own_kafka.cluster_id) == (bootstrap, cluster)
    expected = [b"before the stop", b"before the crash"]
    assert _consume(bootstrap, topic, 2) == expected


@pytest.mark.slow
def test_a_paused_broker_is_not_ready_until_resumed(own_kafka: KafkaNode) -> None:
    """A frozen broker takes connections and answers nothing."""
    own_kafka.pause()
    assert not own_kafka.is_ready()
    own_kafka.resume()
    wait_until(own_kafka.is_ready)  # it has two seconds for each answer


@pytest.mark.slow
def test_another_broker_at_its_address_is_noticed(
    own_kafka: KafkaNode, tmp_path: Path
) -> None:
    """A node does not take somebody else's broker for its own."""
    port = int(own_kafka.bootstrap.partition(":")[2])
    own_kafka.stop()
    other = KafkaNode(tmp_path / "other", port=port)
    other.prepare()
    own_kafka.start()
    with pytest.raises(KafkaError, match="another Kafka cluster"):
        other.is_ready()


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """A wanted port that somebody listens on is named in the error."""
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        port = occupant.getsockname()[1]
        with pytest.raises(PortTakenError, match=str(port)):
            KafkaNode(tmp_path, port=port).start()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the tie is Linux' own")
def test_dies_with_its_parent(tmp_path: Path) -> None:
    """No broker is left when the process that started it is killed."""
    script = (
        "import sys, time; from pathlib import Path;"
        "from driftloop.local.kafka import KafkaNode;"
        f"node = KafkaNode(Path({str(tmp_path)!r})); node.start();"
        "print(node.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        known = identity(pid)
        parent.kill()
    assert known is not None
    assert wait_until_gone(pid, known, _TIMEOUT_S)


@pytest.fixture
def repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[bytes], None]]:
    """Serve the user's jars as a Maven repository beside an empty cache.

    The value is a function that makes the repository append bytes to each jar.
    """
    source = ensure_jars()
    suffix = b""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = source / self.path.rpartition("/")[2]
            self.send_response(200 if file.exists() else 404)
            self.end_headers()
            if file.exists():
                self.wfile.write(file.read_bytes() + suffix)

        def log_message(self, *_: object) -> None:
            pass

    def tamper(with_suffix: bytes) -> None:
        nonlocal suffix
        suffix = with_suffix

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("DRIFTLOOP_MAVEN_REPOSITORY", address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tamper
    server.shutdown()
    thread.join()
    server.server_close()


def test_jars_come_from_the_named_repository(
    repository: Callable[[bytes], None],
) -> None:
    """An empty cache is filled with all locked jars, with progress."""
    lines: list[str] = []
    folder = ensure_jars(lines.append)
    assert all(jar.is_intact(folder / jar.file_name) for jar in locked_jars())
    assert lines[-1].startswith("Kafka 4.3.1: 46 of 46 jars")
    assert {path.suffix for path in folder.iterdir() if path.name != ".lock"} == {
        ".jar"
    }


def test_a_tampered_download_is_refused(repository: Callable[[bytes], None]) -> None:
    """A jar with other bytes than the locked ones never reaches the cache."""
    repository(b"!")
    with pytest.raises(JarError, match="refused"):
        ensure_jars()
    assert not list(cache_folder().glob("*.jar"))


def test_a_tampered_cached_jar_is_replaced(
    tmp_path: Path, repository: Callable[[bytes], None]
) -> None:
    """A jar that was changed in the cache is never used: it is fetched anew."""
    ensure_jars()
    jar = locked_jars()[0]
    with (cache_folder() / jar.file_name).open("ab") as file:
        file.write(b"!")
    lines: list[str] = []
    ensure_jars(lines.append)
    assert jar.is_intact(cache_folder() / jar.file_name)
    assert lines[0] == "Kafka 4.3.1: 1 of 46 jars to download"


def test_a_tampered_cached_jar_does_not_start(
    tmp_path: Path, repository: Callable[[bytes], None]
) -> None:
    """With no good copy to be had there is no start with a bad one."""
    ensure_jars()
    repository(b"!")
    (cache_folder() / locked_jars()[0].file_name).write_bytes(b"other bytes")
    with pytest.raises(JarError, match="refused"):
        KafkaNode(tmp_path / "node").start()


def test_an_unreachable_repository_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the jar and the way out."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("DRIFTLOOP_MAVEN_REPOSITORY", address)
        with pytest.raises(JarError, match=r"(?s)\S+:\S+:\S+ could not.*MAVEN_REPOS"):
            ensure_jars()


def test_concurrent_starts_share_one_download(
    repository: Callable[[bytes], None],
) -> None:
    """Two processes that find an empty cache both end with all jars."""
    script = "from driftloop.local.jars import ensure_jars; ensure_jars()"
    both = [
        subprocess.Popen([sys.executable, "-c", script], env=dict(os.environ))
        for _ in range(2)
    ]
    assert [process.wait(_TIMEOUT_S) for process in both] == [0, 0]
    folder = cache_folder()
    assert all(jar.is_intact(folder / jar.file_name) for jar in locked_jars())
