"""A fit by several processes that torchrun's agent keeps together.

This process hands them plain files, follows what they say, keeps their checkpoints as
its own watch wants them, and takes over the weights in the end. When one of them dies
the fit is over: the job goes on from the checkpoint.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from driftloop.trainer.candidates.machine import LimitHit, Machine
from driftloop.trainer.candidates.network_input import Bins, Inputs
from driftloop.trainer.candidates.networks import Gru, Network, Tcn
from driftloop.trainer.candidates.place import Place
from driftloop.trainer.candidates.sample import Checkpoint, Watch
from driftloop.trainer.candidates.torch_fit import TorchFit
from driftloop.trainer.candidates.torch_learning import ALONE, Learner, Lesson
from pydantic import BaseModel
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

PACE_S = 1.0
"""Between two reports, each with a state to go on from."""
END_S = 10.0
PROGRAM = "driftloop.trainer.candidates.torch_launch"
ARRAYS, INPUTS, WEIGHTS, START = "rows", "inputs", "weights", "start"


class RanksFailed(Exception):  # noqa: N818 - says what happened
    """One of the processes failed; the fit can go on from its checkpoint."""


class RankJob(BaseModel):
    """What the processes of a fit are told besides arrays.

    Attributes
    ----------
    started_at : iteration of the checkpoint in the folder; None: there is none.
    """

    kind: str
    hidden: list[int]
    width: int
    dropout: float
    n_outputs: int
    embedded: list[tuple[int, int]]
    kept: int
    seed: int
    learning_rate: float
    weight_decay: float
    batch_rows: int | None
    device: str
    precision: Any
    processes: int
    gpu: str | None
    threads: int
    gpu_memory_ratio: float
    pace_s: float
    started_at: int | None = None

    def place(self) -> Place:
        return Place(self.device, self.precision, self.processes, self.gpu)

    def machine(self) -> Machine:
        return Machine(self.threads, gpu_memory_ratio=self.gpu_memory_ratio)

    def network(self, folder: Path) -> Network:
        """Return the network with its first weights, and throw dice as they were."""
        found = load_arrays(folder / INPUTS)
        bins = Bins(found["column"], found["low"], found["inverse"])
        none = np.zeros(0, np.float32)
        embedded = tuple(self.embedded)
        inputs = Inputs(
            none, none, none, found["numbers"], bins, embedded, found["channels"]
        )
        reader: Gru | Tcn | None = None
        if self.kind == "gru":
            reader = Gru(len(inputs.channels), self.width)
        elif self.kind == "tcn":
            count, steps = inputs.channels.shape
            reader = Tcn(count, steps, self.width, self.dropout)
        network = Network(inputs, reader, self.hidden, self.dropout, self.n_outputs)
        weights = load_file(folder / WEIGHTS)
        dice = weights.pop("dice")
        network.module.load_state_dict(weights)
        torch.set_rng_state(dice)
        return network

    def lesson(self, folder: Path) -> Lesson:
        """Return the arrays, mapped from their files: the machine has them once."""
        rows, target, weights = (
            np.load(folder / f"{name}.npy", mmap_mode="c")
            for name in ("rows", "target", "weights")
        )
        return Lesson(
            rows, target, weights, self.kept, self.seed, self.learning_rate,
            self.weight_decay, self.batch_rows,
        )  # fmt: skip

    def start(self, folder: Path) -> Checkpoint | None:
        if self.started_at is None:
            return None
        return Checkpoint(self.started_at, (folder / START).read_bytes())


def learn(
    network: Network,
    job: RankJob,
    inputs: Inputs,
    lesson: Lesson,
    machine: Machine,
    watch: Watch,
) -> TorchFit:
    """Fit a network by several processes; it gets the weights in the end.

    Raises
    ------
    LimitHit
        When one of them had too little of the GPU's memory or of CPU time.
    RanksFailed
        When one of them ended before its time.
    """
    with _folder(machine) as folder:
        checkpoint = watch.saved()
        if checkpoint is not None:
            job = job.model_copy(update={"started_at": checkpoint.iteration})
            (folder / START).write_bytes(checkpoint.state)
        _write(folder, network, job, inputs, lesson)
        last = _followed(folder, job.processes, watch)
    fit = Learner(network, lesson, job.place(), torch.device("cpu"), ALONE).fit()
    fit.done = fit.resume(last)
    return fit


@contextmanager
def _folder(machine: Machine) -> Iterator[Path]:
    """Return an empty folder for the files; what a killed try left is removed."""
    if machine.folder is None:
        with tempfile.TemporaryDirectory(prefix="driftloop-ranks-") as name:
            yield Path(name)
        return
    folder = machine.folder.resolve() / "ranks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(
    folder: Path, network: Network, job: RankJob, inputs: Inputs, lesson: Lesson
) -> None:
    arrays = {"rows": lesson.rows, "target": lesson.target, "weights": lesson.weights}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    bins = inputs.bins
    named = {
        "numbers": inputs.numbers, "channels": inputs.channels,
        "column": bins.column, "low": bins.low, "inverse": bins.inverse,
    }  # fmt: skip
    save_arrays({n: np.ascontiguousarray(a) for n, a in named.items()}, folder / INPUTS)
    weights = {n: v.clone() for n, v in network.module.state_dict().items()}
    save_file(weights | {"dice": torch.get_rng_state()}, folder / WEIGHTS)
    (folder / "job.json").write_text(job.model_dump_json())


def _followed(folder: Path, processes: int, watch: Watch) -> Checkpoint:
    """Start them, pass on what they say, and return the state at the end."""
    cpu_left = _cpu_left()
    share = "" if cpu_left is None else str(max(1.0, cpu_left / processes))
    command = [sys.executable, "-m", PROGRAM, str(folder), str(processes), share]
    before = _children_cpu_s()
    agent = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        return _end_of(agent, folder, watch)
    finally:
        agent.stdin.close()  # type: ignore[union-attr] # a pipe was asked for
        try:
            agent.wait(END_S)
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.wait(END_S)
        agent.stdout.close()  # type: ignore[union-attr] # a pipe was asked for
        _charge(_children_cpu_s() - before)


def _end_of(agent: "subprocess.Popen[str]", folder: Path, watch: Watch) -> Checkpoint:
    last: Checkpoint | None = None
    said: list[dict[str, Any]] = []
    for line in agent.stdout or ():
        with suppress(ValueError):
            message = json.loads(line)
            said.append(message)
            if message["type"] == "at":
                said.pop()
                _pass_on(message, folder, watch)
            elif message["type"] == "done":
                state = (folder / message["state"]).read_bytes()
                last = Checkpoint(message["done"], state)
    code = agent.wait(END_S)
    if last is not None and code == 0:
        return last
    raise _failure(said, code)


def _pass_on(message: dict[str, Any], folder: Path, watch: Watch) -> None:
    state = folder / message["state"]
    loss = float(message["loss"])
    watch.after(message["done"], message["count"], lambda: loss, state.read_bytes)
    state.unlink()


def _failure(said: list[dict[str, Any]], code: int) -> Exception:
    """Return why a fit failed, by what its processes said of themselves."""
    from driftloop.trainer.worker import LimitReached, ended

    found = {message["type"]: message for message in reversed(said)}
    if "limit" in found:
        return LimitHit(found["limit"]["error"])
    which = found.get("ended", {"rank": "that starts those", "code": code})
    if which["code"] < 0:
        how = ended(which["code"])
        if isinstance(how, LimitReached):
            return LimitHit(str(how))
        return RanksFailed(f"process {which['rank']} of a fit: {how}")
    if "failed" in found:
        failed = found["failed"]
        return RanksFailed(f"process {failed['rank']} of a fit: {failed['error']}")
    return RanksFailed(f"the processes of a fit ended without a model (code {code})")


def _cpu_left() -> float | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_CPU)
    if soft == resource.RLIM_INFINITY:
        return None
    used = resource.getrusage(resource.RUSAGE_SELF)
    return soft - used.ru_utime - used.ru_stime


def _charge(seconds: float) -> None:
    """Take what the processes used from what this one may still use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if soft != resource.RLIM_INFINITY:
        left = max(1, int(soft - seconds))
        resource.setrlimit(resource.RLIMIT_CPU, (left, hard))


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
