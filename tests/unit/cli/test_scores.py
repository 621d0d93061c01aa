"""Scored datasets as the command line tells of them, and which answers may go."""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from driftloop.cli.context import CommandError, Installation
from driftloop.cli.log import Entry
from driftloop.cli.scores import work
from driftloop.cli.scores.leftovers import leftovers
from driftloop.cli.scores.views import ended, scores_table
from driftloop.cli.scores.work import Score, Scores
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    DatasetRef,
    PackageRef,
    PipelineApplied,
    TableRef,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.scoring import (
    DatasetScored,
    ScoringCancelled,
    ScoringFailed,
    ScoringPlan,
    ScoringProgressed,
    ScoringRequested,
    ScoringStarted,
    job_id_of,
)
from driftloop.runtime.data.stored import StoredAnswers, remove_table, stored_answers
from driftloop.runtime.datasets import answers_uri
from driftloop.runtime.settings import Settings, load_settings
from rich.console import Console

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = job_id_of("id0")
DATASET = DatasetRef(
    observations=TableRef(uri="rows", version=7),
    labels=TableRef(uri="labels", version=3),
)
PACKAGE = PackageRef(uri="artifact:x", digest="a" * 64, signer="trainer")
PLAN = ScoringPlan(
    dataset=DATASET, version=2, package=PACKAGE, answers_uri="answers", row_count=100
)


def entry(event: Event, second: float) -> Entry:
    meta = Meta(f"id{second:g}", NOW + timedelta(seconds=second), "/s", Chain("c"))
    return Entry(event.with_meta(meta), meta)


def asked() -> Entry:
    event = ScoringRequested(pipeline="bikes", dataset="7", requested_by="ann")
    return entry(event, 0)


def started(job: str = JOB, second: float = 1) -> Entry:
    event = ScoringStarted(pipeline="bikes", job_id=job, plan=PLAN, requested_by="ann")
    return entry(event, second)


def progressed(done: int, second: float) -> Entry:
    event = ScoringProgressed(
        pipeline="bikes", job_id=JOB, version=2, done_count=done, row_count=100,
        done_ratio=done / 100, eta_seconds=3.0, resumed_from=20,
    )  # fmt: skip
    return entry(event, second)


def scored(job: str = JOB, second: float = 9, **more: Any) -> Entry:
    event = DatasetScored(
        pipeline="bikes", job_id=job, dataset=DATASET, version=2, package=PACKAGE,
        answers=TableRef(uri="answers", version=4), row_count=100, error_count=2,
        unfamiliar_count=5, duration_seconds=61.0, cpu_seconds=2.0,
        requested_by="ann",
    ).model_copy(update=more)  # fmt: skip
    return entry(event, second)


def failed(job: str = JOB, second: float = 9) -> Entry:
    event = ScoringFailed(
        pipeline="bikes", job_id=job, dataset="9", error="no such version",
        remedy="take another", attempts=1, requested_by="ann",
    )  # fmt: skip
    return entry(event, second)


def cancelled(job: str = JOB, second: float = 9) -> Entry:
    event = ScoringCancelled(
        pipeline="bikes", job_id=job, cancelled_by="bob", reason="typo"
    )
    return entry(event, second)


def applied(keep_versions_days: float | None, second: float = 0) -> Entry:
    retention = {"keep_versions_days": keep_versions_days}
    spec = PipelineSpec.model_validate(
        {
            "name": "bikes",
            "task": "regression",
            "data": {"id": "id", "time": "at", "target": "cnt", "retention": retention},
        }
    )
    event = PipelineApplied(pipeline="bikes", spec=spec, applied_by="ann")
    return entry(event, second)


@pytest.mark.parametrize(
    ("end", "state"),
    [(scored(), "scored"), (failed(), "failed"), (cancelled(), "cancelled")],
)
def test_topics_in_any_order_tell_the_same(end: Entry, state: str) -> None:
    told = [asked(), started(), progressed(40, 2), progressed(60, 3), end]
    for order in itertools.permutations(told):
        [score] = Scores(order).newest_first()
        assert score.state == state
        assert (score.dataset, score.version) in (("7.3", 2), ("7", None))
        assert score.end == end.event
        assert score.is_over


def test_a_job_says_how_far_it_is() -> None:
    scores = Scores([asked()])
    assert scores.named(JOB[:6]).what == "waits for a scorer"
    scores.take(started())
    assert (scores.named(JOB).state, scores.named(JOB).dataset) == ("running", "7.3")
    scores.take(progressed(60, 3))
    scores.take(progressed(40, 2))
    assert scores.named(JOB).what == (
        "60 % · 60 of 100 rows · resumed from 20 · 3 s left"
    )
    assert not scores.newest_first("other")


def test_a_name_is_unmistakable() -> None:
    scores = Scores([asked()])
    with pytest.raises(CommandError, match="no scored dataset is 'x'"):
        scores.named("x")
    other = entry(asked().event, 5)
    scores.take(other)
    with pytest.raises(CommandError, match="2 jobs begin with ''"):
        scores.named("")


def test_a_list_tells_what_is_gone() -> None:
    console = Console(width=200, record=True)
    [score] = Scores([asked(), started(), scored()]).newest_first()
    console.print(scores_table([(score, True), (score, False)]))
    text = console.export_text()
    assert text.count("removed") == 1
    assert text.count("scored  ") == 1
    assert text.count("100 rows, 2 without") == 2
    assert text.count("v2") == 2


