"""Schedule, accuracy floor and budget; and what no history of triggers may do."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    Measurement,
    ModelDeployed,
    PackageRef,
    PerformanceMeasured,
    PipelineApplied,
    Span,
    TrainingCancelRequested,
    TrainingSkipped,
    TrainingStarted,
)
from driftloop.contracts.pipeline import PipelineFileError, PipelineSpec, parse_pipeline
from driftloop.contracts.retraining import AccuracyFloorSection, BudgetSection
from driftloop.runtime.database import open_database
from driftloop.runtime.state import StateView
from driftloop.trainer import core, handlers
from driftloop.trainer.budget import budget_end
from driftloop.trainer.core import LastJob, SkipWith, Spent, Start, State
from driftloop.trainer.floor import FloorCount, measured
from driftloop.trainer.handlers import Deps
from driftloop.trainer.tables import OPEN_STATES, TABLES, TrainerJob, pipeline_row
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine
from sqlmodel import Session, select

from tests.unit.support import examples
from tests.unit.trainer.cases import (
    NAME,
    data,
    day,
    drift,
    meta,
    request,
    spec,
    versioned,
)


def last_job(end: float, *, champion: int | None = 1, failed: bool = False) -> LastJob:
    return LastJob("job-1", False, failed, day(end), 1000, champion, day(end))


def measurement(value: float, rows: int = 100, *, version: int = 1, metric="mae"):
    return PerformanceMeasured(
        pipeline=NAME,
        span=Span(start=day(99), end=day(100)),
        row_count=rows,
        measurements=[
            Measurement(version=9, role="candidate", metric=metric, value=1e9),
            Measurement(version=version, role="champion", metric=metric, value=value),
        ],
    )


# ── schedule ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("schedule", "early", "due"),
    # 2011-01-01 was a Saturday, so day 51 is Monday 2011-02-21.
    [({"every_days": 10}, 59.9, 60), ({"cron": "0 3 * * 1"}, 51.1, 51.125)],
)
def test_a_schedule_is_due_in_event_time(schedule, early: float, due: float) -> None:
    how = spec(retrain={"schedule": schedule, "cooldown_days": 0})
    before = State(data(1001, end=early), 1, last_job(50))
    assert core.after_data("e", before, how) is None
    started = core.after_data("e", State(data(1001, end=due), 1, last_job(50)), how)
    assert isinstance(started, Start)
    assert started.trigger.reason == "schedule"
    assert started.trigger.event_id == "e"


def test_missed_dates_of_a_schedule_are_one_training() -> None:
    how = spec(retrain={"schedule": {"every_days": 1}, "cooldown_days": 0})
    late = State(data(1001, end=80), 1, last_job(50))
    assert isinstance(core.after_data("e", late, how), Start)
    trained = State(
        data(1001, end=80), 1, LastJob("j", False, False, day(80), 1001, 1, day(80))
    )
    assert core.after_data("f", trained, how) is None


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        ("{every_days: 1, cron: 0 3 * * 1}", "not both"),
        ("{cron: every monday}", "not a cron expression"),
        ("{cron: 0 0 31 2 *}", "retrain.schedule.cron"),
        ("{every_day: 1}", "did you mean 'every_days'"),
        ("{every_days: 0}", "retrain.schedule.every_days"),
    ],
)
def test_a_wrong_schedule_is_refused(schedule: str, said: str) -> None:
    file = "{name: a, task: binary, data: {target: y}, retrain: {schedule: %s}}"
    with pytest.raises(PipelineFileError, match=said):
        parse_pipeline(file % schedule)


# ── accuracy floor ──────────────────────────────────────────────────────────

FLOOR = AccuracyFloorSection(max_loss=1.0, window_rows=200, patience=2)


def windows(values: list[float], how: AccuracyFloorSection = FLOOR, **more) -> list:
    """Return what each measurement of a hundred rows leads to."""
    count, said = None, []
    for value in values:
        count, version = measured(count, measurement(value, **more), how)
        said.append(version)
    return said


def test_one_noisy_window_is_not_enough() -> None:
    assert windows([9, 9, 0, 0, 9, 9, 0, 0]) == [None] * 8
    assert windows([9, 9, 9, 9]) == [None, None, None, 1]
    assert windows([9, 9, 9, 9, 9, 9, 9, 9]).count(1) == 2  # patience begins anew


def test_small_measurements_fill_a_window_together() -> None:
    assert windows([0, 2.2, 0, 2.2]) == [None, None, None, 1]
    assert windows([0, 1.9, 0, 1.9]) == [None] * 4


def test_another_version_is_judged_from_its_start() -> None:
    bad = FloorCount(1, bad_windows=1)
    count, said = measured(bad, measurement(9, 200, version=2), FLOOR)
    assert said is None
    assert count == FloorCount(2, bad_windows=1)


def test_a_root_of_mean_squares_is_put_together_as_squares() -> None:
    how = AccuracyFloorSection(max_loss=1.5, window_rows=200, patience=1)
    assert windows([0, 2], how, metric="rmse") == [None, None]  # sqrt(2)
    assert windows([0, 2.2], how, metric="rmse") == [None, 1]


def test_what_is_no_number_is_bad_and_no_floor_is_never_broken() -> None:
    assert windows([float("nan")] * 4) == [None, None, None, 1]
    assert windows([9.0] * 9, AccuracyFloorSection()) == [None] * 9


def test_the_floor_leads_to_a_training_as_a_drift_does() -> None:
    state = State(data(end=100), 1, last_job(50))
    found = core.after_floor(measurement(9), "p", 1, state, spec())
    assert isinstance(found, Start)
    assert found.trigger.reason == "accuracy_floor"
    assert found.trigger.event_type == "performance-measured"
    held = core.after_floor(
        measurement(9), "p", 1, State(data(end=55), 1, last_job(50)), spec()
    )
    assert isinstance(held, SkipWith)
    assert held.covered_by_job == "job-1"
    advised = core.after_floor(measurement(9), "p", 1, state, spec(automation="advise"))
    assert isinstance(advised, SkipWith)
    assert advised.reason == "automation_advise"


# ── budget ──────────────────────────────────────────────────────────────────


def spent(*ends: float, cpu_minutes: float = 1) -> tuple[Spent, ...]:
    return tuple(Spent(day(end), cpu_minutes * 60) for end in ends)


@pytest.mark.parametrize(
    ("budget", "before", "until"),
    [
        ({"trainings": 2}, spent(80), None),
        ({"trainings": 2}, spent(80, 90), 110),
        ({"trainings": 1}, spent(80, 90), 120),
        ({"trainings": 2}, spent(60, 90), None),
        ({"trainings": 2, "days": 50}, spent(60, 90), 110),
        ({"cpu_minutes": 2.5}, spent(80, 90), None),
        ({"cpu_minutes": 2}, spent(80, 90), 110),
        ({"cpu_minutes": 0.5}, spent(80, 90), 120),
        ({"trainings": 1, "cpu_minutes": 2}, spent(80, 90), 120),
        ({}, spent(80, 90, 95), None),
    ],
)
def test_a_budget_is_free_again_when_old_jobs_leave_its_window(
    budget, before, until: float | None
) -> None:
    found = budget_end(before, BudgetSection(**budget), day(100))
    assert found == (None if until is None else day(until))


def test_a_budget_holds_a_drift_and_says_until_when() -> None:
    how = spec(retrain={"budget": {"trainings": 2}})
    state = State(data(end=100), 1, last_job(90), spent=spent(80, 90))
    found = core.after_drift(drift(100), "d", state, how)
    assert isinstance(found, SkipWith)
    assert found.reason == "budget"
    assert "2 of 2 trainings in 30 days" in found.detail
    assert "2011-04-21" in found.detail  # day 110
    assert found.keep is not None  # after the cooldown, so no job covers it
    waiting = State(data(end=109), 1, last_job(90), found.keep, spent=spent(80, 90))
    assert core.after_data("e", waiting, how) is None
    free = State(data(end=110), 1, last_job(90), found.keep, spent=spent(80, 90))
    assert isinstance(core.after_data("e", free, how), Start)


def test_a_budget_holds_the_next_first_model_and_no_person() -> None:
    how = spec(retrain={"budget": {"trainings": 1}})
    state = State(data(5000), None, last_job(90, champion=None), spent=spent(90))
    assert core.after_data("e", state, how) is None
    assert core.after_data("e", state, spec()) is not None
    assert isinstance(core.after_request(request(), "r", state, how), Start)


# ── what no history may do ──────────────────────────────────────────────────


class World:
    """The trainer's handlers on a database of their own, and the loop that ends jobs.

    Every trigger's answer is kept, to be looked at in the end.
    """

    numbers = itertools.count()

    def __init__(self, session: Session, how: PipelineSpec) -> None:
        self.name = f"p{next(self.numbers)}"
        self.how = how.model_copy(update={"name": self.name})
        applied = PipelineApplied(pipeline=self.name, spec=self.how, applied_by="ada")
        self.session = session
        self.deps = Deps(
            session=session,
            pipelines=StateView(PipelineApplied, {self.name: applied}),
            wake=threading.Event(),
            recheck=threading.Event(),
        )
        self.now, self.rows, self.version, self.generation = 40.0, 1000, 0, 0
        self.events: list[Event] = []
        self.triggers: list[tuple[str, int]] = []
        self.data(0, 0)
        self.end(True)

    def take(self, handler, event: Event, *, is_trigger: bool = False) -> None:
        event_id = f"{self.name}-{next(self.numbers)}"
        event = event.model_copy(update={"pipeline": self.name})
        if is_trigger:
            self.triggers.append((event_id, len(self.events)))
        self.events += handler(event.with_meta(meta(event_id)), self.deps)
        self.session.flush()
        assert len(self.open_jobs()) <= 1
        if is_trigger:
            assert len(self.answers_to(event_id)) == 1  # at once, and one

    def jobs(self) -> list[TrainerJob]:
        query = select(TrainerJob).where(TrainerJob.pipeline == self.name)
        return list(self.session.exec(query))

    def open_jobs(self) -> list[TrainerJob]:
        return [job for job in self.jobs() if job.state in OPEN_STATES]

    def data(self, days: float, rows: int) -> None:
        self.now, self.rows = self.now + days, self.rows + rows
        self.version += 1
        event = versioned(self.rows, self.now)
        self.take(handlers.on_dataset_versioned, event)

    def drift(self, ahead: float) -> None:
        at = self.now + ahead
        event = drift(at, version=self.version)
        self.take(handlers.on_drift_detected, event, is_trigger=True)

    def ask(self) -> None:
        self.take(handlers.on_retrain_requested, request(), is_trigger=True)

    def measure(self, value: float) -> None:
        event = measurement(value, 200, version=self.generation)
        self.take(handlers.on_performance_measured, event)

    def end(self, is_good: bool) -> None:
        """As ``JobLoop._end``, and then the rollout."""
        for job in self.open_jobs():
            job.state = "done" if is_good else "failed"
            job.cpu_seconds = 60
            self.session.flush()
            row = pipeline_row(self.session, self.name)
            state = handlers.state_of(self.session, row, self.how)
            follow_up = core.after_job(state, self.how)
            if follow_up:
                said = handlers.accept(
                    self.session, row, follow_up, self.how, meta("end")
                )
                self.events.append(said)
            if is_good:
                self.deploy()

    def deploy(self) -> None:
        self.generation += 1
        package = PackageRef(uri="p", digest="0" * 64, signer="s")
        event = ModelDeployed(
            pipeline=self.name, rollout_id="r", version=self.generation,
            package=package, generation=self.generation,
        )  # fmt: skip
        self.take(handlers.on_model_deployed, event)

    def cancel(self) -> None:
        for job in self.open_jobs():
            event = TrainingCancelRequested(
                pipeline=self.name, job_id=job.id, requested_by="ada", reason="no"
            )
            self.take(handlers.on_training_cancel_requested, event)

    def drain(self) -> None:
        """Let jobs end and event time go on until nothing waits."""
        for _ in range(6):
            while self.open_jobs():
                self.end(True)
            self.data(100, 1)
        while self.open_jobs():
            self.end(True)

    def answers_to(self, event_id: str) -> list[Event]:
        return [
            event
            for event in self.events
            if isinstance(event, TrainingStarted | TrainingSkipped)
            and event.trigger.event_id == event_id
        ]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("data"), st.sampled_from([0.5, 3, 10]), st.integers(0, 400)),
        st.tuples(st.just("drift"), st.sampled_from([-5.0, 0.0, 1.0])),
        st.tuples(st.just("ask")),
        st.tuples(st.just("measure"), st.sampled_from([0.1, 9.0])),
        st.tuples(st.just("end"), st.booleans()),
        st.tuples(st.just("cancel")),
    ),
    min_size=5,
    max_size=25,
)
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Without shrinking: a history is short, and its trail is in the failing world."""
policies = st.fixed_dictionaries(
    {
        "cooldown_days": st.sampled_from([0, 7]),
        "every_rows": st.sampled_from([None, 300]),
        "schedule": st.sampled_from([{}, {"every_days": 5}, {"cron": "0 3 * * 1"}]),
        "accuracy_floor": st.sampled_from([{}, {"max_loss": 1.0}]),
        "budget": st.sampled_from([{}, {"trainings": 2}, {"cpu_minutes": 2}]),
    }
)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = open_database("sqlite://", TABLES)
    yield engine
    engine.dispose()


