"""The supervisor, with real child processes that crash, hang and are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from driftloop.local.processes import identity, wait_until_gone
from driftloop.local.supervisor import (
    Backoff,
    ProcessSpec,
    Supervisor,
    http_ready,
)

from tests.unit.support import wait_until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="rests on Linux' process facts"
)

_TIMEOUT_S = 100.0
_QUICK = Backoff(first_s=0.05, longest_s=0.2, stable_s=60)
_SLEEP = "import time; time.sleep(600)"


def _spec(name: str, code: str = _SLEEP, **options: object) -> ProcessSpec:
    argv = [sys.executable, "-c", code]
    arguments: dict[str, object] = {"backoff": _QUICK, **options}
    return ProcessSpec(name, argv, dict(os.environ), **arguments)  # type: ignore[arg-type]


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def _running(
    specs: Sequence[ProcessSpec],
    logs: Path,
    said: list[str] | None = None,
    *,
    echo: bool = False,
) -> AsyncIterator[Supervisor]:
    say = (said if said is not None else []).append
    supervisor = Supervisor(specs, logs, say=say, echo=echo)
    run = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        if not supervisor.is_stopping:
            supervisor.stop()
        await run


def _is_ready(supervisor: Supervisor, name: str) -> Callable[[], bool]:
    return lambda: bool(supervisor.snapshot()[name]["ready"])


def test_a_killed_process_is_started_again(tmp_path: Path) -> None:
    """kill -9 leads to a new process of the same name; nothing else is touched."""

    async def scenario() -> None:
        async with _running([_spec("a"), _spec("b")], tmp_path) as supervisor:
            await _until(_is_ready(supervisor, "a"))
            await _until(_is_ready(supervisor, "b"))
            before = supervisor.snapshot()
            os.kill(before["a"]["pid"], signal.SIGKILL)
            await _until(lambda: supervisor.snapshot()["a"]["restarts"] == 1)
            await _until(_is_ready(supervisor, "a"))
            after = supervisor.snapshot()
            assert after["a"]["pid"] != before["a"]["pid"]
            assert after["a"]["last_exit"] == -signal.SIGKILL
            assert after["b"] == before["b"]

    asyncio.run(scenario())


def test_pauses_double_up_to_the_longest_and_flapping_is_named(tmp_path: Path) -> None:
    """A process that never runs long is started ever more seldom, and it is said."""
    said: list[str] = []

    async def scenario() -> None:
        spec = _spec("a", "raise SystemExit(7)")
        async with _running([spec], tmp_path, said) as supervisor:
            await _until(lambda: supervisor.snapshot()["a"]["state"] == "flapping")

    asyncio.run(scenario())
    pauses = [text.partition("next start in ")[2].split(" ")[0] for text in said]
    assert pauses[:5] == ["0.05", "0.1", "0.2", "0.2", "0.2"]
    assert "ended (code 7)" in said[0]
    assert "5 times in a row" in said[4]
    assert not any("in a row" in text for text in said[:4])


def test_a_stable_run_begins_the_pauses_anew(tmp_path: Path) -> None:
    """A process that ran stably before it ended is not held to be flapping."""
    said: list[str] = []
    backoff = Backoff(first_s=0.05, longest_s=10, stable_s=0.01)

    async def scenario() -> None:
        spec = _spec("a", "import time; time.sleep(0.05)", backoff=backoff)
        async with _running([spec], tmp_path, said) as supervisor:
            await _until(lambda: supervisor.snapshot()["a"]["restarts"] >= 6)
            assert supervisor.snapshot()["a"]["state"] != "flapping"

    asyncio.run(scenario())
    assert all("next start in 0.05 s" in text for text in said)


def test_after_a_watchdog_exit_it_pauses_longer_than_a_session(tmp_path: Path) -> None:
    """Exit code 3 is answered by 10 s of silence."""
    said: list[str] = []

    async def scenario() -> None:
        async with _running([_spec("a", "raise SystemExit(3)")], tmp_path, said):
            await _until(lambda: bool(said))

    asyncio.run(scenario())
    assert "next start in 10 s" in said[0]


def test_a_program_that_is_missing_does_not_stop_the_others(tmp_path: Path) -> None:
    """What cannot be started is tried again like what crashes."""

    async def scenario() -> None:
        missing = ProcessSpec("a", [str(tmp_path / "missing")], {}, backoff=_QUICK)
        async with _running([missing, _spec("b")], tmp_path) as supervisor:
            await _until(lambda: supervisor.snapshot()["a"]["restarts"] >= 2)
            await _until(_is_ready(supervisor, "b"))

    asyncio.run(scenario())


def test_later_processes_wait_for_a_blocking_one(tmp_path: Path) -> None:
    """They start after it is ready and what must be done then has been done."""
    ready, done = tmp_path / "ready", tmp_path / "done"
    started = tmp_path / "started-after"
    script = (
        "import pathlib, time;"
        f"there = pathlib.Path({str(done)!r}).exists();"
        f"pathlib.Path({str(started)!r}).write_text(str(there)); time.sleep(600)"
    )

    async def scenario() -> None:
        first = _spec(
            "first", is_ready=ready.exists, blocks_start=True, on_ready=done.touch
        )
        async with _running([first, _spec("second", script)], tmp_path) as supervisor:
            await _until(lambda: supervisor.snapshot()["first"]["pid"] is not None)
            await asyncio.sleep(0.5)  # the chance to start too early
            assert supervisor.snapshot()["second"]["state"] == "waiting"
            ready.touch()
            await _until(lambda: started.exists() and started.read_text() != "")
            assert started.read_text() == "True"

    asyncio.run(scenario())


def test_a_failed_preparation_ends_everything(tmp_path: Path) -> None:
    """When `on_ready` fails, the error is raised and no process is left."""

    def fail() -> None:
        raise ValueError("no topics")

    pids: list[int] = []

    async def scenario() -> None:
        spec = _spec("a", blocks_start=True, on_ready=fail)
        supervisor = Supervisor(
            [spec],
            tmp_path,
            say=lambda _: None,
            on_change=lambda state: pids.append(state["a"]["pid"]),
        )
        await supervisor.run()

    with pytest.raises(ValueError, match="no topics"):
        asyncio.run(scenario())
    assert all(identity(pid) is None for pid in pids if pid)


def test_stops_in_reverse_order(tmp_path: Path) -> None:
    """What blocks the start ends last, and each gets the chance to end well."""
    journal = tmp_path / "journal"

    def script(name: str) -> str:
        return (
            "import signal, sys, time\n"
            "def end(*_):\n"
            "    time.sleep(0.1)\n"
            f"    open({str(journal)!r}, 'a').write({name + ' '!r})\n"
            "    sys.exit(0)\n"
            "signal.signal(signal.SIGTERM, end)\n"
            f"open({str(tmp_path / name)!r}, 'w').close()\n"
            "time.sleep(600)"
        )

    async def scenario() -> None:
        specs = [
            _spec(
                "broker",
                script("broker"),
                is_ready=(tmp_path / "broker").exists,
                blocks_start=True,
            ),
            _spec("service", script("service"), is_ready=(tmp_path / "service").exists),
        ]
        async with _running(specs, tmp_path / "logs") as supervisor:
            await _until(_is_ready(supervisor, "service"))
        assert {p["state"] for p in supervisor.snapshot().values()} == {"stopped"}

    asyncio.run(scenario())
    assert journal.read_text() == "service broker "


def test_a_stubborn_process_is_killed(tmp_path: Path) -> None:
    """SIGTERM that is ignored is followed by SIGKILL, and it is said."""
    said: list[str] = []
    armed = tmp_path / "armed"
    script = (
        "import pathlib, signal, time;"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(armed)!r}).touch(); time.sleep(600)"
    )

    async def scenario() -> None:
        spec = _spec("a", script, is_ready=armed.exists, stop_grace_s=0.3)
        async with _running([spec], tmp_path, said) as supervisor:
            await _until(_is_ready(supervisor, "a"))
            pid = supervisor.snapshot()["a"]["pid"]
        assert identity(pid) is None

    asyncio.run(scenario())
    assert any("did not stop within 0.3 s and is killed" in text for text in said)


def test_a_frozen_process_can_be_stopped(tmp_path: Path) -> None:
    """A process under SIGSTOP is woken so that it can end."""

    async def scenario() -> None:
        async with _running([_spec("a")], tmp_path) as supervisor:
            await _until(_is_ready(supervisor, "a"))
            pid = supervisor.snapshot()["a"]["pid"]
            os.kill(pid, signal.SIGSTOP)
        assert identity(pid) is None

    asyncio.run(scenario())


def test_a_crash_takes_the_children_of_the_process_along(tmp_path: Path) -> None:
    """Before a restart nothing of the crashed process is left."""
    note = tmp_path / "grandchild"
    script = (
        "import pathlib, subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; "
        "time.sleep(600)']);"
        f"pathlib.Path({str(note)!r}).write_text(str(child.pid)); time.sleep(600)"
    )

    async def scenario() -> None:
        async with _running([_spec("a", script)], tmp_path) as supervisor:
            await _until(lambda: note.exists() and note.read_text() != "")
            grandchild = int(note.read_text())
            known = identity(grandchild)
            assert known
            os.kill(supervisor.snapshot()["a"]["pid"], signal.SIGKILL)
            await _until(lambda: identity(grandchild) != known)

    asyncio.run(scenario())


def test_no_process_survives_a_killed_supervisor(tmp_path: Path) -> None:
    """kill -9 of the supervisor ends what it runs."""
    script = f"""
