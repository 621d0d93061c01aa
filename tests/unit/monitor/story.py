"""A small shop whose demand is ten times its size: events, and a monitor in process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    BatchRejected,
    BatchScored,
    BatchValidated,
    Evaluation,
    ModelDeployed,
    PackageRef,
    PairedComparison,
    PipelineApplied,
    RejectReason,
    RowKind,
    Span,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.monitor.handlers import HANDLERS
from driftloop.monitor.tables import TABLES
from driftloop.monitor.turn import MonitorDeps, Packaged
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import Skip
from driftloop.runtime.handlers import event_of
from driftloop.runtime.state import StateView
from sqlmodel import Session

E = TypeVar("E", bound=Event)
BY_TOPIC = {event_of(handler).topic(): handler for handler in HANDLERS}
NAME = "shop"
START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = 24
EVALUATION = Evaluation(
    metric="mae",
    holdout_span=Span(start=START - timedelta(days=20), end=START),
    holdout_row_count=480,
    candidate=5.0,
    baseline=100.0,
    comparison=PairedComparison(
        mean_difference=-95.0, standard_error=1.0, row_count=480
    ),
)
PACKAGE = PackageRef(uri="artifact:", digest="0" * 64, signer="test")


def spec(name: str = NAME, **monitor: Any) -> PipelineSpec:
    return PipelineSpec.model_validate(
        {
            "name": name,
            "task": "regression",
            "owner": "ada",
            "data": {
                "target": "cnt",
                "features": {
                    "size": {"type": "number", "min": 0, "max": 100},
                    "weight": {"type": "number"},
                    "colour": {"type": "category"},
                },
            },
            "monitor": {"window_rows": 168} | monitor,
        }
    )


def day(number: int) -> datetime:
    return START + timedelta(days=number)


class Shop:
    """Days of the shop, the same for the same seed.

    Parameters
    ----------
    true : (day, size) to the demand; what was learned is ten times the size.
    """

    def __init__(
        self,
        name: str = NAME,
        true: Callable[[int, np.ndarray[Any, Any]], np.ndarray[Any, Any]] | None = None,
    ) -> None:
        self.name = name
        self._true = true or (lambda _, size: 10 * size)

    def _dice(self, number: int) -> np.random.Generator:
        return np.random.default_rng([7, number])

    def size(self, number: int) -> np.ndarray[Any, Any]:
        return self._dice(number).uniform(10, 60, ROWS)

    def features(self, number: int, **columns: Any) -> dict[str, Any]:
        dice = self._dice(number + 10_000)
        return {
            "size": self.size(number),
            "weight": dice.uniform(50, 90, ROWS),
            "colour": dice.choice(["red", "blue"], ROWS).tolist(),
        } | columns

    def target(self, number: int) -> np.ndarray[Any, Any]:
        noise = self._dice(number + 20_000).normal(0, 6, ROWS)
        result: np.ndarray[Any, Any] = self._true(number, self.size(number)) + noise
        return result

    def rows(self, number: int, columns: dict[str, Any]) -> pa.RecordBatch:
        times = [day(number) + timedelta(hours=hour) for hour in range(ROWS)]
        return pa.RecordBatch.from_pydict(
            {
                "id": [f"{number}-{row}" for row in range(ROWS)],
                "event_time": pa.array(times, pa.timestamp("us", "UTC")),
                "source": ["till"] * ROWS,
                **columns,
            }
        )

    def _base(self, number: int, kind: RowKind = "observations") -> dict[str, Any]:
        return {
            "pipeline": self.name,
            "shard": "till",
            "kind": kind,
            "row_count": ROWS,
            "span": Span(start=day(number), end=day(number) + timedelta(hours=23)),
        }

    def observed(self, number: int, **columns: Any) -> BatchValidated:
        rows = self.rows(number, self.features(number, **columns))
        return BatchValidated(**self._base(number), watermark=day(number)).with_rows(
            rows
        )

    def labelled(self, number: int) -> BatchValidated:
        rows = self.rows(number, {"cnt": self.target(number)})
        base = self._base(number, "labels")
        return BatchValidated(**base, watermark=day(number)).with_rows(rows)

    def scored(
        self, number: int, version: int = 1, candidate: int | None = None
    ) -> BatchScored:
        said = 10 * self.size(number)
        columns = {"champion_prediction": said}
        if candidate is not None:
            columns["candidate_prediction"] = said + 1
        return BatchScored(
            **self._base(number), champion_version=version,
            candidate_version=candidate, duration_seconds=0.1,
        ).with_rows(self.rows(number, columns))  # fmt: skip

    def rejected(self, number: int, bad: int = ROWS) -> BatchRejected:
        rows = self.rows(number, self.features(number)).slice(0, bad)
        reason = RejectReason(
            check="range", field="size", row_count=bad, detail="above 100",
            example="410.5",
        )  # fmt: skip
        base = self._base(number) | {"row_count": bad}
        return BatchRejected(**base, batch_row_count=ROWS, reasons=[reason]).with_rows(
            rows
        )

    def deployed(self, version: int = 1, package: PackageRef = PACKAGE) -> Event:
        return ModelDeployed(
            pipeline=self.name, rollout_id=f"r{version}", version=version,
            package=package,
        )  # fmt: skip

    def sample(self, days: int = 20) -> pa.Table:
        """What the version learned from: days before the first."""
        return pa.Table.from_batches(
            [
                self.rows(
                    n, self.features(n) | {"prediction": 10 * self.size(n)}
                ).drop_columns(["source"])
                for n in range(1000, 1000 + days)
            ]
        )

    def usual(self, days: Sequence[int]) -> Iterator[Event]:
        """Each day's rows, their predictions, and their labels the day after."""
        for number in days:
            yield self.observed(number)
            yield self.scored(number)
            yield self.labelled(number)


