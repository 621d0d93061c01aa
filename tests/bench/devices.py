"""A network on the CPU and, where there is one, on the GPU: seconds, and the loss.

Not among the parts of a plain ``make bench``: it says little without a GPU.
"""

import statistics
import time
from collections.abc import Iterator

import numpy as np
from driftloop.contracts.networks import NetworksSection
from driftloop.trainer.candidates import Sample, candidate
from driftloop.trainer.candidates.machine import Machine
from driftloop.trainer.candidates.torch_place import gpus

from tests.bench.figures import Figure

PART = "devices"
ROWS, RESTS, COLUMNS = 200_000, 50_000, 32
BATCH_ROWS = 4096
"""A GPU that gets a few rows at once waits for the next ones most of the time."""
NOISE = 0.3
SEED = 20261125


def run() -> Iterator[Figure]:
    """Measure the part."""
    ways = [("cpu", "float32"), ("cpu", "bfloat16")]
    if gpus():
        ways += [("cuda", "float32"), ("cuda", "bfloat16")]
    first_s = first_loss = 0.0
    for device, precision in ways:
        seconds, loss = measured(device, precision)
        first_s, first_loss = first_s or seconds, first_loss or loss
        name = f"mlp of {ROWS:,} rows, {device} {precision}"
        yield Figure(PART, f"{name}: fit", "s", seconds, "cpu float32", first_s)
        yield Figure(PART, f"{name}: rmse", "", loss, "cpu float32", first_loss)


def measured(device: str, precision: str) -> tuple[float, float]:
    """Return the seconds of a fit, and the loss on rows that it has not seen."""
    draw = np.random.default_rng(SEED)
    matrix = draw.normal(size=(ROWS + RESTS, COLUMNS)).astype(np.float32)
    truth = np.sin(2 * matrix[:, 0]) + matrix[:, 1] * matrix[:, 2]
    target = truth + draw.normal(scale=NOISE, size=len(truth))
    how = NetworksSection(precision=precision, batch_rows=BATCH_ROWS)
    sample = Sample(
        matrix[:ROWS], target[:ROWS].astype(np.float64), (), SEED,
        machine=Machine(device=device), networks=how,
    )  # fmt: skip
    started = time.perf_counter()
    core = candidate("mlp")(sample)
    seconds = time.perf_counter() - started
    errors = core.predict(matrix[ROWS:]) - truth[ROWS:]
    return seconds, float(np.sqrt(statistics.fmean(errors**2)))
