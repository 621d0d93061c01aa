"""Handlers keep the read model and answer each trigger with one event."""

import threading
from collections.abc import Iterator

import pytest
from driftloop.contracts.events import (
    AlertRaised,
    DriftEnded,
    ModelDeployed,
    ModelRolledBack,
    PackageRef,
    PipelineApplied,
    ServedModel,
    TrainingCancelled,
    TrainingCancelRefused,
    TrainingCancelRequested,
    TrainingSkipped,
    TrainingStarted,
    VerdictOverruled,
)
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import Retry, Skip
from driftloop.runtime.state import StateView
from driftloop.trainer import handlers
from driftloop.trainer.handlers import Deps
from driftloop.trainer.tables import TABLES, TrainerJob, last_job, pipeline_row
from sqlmodel import Session, select

from tests.unit.trainer.cases import (
    NAME,
    day,
    drift,
    fault,
    meta,
    request,
    spec,
    versioned,
)


@pytest.fixture
def deps() -> Iterator[Deps]:
    engine = open_database("sqlite://", TABLES)
    applied = PipelineApplied(pipeline=NAME, spec=spec(), applied_by="ada")
    with Session(engine) as session:
        yield Deps(
            session=session,
            pipelines=StateView(PipelineApplied, {NAME: applied}),
            wake=threading.Event(),
            recheck=threading.Event(),
        )
    engine.dispose()


def package(version: int) -> PackageRef:
    return PackageRef(uri=f"p{version}", digest=f"{version:064x}", signer="s")


def deployed(version: int, generation: int) -> ModelDeployed:
    return ModelDeployed(
        pipeline=NAME,
        rollout_id="r",
        version=version,
        package=package(version),
        generation=generation,
    ).with_meta(meta(f"deployed-{version}"))


def give_data(deps: Deps, label_count: int = 1000, end: float = 40) -> list:
    event = versioned(label_count, end).with_meta(meta(f"data-{label_count}"))
    return list(handlers.on_dataset_versioned(event, deps))


def end_job(deps: Deps, state: str = "done") -> None:
    job = last_job(deps.session, NAME)
    assert job is not None
    job.state = state


def test_enough_data_store_a_job_and_say_so(deps: Deps) -> None:
    assert give_data(deps, 999) == []
    [started] = give_data(deps, 1000)
    assert isinstance(started, TrainingStarted)
    job = last_job(deps.session, NAME)
    assert job is not None
    assert job.id == started.job_id
    asked = job.asked()
    assert asked.dataset == started.dataset
    assert asked.train_span == started.train_span
    assert asked.champion is None
    assert asked.spec == spec()


def test_the_loop_is_woken_only_after_the_commit(deps: Deps) -> None:
    give_data(deps)
    assert not deps.wake.is_set()
    deps.session.commit()
    assert deps.wake.is_set()


def test_a_drift_is_trained_for_with_the_champion_of_the_day(deps: Deps) -> None:
    list(handlers.on_model_deployed(deployed(3, 5), deps))
    give_data(deps, 2000, 80)
    [started] = handlers.on_drift_detected(drift(80).with_meta(meta("d")), deps)
    assert isinstance(started, TrainingStarted)
    job = last_job(deps.session, NAME)
    assert job is not None
    assert job.asked().champion == ServedModel(version=3, package=package(3))
    assert job.champion_version == 3


def test_a_storm_of_drifts_joins_one_job_and_leaves_one_follow_up(deps: Deps) -> None:
    list(handlers.on_model_deployed(deployed(1, 1), deps))
    give_data(deps, 2000, 80)
    said = []
    for number in range(20):
        event = drift(80 + number / 10).with_meta(meta(f"d{number}"))
        said += list(handlers.on_drift_detected(event, deps))
    assert [type(e) for e in said] == [TrainingStarted, *[TrainingSkipped] * 19]
    assert {e.covered_by_job for e in said[1:]} == {said[0].job_id}
    end_job(deps)
    [follow_up] = give_data(deps, 2400, 90)
    assert follow_up.trigger.event_id == "d19"
    assert follow_up.follows is not None
    assert follow_up.follows.chain.id == "chain-d19"
    end_job(deps)
    assert give_data(deps, 2800, 110) == []
    assert pipeline_row(deps.session, NAME).pending is None


