"""A loop in one process: the real handlers on recorded data, the rest in outline.

The validator, scorer, trainer and deployer are played in a few lines each; what the
monitor concludes is what it would conclude live, in event time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    BatchRejected,
    BatchScored,
    BatchValidated,
    DriftDetected,
    Evaluation,
    ModelDeployed,
    PackageRef,
    RejectReason,
    RowKind,
    Span,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.losses import paired
from driftloop.monitor.handlers import HANDLERS
from driftloop.monitor.turn import Packaged
from driftloop.runtime.handlers import event_of
from pyarrow import csv
from sklearn.ensemble import HistGradientBoostingRegressor

from tests.unit.monitor.story import InProcess

Floats = np.ndarray[Any, np.dtype[np.float64]]
E = TypeVar("E", bound=Event)
BY_TOPIC = {event_of(handler).topic(): handler for handler in HANDLERS}


def read_days(path: Path) -> list[pa.RecordBatch]:
    """Return the file's rows as one batch a day, columns as the chain has them."""
    as_text = csv.ConvertOptions(column_types={"id": pa.string()})
    table = csv.read_csv(path, convert_options=as_text)
    table = table.rename_columns(
        ["event_time" if name == "time" else name for name in table.column_names]
    )
    time = table.column("event_time").cast(pa.timestamp("us", tz="UTC"))
    table = table.set_column(1, "event_time", time)
    day = pc.floor_temporal(time, unit="day").to_numpy()
    starts = [0, *(np.flatnonzero(day[1:] != day[:-1]) + 1).tolist(), len(day)]
    return [
        table.slice(a, b - a).combine_chunks().to_batches()[0]
        for a, b in pairwise(starts)
    ]


@dataclass
class Version:
    """A trained model with what its package says."""

    number: int
    model: Any
    packaged: Packaged

    @property
    def ref(self) -> PackageRef:
        return PackageRef(uri="artifact:", digest=f"{self.number:064x}", signer="test")


