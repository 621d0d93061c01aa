"""Trainings as the command line tells of them, from a log made by hand."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from driftloop.cli.context import CommandError
from driftloop.cli.jobs.views import job_table, jobs_table, what_of
from driftloop.cli.jobs.work import Jobs
from driftloop.cli.log import Entry
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event, Meta
from rich.console import Console

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPAN = e.Span(start=NOW, end=NOW)
TRIGGER = e.Trigger(event_id="d", event_type="drift-detected", reason="concept_drift")


def entry(event: Event, second: int) -> Entry:
    meta = Meta(f"id{second}", NOW + timedelta(seconds=second), "/s", Chain("c"))
    return Entry(event.with_meta(meta), meta)


def started(job: str, second: int = 0) -> Entry:
    event = e.TrainingStarted(
        pipeline="bikes",
        job_id=job,
        trigger=TRIGGER,
        dataset=e.DatasetRef(observations=e.TableRef(uri="t", version=1)),
        train_span=SPAN,
        holdout_span=SPAN,
    )
    return entry(event, second)


def progressed(job: str, second: int, **more) -> Entry:
    event = e.TrainingProgressed(
        pipeline="bikes", job_id=job, step="fit", done_ratio=second / 100, **more
    )
    return entry(event, second)


def cancelled(job: str, second: int) -> Entry:
    event = e.TrainingCancelled(
        pipeline="bikes", job_id=job, trigger=TRIGGER, cancelled_by="ada", reason="typo"
    )
    return entry(event, second)


def test_topics_in_any_order_tell_the_same() -> None:
    told = [started("a"), progressed("a", 5), progressed("a", 9), cancelled("a", 12)]
    for order in itertools.permutations(told):
        [job] = Jobs(order).newest_first()
        assert (job.state, job.outcome) == ("cancelled", "by ada: typo")
        assert job.progress is not None
        assert job.progress.done_ratio == 0.09


def test_a_running_job_says_how_far_it_is() -> None:
    jobs = Jobs([started("a")])
    assert what_of(jobs.named("a")) == "waits for a trainer"
    jobs.take(
        progressed(
            "a", 42, candidate="mlp", iteration=8400, iteration_count=13200,
            loss=0.0731, eta_seconds=95.0, resumed_from=1200,
        )
    )  # fmt: skip
    assert what_of(jobs.named("a")) == (
        "42 % fit · mlp · 8,400 of 13,200 · loss 0.0731 · resumed from 1,200 · "
        "1 min 35 s left"
    )
    assert jobs.named("a").as_json()["progress"]["iteration"] == 8400


def test_a_job_is_named_by_its_beginning_if_that_is_clear() -> None:
    jobs = Jobs([started("abc"), started("abd", 1), started("x", 2)])
    assert jobs.named("abd").id == "abd"
    with pytest.raises(CommandError, match="2 jobs begin with 'ab'"):
        jobs.named("ab")
    with pytest.raises(CommandError, match="no job 'z'"):
        jobs.named("z")


def test_the_newest_job_stands_first_and_other_pipelines_are_left_out() -> None:
    jobs = Jobs([started("a", 1), started("b", 2)])
    assert [job.id for job in jobs.newest_first()] == ["b", "a"]
    assert jobs.newest_first("other") == []


def test_what_failed_is_shown_with_its_error_and_cost() -> None:
    failed = e.TrainingFailed(
        pipeline="bikes", job_id="a", trigger=TRIGGER, error="too few rows",
        attempts=1, cpu_seconds=4.2,
    )  # fmt: skip
    [job] = Jobs([started("a"), entry(failed, 65)]).newest_first()
    console = Console(width=120, record=True)
    console.print(jobs_table([job]), job_table(job))
    text = console.export_text()
    for words in ("failed", "too few rows", "concept drift", "1 min 5 s", "4 s"):
        assert words in text