def test_a_request_says_who_asked(deps: Deps) -> None:
    list(handlers.on_model_deployed(deployed(1, 1), deps))
    give_data(deps, 2000, 80)
    [started] = handlers.on_retrain_requested(request().with_meta(meta("r")), deps)
    assert isinstance(started, TrainingStarted)
    assert started.trigger.requested_by == "ada"


def cancel(deps: Deps, job_id: str) -> list:
    event = TrainingCancelRequested(
        pipeline=NAME, job_id=job_id, requested_by="ada", reason="wrong labels"
    )
    return list(handlers.on_training_cancel_requested(event.with_meta(meta("c")), deps))


def test_a_job_is_cancelled_once_and_each_wish_is_answered(deps: Deps) -> None:
    [started] = give_data(deps)
    [cancelled] = cancel(deps, started.job_id)
    assert isinstance(cancelled, TrainingCancelled)
    assert cancelled.trigger == started.trigger
    assert (cancelled.cancelled_by, cancelled.reason) == ("ada", "wrong labels")
    assert not deps.recheck.is_set()
    deps.session.commit()
    assert deps.recheck.is_set()
    [refused] = cancel(deps, started.job_id)
    assert isinstance(refused, TrainingCancelRefused)
    assert refused.reason == "already_ended"
    assert "cancelled before" in refused.detail


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_job_that_has_ended_is_not_cancelled(deps: Deps, state: str) -> None:
    [started] = give_data(deps)
    end_job(deps, state)
    [refused] = cancel(deps, started.job_id)
    assert refused.reason == "already_ended"
    job = last_job(deps.session, NAME)
    assert job is not None
    assert job.state == state


def test_an_unknown_job_is_said_to_be_unknown(deps: Deps) -> None:
    [refused] = cancel(deps, "no-such-job")
    assert refused.reason == "unknown_job"


def test_what_waited_for_a_cancelled_job_starts(deps: Deps) -> None:
    [started] = give_data(deps)
    list(handlers.on_retrain_requested(request().with_meta(meta("r")), deps))
    _, follow_up = cancel(deps, started.job_id)
    assert isinstance(follow_up, TrainingStarted)
    assert follow_up.trigger.requested_by == "ada"


def test_a_rollback_restores_the_champion_before(deps: Deps) -> None:
    list(handlers.on_model_deployed(deployed(2, 4), deps))
    restored = ServedModel(version=1, package=package(1))
    event = ModelRolledBack(
        pipeline=NAME, rollout_id="r", version=2, generation=5, restored=restored,
        reason="worse",
    ).with_meta(meta("back"))  # fmt: skip
    list(handlers.on_model_rolled_back(event, deps))
    assert pipeline_row(deps.session, NAME).served() == restored


def test_two_topics_in_the_wrong_order_end_in_the_same_champion(deps: Deps) -> None:
    event = ModelRolledBack(
        pipeline=NAME, rollout_id="r", version=2, generation=5, restored=None,
        reason="worse",
    ).with_meta(meta("back"))  # fmt: skip
    list(handlers.on_model_rolled_back(event, deps))
    with pytest.raises(Skip):
        list(handlers.on_model_deployed(deployed(2, 4), deps))
    assert pipeline_row(deps.session, NAME).served() is None


def test_a_pipeline_that_is_not_applied_is_waited_for(deps: Deps) -> None:
    event = drift(80).model_copy(update={"pipeline": "other"}).with_meta(meta("d"))
    with pytest.raises(Retry):
        list(handlers.on_drift_detected(event, deps))


def test_jobs_are_numbered(deps: Deps) -> None:
    give_data(deps)
    end_job(deps, "failed")
    give_data(deps, 2000, 80)
    job = last_job(deps.session, NAME)
    assert isinstance(job, TrainerJob)
    assert job.number == 2


# ── a person's word against a verdict ───────────────────────────────────────


