"""A network fitted by two processes: the same model, and none outlives a kill.

They are few tests, since each fit begins three processes that load torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from driftloop.trainer import child, fitting
from driftloop.trainer.candidates import Checkpoint, Watch
from driftloop.trainer.candidates.machine import Machine
from driftloop.trainer.checkpoints import write_checkpoint
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.memory import family

from tests.unit.support import wait_until
from tests.unit.trainer.cases import rows, spec
from tests.unit.trainer.test_checkpoints import Cut

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed"),
    pytest.mark.timeout(600),
]
CLOSE = 0.02
"""Of the target's deviation: what another order of sums makes of hundreds of steps."""
LOOPBACK = "0100007F"
LISTENING = "0A"
SCRIPT = """
import sys
from pathlib import Path
from driftloop.trainer.candidates import place
from tests.unit.trainer.test_several_processes import fit
place.LEAST_SHARED_ROWS = 1
print("begun", flush=True)
fit(2, Path(sys.argv[1]), count=60_000)
"""


@pytest.fixture(autouse=True)
def _each_step_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from driftloop.trainer.candidates import place, torch_ranks

    monkeypatch.setattr(place, "LEAST_SHARED_ROWS", 1)
    monkeypatch.setattr(torch_ranks, "PACE_S", 0.0)


def fit(
    processes: int, folder: Path, watch: Watch | None = None, count: int = 500
) -> Fitted:
    machine = Machine(processes=processes, folder=folder)
    return fitting.fit("mlp", rows(count), spec(), machine, watch or Watch())


def below(pid: int) -> list[int]:
    """Processes that a process started, and those that these did."""
    return family(pid)[1:]


def ranks_of(pid: int) -> list[int]:
    return named(pid, b"torch_rank\0")


def fitting_pids(pid: int) -> list[int]:
    """The processes of a fit, not a broker that other tests have started."""
    return [*named(pid, b"torch_launch\0"), *ranks_of(pid)]


def named(pid: int, module: bytes) -> list[int]:
    """Processes below one that run a module."""
    found = []
    for one in below(pid):
        try:
            command = Path(f"/proc/{one}/cmdline").read_bytes()
        except OSError:
            continue
        if module in command:
            found.append(one)
    return found


class Looking(Watch):
    """Looks once, in the middle, at what the processes listen on, and keeps a state."""

    def __init__(self, path: Path) -> None:
        self._path, self.listening = path, set[str]()

    def after(
        self,
        iteration: int,
        count: int,
        loss: Callable[[], float] | None = None,
        state: Callable[[], bytes] | None = None,
    ) -> None:
        if not self.listening and iteration > 16:
            assert state is not None
            write_checkpoint(self._path, Checkpoint(iteration, state()))
            self.listening = listened(fitting_pids(os.getpid()))


def listened(pids: list[int]) -> set[str]:
    """Local addresses, in hexadecimal, of sockets on which these processes listen."""
    links = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                links.add(str(handle.readlink()))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in links:
                found.add(fields[1].partition(":")[0])
    return found


def test_two_learn_what_one_does_and_go_on_where_they_were(tmp_path: Path) -> None:
    path = tmp_path / "it.checkpoint"
    looking = Looking(path)
    both, one = fit(2, tmp_path / "a", looking), fit(1, tmp_path / "b")
    assert both.parameters["processes"] == 2
    assert both.parameters["epochs"] == one.parameters["epochs"]
    rest = rows(700).slice(500)
    found, wanted = (m.loaded().predict(rest).prediction for m in (both, one))
    unit = np.std(fitting.target_of(rest, spec()).values)
    assert np.max(np.abs(found - wanted)) < CLOSE * unit
    assert looking.listening == {LOOPBACK}
    assert not (tmp_path / "a" / "ranks").exists()

    # From its checkpoint it goes on and ends in the same bytes.
    last = Cut(path)
    assert fit(2, tmp_path / "a", last).model == both.model
    assert last.first > 17  # the control: it did not begin anew
    assert not ranks_of(os.getpid())


def test_one_that_is_killed_ends_the_fit_in_words(tmp_path: Path) -> None:
    from driftloop.trainer.candidates.torch_ranks import RanksFailed

    class Killing(Watch):
        def after(self, iteration: int, *_: object) -> None:
            if iteration > 5 and (pids := ranks_of(os.getpid())):
                os.kill(pids[-1], signal.SIGKILL)

    with pytest.raises(RanksFailed, match=r"process \d of a fit: .*SIGKILL"):
        fit(2, tmp_path, Killing(), count=5000)
    assert not ranks_of(os.getpid())


def test_nothing_outlives_a_training_that_is_killed(tmp_path: Path) -> None:
    training = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=Path(__file__).parents[3]
    )
    try:
        wait_until(lambda: len(ranks_of(training.pid)) == 2, 300)
        pids = below(training.pid)
        assert len(pids) == 3
    finally:
        training.kill()
        training.wait(120)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 120)


def test_what_they_say_of_their_end_is_what_the_job_says() -> None:
    from driftloop.trainer.candidates import torch_ranks

    def told(*said: dict[str, object]) -> str:
        error = torch_ranks._failure([dict(one) for one in said], 1)
        return json.dumps(child.failure(error, 16))

    cpu = told({"type": "ended", "rank": 1, "code": -signal.SIGXCPU})
    assert '"limit"' in cpu
    assert "DRIFTLOOP_TRAINER_MAX_CPU_MINUTES" in cpu
    gpu = told({"type": "limit", "rank": 0, "error": "the GPU is full"})
    assert json.loads(gpu) == {"type": "limit", "error": "the GPU is full"}
    memory = told(
        {"type": "failed", "rank": 1, "error": "RuntimeError: can't allocate memory"},
        {"type": "ended", "rank": 1, "code": 1},
    )
    assert "DRIFTLOOP_TRAINER_MAX_MEMORY_GIB" in memory
    bug = told({"type": "failed", "rank": 1, "error": "KeyError: 'x'"})
    assert '"failed"' in bug
    assert "process 1 of a fit: KeyError" in bug
    assert "without a model" in told()
