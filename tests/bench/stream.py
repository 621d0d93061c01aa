"""Rows from publish to dataset version through a real Kafka, and what holds them up.

The whole local stack runs, as a user's does; one process each of ingest and
validator. What they say of themselves at ``/metrics`` tells CPU and steps apart.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import polars as pl
import pyarrow as pa
from driftloop.cli.context import Installation, connect
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.local import stack
from prometheus_client.parser import text_string_to_metric_families

from tests.bench import chain
from tests.bench.figures import Figure

SIZES = ((24, 300), (500, 100), (5_000, 20))
"""Rows of a message, and messages."""
WARM_MESSAGES = 5
NEVER = 1_000_000_000
STEP = "driftloop_validator_step_seconds_sum"
HANDLER = "driftloop_handler_duration_seconds_sum"
TOPIC = "batch-ingested"

MakeRows = Callable[..., pa.RecordBatch]
Samples = Mapping[tuple[str, str], float]
"""By name of the metric and what tells its samples apart."""


def through_kafka(part: str, spec: PipelineSpec, rows_of: MakeRows) -> Iterator[Figure]:
    """Yield rows a second for several sizes of messages, and where the time goes.

    Parameters
    ----------
    rows_of : makes rows from their number, the share of broken ones and a seed.
    """
    quiet = {"on_drift": False, "first_rows": NEVER}  # no training beside it
    spec = PipelineSpec.model_validate(spec.model_dump() | {"retrain": quiet})
    with tempfile.TemporaryDirectory(prefix="driftloop-bench-") as folder:
        home = Path(folder) / "home"
        try:
            stack.up(home)
            installation = connect(home)
            for size, messages in SIZES:
                one = spec.model_copy(update={"name": f"{spec.name}-{size}"})
                chain.apply(installation, one)
                yield from _measured(part, one, installation, rows_of, size, messages)
        finally:
            stack.down(home)


def _measured(
    part: str,
    spec: PipelineSpec,
    installation: Installation,
    rows_of: MakeRows,
    size: int,
    messages: int,
) -> Iterator[Figure]:
    frames = [_frame(rows_of, size, number) for number in range(messages)]
    warm, measured = frames[:WARM_MESSAGES], frames[WARM_MESSAGES:]
    _send(installation, spec, warm)
    before = {name: _metrics(installation, name) for name in ("ingest", "validator")}
    started = time.perf_counter()
    _send(installation, spec, measured)
    seconds = time.perf_counter() - started
    rows = size * len(measured)
    what = f"publish to dataset version, {size} rows a message"
    yield Figure(part, what, "rows/s", rows / seconds)
    for service, was in before.items():
        now = _metrics(installation, service)
        cpu = _grown(was, now, "process_cpu_seconds_total")
        yield Figure(part, f"{what}: {service}", "rows/CPU-s", rows / cpu)
    was = before["validator"]
    whole = _grown(was, now, HANDLER, TOPIC)
    shares = {
        step: _grown(was, now, STEP, step) / whole
        for step in ("ids", "checks", "dataset")
    }
    shares["decode, commit, publish"] = 1 - sum(shares.values())
    for step, share in shares.items():
        yield Figure(part, f"{what}: validator's {step}", "% of its time", 100 * share)


def _frame(rows_of: MakeRows, size: int, number: int) -> pl.DataFrame:
    frame = pl.DataFrame(pl.from_arrow(rows_of(size, 0.0, number)))
    ids = pl.format("{}-{}", pl.lit(number), pl.col("id"))
    return frame.select(ids.alias("id"), *_own(frame), time="event_time")


def _own(frame: pl.DataFrame) -> list[str]:
    return [n for n in frame.columns if n not in ("id", "event_time", "source")]


def _send(
    installation: Installation, spec: PipelineSpec, frames: list[pl.DataFrame]
) -> None:
    """Publish frames and return when the last row is in the dataset.

    Raises
    ------
    TimeoutError
        When it does not come there.
    """
    wanted = _validated(installation, spec) + sum(map(len, frames))
    chain.send(installation, spec, frames)
    until = time.monotonic() + chain.STEP_TIMEOUT_S
    while _validated(installation, spec) < wanted:
        if time.monotonic() > until:
            raise TimeoutError(f"{spec.name}: not all rows are validated")
        time.sleep(chain.POLL_S)


def _validated(installation: Installation, spec: PipelineSpec) -> float:
    found = _metrics(installation, "validator")
    return found.get(("driftloop_validator_rows_total", spec.name), 0.0)


def _grown(was: Samples, now: Samples, name: str, label: str = "") -> float:
    return now[name, label] - was.get((name, label), 0.0)


def _metrics(installation: Installation, service: str) -> Samples:
    """Return what a service says; of rows those that were validated."""
    port = stack.status(installation.home)["processes"][service]["port"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            if labels.get("outcome") == "quarantined":
                continue
            keys = (labels[k] for k in ("step", "topic", "pipeline") if k in labels)
            found[name, next(keys, "")] = value
    return found