def overruled(deps: Deps, was: str, now: str, verdict: str = "d") -> list:
    told = drift(80)
    event = VerdictOverruled.model_validate(
        {
            "pipeline": NAME, "verdict_id": verdict, "verdict_cause": was,
            "cause": now, "overruled_by": "ada", "reason": "I was there",
            "since": told.since, "detected_at": told.detected_at, "model_version": 1,
        }
    ).with_meta(meta("o"))  # fmt: skip
    return list(handlers.on_verdict_overruled(event, deps))


def test_a_cause_that_training_cures_is_trained_for_and_names_the_person(
    deps: Deps,
) -> None:
    list(handlers.on_model_deployed(deployed(1, 1), deps))
    give_data(deps, 2000, 80)
    fault = drift(80, cause="sensor_fault", retrain_advised=False)
    [skipped] = handlers.on_drift_detected(fault.with_meta(meta("d")), deps)
    assert skipped.reason == "cause_not_cured_by_training"
    [started] = overruled(deps, "sensor_fault", "concept_drift")
    assert isinstance(started, TrainingStarted)
    assert started.trigger.requested_by == "ada"
    assert started.trigger.reason == "concept_drift"
    assert started.trigger.since == fault.since


@pytest.mark.parametrize(
    ("was", "now"),
    [("sensor_fault", "label_fault"), ("concept_drift", "population_shift")],
)
def test_a_word_that_changes_no_cure_changes_no_training(
    deps: Deps, was: str, now: str
) -> None:
    """Negative control: both causes are cured by training, or neither is."""
    list(handlers.on_model_deployed(deployed(1, 1), deps))
    give_data(deps, 2000, 80)
    list(handlers.on_drift_detected(drift(80).with_meta(meta("d")), deps))
    assert overruled(deps, was, now) == []
    job = last_job(deps.session, NAME)
    assert job is not None
    assert job.state == "waiting"


def test_a_training_whose_verdict_did_not_hold_is_cancelled(deps: Deps) -> None:
    list(handlers.on_model_deployed(deployed(1, 1), deps))
    give_data(deps, 2000, 80)
    [started] = handlers.on_drift_detected(drift(80).with_meta(meta("d")), deps)
    [cancelled] = overruled(deps, "concept_drift", "label_fault")
    assert isinstance(cancelled, TrainingCancelled)
    assert (cancelled.job_id, cancelled.cancelled_by) == (started.job_id, "ada")
    assert "I was there" in cancelled.reason
    assert overruled(deps, "concept_drift", "label_fault") == []  # it has ended


def test_another_verdicts_training_goes_on(deps: Deps) -> None:
    """Negative control: only what the overruled verdict led to is called off."""
    list(handlers.on_model_deployed(deployed(1, 1), deps))
    give_data(deps, 2000, 80)
    list(handlers.on_drift_detected(drift(80).with_meta(meta("d")), deps))
    [alert] = overruled(deps, "concept_drift", "label_fault", verdict="other")
    assert isinstance(alert, AlertRaised)  # it reads what the person calls wrong
    assert [job.state for job in deps.session.exec(select(TrainerJob))] == ["waiting"]


def test_a_trigger_that_waits_is_dropped(deps: Deps) -> None:
    list(handlers.on_model_deployed(deployed(1, 1), deps))
    give_data(deps, 2000, 80)
    list(handlers.on_drift_detected(drift(80).with_meta(meta("first")), deps))
    list(handlers.on_drift_detected(drift(81).with_meta(meta("d")), deps))
    assert pipeline_row(deps.session, NAME).pending is not None
    overruled(deps, "concept_drift", "sensor_fault")
    assert pipeline_row(deps.session, NAME).pending is None


# ── rows of a fault ─────────────────────────────────────────────────────────


def ended(since: float, until: float, at: float) -> DriftEnded:
    return DriftEnded(
        pipeline=NAME, cause="sensor_fault", features=["a"], since=day(since),
        until=day(until), detected_at=day(at),
    ).with_meta(meta("over"))  # fmt: skip


