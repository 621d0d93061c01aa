"""A first run of a model in a child process, where a crash is only a verdict.

The child is started ahead of its work, so that it has the libraries loaded when a
package comes. It has limits on memory, processor time and files, nothing of the
parent's environment, and gets bytes that are verified already.
"""

import io
import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from driftloop.contracts.profile import BatchCost
from driftloop.models.formats import MODEL_FILE
from driftloop.models.memory import peak_bytes
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import InputColumn, Package
from driftloop.models.samples import SAMPLES_FILE, check_samples
from pydantic import BaseModel, ConfigDict

KEPT_ENVIRONMENT = ("LD_LIBRARY_PATH",)
DETAIL_CHARACTERS = 1000
WARM_UP_CALLS = 20
CALLS = 500
MANY_ROWS = 100
MANY_CALLS = 20
PATIENCE = 4
"""Wall clock over processor time: on a busy machine a child waits for its turn."""
LAST_WORDS_S = 5
MIB = 1024 * 1024
MEASURE_S = 2.0
"""Time after which a slow model need not be called again to know its latency."""
PROFILE_CALLS = {1: 200, 10: 100, 100: 50, 1000: 20}
"""Calls of a profile, by the rows of each."""
PROFILE_S = 0.5
"""For the calls of one number of rows; where one call takes longer, none is made."""
LENGTH = struct.Struct(">Q")


class Figures(BaseModel):
    """What a model costs on this machine.

    Processor time, not wall clock: what other processes take meanwhile is not the
    model's.

    Attributes
    ----------
    p50_ms, p99_ms : of one row.
    hundred_rows_ms : median, of a call with a hundred rows.
    memory_mib : resident memory that loading it and these calls took.
    child_bytes : resident memory of the child before it loaded the model.
    batches : its profile, by rows of a call, fewest first.
    """

    model_config = ConfigDict(frozen=True)

    p50_ms: float
    p99_ms: float
    hundred_rows_ms: float
    memory_mib: float
    child_bytes: int
    batches: tuple[BatchCost, ...]


class TrialFailed(ValueError):  # noqa: N818 - says what happened
    """A model could not be loaded, or answered its samples wrongly."""


