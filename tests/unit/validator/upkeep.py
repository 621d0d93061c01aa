"""The validator's handlers over real tables, to see what maintenance leaves of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    BatchIngested,
    DatasetMaintained,
    DatasetRef,
    DatasetVersioned,
    MaintenanceRequested,
    PipelineApplied,
    RowKind,
    Span,
    TrainingStarted,
    Trigger,
)
from driftloop.contracts.pipeline import PipelineSpec, Retention, parse_pipeline
from driftloop.runtime.data.reading import read_table, read_version
from driftloop.runtime.data.vacuum import SPARE
from driftloop.runtime.database import open_database
from driftloop.runtime.handlers import handler_table
from driftloop.runtime.state import StateView
from driftloop.validator.app import SERVICE
from driftloop.validator.datasets import Datasets
from driftloop.validator.handlers import HANDLERS, ValidatorDeps
from sqlmodel import Session

NAME = "bikes"
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
FILE = (
    f"{{name: {NAME}, task: regression, "
    "data: {target: cnt, features: {temp: {}}}}"
)


def spec_of(keep_days: float | None, *, vacuums: bool = True) -> PipelineSpec:
    """Return a pipeline that keeps no version that nobody needs, however young."""
    spec = parse_pipeline(FILE)
    no_age = -SPARE / DAY if vacuums else None
    rules = Retention.model_construct(keep_days=keep_days, keep_versions_days=no_age)
    data = spec.data.model_copy(update={"retention": rules})
    return spec.model_copy(update={"data": data})


class Bench:
    """The validator's handlers over real tables, with time in our hands."""

    def __init__(self, path: Path, spec: PipelineSpec) -> None:
        self.path = path
        self.spec = spec
        self.engine = open_database(f"sqlite:///{path}/validator.db", SERVICE.tables)
        self.datasets = self.open()
        self.offset = -1
        self.now = datetime(2024, 6, 1, tzinfo=UTC)
        self.known = True

    def open(self) -> Datasets:
        return Datasets(lambda pipeline, kind: str(self.path / pipeline / kind))

    def restart(self) -> None:
        """Forget everything that a process holds in its memory."""
        self.datasets = self.open()

    def handle(self, event: Event, *, killed: bool = False) -> list[Any]:
        """Handle a message; ``killed``: the process ends before its commit."""
        if not killed:
            self.offset += 1
        offset = self.offset + killed
        meta = Meta(
            f"e{offset}", self.now, "/", Chain("c"), None, "batch-ingested", 0, offset
        )
        applied = PipelineApplied(pipeline=NAME, spec=self.spec, applied_by="ann")
        handler = handler_table(HANDLERS).by_topic[event.topic()]
        with Session(self.engine) as session:
            deps = ValidatorDeps(
                session=session,
                pipelines=StateView(PipelineApplied, {NAME: applied}),
                datasets=self.datasets,
                are_references_known=lambda _: self.known,
            )
            events = list(handler(event.with_meta(meta), deps))
            if not killed:
                session.commit()
        return events

    def batch(
        self,
        day: float,
        *ids: str,
        kind: RowKind = "observations",
        value: float | None = None,
        revision: int = 0,
        killed: bool = False,
    ) -> DatasetVersioned:
        """Handle rows of one day; return the version that they became."""
        event = rows_of(day, ids, kind, value, revision)
        found = self.handle(event, killed=killed)
        self.told = [e for e in found if isinstance(e, DatasetMaintained)]
        return next(e for e in found if isinstance(e, DatasetVersioned))

    def train(self, job: str, dataset: DatasetRef) -> None:
        span = Span(start=BEGIN, end=BEGIN)
        self.handle(
            TrainingStarted(
                pipeline=NAME, job_id=job, trigger=TRIGGER, dataset=dataset,
                train_span=span, holdout_span=span,
            )
        )  # fmt: skip

    def maintain(self) -> DatasetMaintained:
        found = self.handle(MaintenanceRequested(pipeline=NAME, requested_by="ann"))
        assert isinstance(found[-1], DatasetMaintained)
        return found[-1]


TRIGGER = Trigger(event_id="e", event_type="t", reason="first_model")


def rows_of(
    day: float,
    ids: tuple[str, ...],
    kind: RowKind,
    value: float | None = None,
    revision: int = 0,
) -> BatchIngested:
    moment = BEGIN + day * DAY
    columns: dict[str, Any] = {
        "id": list(ids),
        "event_time": pa.array([moment] * len(ids), pa.timestamp("us", "UTC")),
        "source": ["s"] * len(ids),
        "cnt": pa.array([value] * len(ids), pa.float64()),
    }
    if kind == "labels":
        columns["revision"] = [revision] * len(ids)
    else:
        columns["temp"] = [1.0] * len(ids)
    return BatchIngested(
        pipeline=NAME,
        shard="s",
        kind=kind,
        row_count=len(ids),
        span=Span(start=moment, end=moment),
        watermark=moment,
    ).with_rows(pa.RecordBatch.from_pydict(columns))


def ids(dataset: DatasetRef, kind: RowKind = "observations") -> list[str]:
    ref = dataset.observations if kind == "observations" else dataset.labels
    assert ref is not None
    return sorted(read_table(ref, None)["id"].to_list())


def content(dataset: DatasetRef) -> str:
    """Return all that a version says, in one order."""
    rows = read_version(dataset, "cnt", None).sort("id")
    return rows.select(sorted(rows.columns)).write_json()


def folder(bench: Bench) -> Path:
    return bench.path / NAME / "observations"
