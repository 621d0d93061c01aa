"""The simulated scorer counts, tells and waits as the real one does."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import count

import pyarrow as pa
from driftloop.backtest.inprocess import meta_of
from driftloop.backtest.serving import Answered, ServingSide
from driftloop.contracts.base import Event, Meta
from driftloop.contracts.events import (
    BatchScored,
    ModelDeployed,
    ModelRolledBack,
    PackageRef,
    Span,
)
from driftloop.scorer.core import CANDIDATE_CALLS, finite_answers

from tests.unit.backtest import town

numbers = count()
ROWS = 10


def meta(at: datetime = town.START) -> Meta:
    return meta_of(f"cause-{next(numbers)}", at)


def package(version: int) -> PackageRef:
    return PackageRef(uri=f"p{version}", digest=f"{version:064x}", signer="s")


def side(**rollout: object) -> ServingSide:
    """Return a pipeline whose first version is in service."""
    found = ServingSide(town.spec(rollout=rollout))
    told = found.approve(1, package(1), meta())
    assert [e.version for e in told if isinstance(e, ModelDeployed)] == [1]
    return found


def scored(
    found: ServingSide, at: datetime = town.START, said: list[float] | None = None
) -> list[Event]:
    """Let a batch be answered; the candidate says ``said``, else the same."""
    wanted = found.wanted
    assert wanted.champion is not None
    span = Span(start=at, end=at)
    candidate = wanted.candidate and wanted.candidate.version
    event = BatchScored(
        pipeline="town", shard="s", kind="observations", row_count=ROWS, span=span,
        duration_seconds=0.0, champion_version=wanted.champion.version,
        candidate_version=candidate,
    )  # fmt: skip
    same = [1.0] * ROWS
    mine, its = (
        finite_answers(pa.array(each).to_numpy(), None, (), 0.0)
        for each in (same, said or same)
    )
    batch = Answered(event, found.generation, mine, its if candidate else None)
    return found.scored(batch, meta(at))


def test_a_candidate_is_told_of_after_some_batches() -> None:
    """Errors at once; what is only counted does not change the rollout yet."""
    found = side(max_prediction_shift=0.1, prediction_tolerance=0.5, shadow_rows=ROWS)
    found.approve(2, package(2), meta())
    assert found.wanted.candidate is not None
    other = [2.0] * ROWS
    for _ in range(CANDIDATE_CALLS - 1):
        assert scored(found, said=other) == []
    told = scored(found, said=other)
    assert [e.version for e in told if isinstance(e, ModelRolledBack)] == [2]
    found.approve(3, package(3), meta())
    told = scored(found, said=[float("nan")] * ROWS)
    assert [e.version for e in told if isinstance(e, ModelRolledBack)] == [3]


def test_a_version_waits_for_the_end_of_a_freeze() -> None:
    """It begins with the first batch after it, not with the next approval."""
    friday = town.START + timedelta(days=4, hours=20)  # town.START is a Monday
    freeze = [{"begins": "fri 18:00", "ends": "mon 08:00"}]
    found = side(freeze=freeze)
    found.approve(2, package(2), meta(friday))
    scored(found, friday + timedelta(hours=1))
    assert found.wanted.candidate is None
    scored(found, friday + timedelta(days=3))
    assert found.wanted.candidate is not None
