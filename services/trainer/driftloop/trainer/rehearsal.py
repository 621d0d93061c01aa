"""A training on rows of our own, before there is a job: it warms what a job uses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake
from driftloop.contracts.events import DatasetRef, Span, TableRef, Trigger
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.trainer import core
from driftloop.trainer.request import JobRequest

ROWS = 200
START = datetime(2000, 1, 1, tzinfo=UTC)
SPEC = PipelineSpec.model_validate(
    {
        "name": "rehearsal",
        "task": "regression",
        "data": {
            "target": "y",
            "features": {"x": {"type": "number"}, "kind": {"type": "category"}},
        },
        "train": {"candidates": ["linear"], "min_rows": 100},
    }
)


def rehearsed_request(table: Path) -> JobRequest:
    """Write the rows to a new table and return the request to learn from them."""
    times = [START + timedelta(hours=number) for number in range(ROWS)]
    numbers = [float(number % 7) for number in range(ROWS)]
    rows = pa.table(
        {
            "id": [str(number) for number in range(ROWS)],
            "event_time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "source": ["rehearsal"] * ROWS,
            "x": numbers,
            "kind": ["even" if number % 2 else "odd" for number in range(ROWS)],
            "y": [3 * x + number % 2 for number, x in enumerate(numbers)],
        }
    )
    write_deltalake(str(table), rows)
    labelled = Span(start=times[0], end=times[-1])
    train_span, holdout_span = core.plan(labelled, SPEC.train)
    return JobRequest(
        job_id="rehearsal",
        trigger=Trigger(event_id="none", event_type="none", reason="rehearsal"),
        spec=SPEC,
        dataset=DatasetRef(observations=TableRef(uri=str(table), version=0)),
        train_span=train_span,
        holdout_span=holdout_span,
    )
