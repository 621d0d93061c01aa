"""When to train: every rule, and what holds it back, in event time."""

from datetime import timedelta

import pytest
from driftloop.contracts.events import Span, Trigger
from driftloop.trainer import core
from driftloop.trainer.core import LastJob, Pending, SkipWith, Start, State

from tests.unit.trainer.cases import (
    START,
    data,
    day,
    drift,
    request,
    spec,
    versioned,
)


def last_job(
    end: float = 50,
    *,
    running: bool = False,
    failed: bool = False,
    label_count: int = 1000,
    champion: int | None = None,
) -> LastJob:
    return LastJob("job-1", running, failed, day(end), label_count, champion, day(end))


def pending(since: float | None) -> Pending:
    trigger = Trigger(event_id="old", event_type="drift-detected", reason="drift")
    return Pending(trigger, None if since is None else day(since))


# ── the window ──────────────────────────────────────────────────────────────


def test_the_holdout_is_the_newest_part_of_the_newest_window() -> None:
    labelled = Span(start=START, end=day(100))
    train, holdout = core.plan(
        labelled, spec(train={"window_days": 50, "holdout_ratio": 0.2}).train
    )
    assert train == Span(start=day(50), end=day(90))
    assert holdout == Span(start=day(90) + timedelta(microseconds=1), end=day(100))


def test_without_a_window_everything_is_used() -> None:
    train, _ = core.plan(Span(start=START, end=day(10)), spec().train)
    assert train.start == START


# ── what is known ───────────────────────────────────────────────────────────


def test_labels_that_come_later_stretch_what_is_labelled() -> None:
    known = core.with_data(None, versioned(0, 10))
    assert known.labelled is None
    known = core.with_data(known, versioned(24, 9, kind="labels", start=8))
    assert known.labelled == Span(start=day(8), end=day(9))
    known = core.with_data(known, versioned(24, 20))
    assert known.labelled == Span(start=day(8), end=day(9))
    known = core.with_data(known, versioned(48, 10, kind="labels", start=9))
    assert known.labelled == Span(start=day(8), end=day(10))
    assert known.dataset.observations.version == 10


# ── the first model ─────────────────────────────────────────────────────────


def test_the_first_model_comes_with_enough_labels() -> None:
    assert core.after_data("e", State(data(999)), spec()) is None
    started = core.after_data("e", State(data(1000)), spec())
    assert started is not None
    assert started.trigger.reason == "first_model"
    assert started.trigger.event_id == "e"


@pytest.mark.parametrize("before", [1000, 2000])
def test_a_further_try_without_a_champion_waits_for_twice_the_rows(before: int) -> None:
    last = last_job(label_count=before)
    too_early = State(data(2 * before - 1), last_job=last)
    assert core.after_data("e", too_early, spec()) is None
    assert core.after_data("e", State(data(2 * before), last_job=last), spec())


@pytest.mark.parametrize(
    "state",
    [
        State(),
        State(data(5000), last_job=last_job(running=True, label_count=0)),
        State(data(5000), champion_version=1),
    ],
)
def test_new_data_alone_starts_nothing_more(state: State) -> None:
    assert core.after_data("e", state, spec()) is None


def test_advice_only_never_starts_by_itself() -> None:
    how = spec(automation="advise")
    assert core.after_data("e", State(data(5000)), how) is None


def test_every_so_many_rows_a_champion_is_trained_anew() -> None:
    how = spec(retrain={"every_rows": 500})
    before = last_job(50, label_count=1000)
    assert core.after_data("e", State(data(1499), 1, before), how) is None
    started = core.after_data("e", State(data(1500), 1, before), how)
    assert started is not None
    assert started.trigger.reason == "new_data"
    in_cooldown = State(data(1500, end=52), 1, before)
    held = core.after_data("e", in_cooldown, how)
    assert isinstance(held, SkipWith)
    assert held.reason == "cooldown"
    assert held.covered_by_job == "job-1"
    waiting = State(data(1500, end=53), 1, before, held.keep)
    assert core.after_data("f", waiting, how) is None  # said once
    over = core.after_data("g", State(data(1500, end=57), 1, before, held.keep), how)
    assert isinstance(over, Start)
    assert over.trigger.event_id == "e"


def test_rows_that_come_while_a_job_runs_are_not_forgotten() -> None:
    how = spec(retrain={"every_rows": 500, "cooldown_days": 0})
    running = last_job(50, running=True, label_count=1000)
    joined = core.after_data("e", State(data(1500, end=52), 1, running), how)
    assert isinstance(joined, SkipWith)
    assert joined.reason == "joined_running_job"
    ended = State(data(1500, end=52), 1, last_job(50, label_count=1000), joined.keep)
    assert core.after_job(ended, how) is not None


# ── drift ───────────────────────────────────────────────────────────────────


def answer(state: State, event=None, how=None) -> Start | SkipWith:
    return core.after_drift(event or drift(), "d", state, how or spec())


def test_a_drift_is_trained_for() -> None:
    found = answer(State(data(), 1, last_job(50)))
    assert isinstance(found, Start)
    assert found.trigger.event_id == "d"
    assert found.trigger.reason == "concept_drift"
    assert found.holdout_span.end == day(100)


def test_a_cause_that_training_does_not_cure_is_not_trained_for() -> None:
    fault = drift(cause="sensor_fault", retrain_advised=False)
    found = answer(State(data(), 1), fault)
    assert isinstance(found, SkipWith)
    assert found.reason == "cause_not_cured_by_training"
    assert "errors doubled" in found.detail
    assert found.keep is None


