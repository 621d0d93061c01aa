"""What a handler of the monitor works with while it handles one message."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from driftloop.contracts.base import Event
from driftloop.contracts.events import DriftDetected, Evaluation, PackageRef
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.monitor import ending, faults, metrics, store
from driftloop.monitor.feature_drift import Kind
from driftloop.monitor.state import Watch
from driftloop.runtime.handlers import Deps


@dataclass(frozen=True)
class Packaged:
    """What the monitor wants of a model package.

    Attributes
    ----------
    sample : rows it learned from, with its predictions; None: it holds none.
    holdout : rows that judged it, likewise.
    classes : labels in the order of scores; none for a regression.
    """

    evaluation: Evaluation
    sample: pa.Table | None
    holdout: pa.Table | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MonitorDeps(Deps):
    """What the monitor's handlers use.

    Attributes
    ----------
    open_package : returns a package's verified content; Reject, Retry as the
        package library says.
    """

    open_package: Callable[[PackageRef], Packaged]


@dataclass
class Turn:
    """One message: the pipeline, its state as it changes, what is told."""

    spec: PipelineSpec
    deps: MonitorDeps
    watch: Watch
    known: dict[int, Any] = field(default_factory=dict)
    """Labelled rows by version that were read in this turn: see ``estimates``."""

    def told(self, conclusion: faults.Conclusion) -> Iterator[Event]:
        self.watch, events = conclusion
        self.watch = ending.noted(self.watch, events)
        for event in events:
            if isinstance(event, DriftDetected):
                metrics.VERDICTS.labels(event.pipeline, event.cause).inc()
            yield event
        metrics.OPEN_FAULTS.labels(self.watch.pipeline).set(len(self.watch.faults))

    def save(self) -> None:
        store.save_watch(self.deps.session, self.watch)


def turn_of(event: Event, deps: MonitorDeps) -> Turn:
    spec = deps.pipeline(event.pipeline)
    return Turn(spec, deps, store.load_watch(deps.session, event.pipeline))


def kinds_of(spec: PipelineSpec, rows: pa.RecordBatch | pa.Table) -> dict[str, Kind]:
    """Types of the features, as declared or else as the columns are.

    Of a datetime its age at event time is watched. Texts are left out: each is another
    one, so their distribution says nothing.
    """
    if spec.data.features:
        return {
            name: feature.type
            for name, feature in spec.data.features.items()
            if feature.type != "text"
        }
    left_out = {"id", "event_time", "source", spec.data.target, *spec.data.attachments}
    return {
        field.name: _kind_of(field.type)
        for field in rows.schema
        if field.name not in left_out
    }


def _kind_of(type_: pa.DataType) -> Kind:
    if pa.types.is_boolean(type_):
        return "boolean"
    if pa.types.is_integer(type_):
        return "integer"
    if pa.types.is_timestamp(type_):
        return "datetime"
    return "number" if pa.types.is_floating(type_) else "category"


def newest_rows(rows: pa.Table, most: int) -> pa.Table:
    return rows.slice(max(0, rows.num_rows - most))
