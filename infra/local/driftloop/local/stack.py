"""The whole of driftloop on one machine: real Kafka and each service as a process."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from driftloop.contracts.pipeline import PRODUCTION
from driftloop.local.home import Home, StackError
from driftloop.local.jars import cache_folder, ensure_jars
from driftloop.local.kafka import KafkaNode
from driftloop.local.processes import (
    LOOPBACK,
    PortClaims,
    free_port,
    identity,
    is_port_free,
    kill_marked,
    wait_until_gone,
)
from driftloop.local.supervisor import ProcessSpec, Supervisor, http_ready

__all__ = ["SERVICES", "Service", "StackError", "down", "status", "supervise", "up"]

BROKER, BROKER_PORT = "broker", 9092
# Processes inherit it; it proves that what is left of a killed stack was part of it.
_MARKER = "DRIFTLOOP_STACK_ID"
_POLL_S = 0.2
_START_TIMEOUT_S = 180.0
# Longer than the services' and then the broker's grace time.
_STOP_TIMEOUT_S = 60.0
_BROKER_GRACE_S = 30.0
_DOOR_BACKLOG = 1024

Progress = Callable[[str], None]

# Supervisors outlive their caller on purpose; a Popen that is collected while its
# process runs would call that a leak.
_spawned: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Service:
    """A process of the stack.

    Attributes
    ----------
    port : of its HTTP interface, unless it is taken.
    has_api : it serves people or outside systems, so it needs the token.
    grpc_port : of its gRPC interface, where it has one.
    program : its module, by default the name; several may run the same.
    replica : the name of this one among them.
    is_shared : it answers at the door that all of its program share, too.
    is_apart : people reach it under its own name, not under its program's.
    argv : how it is started; by default ``python -m driftloop.<program>``.
    """

    name: str
    port: int | None
    has_api: bool = False
    grpc_port: int | None = None
    program: str = ""
    replica: str = "0"
    is_shared: bool = False
    is_apart: bool = False
    argv: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """What runs."""
        return self.program or self.name

    @property
    def address(self) -> str:
        """What people look its address up by."""
        return self.name if self.is_apart else self.module


SCORER, DOOR, DOOR_PORT = "scorer", "scorer (all)", 7003
MAX_SCORERS = 64
SERVICES = (
    Service("registry", 7002, has_api=True),
    Service("ingest", 7001, has_api=True),
    Service("validator", 7004),
    Service(SCORER, DOOR_PORT, has_api=True, grpc_port=7013),
    Service("monitor", 7007, has_api=True),
    Service("trainer", 7005),
    Service("deployer", 7006),
    Service("console", 7000, has_api=True),
)


def with_scorers(count: int, environments: Sequence[str] = ()) -> tuple[Service, ...]:
    """Return the services, with so many scorers behind one door.

    The supervisor opens the door's socket and keeps it open: each scorer takes
    connections from it, so while one starts again, the others answer. Each environment
    before production has a scorer of its own, with a port of its own.

    Raises
    ------
    ValueError
        When the count is not from 1 to 64, or an environment is named twice, or is
        production.
    """
    if len({PRODUCTION, *environments}) <= len(environments):
        raise ValueError(
            f"environments: {', '.join(environments)}: name each once, and without "
            f"{PRODUCTION}, which has its scorers already"
        )
    before = tuple(_scorer_before_production(name) for name in environments)
    if not 1 <= count <= MAX_SCORERS:
        raise ValueError(f"scorers: {count} is not a number from 1 to {MAX_SCORERS}")
    if count == 1:
        return (*SERVICES, *before)
    first = next(service for service in SERVICES if service.name == SCORER)
    shared = [
        replace(
            first,
            name=SCORER if number == 0 else f"{SCORER}-{number + 1}",
            port=None,
            program=SCORER,
            replica=str(number),
            is_shared=True,
        )
        for number in range(count)
    ]
    production = chain.from_iterable(
        shared if service is first else [service] for service in SERVICES
    )
    return (*production, *before)


def _scorer_before_production(environment: str) -> Service:
    return Service(
        name=f"{SCORER}-{environment}",
        port=None,
        has_api=True,
        program=SCORER,
        replica=f"{environment}-0",
        is_apart=True,
        env={
            "DRIFTLOOP_SCORER_ENVIRONMENT": environment,
            "DRIFTLOOP_REPLICA": f"{environment}-0",
        },
    )


def up(
    home: Path,
    foreground: bool = False,
    *,
    scorers: int = 1,
    environments: Sequence[str] = (),
    progress: Progress | None = None,
    timeout_s: float = _START_TIMEOUT_S,
) -> dict[str, Any]:
    """Start the stack, or find it running.

    In the background it returns when every process is ready. In the foreground it
    shows all logs and returns after the stop by Ctrl-C or `down`. A stack that runs
    keeps its scorers.

    Returns
    -------
    dict
        As `status`.

    Raises
    ------
    StackError
        When a process ends again and again or is not ready in time; the stack stays
        up, to be looked at.
    JarError, KafkaError, PortTakenError
        When the broker cannot be prepared.
    """
    services = with_scorers(scorers, environments)
    place = Home(home.resolve())
    place.create()
    if place.supervisor_pid() is None:
        ensure_jars(progress)
        if foreground:
            supervise(home, echo=True, services=services)
            return status(home)
        _spawn_supervisor(place, scorers, environments)
    return _wait_until_ready(place, timeout_s, progress)


def down(home: Path, wipe: bool = False) -> None:
    """Stop the stack: each service in good order, then the broker.

    Only processes that are proven to be this stack's are ended. With `wipe` all state
    of the home is deleted. A stack that does not run is no error.

    Raises
    ------
    StackError
        When the home is not an installation's folder (`wipe`).
    """
    place = Home(home.resolve())
    pid = place.supervisor_pid()
    if pid is not None:
        known = identity(pid)
        os.kill(pid, signal.SIGTERM)
        if known and not wait_until_gone(pid, known, _STOP_TIMEOUT_S):
            os.kill(pid, signal.SIGKILL)  # its processes die with it
            wait_until_gone(pid, known, _STOP_TIMEOUT_S)
    _end_left_over(place)
    if wipe and place.path.exists():
        place.wipe()


def status(home: Path) -> dict[str, Any]:
    """Return what runs, as plain JSON values.

    Returns
    -------
    dict
        ``state`` (``stopped``, ``starting``, ``running``, ``stopping``), ``home``,
        ``broker`` (bootstrap), ``urls`` by interface, ``token_file``, ``processes``
        by name: ``pid``, ``state``, ``ready``, ``port``, ``restarts``, ``last_exit``,
        ``log``.
    """
    place = Home(home.resolve())
    record = place.read_record()
    processes = record.get("processes", {})
    running = place.supervisor_pid() is not None
    if not running:
        stopped = {"pid": None, "identity": None, "state": "stopped", "ready": False}
        processes = {name: known | stopped for name, known in processes.items()}
    return {
        "state": record.get("state", "stopped") if running else "stopped",
        "home": str(place.path),
        "broker": record.get("broker"),
        "urls": record.get("urls", {}),
        "token_file": str(place.token_file),
        "supervisor": record["supervisor"]["pid"] if running else None,
        "processes": processes,
    }


def supervise(
    home: Path, *, echo: bool = False, services: Sequence[Service] = SERVICES
) -> None:
    """Run the stack in this process until SIGTERM or SIGINT. Main thread only.

    Raises
    ------
    StackError
        When it runs already.
    """
    place = Home(home.resolve())
    place.create()
    with place.locked(), PortClaims(cache_folder("ports")) as claims:
        _end_left_over(place)
        known = place.read_record()
        processes, urls = known.get("processes", {}), known.get("urls", {})
        before = {name: process.get("port") for name, process in processes.items()}
        before |= {name: int(url.rpartition(":")[2]) for name, url in urls.items()}
        if any(s.is_shared for s in services):
            before[DOOR] = before.pop(SCORER, None)  # where it was asked before
        ports = settle_ports(services, before, claims)
        asyncio.run(_supervise(place, services, ports, echo))


async def _supervise(
    place: Home, services: Sequence[Service], ports: dict[str, int], echo: bool
) -> None:
    stack_id = secrets.token_hex(16)
    node = KafkaNode(place.path / "kafka", port=ports[BROKER])
    record: dict[str, Any] = {
        "state": "starting",
        "stack_id": stack_id,
        "supervisor": {"pid": os.getpid(), "identity": identity(os.getpid())},
        "broker": f"{LOOPBACK}:{ports[BROKER]}",
        "urls": {
            s.address: f"http://{LOOPBACK}:{ports[_door(s)]}"
            for s in services
            if s.has_api
        }
        | {
            _grpc(s.module): f"{LOOPBACK}:{ports[_grpc(s.module)]}"
            for s in services
            if s.grpc_port
        },
        "processes": {
            name: {"port": ports[name]}
            for name in (BROKER, *(s.name for s in services))
        },
    }
    place.write_record(record)
    node.prepare()

    def note(processes: dict[str, dict[str, Any]]) -> None:
        record["processes"] = processes
        if supervisor.is_stopping:
            record["state"] = "stopping"
        elif all(process["ready"] for process in processes.values()):
            record["state"] = "running"
        place.write_record(record)

    door = _open_door(ports)
    supervisor = Supervisor(
        [
            _broker_spec(node, stack_id),
            *(_service_spec(s, place, ports, stack_id, echo, door) for s in services),
        ],
        place.logs,
        echo=echo,
        on_change=note,
    )
    try:
        await supervisor.run()
    finally:
        if door is not None:
            door.close()
        record["state"] = "stopped"
        place.write_record(record)


def settle_ports(
    services: Sequence[Service], known: Mapping[str, int | None], claims: PortClaims
) -> dict[str, int]:
    """Choose each process's port: that of the last run, else its default, else free."""
    wanted: dict[str, int | None] = {BROKER: BROKER_PORT}
    if any(s.is_shared for s in services):
        wanted[DOOR] = DOOR_PORT
    wanted |= {s.name: s.port for s in services}
    wanted |= {_grpc(s.module): s.grpc_port for s in services if s.grpc_port}
    chosen: dict[str, int] = {}

    def is_usable(port: int) -> bool:
        return port not in chosen.values() and claims.claim(port) and is_port_free(port)

    usual = frozenset(port for port in wanted.values() if port)
    free = iter(lambda: free_port(usual), None)
    for name, default in wanted.items():
        candidates = [port for port in (known.get(name), default) if port]
        chosen[name] = next(filter(is_usable, chain(candidates, free)))
    return chosen