def test_a_verdict_for_lack_of_data_says_so() -> None:
    unsure = drift(cause="not_enough_data", retrain_advised=False)
    found = answer(State(data(), 1), unsure)
    assert isinstance(found, SkipWith)
    assert found.reason == "not_enough_data"
    assert found.keep is None


@pytest.mark.parametrize(
    "how", [spec(automation="advise"), spec(retrain={"on_drift": False})]
)
def test_a_pipeline_that_only_advises_is_not_trained(how) -> None:
    found = answer(State(data(), 1), how=how)
    assert isinstance(found, SkipWith)
    assert found.reason == "automation_advise"


@pytest.mark.parametrize("known", [None, data(99)])
def test_too_few_rows_make_the_drift_wait(known) -> None:
    found = answer(State(known, 1))
    assert isinstance(found, SkipWith)
    assert found.reason == "not_enough_data"
    assert found.keep is not None
    started = core.after_data("e", State(data(100), 1, pending=found.keep), spec())
    assert started is not None
    assert started.answers_pending
    assert started.trigger.event_id == "d"


def test_a_drift_joins_the_job_that_runs() -> None:
    found = answer(State(data(), 1, last_job(100, running=True)), drift(at=99))
    assert isinstance(found, SkipWith)
    assert found.reason == "joined_running_job"
    assert found.covered_by_job == "job-1"
    assert found.keep is None  # the job's data contain it


def test_a_drift_newer_than_the_running_jobs_data_gets_one_follow_up() -> None:
    found = answer(State(data(), 1, last_job(90, running=True)), drift(at=99))
    assert isinstance(found, SkipWith)
    assert found.keep is not None
    waiting = State(data(), 1, last_job(90, running=True), found.keep)
    assert core.after_job(waiting, spec()) is None
    done = State(data(), 1, last_job(90), found.keep)
    started = core.after_job(done, spec())
    assert started is not None
    assert started.answers_pending


def test_the_follow_up_waits_for_the_cooldown() -> None:
    done = State(data(end=96), 1, last_job(90), pending(95))
    assert core.after_job(done, spec()) is None
    later = State(data(end=97), 1, last_job(90), pending(95))
    assert core.after_data("e", later, spec()) is not None


def test_a_drift_in_the_cooldown_is_covered_by_the_job_before() -> None:
    state = State(data(end=96), 1, last_job(90, champion=1))
    found = answer(state, drift(at=96))
    assert isinstance(found, SkipWith)
    assert found.reason == "cooldown"
    assert found.covered_by_job == "job-1"
    assert "2011-04-08" in found.detail  # until when: day 97
    assert found.keep is None  # it is about the model that the job replaces


@pytest.mark.parametrize(
    "before", [last_job(90, champion=1), last_job(90, failed=True, champion=2)]
)
def test_a_drift_of_the_new_model_waits_for_the_cooldown(before) -> None:
    found = answer(State(data(end=96), 2, before), drift(at=96, version=2))
    assert isinstance(found, SkipWith)
    assert found.reason == "cooldown"
    assert found.keep is not None


def test_the_cooldown_ends_with_event_time() -> None:
    state = State(data(end=97), 1, last_job(90, champion=1))
    assert isinstance(answer(state, drift(at=97)), Start)


def test_no_cooldown_no_wait() -> None:
    state = State(data(end=90), 1, last_job(90, champion=1))
    assert isinstance(answer(state, how=spec(retrain={"cooldown_days": 0})), Start)


def test_the_same_rows_are_not_learned_from_twice() -> None:
    how = spec(retrain={"cooldown_days": 0})
    known = last_job(90, champion=1, label_count=2000)
    found = answer(State(data(2000, end=90), 1, known), how=how)
    assert isinstance(found, SkipWith)
    assert found.covered_by_job == "job-1"
    failed = last_job(90, champion=1, label_count=2000, failed=True)
    assert isinstance(answer(State(data(2000, end=90), 1, failed), how=how), Start)


# ── requests ────────────────────────────────────────────────────────────────


def test_a_person_needs_no_cooldown() -> None:
    state = State(data(end=91), 1, last_job(90))
    found = core.after_request(request(), "r", state, spec(automation="advise"))
    assert isinstance(found, Start)
    assert found.trigger.requested_by == "ada"


def test_a_request_while_a_job_runs_follows_at_once_when_it_ends() -> None:
    state = State(data(end=91), 1, last_job(90, running=True))
    found = core.after_request(request(), "r", state, spec())
    assert isinstance(found, SkipWith)
    assert found.reason == "joined_running_job"
    ended = State(data(end=91), 1, last_job(90), found.keep)
    assert core.after_job(ended, spec()) is not None


def test_a_request_without_rows_waits_for_them() -> None:
    found = core.after_request(request(), "r", State(), spec())
    assert isinstance(found, SkipWith)
    assert found.reason == "not_enough_data"
    assert found.keep is not None


# ── what still waits after a start ──────────────────────────────────────────


@pytest.mark.parametrize(
    ("waiting", "still"),
    [(None, False), (pending(99), False), (pending(101), True), (pending(None), False)],
)
def test_a_new_job_answers_what_its_data_contain(waiting, still) -> None:
    started = answer(State(data(end=100), 1))
    assert isinstance(started, Start)
    assert core.still_waits(waiting, started) is still


def test_the_job_of_a_trigger_is_always_the_same() -> None:
    trigger = pending(1).trigger
    assert core.job_id_of(trigger) == core.job_id_of(trigger)
    assert core.job_id_of(trigger) != core.job_id_of(
        trigger.model_copy(update={"event_id": "other"})
    )
