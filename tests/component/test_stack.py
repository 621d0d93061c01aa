"""The local stack: broker, topics and processes from a home, and their end."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from driftloop.contracts.topics import all_topics
from driftloop.local import stack
from driftloop.local.home import Home, StackError
from driftloop.local.processes import (
    PortClaims,
    free_port,
    identity,
    wait_until_gone,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.broker,
    pytest.mark.skipif(sys.platform != "linux", reason="rests on Linux' processes"),
]

_TIMEOUT_S = 180.0

# A small service: answers /readyz on the port it is given, writes what it was given,
# and has a child of its own as the trainer does.
_SERVICE = """
import http.server, json, os, pathlib, signal, subprocess, sys
name, folder = sys.argv[1:]
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
given = {k: v for k, v in os.environ.items() if k.startswith("DRIFTLOOP_")}
note = pathlib.Path(folder, name)
note.with_suffix(".new").write_text(json.dumps({"env": given, "child": child.pid}))
note.with_suffix(".new").rename(note)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
signal.signal(signal.SIGTERM, lambda *_: (child.kill(), sys.exit(0)))
port = int(os.environ[f"DRIFTLOOP_{name.upper()}_HTTP_PORT"])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""

_SUPERVISE = """
import sys
from pathlib import Path
from driftloop.local.stack import Service, supervise
home, notes, port = sys.argv[1:]
def service(name, has_api):
    argv = [sys.executable, "-c", {service!r}, name, notes]
    return Service(name, int(port), has_api=has_api, argv=argv)
supervise(Path(home), services=[service("registry", True), service("trainer", False)])
"""


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@contextmanager
def _supervisor(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    notes = home.parent / "notes"
    notes.mkdir(exist_ok=True)
    script = _SUPERVISE.format(service=_SERVICE)
    argv = [sys.executable, "-c", script, str(home), str(notes), str(port)]
    process = subprocess.Popen(argv)
    try:
        _until(
            lambda: (
                process.poll() is not None or stack.status(home)["state"] == "running"
            ),
            "the stack is not up",
        )
        yield process
    finally:
        stack.down(home)
        process.wait(_TIMEOUT_S)


def _note(home: Path, name: str) -> dict[str, Any]:
    note: dict[str, Any] = json.loads((home.parent / "notes" / name).read_text())
    return note


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", 0))
        occupant.listen()
        yield occupant.getsockname()[1]


def test_the_stack_comes_up_and_goes_down(tmp_path: Path, taken_port: int) -> None:
    """Topics exist, each process has its own settings, taken ports are avoided."""
    home = tmp_path / "home"
    with _supervisor(home, taken_port):
        state = stack.status(home)
        assert {p["ready"] for p in state["processes"].values()} == {True}
        ports = [process["port"] for process in state["processes"].values()]
        assert len(set(ports)) == 3
        assert taken_port not in ports

        topics = AdminClient({"bootstrap.servers": state["broker"]}).list_topics(
            timeout=_TIMEOUT_S
        )
        assert {name for name, *_ in all_topics()} <= set(topics.topics)

        registry = _note(home, "registry")["env"]
        trainer = _note(home, "trainer")["env"]
        token = Path(state["token_file"]).read_text()
        assert registry["DRIFTLOOP_API_TOKEN"] == token
        assert len(token) >= 32
        assert registry["DRIFTLOOP_BROKER"] == state["broker"]
        assert registry["DRIFTLOOP_HOME"] == str(home)
        # The token is for those that serve people or outside systems.
        assert "DRIFTLOOP_API_TOKEN" not in trainer
        known = {p["pid"]: p["identity"] for p in state["processes"].values()}

        stack.down(home)
        assert all(identity(pid) != name for pid, name in known.items())

    after = stack.status(home)
    assert after["state"] == "stopped"
    assert {p["state"] for p in after["processes"].values()} == {"stopped"}


def test_secrets_are_for_the_user_only(tmp_path: Path) -> None:
    """Others can read neither the home nor what lies in it; a restart keeps them."""
    home = Home(tmp_path / "home")
    home.create()
    token = home.token_file.read_text()
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    for file in (home.token_file, home.signing_key_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    home.create()
    assert home.token_file.read_text() == token


def test_nothing_survives_a_killed_supervisor(tmp_path: Path, taken_port: int) -> None:
    """Processes die with it; their own children are found and ended by `down`."""
    home = tmp_path / "home"
    with _supervisor(home, taken_port) as supervisor:
        processes = stack.status(home)["processes"]
        child = _note(home, "trainer")["child"]
        child_identity = identity(child)
        supervisor.kill()
        supervisor.wait(_TIMEOUT_S)
        assert stack.status(home)["state"] == "stopped"
        for process in processes.values():
            assert wait_until_gone(process["pid"], process["identity"], _TIMEOUT_S)
        assert child_identity is not None
        assert identity(child) == child_identity  # what `down` is for
        stack.down(home)
        assert wait_until_gone(child, child_identity, _TIMEOUT_S)


def test_one_home_has_one_supervisor(tmp_path: Path, taken_port: int) -> None:
    """A second one is refused and disturbs nothing."""
    home = tmp_path / "home"
    with _supervisor(home, taken_port):
        before = stack.status(home)
        with pytest.raises(StackError, match="runs already"):
            stack.supervise(home, services=[])
        assert stack.status(home) == before


def test_stacks_that_start_together_choose_other_ports(tmp_path: Path) -> None:
    """What one has chosen is taken, although nobody listens there yet."""
    services = [stack.Service("registry", free_port())]
    with PortClaims(tmp_path) as first, PortClaims(tmp_path) as second:
        ports = stack.settle_ports(services, {}, first)
        others = stack.settle_ports(services, {}, second)
        assert not set(ports.values()) & set(others.values())
        # The control: after the end of the first its ports may be chosen.
        assert ports["registry"] == services[0].port
        first.close()
        assert stack.settle_ports(services, {}, second)["registry"] == services[0].port


def test_a_record_of_other_processes_ends_nobody(tmp_path: Path) -> None:
    """A pid that now belongs to somebody else is left alone."""
    home = Home(tmp_path / "home")
    home.create()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as it:
        try:
            stranger = {"pid": it.pid, "identity": "another boot/1"}
            home.write_record({"supervisor": stranger, "stack_id": "0" * 32})
            stack.down(home.path)
            assert it.poll() is None
            # The control: with the right identity it is the one to end.
            home.write_record(
                {"supervisor": {"pid": it.pid, "identity": identity(it.pid)}}
            )
            stack.down(home.path)
            assert it.wait(_TIMEOUT_S) == -signal.SIGTERM
        finally:
            if it.poll() is None:
                it.kill()


def test_up_says_which_process_ends_again_and_again(tmp_path: Path) -> None:
    """It does not wait out its time for a process that cannot start."""
    home = Home(tmp_path / "home")
    home.create()
    log = home.logs / "scorer.log"
    log.write_text("port 7003 is taken\n")
    flapping = {"state": "flapping", "ready": False, "port": 7003, "log": str(log)}
    record = {
        "state": "starting",
        "supervisor": {"pid": os.getpid(), "identity": identity(os.getpid())},
        "processes": {"scorer": flapping},
    }
    home.write_record(record)
    with pytest.raises(StackError, match=r"(?s)scorer\.log.*7003 is taken"):
        stack.up(home.path)
    # The control: the same process ready, and the stack counts as up.
    scorer = flapping | {"state": "running", "ready": True}
    home.write_record(record | {"state": "running", "processes": {"scorer": scorer}})
    assert stack.up(home.path)["state"] == "running"


def test_wipe_deletes_only_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is no installation, or holds more, is refused."""
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday").touch()
    with pytest.raises(StackError, match=r"no stack\.json"):
        stack.down(photos, wipe=True)
    assert (photos / "holiday").exists()

    home = Home(tmp_path / "home")
    home.create()
    home.write_record({})
    monkeypatch.chdir(home.path)
    with pytest.raises(StackError, match="not deleted"):
        stack.down(home.path, wipe=True)
    monkeypatch.chdir(tmp_path)
    stack.down(home.path, wipe=True)
    assert not home.path.exists()


def test_status_of_what_never_ran(tmp_path: Path) -> None:
    """An unknown home is a stopped stack, and asking creates nothing."""
    state = stack.status(tmp_path / "none")
    assert state["state"] == "stopped"
    assert state["processes"] == {}
    assert list(tmp_path.iterdir()) == []