def _open_door(ports: Mapping[str, int]) -> socket.socket | None:
    """Open the socket that several scorers take connections from."""
    if DOOR not in ports:
        return None
    return socket.create_server((LOOPBACK, ports[DOOR]), backlog=_DOOR_BACKLOG)


def _door(service: Service) -> str:
    """Return the name of the port at which people reach a service."""
    return DOOR if service.is_shared else service.name


def _grpc(name: str) -> str:
    """Name a service's gRPC interface among ports and addresses."""
    return f"{name} (gRPC)"


def _broker_spec(node: KafkaNode, stack_id: str) -> ProcessSpec:
    def create_topics() -> None:
        from driftloop.runtime.admin import create_topics

        create_topics(node.bootstrap)

    return ProcessSpec(
        BROKER,
        node.argv,
        node.env | {_MARKER: stack_id},
        cwd=node.home,
        is_ready=node.is_ready,
        blocks_start=True,
        on_ready=create_topics,
        port=int(node.bootstrap.rpartition(":")[2]),
        stop_grace_s=_BROKER_GRACE_S,
    )


def _service_spec(
    service: Service,
    place: Home,
    ports: Mapping[str, int],
    stack_id: str,
    echo: bool,
    door: socket.socket | None = None,
) -> ProcessSpec:
    port = ports[service.name]
    own = {
        _MARKER: stack_id,
        "DRIFTLOOP_HOME": str(place.path),
        "DRIFTLOOP_BROKER": f"{LOOPBACK}:{ports[BROKER]}",
        f"DRIFTLOOP_{service.module.upper()}_HTTP_PORT": str(port),
        "DRIFTLOOP_LOG_FORMAT": "console" if echo else "json",
        "PYTHONUNBUFFERED": "1",
    }
    if service.grpc_port:
        grpc_port = str(ports[_grpc(service.module)])
        own[f"DRIFTLOOP_{service.module.upper()}_GRPC_PORT"] = grpc_port
    shared = [door.fileno()] if door is not None and service.is_shared else []
    if shared:
        own[f"DRIFTLOOP_{service.module.upper()}_SHARED_FD"] = str(shared[0])
        own["DRIFTLOOP_REPLICA"] = service.replica
    if service.has_api:
        own["DRIFTLOOP_API_TOKEN"] = place.token_file.read_text(encoding="utf-8")
        own["DRIFTLOOP_OPERATOR_DECIDES"] = "true"  # this stack is one person's
    for linked in ("registry", SCORER):
        if service.name == "console" and linked in ports:
            at = DOOR if linked == SCORER and DOOR in ports else linked
            url = f"http://{LOOPBACK}:{ports[at]}"
            own[f"DRIFTLOOP_CONSOLE_{linked.upper()}_URL"] = url
    return ProcessSpec(
        service.name,
        service.argv or [sys.executable, "-m", f"driftloop.{service.module}"],
        {**os.environ, **own, **service.env},
        is_ready=http_ready(f"http://{LOOPBACK}:{port}/readyz"),
        port=port,
        sockets=shared,
    )


