"""Maintenance changes no row that is kept, whatever it is mixed with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from driftloop.contracts.events import DatasetRef, DatasetVersioned
from driftloop.runtime.data.reading import read_version
from driftloop.runtime.data.vacuum import cutoff_of
from driftloop.validator import datasets
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.unit.support import examples
from tests.unit.validator.upkeep import BEGIN, DAY, Bench, content, spec_of

KEEP_DAYS = 4


@dataclass(frozen=True)
class Step:
    """What happens next, how much of it, and whether the process is killed in it."""

    kind: str
    size: int
    is_killed: bool


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(
            ["rows", "rows", "late", "labels", "restart", "train", "upkeep", "day"]
        ),
        st.integers(1, 3),
        st.booleans(),
    ),
    min_size=8,
    max_size=18,
)


class Play:
    """One run of the steps, with maintenance or without."""

    def __init__(self, path: Path, *, is_kept_up: bool) -> None:
        path.mkdir()
        self.bench = Bench(
            path, spec_of(KEEP_DAYS if is_kept_up else None, vacuums=is_kept_up)
        )
        self.is_kept_up = is_kept_up
        self.day = 0
        self.names: list[str] = []
        self.labels = 0
        self.newest = BEGIN
        self.last: DatasetVersioned | None = None
        self.referred: list[tuple[DatasetRef, str]] = []

    def take(self, step: Step) -> None:
        if step.kind == "rows":
            self.day += step.size
            self._rows(self.day, step)
        elif step.kind == "late":
            self._rows(max(0, self.day - 2 * step.size), step)
        elif step.kind == "labels" and self.names:
            names = self.names[:: step.size]
            self._batch(max(0, self.day - step.size), names, step, is_label=True)
        elif step.kind == "restart":
            self.bench.restart()
        elif step.kind == "train" and self.last:
            dataset = self.last.dataset
            self.bench.train(f"job{len(self.referred)}", dataset)
            self.referred.append((dataset, content(dataset)))
        elif step.kind == "upkeep" and self.last and self.is_kept_up:
            self.bench.maintain()
        elif step.kind == "day":
            self.bench.now += DAY  # the next batch lets files go

    def _rows(self, day: int, step: Step) -> None:
        names = [f"r{len(self.names) + n}" for n in range(step.size)]
        self.names += names
        self.newest = max(self.newest, BEGIN + day * DAY)
        self._batch(day, names, step)

    def _batch(
        self, day: int, names: list[str], step: Step, *, is_label: bool = False
    ) -> None:
        self.labels += is_label
        for killed in [True, False] if step.is_killed else [False]:
            if is_label:
                self.last = self.bench.batch(
                    day, *names, kind="labels", value=float(self.labels),
                    revision=self.labels, killed=killed,
                )  # fmt: skip
            else:
                self.last = self.bench.batch(day, *names, killed=killed)
            if killed:
                self.bench.restart()

    def rows(self) -> pl.DataFrame:
        assert self.last is not None
        rows = read_version(self.last.dataset, "cnt", None).sort("id")
        return rows.select(sorted(rows.columns))


@settings(max_examples=examples(6), phases=[Phase.reuse, Phase.generate])
@given(STEPS)
def test_maintenance_takes_old_rows_and_nothing_else(steps: list[Step]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "COMPACT_APPENDS", 4)
        patch.setattr(datasets, "MAX_FILES", 2)
        plain = Play(Path(folder) / "plain", is_kept_up=False)
        kept_up = Play(Path(folder) / "kept_up", is_kept_up=True)
        for step in [Step("rows", 1, is_killed=False), *steps]:
            plain.take(step)
            kept_up.take(step)
        for play in (plain, kept_up):
            play.bench.engine.dispose()
        cutoff = cutoff_of(kept_up.newest, KEEP_DAYS)
        check(plain, kept_up, cutoff)


def check(plain: Play, kept_up: Play, cutoff: datetime) -> None:
    stays = pl.col("event_time") >= cutoff
    there = kept_up.rows()
    assert there.filter(stays).equals(plain.rows().filter(stays))
    assert set(there["id"]) <= set(plain.rows()["id"])
    assert kept_up.last is not None
    assert kept_up.last.observation_count == there.height
    assert kept_up.last.label_count == there["cnt"].drop_nulls().len()
    for dataset, was in kept_up.referred:
        assert content(dataset) == was