class BigShop(Shop):
    """Demand is the less certain the bigger the shop; for some days all are big.

    Parameters
    ----------
    since, until : days from which all are big, and from which they are as before.
    is_calm : demand is no less certain for it.
    """

    def __init__(
        self,
        since: int,
        until: int = 10_000,
        name: str = NAME,
        *,
        is_calm: bool = False,
    ) -> None:
        super().__init__(name)
        self._big, self._is_calm = range(since, until), is_calm

    def size(self, number: int) -> np.ndarray[Any, Any]:
        low = 45 if number in self._big else 10
        return self._dice(number).uniform(low, 60, ROWS)

    def target(self, number: int) -> np.ndarray[Any, Any]:
        size, dice = self.size(number), np.random.default_rng([8, number])
        spread = 1 + np.clip(size - 40, 0, 20)
        if self._is_calm and number in self._big:
            spread = np.ones(ROWS)
        noise: np.ndarray[Any, Any] = dice.normal(0, spread)
        return 10 * size + noise


class InProcess:
    """The monitor's handlers on a database in memory."""

    def __init__(
        self,
        spec: PipelineSpec,
        open_package: Callable[[PackageRef], Packaged] | None = None,
    ) -> None:
        applied = PipelineApplied(pipeline=spec.name, spec=spec, applied_by="test")
        self._engine = open_database("sqlite://", TABLES)
        self._session = Session(self._engine)
        self._deps = MonitorDeps(
            session=self._session,
            pipelines=StateView(PipelineApplied, {spec.name: applied}),
            open_package=open_package or (lambda _: Packaged(EVALUATION, None)),
        )
        self._numbers = count()
        self.told: list[Event] = []

    @property
    def session(self) -> Session:
        return self._session

    def take(self, event: Event, cause: str | None = None) -> list[Event]:
        """Handle an event; ``cause`` joins the two halves of a batch."""
        meta = Meta(
            f"e{next(self._numbers)}", NOW, "/test", Chain("c"), causation_id=cause
        )
        try:
            told = list(BY_TOPIC[event.topic()](event.with_meta(meta), self._deps))
        except Skip:
            told = []
        self._session.commit()
        self.told += told
        return told

    def take_all(self, events: Iterator[Event]) -> list[Event]:
        return [told for event in events for told in self.take(event)]

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.told if isinstance(event, kind)]

    def close(self) -> None:
        self._session.close()
        self._engine.dispose()