import asyncio, os, sys
from pathlib import Path
from driftloop.local.supervisor import ProcessSpec, Supervisor
argv = [sys.executable, "-c", {_SLEEP!r}]
specs = [ProcessSpec(name, argv, dict(os.environ)) for name in "ab"]
def note(state):
    if all(p["ready"] for p in state.values()):
        print(*(p["pid"] for p in state.values()), flush=True)
asyncio.run(Supervisor(specs, Path({str(tmp_path)!r}), on_change=note).run())
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        known = {pid: identity(pid) for pid in pids}
        parent.kill()
    assert len(known) == 2
    for pid, name in known.items():
        assert name is not None
        assert wait_until_gone(pid, name, _TIMEOUT_S)


def test_output_is_logged_and_echoed_behind_the_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All lines of both streams come, also the last one without an end."""
    script = (
        "import sys; print('to stdout', flush=True);"
        "print('to stderr', file=sys.stderr, flush=True);"
        "sys.stdout.write('x' * 200_000 + 'unfinished')"
    )

    async def scenario() -> None:
        async with _running([_spec("a", script)], tmp_path, echo=True) as supervisor:
            await _until(lambda: supervisor.snapshot()["a"]["restarts"] >= 1)

    asyncio.run(scenario())
    log = (tmp_path / "a.log").read_text()
    assert log.startswith("to stdout\nto stderr\n")
    assert log.count("x") >= 200_000
    assert "unfinished" in log
    assert "a | to stdout\n" in capsys.readouterr().out


def test_readiness_follows_the_http_answer() -> None:
    """Ready is status 200; 503, silence and a closed port are not."""
    answer = 503

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    is_ready = http_ready(f"http://127.0.0.1:{server.server_port}/readyz")
    try:
        assert not is_ready()
        answer = 200
        wait_until(is_ready)  # an answer that comes late is none
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not is_ready()
