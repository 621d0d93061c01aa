"""The child process in which a model is loaded for the first time.

Started ahead of its work, with the libraries loaded; takes one package from its
standard input, answers with one JSON line and ends. It has limits on memory,
processor time and files, and nothing of the service's environment.
"""

import json
import resource
import struct
import sys
import time
from typing import BinaryIO

import numpy as np
from driftloop.models.onnx_model import OnnxModel
from driftloop.models.package import InputColumn
from driftloop.models.samples import check_samples

MEMORY_LIMIT_BYTES = 4 * 1024**3
CPU_LIMIT_S = 60
WARM_UP_CALLS = 20
CALLS = 500

LENGTH = struct.Struct(">Q")


def write_frame(stream: BinaryIO, data: bytes) -> None:
    """Write one length-prefixed piece."""
    stream.write(LENGTH.pack(len(data)) + data)


def read_frame(stream: BinaryIO) -> bytes:
    """Read one piece.

    Raises
    ------
    EOFError
        When the service that was to write it has gone.
    """
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (size,) = LENGTH.unpack(head)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def try_model(model: bytes, inputs: list[InputColumn], samples: bytes) -> float:
    """Run the samples; return the p99 latency of one row, in milliseconds.

    In processor time of the one thread that predicts: what other processes take
    from this machine while the model is tried is not the model's.

    Raises
    ------
    FormatRefused, InputRefused, SamplesRefused
        Says what is wrong with the model.
    """
    loaded = OnnxModel(model, inputs, threads=1)
    row = check_samples(loaded, inputs, samples).slice(0, 1)
    for _ in range(WARM_UP_CALLS):
        loaded.predict(row)
    durations = []
    for _ in range(CALLS):
        started = time.thread_time()
        loaded.predict(row)
        durations.append(time.thread_time() - started)
    return float(np.percentile(durations, 99)) * 1000


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    _limit()
    try:
        columns = json.loads(read_frame(sys.stdin.buffer))
        model, samples = read_frame(sys.stdin.buffer), read_frame(sys.stdin.buffer)
    except EOFError:
        return 0  # the service ended while this child waited
    try:
        inputs = [InputColumn.model_validate(column) for column in columns]
        answer: dict[str, object] = {
            "latency_p99_ms": try_model(model, inputs, samples)
        }
    except Exception as error:  # noqa: BLE001 - whatever a model provokes is a verdict
        answer = {"problem": f"{type(error).__name__}: {error}"[:1000]}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