@contextmanager
def world_of(engine: Engine, retrain: dict) -> Iterator[World]:
    """A world that leaves nothing behind: one of some milliseconds."""
    with Session(engine) as session:
        yield World(session, spec(retrain=retrain))
        session.rollback()


@given(history=steps, retrain=policies)
@settings(max_examples=examples(25), phases=PHASES)
def test_no_trigger_is_lost_and_no_two_jobs_run(engine, history, retrain) -> None:
    """The world's ``take`` looks after each event that at most one job is open."""
    with world_of(engine, retrain) as world:
        look_after(world, history)


def look_after(world: World, history: list) -> None:
    for name, *values in history:
        getattr(world, name)(*values)
    world.drain()
    row = pipeline_row(world.session, world.name)
    assert (row.pending, row.asked) == (None, None)
    started = [x for x in world.events if isinstance(x, TrainingStarted)]
    jobs = {event.job_id for event in started}
    assert len(jobs) == len(started)
    for event_id, position in world.triggers:
        first, *more = world.answers_to(event_id)
        assert len(more) <= 1  # a kept one may start later
        if isinstance(first, TrainingSkipped):
            later = [
                x
                for x in world.events[position + 1 :]
                if isinstance(x, TrainingStarted)
            ]
            assert first.covered_by_job in jobs or later
    every = world.how.retrain.every_rows
    newest = max(world.jobs(), key=lambda job: job.number)
    if every is not None:
        assert world.rows - newest.label_count < every  # the newest rows are learned