class Trial:
    """One child process for one package.

    Parameters
    ----------
    timeout_s : processor time that the child may take, in whole seconds; :meth:`run`
        waits for it :data:`PATIENCE` times as long, and for as long as the child has
        waited for its turn: what a busy machine makes of it says nothing about the
        model.
    memory_bytes : address space of the child.
    """

    def __init__(self, timeout_s: float, memory_bytes: int) -> None:
        self._timeout_s = timeout_s
        limits = [str(memory_bytes), str(max(1, int(timeout_s)))]
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-m", "driftloop.models.trial", *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={k: os.environ[k] for k in KEPT_ENVIRONMENT if k in os.environ},
        )

    def run(self, package: Package) -> Figures:
        """Let the model answer its samples; return its cost and end the child.

        Raises
        ------
        TrialFailed
            With what the child said, or how it ended.
        """
        if SAMPLES_FILE not in package.files:
            raise TrialFailed(f"the package has no {SAMPLES_FILE} to try it with")
        inputs = [c.model_dump(mode="json") for c in package.manifest.inputs]
        frames = io.BytesIO()
        for piece in (
            json.dumps(inputs).encode(),
            package.files[MODEL_FILE],
            package.files[SAMPLES_FILE],
        ):
            frames.write(LENGTH.pack(len(piece)) + piece)
        output, words = self._communicate(frames.getvalue())
        if self._child.returncode == -signal.SIGXCPU:
            raise TrialFailed(
                f"its samples took more than {self._timeout_s:g} s of processor time"
            )
        try:
            answer = json.loads(output)
        except ValueError:
            last_words = words.decode(errors="replace").strip()[-DETAIL_CHARACTERS:]
            raise TrialFailed(
                "loading it ended the process with status "
                f"{self._child.returncode}: {last_words}"
            ) from None
        if "problem" in answer:
            raise TrialFailed(str(answer["problem"]))
        return Figures.model_validate(answer["figures"])

    def _communicate(self, given: bytes) -> tuple[bytes, bytes]:
        """Return what the child says; not counted is when it waits for its turn."""
        patience_s = PATIENCE * self._timeout_s
        until, before_s = time.monotonic() + patience_s, waited_s(self._child.pid)
        frames: bytes | None = given
        while True:
            end = until + waited_s(self._child.pid) - before_s
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise TrialFailed(f"its samples took longer than {patience_s:g} s")
            try:
                return self._child.communicate(frames, left_s)
            except subprocess.TimeoutExpired:
                frames = None  # it goes on with those it has

    def close(self) -> None:
        """End the child if it still waits or works."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.communicate()


def waited_s(pid: int) -> float:
    """Return for how long a process could have run and had no processor, in seconds.

    Only Linux says so; elsewhere it is 0.

    **Source**: ``/proc/<pid>/schedstat``, second field (ns), in the kernel's
    Documentation/scheduler/sched-stats.rst.
    """
    try:
        _, waited_ns, _ = Path(f"/proc/{pid}/schedstat").read_text("ascii").split()
    except OSError:
        return 0.0
    return int(waited_ns) / 1e9


def try_model(package: Package, timeout_s: float, memory_bytes: int) -> Figures:
    """Try a package in a child of its own; see :meth:`Trial.run`."""
    with closing(Trial(timeout_s, memory_bytes)) as trial:
        return trial.run(package)


def main() -> int:
    """Run in the child: read a package, try the model, say what is wrong."""
    memory_bytes, cpu_seconds = map(int, sys.argv[1:])
    for what, limit, most in (
        (resource.RLIMIT_AS, memory_bytes, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + LAST_WORDS_S),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_FSIZE, 0, 0),
    ):
        resource.setrlimit(what, (limit, most))
    try:
        columns, model, samples = (_read_frame(sys.stdin.buffer) for _ in range(3))
    except EOFError:
        return 0  # the parent ended while this child waited
    answer: dict[str, object]
    try:
        inputs = [InputColumn.model_validate(c) for c in json.loads(columns)]
        answer = {"figures": _figures(model, inputs, samples).model_dump()}
    except Exception as error:  # noqa: BLE001 - whatever a model does is its verdict
        answer = {"problem": f"{error}"[:DETAIL_CHARACTERS] or type(error).__name__}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _figures(model: bytes, inputs: list[InputColumn], samples: bytes) -> Figures:
    """Check the samples' answers; return what answering costs."""
    before = peak_bytes()
    loaded = OnnxModel(model, inputs, threads=1)
    rows = check_samples(loaded, inputs, samples)
    single, hundred = rows.slice(0, 1), _repeated(rows, MANY_ROWS)
    one = _durations(lambda: loaded.predict(single), CALLS, MEASURE_S)
    many = _durations(lambda: loaded.predict(hundred), MANY_CALLS, MEASURE_S)
    return Figures(
        p50_ms=float(np.percentile(one, 50)) * 1000,
        p99_ms=float(np.percentile(one, 99)) * 1000,
        hundred_rows_ms=float(np.percentile(many, 50)) * 1000,
        memory_mib=max(0, peak_bytes() - before) / MIB,
        child_bytes=before,
        batches=tuple(_profile(loaded, rows, before)),
    )


def _profile(model: OnnxModel, rows: pa.RecordBatch, before: int) -> list[BatchCost]:
    """Return what calls cost by their rows, as far as a call ends in a short time.

    Parameters
    ----------
    before : resident bytes of the process without the model.
    """
    costs: list[BatchCost] = []
    for size, calls in PROFILE_CALLS.items():
        if costs and costs[-1].p50_seconds * size / costs[-1].rows > PROFILE_S:
            break
        try:
            cost = _batch_cost(model, _repeated(rows, size), calls, before)
        except Exception:
            if not costs:
                raise
            break  # so many rows at once are too many for the child's memory
        costs.append(cost)
    return costs


def _batch_cost(model: OnnxModel, rows: pa.Table, calls: int, before: int) -> BatchCost:
    feeds, count = model.feeds(rows), rows.num_rows
    seconds = _durations(lambda: model.predict_arrays(feeds, count), calls, PROFILE_S)
    return BatchCost(
        rows=count,
        calls=len(seconds),
        p50_seconds=float(np.percentile(seconds, 50)),
        p99_seconds=float(np.percentile(seconds, 99)),
        memory_bytes=max(0, peak_bytes() - before),
    )


def _repeated(rows: pa.RecordBatch, count: int) -> pa.Table:
    """Return so many rows, over and over the same."""
    times = math.ceil(count / rows.num_rows)
    return pa.Table.from_batches([rows] * times).slice(0, count)


def _durations(call: Callable[[], object], calls: int, most_s: float) -> list[float]:
    """Return the processor seconds of calls, without the first ones."""
    durations: list[float] = []
    until = time.thread_time() + most_s
    while len(durations) < WARM_UP_CALLS + calls:
        started = time.thread_time()
        call()
        durations.append(time.thread_time() - started)
        if started > until:
            break
    return durations[WARM_UP_CALLS:] or durations


def _read_frame(stream: BinaryIO) -> bytes:
    """Read one length-prefixed piece; EOFError when its writer has gone."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (size,) = LENGTH.unpack(head)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


if __name__ == "__main__":
    sys.exit(main())