def _spawn_supervisor(
    place: Home, scorers: int = 1, environments: Sequence[str] = ()
) -> None:
    """Start a supervisor of its own session; wait until it has the stack in hand."""
    log = place.logs / "supervisor.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "driftloop.local",
                "supervise",
                str(place.path),
                "--scorers",
                str(scorers),
                *chain.from_iterable(("--environment", name) for name in environments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _spawned.append(process)
    while place.supervisor_pid() is None:
        if process.poll() is not None:
            raise StackError(f"the supervisor ended at once: {_end_of(log)}")
        time.sleep(_POLL_S)


def _wait_until_ready(
    place: Home, timeout_s: float, progress: Progress | None
) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    ready: set[str] = set()
    while True:
        state = status(place.path)
        if state["state"] == "stopped":
            raise StackError(
                f"the stack has stopped: {_end_of(place.logs / 'supervisor.log')}"
            )
        processes = state["processes"]
        for name in sorted(n for n in processes if processes[n].get("ready")):
            if name not in ready and progress:
                progress(f"{name} is ready on port {processes[name]['port']}")
            ready.add(name)
        if state["state"] == "running":
            return state
        flapping = [
            p["log"] for p in processes.values() if p.get("state") == "flapping"
        ]
        if flapping:
            last = _end_of(Path(flapping[0]))
            raise StackError(f"ends again and again: {', '.join(flapping)}\n{last}")
        if time.monotonic() > deadline:
            late = ", ".join(sorted(set(processes) - ready))
            raise StackError(
                f"not ready after {timeout_s:.0f} s: {late}; the reason is in the logs "
                f"in {place.logs}"
            )
        time.sleep(_POLL_S)


def _end_left_over(place: Home) -> None:
    """End what a killed supervisor of this home has left behind."""
    stack_id = place.read_record().get("stack_id")
    if stack_id:
        kill_marked(f"{_MARKER}={stack_id}")


def _end_of(log: Path, characters: int = 1_000) -> str:
    return log.read_text(errors="replace")[-characters:].strip()