@given(
    storm=st.lists(st.sampled_from(["drift", "ask", "measure"]), max_size=40),
    ahead=st.sampled_from([-1.0, 0.0, 1.0]),
    retrain=policies,
)
@settings(max_examples=examples(20), phases=PHASES)
def test_a_storm_is_one_job_and_at_most_one_follow_up(
    engine, storm, ahead, retrain
) -> None:
    with world_of(engine, retrain) as world:
        world.data(2, 100)
        world.end(True)
        before = len(world.jobs())
        act = {
            "drift": lambda: world.drift(ahead),
            "ask": world.ask,
            "measure": lambda: world.measure(9.0),
        }
        for name in storm:
            act[name]()
        assert len(world.jobs()) <= before + 1
        while world.open_jobs():
            world.end(True)
        assert len(world.jobs()) <= before + 2


def test_a_verdict_does_not_push_out_what_a_person_asked_for(engine) -> None:
    with world_of(engine, {}) as world:
        world.data(20, 100)
        world.drift(0)
        world.ask()
        world.drift(1)
        assert len(world.jobs()) == 2
        world.end(True)
        asked = world.open_jobs()[0].asked()
        assert asked.trigger.requested_by == "ada"
        row = pipeline_row(world.session, world.name)
        assert row.pending is not None  # it is about newer data
        world.end(True)
        assert not world.open_jobs()  # that one waits for the cooldown
        world.data(8, 10)
        assert world.open_jobs()[0].asked().trigger.reason == "concept_drift"