def asked_for(deps: Deps) -> TrainingStarted:
    """What a person's wish starts; the job before has ended."""
    end_job(deps)
    wish = request().with_meta(meta(f"wish-{len(list(jobs_of(deps)))}"))
    [started] = handlers.on_retrain_requested(wish, deps)
    assert isinstance(started, TrainingStarted)
    return started


def jobs_of(deps: Deps) -> list[TrainerJob]:
    return list(deps.session.exec(select(TrainerJob)))


def test_a_training_leaves_out_what_a_fault_covers_and_its_job_keeps_that(
    deps: Deps,
) -> None:
    give_data(deps, 2000, 80)
    before = asked_for(deps)
    assert before.left_out == []
    end_job(deps)
    list(handlers.on_drift_detected(fault(60, 62).with_meta(meta("v")), deps))
    list(handlers.on_drift_ended(ended(60, 70, 62), deps))
    started = asked_for(deps)
    [stretch] = started.left_out
    assert (stretch.verdict_id, stretch.faulty) == ("v", "rows")
    assert (stretch.start, stretch.end) == (day(60), day(70))
    job = last_job(deps.session, NAME)
    assert job is not None
    assert list(job.asked().left_out) == started.left_out
    assert started.holdout_span.end == day(80)
    assert started.holdout_span.start < before.holdout_span.start  # ten days are gone


def test_an_open_fault_moves_the_hold_out_before_it_and_a_person_back(
    deps: Deps,
) -> None:
    give_data(deps, 2000, 80)
    end_job(deps)
    list(handlers.on_drift_detected(fault(60, 62).with_meta(meta("v")), deps))
    assert asked_for(deps).holdout_span.end == day(60)
    end_job(deps)
    overruled(deps, "sensor_fault", "seasonality", verdict="v")
    started = asked_for(deps)
    assert started.holdout_span.end == day(80)
    assert started.left_out == []


def test_a_pipeline_may_want_the_rows_of_faults(deps: Deps) -> None:
    """Negative control of the two above."""
    how = spec(train={"leave_out_faults": False})
    deps.pipelines.put(PipelineApplied(pipeline=NAME, spec=how, applied_by="ada"))
    give_data(deps, 2000, 80)
    list(handlers.on_drift_detected(fault(60, 62).with_meta(meta("v")), deps))
    started = asked_for(deps)
    assert started.holdout_span.end == day(80)
    assert started.left_out == []


def test_while_all_new_rows_are_of_a_fault_nothing_is_learned_twice(
    deps: Deps,
) -> None:
    how = spec(retrain={"every_rows": 100, "cooldown_days": 1})
    deps.pipelines.put(PipelineApplied(pipeline=NAME, spec=how, applied_by="ada"))
    list(handlers.on_model_deployed(deployed(1, 1), deps))
    assert len(give_data(deps, 2000, 80)) == 1
    end_job(deps)
    event = fault(79, 80).with_meta(meta("v"))
    list(handlers.on_drift_detected(event, deps))
    said = [*give_data(deps, 2200, 84), *give_data(deps, 2400, 88)]
    [skipped] = said
    assert isinstance(skipped, TrainingSkipped)
    assert skipped.reason == "cooldown"
    assert "of a fault and left out" in skipped.detail
    list(handlers.on_drift_ended(ended(79, 86, 80), deps))
    [started] = give_data(deps, 2500, 89)  # what waited starts; two days are good
    assert isinstance(started, TrainingStarted)
    assert started.trigger.event_id == skipped.trigger.event_id


def test_people_are_told_of_a_training_under_way_that_reads_a_fault(
    deps: Deps,
) -> None:
    [started] = give_data(deps, 2000, 80)
    told = handlers.on_drift_detected(fault(60, 62).with_meta(meta("v")), deps)
    skipped, alert = told
    assert isinstance(skipped, TrainingSkipped)
    assert isinstance(alert, AlertRaised)
    assert alert.condition == f"fault-in-training/{started.job_id}/v"
    assert started.job_id in alert.detail
    later = handlers.on_drift_detected(fault(81, 82).with_meta(meta("w")), deps)
    assert [type(event) for event in later] == [TrainingSkipped]  # it reads none of it
