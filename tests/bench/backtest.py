"""How fast a backtest is: half a million rows under four policies, and the bounds.

A made-up stream, so that its length is free: eight numbers and a category, a binary
target, whose law changes four times. Batches and windows are those of a stream of
thousands of rows a day; the candidate is the linear one, as what is measured here is
the loop and not the fit.
"""

import os
import resource
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from driftloop.backtest.plan import Plan
from driftloop.cli.backtest.child import ask
from driftloop.contracts.pipeline import PipelineSpec

from tests.bench.figures import Figure

PART = "backtest"
ROWS, DAYS, NUMBERS, CHANGES = 500_000, 500, 8, 4
START = datetime(2024, 1, 1, tzinfo=UTC)
PATIENT = "{name: patient, retrain: {cooldown_days: 30}, monitor: {window_rows: 7000}}"
POLICIES = ("never", "every-60000")
LIMIT_S = 120.0
"""What the issue asks of 500,000 rows and four policies on two cores."""


def spec() -> PipelineSpec:
    """Return the pipeline of the stream."""
    features: dict[str, Any] = {f"x{n}": {"type": "number"} for n in range(NUMBERS)}
    features["kind"] = {"type": "category"}
    return PipelineSpec.model_validate(
        {
            "name": "stream",
            "task": "binary",
            "data": {"target": "y", "classes": ["no", "yes"], "features": features},
            "train": {"candidates": ["linear"], "window_days": 20},
            "retrain": {"first_rows": 5000, "cooldown_days": 5},
            "monitor": {"window_rows": 3500},
            "rollout": {"shadow_rows": 500, "steps": [0.2], "step_rows": 500,
                        "watch_rows": 1000},
        }
    )  # fmt: skip


def rows(count: int = ROWS) -> pa.Table:
    """Return the stream; its law changes :data:`CHANGES` times."""
    dice = np.random.default_rng(11)
    x = dice.normal(0, 1, (count, NUMBERS))
    kind = dice.integers(0, 5, count)
    laws = dice.normal(0, 1.5, (CHANGES + 1, NUMBERS))
    law = laws[np.arange(count) * (CHANGES + 1) // count]
    chance = 1 / (1 + np.exp(-(x * law).sum(axis=1) - kind / 3))
    step_us = DAYS * 86_400_000_000 // count
    times = int(START.timestamp() * 1e6) + np.arange(count, dtype=np.int64) * step_us
    return pa.table(
        {
            "id": [f"r{n}" for n in range(count)],
            "event_time": pa.array(times, pa.timestamp("us", "UTC")),
            "source": pa.repeat("bench", count),
            **{f"x{n}": x[:, n] for n in range(NUMBERS)},
            "kind": np.array(list("abcde"))[kind],
            "y": np.where(dice.uniform(size=count) < chance, "yes", "no"),
        }
    )


def changes() -> list[datetime]:
    """Return when the law changes."""
    return [
        START + timedelta(days=DAYS * n / (CHANGES + 1)) for n in range(1, CHANGES + 1)
    ]


def _cpu_seconds() -> float:
    """Return what this process and its ended children have used."""
    each = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, each))


def _backtest(plan: Plan) -> dict[str, Any]:
    """Ask the backtest's program, as the command line does: a thread a process."""
    return ask(plan.model_dump(mode="json"), plan.home, lambda _: None)


def run() -> Iterator[Figure]:
    """Measure the part; ``DRIFTLOOP_BENCH_ROWS`` takes a shorter stream."""
    count = int(os.environ.get("DRIFTLOOP_BENCH_ROWS", ROWS))
    with tempfile.TemporaryDirectory(prefix="driftloop-bench-") as folder:
        source, patient = Path(folder) / "rows", Path(folder) / "patient.yaml"
        write_deltalake(str(source), rows(count))
        patient.write_text(PATIENT)
        asked: dict[str, Any] = {
            "spec": spec(), "source": str(source), "known_drifts": changes(),
            "workers": 2, "bounds": False, "home": folder,
        }  # fmt: skip
        four = [str(patient), *POLICIES]
        began, used = time.monotonic(), _cpu_seconds()
        report = _backtest(Plan(**asked, policies=four))
        took, used = time.monotonic() - began, _cpu_seconds() - used
        label = f"{count:,} rows, {len(report['policies'])} policies"
        yield Figure(PART, f"{label}, whole", "s", took, "what was asked", LIMIT_S)
        yield Figure(PART, f"{label}, all processes together", "CPU s", used)
        done = count * len(report["policies"])
        yield Figure(PART, f"{label}, rows answered", "rows/s", done / took)
        lived = timedelta(days=DAYS).total_seconds()
        yield Figure(PART, f"{label}, faster than life", "times", lived / took)
        for line in report["policies"]:
            yield Figure(PART, f"{label}, {line['name']}", "log loss", line["loss"])
            count_of = float(line["trainings"])
            yield Figure(PART, f"{label}, {line['name']}: trainings", "", count_of)
        began = time.monotonic()
        _backtest(Plan(**asked, policies=[*four, "oracle"]))
        took = time.monotonic() - began
        yield Figure(PART, f"{label}, and the oracle", "s", took)
