"""The monitor's handlers on a database in a file, message by message.

What a service does with a message of rows and with the answers to them, but for Kafka:
rows are stored, compared with those before them and with the reference, labels meet
their answers, windows of answers are estimated and settled, and all is committed.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    BatchScored,
    BatchValidated,
    Evaluation,
    ModelDeployed,
    PackageRef,
    PairedComparison,
    PipelineApplied,
    Span,
)
from driftloop.contracts.pipeline import PipelineSpec, load_pipeline
from driftloop.monitor.handlers import HANDLERS
from driftloop.monitor.tables import TABLES
from driftloop.monitor.turn import MonitorDeps, Packaged
from driftloop.runtime import collecting
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import Skip
from driftloop.runtime.handlers import event_of
from driftloop.runtime.state import StateView
from pyarrow import csv
from sqlmodel import Session

BIKES = Path(__file__).parents[2] / "examples/bike-demand"
REFERENCE_ROWS, HOLDOUT_ROWS = 2000, 1000
"""As the trainer keeps them."""
START = datetime(2026, 1, 1, tzinfo=UTC)
BETWEEN = timedelta(seconds=2)
"""Of the wide rows: a message of 2,000 is then more than an hour, so that each closes a
window, which is the dearest that a message can be."""
NOISE = 0.5
BY_TOPIC = {event_of(handler).topic(): handler for handler in HANDLERS}
PACKAGE = PackageRef(uri="artifact:", digest="0" * 64, signer="bench")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Served:
    """A pipeline, what its version learned from, and the rows that it answers.

    Attributes
    ----------
    reference, holdout, rows : features, target and ``prediction``, in order of time.
    """

    spec: PipelineSpec
    reference: pa.Table
    holdout: pa.Table
    rows: pa.Table

    def messages(
        self, message_rows: int
    ) -> Iterator[tuple[BatchValidated, BatchScored]]:
        """Yield the rows of each message, which carry their labels, and the answers."""
        for first in range(0, self.rows.num_rows, message_rows):
            (batch,) = (
                self.rows.slice(first, message_rows).combine_chunks().to_batches()
            )
            times = batch.column("event_time")
            span = Span(start=times[0].as_py(), end=times[-1].as_py())
            common = {
                "pipeline": self.spec.name,
                "shard": "bench",
                "row_count": batch.num_rows,
                "span": span,
            }
            rows = batch.drop_columns(["prediction"])
            yield (
                BatchValidated(**common, watermark=span.end).with_rows(rows),
                BatchScored(
                    **common, champion_version=1, candidate_version=None,
                    duration_seconds=0.01,
                ).with_rows(
                    pa.RecordBatch.from_pydict(
                        {
                            "id": batch.column("id"),
                            "event_time": times,
                            "champion_prediction": batch.column("prediction"),
                        }
                    )
                ),
            )  # fmt: skip


def wide(columns: int, row_count: int, window_rows: int, seed: int) -> Served:
    """Return rows of so many numbers, a regression whose law stays the same."""
    names = [f"n{i}" for i in range(columns)]
    spec = PipelineSpec.model_validate(
        {
            "name": "wide",
            "task": "regression",
            "data": {
                "target": "y",
                "features": {name: {"type": "number"} for name in names},
            },
            "monitor": {"window_rows": window_rows},
        }
    )
    draw = np.random.default_rng(seed)
    total = REFERENCE_ROWS + HOLDOUT_ROWS + row_count
    matrix = draw.standard_normal((total, columns))
    said = matrix @ draw.standard_normal(columns)
    first = START - (REFERENCE_ROWS + HOLDOUT_ROWS) * BETWEEN
    table = pa.table(
        {
            "id": [f"{number:08d}" for number in range(total)],
            "event_time": pa.array(
                [first + number * BETWEEN for number in range(total)],
                pa.timestamp("us", "UTC"),
            ),
            "source": ["bench"] * total,
            **{name: matrix[:, at] for at, name in enumerate(names)},
            "y": said + NOISE * draw.standard_normal(total),
            "prediction": said,
        }
    )
    return _parted(spec, table)


def bikes(copies: int) -> Served:
    """Return the bike rentals several times over, with answers that are a bit wrong."""
    spec = load_pipeline(BIKES / "pipeline.yaml")
    as_text = csv.ConvertOptions(column_types={"id": pa.string()})
    table = csv.read_csv(BIKES / "rentals.csv", convert_options=as_text)
    times = table.column("time").cast(pa.timestamp("us", "UTC"))
    first, last = times[0].as_py(), times[-1].as_py()
    length = last - first + timedelta(hours=1)
    draw = np.random.default_rng(20261127)
    target = table.column("cnt").to_numpy().astype(np.float64)
    parts = []
    for copy in range(copies):
        moved = pa.chunked_array(times).cast(pa.int64()).to_numpy()
        moved = pa.array(moved + copy * (length // timedelta(microseconds=1)))
        said = target * np.exp(0.2 * draw.standard_normal(len(target)))
        named = {
            "id": moved.cast(pa.string()),
            "event_time": moved.cast(pa.timestamp("us", "UTC")),
            "source": pa.array(["bench"] * len(target)),
        }
        features = {n: table.column(n) for n in [*spec.data.features, "cnt"]}
        parts.append(pa.table(named | features | {"prediction": said}))
    return _parted(spec, pa.concat_tables(parts))


def _parted(spec: PipelineSpec, table: pa.Table) -> Served:
    holdout = table.slice(REFERENCE_ROWS, HOLDOUT_ROWS)
    rest = table.slice(REFERENCE_ROWS + HOLDOUT_ROWS)
    return Served(spec, table.slice(0, REFERENCE_ROWS), holdout, rest)


class Handling:
    """The monitor of one pipeline; adds up the processor time of its handlers."""

    def __init__(self, served: Served, folder: Path) -> None:
        self._served = served
        spec = served.spec
        applied = PipelineApplied(pipeline=spec.name, spec=spec, applied_by="bench")
        self._engine = open_database(f"sqlite:///{folder}/monitor.db", TABLES)
        level = float(
            np.mean(
                np.abs(
                    served.holdout.column(spec.data.target).to_numpy()
                    - served.holdout.column("prediction").to_numpy()
                )
            )
        )
        target = served.holdout.column(spec.data.target).to_numpy()
        evaluation = Evaluation(
            metric=spec.metric,
            holdout_span=Span(start=START - timedelta(days=1), end=START),
            holdout_row_count=HOLDOUT_ROWS,
            candidate=level,
            baseline=float(np.mean(np.abs(target - np.median(target)))),
            comparison=PairedComparison(
                mean_difference=-level,
                standard_error=level / 10,
                row_count=HOLDOUT_ROWS,
            ),
        )
        packaged = Packaged(evaluation, served.reference, served.holdout)
        self._pipelines = StateView(PipelineApplied, {spec.name: applied})
        self._open_package = lambda _: packaged
        collecting.keep_what_is_built()  # as a service does before its first message
        self._numbers = count()
        self.told: list[str] = []
        """Topics of what the handlers told."""
        self.seconds: dict[str, float] = {}
        """Processor time of the handlers and their commits, by topic."""
        self.take(
            ModelDeployed(
                pipeline=spec.name, rollout_id="r1", version=1, package=PACKAGE
            )
        )

    def take(self, event: Event) -> list[Event]:
        """Handle an event in a transaction of its own, as the runner does."""
        number = next(self._numbers)
        event = event.with_meta(Meta(f"e{number}", START, "/bench", Chain("c")))
        began = time.process_time()
        with Session(self._engine) as session:
            deps = MonitorDeps(
                session=session,
                pipelines=self._pipelines,
                open_package=self._open_package,
            )
            try:
                told = list(BY_TOPIC[event.topic()](event, deps))
            except Skip:
                told = []
            session.commit()
        took = time.process_time() - began
        self.seconds[event.topic()] = self.seconds.get(event.topic(), 0.0) + took
        self.told += [one.topic() for one in told]
        return told

    def close(self) -> None:
        self._engine.dispose()


def handled(served: Served, message_rows: int, folder: Path) -> tuple[int, float]:
    """Return how many rows were handled, and the processor time that it took.

    The first tenth of the messages is left out: windows and tables fill.
    """
    handling = Handling(served, folder)
    messages = list(served.messages(message_rows))
    warm = len(messages) // 10
    row_count = 0
    for number, (rows, answers) in enumerate(messages):
        if number == warm:
            handling.seconds.clear()
            row_count = 0
        handling.take(rows)
        handling.take(answers)
        row_count += rows.row_count
    handling.close()
    return row_count, sum(handling.seconds.values())