@dataclass
class Town:
    """The rest of the loop.

    Attributes
    ----------
    rollout_days : from training to full service; the candidate answers beside.
    retrains : False: the first version stays.
    fault, fault_factor : when ``temp`` comes in another unit, and which.
    is_checked : the validator knows the range of ``temp``.
    is_watched : False: no monitor; only the error is noted.
    """

    spec: PipelineSpec
    days: list[pa.RecordBatch]
    rollout_days: int = 6
    retrains: bool = True
    fault: tuple[datetime, datetime] | None = None
    fault_factor: float = 41.0
    is_checked: bool = True
    is_watched: bool = True
    versions: dict[int, Version] = field(default_factory=dict)
    champion: Version | None = None
    candidate: Version | None = None
    ready_on: int = 0
    trained_on: int = -1000
    trainings: list[str] = field(default_factory=list)
    rejected: int = 0
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)

    def run(self) -> InProcess:
        monitor = InProcess(self.spec, self._opened)
        good: list[pa.RecordBatch | None] = []
        for today, rows in enumerate(self.days):
            self._switch(monitor, today)
            good.append(self._observe(monitor, today, rows))
            if today and (before := good[today - 1]) is not None:
                self._label(monitor, today, before, good)
        monitor.close()
        return monitor

    def _opened(self, ref: PackageRef) -> Packaged:
        return self.versions[int(ref.digest, 16)].packaged

    def _take(
        self, monitor: InProcess, event: Event, cause: str | None = None
    ) -> list[Event]:
        return monitor.take(event, cause) if self.is_watched else []

    def _switch(self, monitor: InProcess, today: int) -> None:
        if self.candidate is None or today < self.ready_on:
            return
        self.champion, self.candidate = self.candidate, None
        deployed = ModelDeployed(
            pipeline=self.spec.name,
            rollout_id=f"r{self.champion.number}",
            version=self.champion.number,
            package=self.champion.ref,
        )
        self._take(monitor, deployed)

    def _observe(
        self, monitor: InProcess, today: int, rows: pa.RecordBatch
    ) -> pa.RecordBatch | None:
        """Publish a day as the validator and the scorer would."""
        rows = self._as_sent(rows)
        if self.is_checked and pc.max(rows.column("temp")).as_py() > 1:
            self._take(monitor, self._rejected(rows), f"b{today}")
            return None
        observed = rows.drop_columns([self.spec.data.target])
        self._take(monitor, self._validated(observed, "observations"), f"b{today}")
        if self.champion is not None:
            self._take(monitor, self._scored(rows))
        return rows

    def _as_sent(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        start = rows.column("event_time")[0].as_py()
        if self.fault is None or not self.fault[0] <= start < self.fault[1]:
            return rows
        place = rows.schema.get_field_index("temp")
        wrong = pc.multiply(rows.column(place), self.fault_factor)
        return rows.set_column(place, "temp", wrong)

    def _label(
        self,
        monitor: InProcess,
        today: int,
        rows: pa.RecordBatch,
        good: list[pa.RecordBatch | None],
    ) -> None:
        labels = rows.select(["id", "event_time", self.spec.data.target])
        told = self._take(monitor, self._validated(labels, "labels"), f"l{today}")
        if self.champion is not None:
            self._note_error(rows)
        known = [day for day in good[:today] if day is not None]
        if self.champion is None and self.candidate is None:
            if sum(day.num_rows for day in known) >= self.spec.retrain.first_rows:
                self._train(known, today, "first_model")
                self.ready_on = today + 1
            return
        advised = [
            e for e in told if isinstance(e, DriftDetected) and e.retrain_advised
        ]
        is_cool = today - self.trained_on >= self.spec.retrain.cooldown_days
        if advised and is_cool and self.retrains and self.candidate is None:
            self._train(known, today, advised[0].cause)

    def _note_error(self, rows: pa.RecordBatch) -> None:
        assert self.champion is not None
        month = f"{rows.column('event_time')[0].as_py():%Y-%m}"
        target = self._target(rows)
        error = np.abs(target - self._predict(self.champion, rows)).sum()
        so_far = self.errors.get(month, (0.0, 0.0))
        self.errors[month] = (so_far[0] + error, so_far[1] + target.sum())

    def _train(self, known: list[pa.RecordBatch], today: int, reason: str) -> None:
        table = pa.Table.from_batches(known)
        newest = pc.max(table.column("event_time")).as_py()
        window = timedelta(days=self.spec.train.window_days or 10_000)
        table = table.filter(pc.greater(table.column("event_time"), newest - window))
        cut = round(table.num_rows * (1 - self.spec.train.holdout_ratio))
        past, holdout = table.slice(0, cut), table.slice(cut)
        model = HistGradientBoostingRegressor(random_state=0)
        model.fit(self._features(past), self._target(past))
        mine = np.abs(self._target(holdout) - model.predict(self._features(holdout)))
        guess = np.abs(self._target(holdout) - np.median(self._target(past)))
        against = guess
        if self.champion is not None:
            said = self._predict(self.champion, holdout)
            against = np.abs(self._target(holdout) - said)
        comparison = paired(mine, against)
        self.trainings.append(reason)
        self.trained_on = today
        if comparison.mean_difference + 1.645 * comparison.standard_error >= 0:
            self.rejected += 1
            return
        number = len(self.versions) + 1
        times = holdout.column("event_time")
        evaluation = Evaluation(
            metric="mae",
            holdout_span=Span(start=times[0].as_py(), end=times[-1].as_py()),
            holdout_row_count=holdout.num_rows,
            candidate=float(mine.mean()),
            baseline=float(guess.mean()),
            comparison=comparison,
        )
        said = pa.array(model.predict(self._features(past)))
        sample = past.append_column("prediction", said)
        self.versions[number] = Version(number, model, Packaged(evaluation, sample))
        self.candidate = self.versions[number]
        self.ready_on = today + self.rollout_days

    def _features(self, rows: pa.RecordBatch | pa.Table) -> Floats:
        names = self.spec.data.features
        columns = [rows.column(name).to_numpy(zero_copy_only=False) for name in names]
        return np.column_stack(columns).astype(np.float64)

    def _target(self, rows: pa.RecordBatch | pa.Table) -> Floats:
        column = rows.column(self.spec.data.target).cast(pa.float64())
        result: Floats = column.to_numpy(zero_copy_only=False)
        return result

    def _predict(self, version: Version, rows: pa.RecordBatch | pa.Table) -> Floats:
        result: Floats = version.model.predict(self._features(rows))
        return result

    def _base(self, rows: pa.RecordBatch, kind: RowKind) -> dict[str, Any]:
        times = rows.column("event_time")
        return {
            "pipeline": self.spec.name,
            "shard": "city",
            "kind": kind,
            "row_count": rows.num_rows,
            "span": Span(start=times[0].as_py(), end=times[-1].as_py()),
        }

    def _validated(self, rows: pa.RecordBatch, kind: RowKind) -> BatchValidated:
        base = self._base(rows, kind)
        return BatchValidated(**base, watermark=base["span"].end).with_rows(rows)

    def _rejected(self, rows: pa.RecordBatch) -> BatchRejected:
        reason = RejectReason(
            check="range", field="temp", row_count=rows.num_rows,
            detail="above 1", example=str(rows.column("temp")[0]),
        )  # fmt: skip
        return BatchRejected(
            **self._base(rows, "observations"),
            batch_row_count=rows.num_rows,
            reasons=[reason],
        ).with_rows(rows)

    def _scored(self, rows: pa.RecordBatch) -> BatchScored:
        assert self.champion is not None
        columns = {
            "id": rows.column("id"),
            "event_time": rows.column("event_time"),
            "champion_prediction": pa.array(self._predict(self.champion, rows)),
        }
        candidate = self.candidate
        if candidate is not None:
            said = pa.array(self._predict(candidate, rows))
            columns["candidate_prediction"] = said
        return BatchScored(
            **self._base(rows, "observations"),
            champion_version=self.champion.number,
            candidate_version=candidate.number if candidate else None,
            duration_seconds=0.0,
        ).with_rows(pa.RecordBatch.from_pydict(columns))

    def relative_error(self, year: str) -> float:
        """Sum of |error| over sum of the target, in the months of a year."""
        months = [v for month, v in self.errors.items() if month.startswith(year)]
        return sum(e for e, _ in months) / sum(t for _, t in months)


def by_month(town: Town) -> Iterator[tuple[str, float]]:
    for month, (error, total) in sorted(town.errors.items()):
        yield month, error / total