def test_the_end_says_how_to_read_the_answers() -> None:
    event = scored().event
    assert isinstance(event, DatasetScored)
    text = ended(event)
    assert text.startswith(
        "100 rows by bikes/2 (2 without an answer, 5 with values that it has not "
        "learned from) in 1 min 1 s, 2.0 s of CPU\n"
    )
    assert 'polars.read_delta("answers", version=4)' in text
    assert f"scores export {JOB[:8]} -o answers.parquet" in text


def table(job: str, days: float) -> StoredAnswers:
    put_at = NOW - timedelta(days=days)
    return StoredAnswers("bikes", job, f"x/{job}", 10, put_at)


AGE_S = -10 * 86400.0
"""Ten days before :data:`NOW`."""


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([scored("a", AGE_S)], None),
        ([applied(None), scored("a", AGE_S)], None),
        ([applied(30), scored("a", AGE_S)], None),
        ([applied(5), scored("a", AGE_S)], "older than data.retention.keep_versions"),
        ([applied(5), applied(30, 1), scored("a", AGE_S)], None),  # the last one holds
        ([applied(5), started("a", AGE_S)], None),
        ([started("a", AGE_S), failed("a", AGE_S)], "ended without answers"),
        ([started("a", AGE_S), cancelled("a", AGE_S)], "ended without answers"),
        ([], "knows no such job"),
        ([scored("b", AGE_S)], "knows no such job"),
    ],
)
def test_answers_stay_as_long_as_they_are_promised(
    told: list[Entry], why: str | None
) -> None:
    found = leftovers([table("a", 10)], told, timedelta(days=2), NOW)
    assert [one.table.job_id for one in found] == (["a"] if why else [])
    assert all(why in one.why for one in found if why)


def test_what_is_young_stays_unless_its_time_is_over() -> None:
    """Of a job that ended without answers, the scorer may be at it still."""
    for told in ([], [failed("a")], [cancelled("a")]):
        assert not leftovers([table("a", 1)], told, timedelta(days=2), NOW)
    old = [applied(5), scored("a", AGE_S)]
    assert leftovers([table("a", 1)], old, timedelta(days=2), NOW)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    settings = load_settings(Settings, "cli", home=tmp_path)
    return Installation(tmp_path, "", "", "", settings)


def write(settings: Settings, job: str) -> TableRef:
    uri = answers_uri(settings, "bikes", job)
    rows = pa.table(
        {
            "id": ["b", "a"],
            "event_time": pa.array([NOW, NOW], pa.timestamp("us", "UTC")),
            "prediction": ["yes", None],
            "score": [[0.1, 0.9], None],
            "unfamiliar": [["size", "colour"], None],
        }
    )
    write_deltalake(uri, rows)
    return TableRef(uri=uri, version=0)


def test_the_store_tells_which_answers_there_are(installation: Installation) -> None:
    settings = installation.settings
    assert list(stored_answers(settings, "bikes")) == []
    refs = {job: write(settings, job) for job in ("a", "b")}
    old = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    for path in Path(refs["a"].uri).rglob("*"):
        os.utime(path, (old, old))
    found = {one.job_id: one for one in stored_answers(settings, "bikes")}
    assert {job: one.uri for job, one in found.items()} == {
        job: ref.uri for job, ref in refs.items()
    }
    assert found["a"].put_at.timestamp() == old < found["b"].put_at.timestamp()
    assert found["a"].size_bytes > 1000
    remove_table(refs["a"].uri, None)
    remove_table(refs["a"].uri, None)  # again: nothing to do
    assert [one.job_id for one in stored_answers(settings, "bikes")] == ["b"]
    assert not Path(refs["a"].uri).exists()


def score_of(answers: TableRef) -> Score:
    [score] = Scores([asked(), started(), scored(answers=answers)]).newest_first()
    return score


def test_answers_become_a_file(installation: Installation, tmp_path: Path) -> None:
    score = score_of(write(installation.settings, "a"))
    parquet, csv = tmp_path / "x.parquet", tmp_path / "x.csv"
    assert work.export(installation, score, parquet) == 2
    rows = pl.read_parquet(parquet)
    assert rows["id"].to_list() == ["a", "b"]
    assert rows["score"].to_list() == [None, [0.1, 0.9]]
    work.export(installation, score, csv)
    flat = pl.read_csv(csv)
    assert flat["score"].to_list() == [None, "0.1;0.9"]
    assert flat["unfamiliar"].to_list() == [None, "size;colour"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "x.parquet", "x.csv", "datasets",
    }  # fmt: skip


def test_what_is_no_answer_is_not_written(
    installation: Installation, tmp_path: Path
) -> None:
    there = score_of(write(installation.settings, "a"))
    gone = score_of(TableRef(uri=str(tmp_path / "gone"), version=1))
    [without] = Scores([asked(), started(), failed()]).newest_first()
    for score, name, why in (
        (there, "x.txt", "ends in .parquet or .csv"),
        (gone, "x.csv", "--dataset 7.3 --version 2"),
        (without, "x.csv", "has no answers: no such version; take another"),
    ):
        with pytest.raises(CommandError, match=why):
            work.export(installation, score, tmp_path / name)
        assert not (tmp_path / name).exists()


def test_a_job_that_has_ended_is_not_cancelled(installation: Installation) -> None:
    [score] = Scores([asked(), started(), failed()]).newest_first()
    with pytest.raises(CommandError, match="has ended: no such version"):
        work.cancel(installation, score, "bob", "late")
