"""Rows of an erased subject are found in every version that is referred to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from driftloop.contracts.base import Chain, Meta
from driftloop.contracts.events import (
    DatasetRef,
    DatasetVersioned,
    ErasureTraced,
    SubjectErased,
    TrainingFailed,
)
from driftloop.validator.erasure import ErasureRow, trace
from sqlmodel import Session, select

from tests.unit.validator import upkeep
from tests.unit.validator.upkeep import NAME, Bench, rows_of, spec_of

ADA, BOB = "a" * 32, "b" * 32


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path, spec_of(None, vacuums=False))
    yield found
    found.engine.dispose()


def batch(
    bench: Bench, day: float, *texts: str, ids: tuple[str, ...] = ()
) -> DatasetRef:
    """Add rows with these texts beside their features."""
    ids = ids or tuple(f"{day}-{n}" for n in range(len(texts)))
    event = rows_of(day, ids, "observations")
    rows = event.rows.append_column("extra", pa.array(texts))
    found = bench.handle(event.with_rows(rows))
    return next(e for e in found if isinstance(e, DatasetVersioned)).dataset


def noted(subject: str) -> str:
    return json.dumps({"notes": f"enc1:{subject}:00ff"})


def erase(bench: Bench, **more: Any) -> ErasureTraced:
    event = SubjectErased(
        pipeline=NAME, subject=ADA, key_count=1, token_count=0, requested_by="ben",
        **more,
    )  # fmt: skip
    meta = Meta("erased", bench.now, "/", Chain("c"))
    with Session(bench.engine) as session:
        return trace(event.with_meta(meta), "request", session, bench.open())


def test_versions_and_trainings_with_rows_are_told(bench: Bench) -> None:
    """Those before the rows came are not, and neither is a training that failed."""
    before = batch(bench, 0, noted(BOB))
    bench.train("early", before)
    first = batch(bench, 1, noted(ADA), noted(BOB))
    bench.train("late", first)
    bench.train("failed", first)
    bench.handle(
        TrainingFailed(
            pipeline=NAME, job_id="failed", trigger=upkeep.TRIGGER, error="", attempts=1
        )
    )
    batch(bench, 3, noted(ADA))
    newest = batch(bench, 4, noted(BOB))

    told = erase(bench)

    assert [(v.kind, v.version, v.row_count) for v in told.versions] == [
        ("observations", first.observations.version, 1),
        ("observations", newest.observations.version, 2),
    ]
    assert [job.job_id for job in told.jobs] == ["late"]
    day = upkeep.BEGIN + upkeep.DAY
    assert told.versions[0].span.start.date() == day.date()
    assert (told.erasure_id, told.erased_at) == ("request", bench.now)


def test_tokens_are_found_and_others_are_not(bench: Bench) -> None:
    """A token is a whole value; the same text within another is none."""
    batch(
        bench, 0, '{"phone": "tok_abc"}', '{"phone": "tok_abcd"}', ids=("tok_id", "1")
    )
    told = erase(bench, tokens=["tok_abc"])
    assert [v.row_count for v in told.versions] == [1]
    assert [v.row_count for v in erase(bench, tokens=["tok_id"]).versions] == [1]
    assert erase(bench, tokens=["tok_ab"]).versions == []


def test_nobody_else_is_found(bench: Bench) -> None:
    """Negative control: rows, and none of the subject."""
    bench.train("one", batch(bench, 0, noted(BOB), ""))
    told = erase(bench)
    assert (told.versions, told.jobs) == ([], [])


def test_a_pipeline_without_rows(bench: Bench) -> None:
    assert erase(bench).versions == []


def test_an_erasure_is_noted_and_looked_for_later(bench: Bench) -> None:
    """The handler does not wait: trainings may be behind it in the log."""
    event = SubjectErased(
        pipeline=NAME, subject=ADA, key_count=1, token_count=0, requested_by="ben"
    )
    bench.known = False
    assert bench.handle(event) == []
    with Session(bench.engine) as session:
        [row] = session.exec(select(ErasureRow))
    assert (row.event["subject"], row.is_traced) == (ADA, False)
