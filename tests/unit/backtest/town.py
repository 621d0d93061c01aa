"""A small town whose law is another one from a day on: rows, a pipeline, a backtest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from driftloop.backtest.plan import Plan
from driftloop.backtest.run import Say, run
from driftloop.contracts.pipeline import PipelineSpec

START = datetime(2024, 1, 1, tzinfo=UTC)
ROWS, TURN, WINDOW = 1200, 700, 140
TURNED_AT = START + timedelta(hours=TURN)


def spec(**sections: Any) -> PipelineSpec:
    content: dict[str, Any] = {
        "name": "town",
        "task": "regression",
        "data": {
            "target": "y",
            "features": {"a": {"type": "number"}, "b": {"type": "number"}},
        },
        "train": {"candidates": ["linear"], "min_rows": 100, "window_days": 8},
        "retrain": {"first_rows": 200, "cooldown_days": 6},
        "monitor": {"window_rows": WINDOW},
        "rollout": {"shadow_rows": 24, "steps": [0.5], "step_rows": 24,
                    "watch_rows": 24},
    }  # fmt: skip
    for name, values in sections.items():
        content[name] = content.get(name, {}) | values
    return PipelineSpec.model_validate(content)


def rows(count: int = ROWS, turn: int = TURN, seed: int = 3) -> pa.Table:
    """Return hourly rows; from ``turn`` on what ``a`` meant is what ``b`` means."""
    dice = np.random.default_rng(seed)
    a, b = dice.normal(0, 1, count), dice.normal(0, 1, count)
    first, second = np.where(np.arange(count) < turn, (a, b), (b, a))
    y = 10 + 4 * first + second + dice.normal(0, 0.5, count)
    times = [START + timedelta(hours=n) for n in range(count)]
    return pa.table(
        {
            "id": [f"r{n}" for n in range(count)],
            "event_time": pa.array(times, pa.timestamp("us", "UTC")),
            "source": ["town"] * count,
            "a": a, "b": b, "y": y,
        }
    )  # fmt: skip


def table(folder: Path, found: pa.Table | None = None) -> str:
    write_deltalake(str(folder), rows() if found is None else found)
    return str(folder)


def backtested(
    source: str, say: Say = lambda _: None, **settings: Any
) -> dict[str, Any]:
    """Make a backtest in this process."""
    asked: dict[str, Any] = {"spec": spec(), "source": source, "workers": 1}
    return run(Plan(**(asked | settings)), say)


def line(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(p for p in report["policies"] if p["name"] == name)
    return found
