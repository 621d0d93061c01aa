"""The registry's handlers over a database, and a pipeline's life as events."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from driftloop.contracts.base import Chain, Event, Meta, derived_id
from driftloop.contracts.events import (
    BatchRejected,
    DatasetRef,
    DatasetVersioned,
    LineageReported,
    ModelTrained,
    PipelineApplied,
    RejectReason,
    Span,
    TableRef,
    TrainingFailed,
    TrainingStarted,
    Trigger,
)
from driftloop.registry.app import SERVICE
from driftloop.registry.gate import Cost, PackageFinding
from driftloop.registry.handlers import HANDLERS, Deps
from driftloop.registry.lineage.openlineage import Reporter
from driftloop.registry.recorded import RecordedVerdicts
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.handlers import handler_table
from driftloop.runtime.state import StateView
from sqlmodel import Session

from tests.unit.registry import story
from tests.unit.registry.story import NAME, START
from tests.unit.scorer.packages import Factory

DAY = timedelta(days=1)
TABLE = handler_table(HANDLERS)


def open_deps(
    automation: str, people: int = 1, recorded: RecordedVerdicts | None = None
) -> Iterator[Deps]:
    engine = open_database("sqlite://", SERVICE.tables)
    applied = PipelineApplied(
        pipeline=NAME, spec=story.spec(automation, people), applied_by="ada"
    )
    recorded = recorded or RecordedVerdicts()
    recorded.complete.set()
    with Session(engine) as session:
        yield Deps(
            session,
            StateView(PipelineApplied, {NAME: applied}),
            lambda _: PackageFinding(cost=Cost(0.5, 1.0, 3.0, 5.0)),
            recorded,
            FolderStore(Path("unused")),
            Reporter("here", "127.0.0.1:9092"),
            lambda revision: revision <= 3,
        )
    engine.dispose()


class Life:
    """Hands events to the handlers, and keeps what they tell, as the log would."""

    def __init__(self, deps: Deps, factory: Factory) -> None:
        self.deps = deps
        self.factory = factory
        self.log: list[Event] = []
        self.told: list[Event] = []

    def take(self, event: Event) -> list[Any]:
        """Handle an event that carries its meta; return what follows, with ids."""
        self.log.append(event)
        found = list(TABLE.by_topic[event.topic()](event, self.deps))
        self.deps.session.flush()
        counts: dict[str, int] = {}
        result: list[Event] = []
        for one in found:
            number = counts.get(one.topic(), 0)
            counts[one.topic()] = number + 1
            name = derived_id(event.meta.id, one.topic(), number)
            meta = Meta(
                name, event.meta.time, "/driftloop/registry", event.meta.chain,
                event.meta.id,
            )  # fmt: skip
            result.append(one.with_meta(meta))
        self.told += result
        return result

    def reports(self) -> list[LineageReported]:
        return [one for one in self.told if isinstance(one, LineageReported)]


def at(event: Event, event_id: str, day: float, cause: str | None = None) -> Any:
    moment = START + day * DAY
    return event.with_meta(Meta(event_id, moment, "/t", Chain(event_id), cause))


def ref(observations: int, labels: int | None = None) -> DatasetRef:
    place = f"/data/{NAME}"
    return DatasetRef(
        observations=TableRef(uri=f"{place}/observations", version=observations),
        labels=TableRef(uri=f"{place}/labels", version=labels) if labels else None,
    )


def day_span(day: float, days: float = 1) -> Span:
    return Span(start=START + day * DAY, end=START + (day + days) * DAY)


def versioned(day: int, dataset: DatasetRef | None = None, **more: Any) -> Any:
    """Return the version that a day's batch becomes."""
    event = DatasetVersioned(
        **{
            "pipeline": NAME,
            "kind": "observations",
            "dataset": dataset or ref(day),
            "added_count": 24,
            "observation_count": 24 * day,
            "label_count": 0,
            "span": day_span(day),
            "source": "counter",
            "quarantined_count": 1,
            "columns": {"id": "string", "temp": "double"},
            **more,
        }
    )
    cause = f"batch-{event.kind}-{day}"
    return at(event, derived_id(cause, "dataset-versioned", 0), day, cause)


def rejected(day: int, row_count: int, batch_row_count: int) -> Any:
    reason = RejectReason(check="range", field="temp", row_count=row_count, detail="x")
    event = BatchRejected(
        pipeline=NAME, shard="counter", row_count=row_count, span=day_span(day),
        batch_row_count=batch_row_count, reasons=[reason],
    )  # fmt: skip
    cause = f"batch-observations-{day}"
    return at(event, derived_id(cause, "batch-rejected", 0), day, cause)


def trigger(event_id: str, kind: str = "dataset-versioned", **more: Any) -> Trigger:
    return Trigger(event_id=event_id, event_type=kind, reason="first_model", **more)


def started(job: str, why: Trigger, dataset: DatasetRef, day: int) -> Any:
    event = TrainingStarted(
        pipeline=NAME, job_id=job, trigger=why, dataset=dataset,
        train_span=day_span(0, day), holdout_span=day_span(day),
    )  # fmt: skip
    return at(event, f"started-{job}", day, why.event_id)


def failed(job: str, why: Trigger, day: int) -> Any:
    event = TrainingFailed(
        pipeline=NAME, job_id=job, trigger=why, error="out of memory", attempts=3
    )
    return at(event, f"failed-{job}", day)


def trained(
    factory: Factory, job: str, why: Trigger, dataset: DatasetRef, day: int, **more: Any
) -> ModelTrained:
    worth = more.pop("worth", None) or story.evaluation()
    worth = worth.model_copy(update={"holdout_span": day_span(day)})
    event = story.trained(factory, job, worth, **more)
    span = day_span(0, day)
    event = event.model_copy(
        update={"trigger": why, "dataset": dataset, "train_span": span}
    )
    result: ModelTrained = at(event, f"trained-{job}", day, f"started-{job}")
    return result
