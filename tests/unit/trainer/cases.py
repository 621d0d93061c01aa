"""Small pipelines, rows and requests for the trainer's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from driftloop.contracts.base import Chain, Meta
from driftloop.contracts.events import (
    DatasetRef,
    DatasetVersioned,
    DriftDetected,
    Evidence,
    RetrainRequested,
    Span,
    TableRef,
    Trigger,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.trainer import core
from driftloop.trainer.core import Data
from driftloop.trainer.request import JobRequest

START = datetime(2011, 1, 1, tzinfo=UTC)
NAME = "bikes"


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def spec(**sections: Any) -> PipelineSpec:
    content: dict[str, Any] = {
        "name": NAME,
        "task": "regression",
        "data": {
            "target": "y",
            "features": {
                "a": {"type": "number", "nullable": True},
                "kind": {"type": "category", "nullable": True},
            },
        },
        "train": {"min_rows": 100, "candidates": ["linear"]},
        "retrain": {"first_rows": 1000, "cooldown_days": 7},
    }
    for section, values in sections.items():
        merged = {**content.get(section, {}), **values} if isinstance(
            values, dict
        ) else values  # fmt: skip
        content[section] = merged
    return PipelineSpec.model_validate(content)


def meta(event_id: str) -> Meta:
    return Meta(event_id, START, "/test", Chain(f"chain-{event_id}"))


def dataset(version: int = 0, uri: str = "table") -> DatasetRef:
    return DatasetRef(observations=TableRef(uri=uri, version=version))


def data(label_count: int = 2000, end: float = 100) -> Data:
    return Data(dataset(), label_count, label_count, Span(start=START, end=day(end)))


def drift(at: float = 100, *, version: int | None = 1, **changes: Any) -> DriftDetected:
    fields: dict[str, Any] = {
        "pipeline": NAME,
        "model_version": version,
        "cause": "concept_drift",
        "retrain_advised": True,
        "since": day(at - 3),
        "detected_at": day(at),
        "evidence": [
            Evidence(signal="error", detector="KS", statistic=1.0, row_count=100)
        ],
        "explanation": "errors doubled",
    }
    return DriftDetected.model_validate(fields | changes)


def fault(since: float, at: float, **changes: Any) -> DriftDetected:
    """A sensor's fault of the column ``a`` in all rows."""
    said = {
        "cause": "sensor_fault",
        "retrain_advised": False,
        "since": day(since),
        "features": ["a"],
        "faulty": "rows",
    }
    return drift(at, **(said | changes))


def request() -> RetrainRequested:
    return RetrainRequested(pipeline=NAME, requested_by="ada", reason="to see")


def versioned(
    label_count: int, end: float, *, kind: str = "observations", start: float = 0
) -> DatasetVersioned:
    return DatasetVersioned.model_validate(
        {
            "pipeline": NAME,
            "kind": kind,
            "dataset": dataset(int(end)),
            "added_count": 24,
            "observation_count": 5000,
            "label_count": label_count,
            "span": Span(start=day(start), end=day(end)),
        }
    )


def rows(count: int = 400, *, task: str = "regression", seed: int = 0) -> pa.Table:
    """Hourly rows: y = 3 a + 10 for "big"; some values are missing."""
    draw = np.random.default_rng(seed)
    a = draw.normal(size=count).astype(object)
    kind = draw.choice(["big", "small", "odd"], count).astype(object)
    truth = np.array(
        [3 * v + (10 if k == "big" else 0) for v, k in zip(a, kind, strict=True)]
    )
    y: Any = truth + draw.normal(scale=0.1, size=count)
    if task == "binary":
        y = np.where(y > 4, "yes", "no")
    elif task == "multiclass":
        y = np.where(y > 8, "high", np.where(y > 0, "middle", "low"))
    a[::17] = None
    kind[::23] = None
    times = [START + timedelta(hours=i) for i in range(count)]
    return pa.table(
        {
            "id": [f"r{i:05d}" for i in range(count)],
            "event_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "source": ["test"] * count,
            "a": pa.array(a.tolist(), pa.float64()),
            "kind": pa.array(kind.tolist(), pa.string()),
            "y": pa.array(y.tolist()),
        }
    )


def job(uri: Path, table: pa.Table, how: PipelineSpec) -> JobRequest:
    """A request over all rows of a table that was written to ``uri``."""
    times = table["event_time"].to_pylist()
    train_span, holdout_span = core.plan(Span(start=times[0], end=times[-1]), how.train)
    return JobRequest(
        job_id="job",
        trigger=Trigger(event_id="cause", event_type="x", reason="first_model"),
        spec=how,
        dataset=dataset(0, str(uri)),
        train_span=train_span,
        holdout_span=holdout_span,
    )


def quiet(*_: object) -> None:
    """Report no progress."""
