"""A job ends with one event, whoever died in between; a late result is refused."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake
from driftloop.contracts.events import (
    AlertRaised,
    DatasetRef,
    ModelTrained,
    PipelineApplied,
    Span,
    TrainingFailed,
    TrainingProgressed,
    TrainingStarted,
)
from driftloop.models.signing import TrustedKeys, generate_key
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Retry
from driftloop.runtime.leases import Leases
from driftloop.runtime.outbox import OutboxRelay
from driftloop.runtime.service import Runtime
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message
from driftloop.trainer import child, core, jobs, training
from driftloop.trainer.child import ChildJob
from driftloop.trainer.handlers import accept
from driftloop.trainer.jobs import JobLoop
from driftloop.trainer.settings import TrainerSettings
from driftloop.trainer.tables import ORDER, TABLES, TrainerJob, last_job, pipeline_row
from driftloop.trainer.worker import Abandoned, Answer, Crashed, LimitReached
from opentelemetry.sdk.trace import TracerProvider
from sqlmodel import Session

from tests.unit.runtime.bench import RecordingPublisher
from tests.unit.trainer.cases import NAME, drift, meta, rows, spec

Act = Callable[[ChildJob], Answer]


class FakeWorker:
    """Answers as it is told, without a process."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.is_ready = True
        self.cpu_seconds = 2.0

    def warm(self) -> None: ...

    def close(self) -> None: ...

    def forget(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def run(
        self,
        job: ChildJob,
        timeout_s: float,
        is_ours: Callable[[], bool],
        progress: Callable[[dict[str, Any]], None],
    ) -> Answer:
        progress({"step": "read", "done_ratio": 0.0, "detail": ""})
        if not is_ours():
            raise Abandoned
        try:
            return self.act(job)
        except CrashedAt as error:
            progress({"step": "fit", "done_ratio": error.ratio, "detail": ""})
            raise


class Place:
    """A database, a store, and loops that share them as instances do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = rows(400)
        write_deltalake(str(folder / "table"), self.table)
        self.store = FolderStore(folder / "artifacts")
        self.signer = generate_key(folder / "key.pem", folder / "trusted" / "k.pem")
        self.engine = open_database(f"sqlite:///{folder}/trainer.db", TABLES)
        self.publisher = RecordingPublisher()
        applied = PipelineApplied(pipeline=NAME, spec=spec(), applied_by="ada")
        self.pipelines = StateView(PipelineApplied, {NAME: applied})

    def loop(self, act: Act, replica: str = "0", lease_s: float = 30) -> JobLoop:
        settings = TrainerSettings(
            home=self.folder, replica=replica, lease_seconds=lease_s
        )
        tracer = TracerProvider().get_tracer("test")
        outbox = OutboxRelay(
            "trainer", self.engine, self.publisher, self.store, tracer, replica
        )
        runtime = Runtime(
            settings, self.engine, self.store, outbox, self.publisher, tracer,
            self.pipelines, {}, Session(self.engine), threading.Event(),
        )  # fmt: skip
        loop = JobLoop(runtime, self.signer, threading.Event())
        loop._worker = FakeWorker(act)
        return loop

    def accept(self, number: int = 1) -> None:
        """Store a job as a drift leads to it."""
        times = self.table["event_time"].to_pylist()
        known = core.Data(
            DatasetRef.model_validate(
                {"observations": {"uri": str(self.folder / "table"), "version": 0}}
            ),
            400,
            400,
            Span(start=times[0], end=times[-1]),
        )
        event = drift(20).with_meta(meta(f"d{number}"))
        with Session(self.engine) as session:
            row = pipeline_row(session, NAME)
            row.set_data(known)
            start = core.after_drift(event, event.meta.id, core.State(known), spec())
            assert isinstance(start, core.Start)
            accept(session, row, start, spec(), event.meta)
            session.commit()

    def job(self) -> TrainerJob:
        with Session(self.engine) as session:
            job = last_job(session, NAME)
            assert job is not None
            session.expunge_all()
            return job

    def step(self, loop: JobLoop) -> None:
        """One turn of the loop: take a job and work on it, its wait being over."""
        with Session(self.engine) as session:
            row = last_job(session, NAME)
            if row is not None and row.state == "waiting":
                row.lease_expires_at = 0
                session.commit()
        job = loop._leases.take()
        assert job is not None
        loop._work_on(job)

    def said(self, kind: type) -> list:
        found = {}
        for number, record in enumerate(self.publisher.sent):
            message = Message(
                record.topic, 0, number, record.key, record.value, record.headers, 0
            )
            event = decode(message, self.store)
            if isinstance(event, kind):
                found.setdefault(event.meta.id, event)
        return list(found.values())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def train(place: Place) -> Act:
    """Really train, in this process."""

    def act(job: ChildJob) -> Answer:
        using = training.Environment(place.store, TrustedKeys([]), None, 1, job.folder)
        said = child.answer(job, using, lambda *_: None)
        return Answer(said.pop("type"), said)

    return act


def reach(ratio: float) -> Act:
    """Crash after so much of the job."""

    def act(job: ChildJob) -> Answer:
        raise CrashedAt(ratio)

    return act


class CrashedAt(Crashed):
    """For the fake worker: progress to this share, then the crash."""

    def __init__(self, ratio: float) -> None:
        super().__init__(f"killed at {ratio}")
        self.ratio = ratio


def crash(_: ChildJob) -> Answer:
    raise Crashed("out of memory")


def away(_: ChildJob) -> Answer:
    raise Retry("the store is away")


def refuse(_: ChildJob) -> Answer:
    return Answer("refused", {"error": "too few rows"})


def test_a_job_ends_with_one_model_in_the_chain_of_its_trigger(place, train) -> None:
    place.accept()
    place.step(place.loop(train))
    [event] = place.said(ModelTrained)
    assert event.meta.causation_id == "d1"
    assert event.meta.chain.id == "chain-d1"
    assert event.trigger.reason == "concept_drift"
    assert place.job().state == "done"
    assert len(place.said(TrainingProgressed)) == 1
    assert not (place.folder / "trainer" / event.job_id).exists()
    assert place.loop(train)._leases.take() is None


def test_a_crash_is_tried_again_and_three_are_a_failure(place, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "FIRST_CRASH_WAIT_S", 60.0)
    place.accept()
    loop = place.loop(crash)
    place.step(loop)
    assert loop._leases.take() is None  # not before its wait is over
    place.step(loop)
    assert not place.said(TrainingFailed)
    place.step(loop)
    [failed] = place.said(TrainingFailed)
    assert failed.attempts == 3
    assert failed.cpu_seconds == 6.0
    assert failed.error == "out of memory"
    [alert] = place.said(AlertRaised)
    assert alert.condition == f"training-failed/{failed.job_id}"
    assert place.job().state == "failed"
    assert len(place.said(TrainingProgressed)) == 3  # each with an id of its own


def test_waits_between_crashes_grow(place, monkeypatch) -> None:
    place.accept()
    loop, waits = place.loop(crash), []
    put_back = loop._leases.put_back

    def noted(*args, **options) -> None:
        waits.append(options["wait_s"])
        put_back(*args, **options)

    monkeypatch.setattr(loop._leases, "put_back", noted)
    place.step(loop)
    place.step(loop)
    assert waits == [1.0, 2.0]


def test_a_job_that_gets_further_each_time_may_crash_more_often(place) -> None:
    place.accept()
    for ratio in (0.2, 0.3, 0.4, 0.5, 0.6):
        place.step(place.loop(reach(ratio)))
    assert not place.said(TrainingFailed)
    assert place.job().reached == 0.6
    for _ in range(2):
        place.step(place.loop(reach(0.6)))
    assert len(place.said(TrainingFailed)) == 1


def test_a_limit_is_no_crash_and_fails_at_once(place) -> None:
    def limited(_: ChildJob) -> Answer:
        raise LimitReached("more than 16 GiB")

    place.accept()
    place.step(place.loop(limited))
    [failed] = place.said(TrainingFailed)
    assert failed.error == "more than 16 GiB"


def test_a_cancelled_job_ends_where_it_runs_and_says_nothing_more(place, train) -> None:
    place.accept()

    def cancelled_meanwhile(job: ChildJob) -> Answer:
        with Session(place.engine) as session:
            row = last_job(session, NAME)
            row.state = "cancelled"
            session.commit()
        loop.recheck.set()
        assert not loop._is_ours(place.job())  # at once, without waiting for the lease
        (job.folder / "try-mlp.checkpoint").write_bytes(b"state")
        raise Abandoned

    loop = place.loop(cancelled_meanwhile)
    place.step(loop)
    assert place.job().state == "cancelled"
    assert not (place.folder / "trainer" / place.job().id).exists()
    assert not place.said(TrainingFailed)
    assert loop._leases.take() is None


def test_a_job_that_was_cancelled_too_late_gives_no_model(place, train) -> None:
    place.accept()

    def cancelled_at_the_end(job: ChildJob) -> Answer:
        answer = train(job)
        with Session(place.engine) as session:
            row = last_job(session, NAME)
            row.state = "cancelled"
            session.commit()
        return answer

    place.step(place.loop(cancelled_at_the_end))
    assert not place.said(ModelTrained)
    assert place.job().state == "cancelled"


def test_what_all_tries_cost_is_told_with_the_model(place, train) -> None:
    place.accept()
    place.step(place.loop(crash))
    place.step(place.loop(train))
    [trained] = place.said(ModelTrained)
    assert trained.cpu_seconds == 4.0
    assert place.job().cpu_seconds == 4.0


def test_after_a_crash_the_job_can_still_give_its_model(place, train) -> None:
    place.accept()
    place.step(place.loop(crash))
    place.step(place.loop(train))
    assert len(place.said(ModelTrained)) == 1


def test_what_can_never_work_fails_at_once(place) -> None:
    place.accept()
    place.step(place.loop(refuse))
    [failed] = place.said(TrainingFailed)
    assert failed.attempts == 1


def test_a_store_that_is_away_is_waited_for_and_does_not_count(
    place, train, monkeypatch
) -> None:
    monkeypatch.setattr(jobs, "FIRST_FAULT_WAIT_S", 60.0)
    place.accept()
    loop = place.loop(away)
    place.step(loop)
    assert loop._leases.take() is None  # not before its wait is over
    monkeypatch.setattr(jobs, "MAX_FAULT_WAIT_S", 0.0)
    for _ in range(5):
        with Session(place.engine) as session:
            job = session.get(TrainerJob, place.job().id)
            job.lease_expires_at = 0
            session.commit()
        place.step(loop)
    assert place.job().failure_count == 0
    assert not place.said(TrainingFailed)
    place.step(place.loop(train))
    assert len(place.said(ModelTrained)) == 1


def leases(place, owner: str, seconds: float) -> Leases[TrainerJob]:
    return Leases(place.engine, TrainerJob, ORDER, owner, seconds)


def test_a_job_held_by_another_instance_is_left_alone(place) -> None:
    place.accept()
    first = leases(place, "a", 30)
    assert first.take() is not None
    assert leases(place, "b", 30).take() is None
    assert leases(place, "a", 30).take() is not None  # restarted


def test_a_frozen_owner_wakes_too_late_and_changes_nothing(place, train) -> None:
    place.accept()

    def overtaken(job: ChildJob) -> Answer:
        place.step(place.loop(train, "b"))  # the lease is over, another one finishes
        return refuse(job)

    place.step(place.loop(overtaken, "a", lease_s=1e-6))
    assert len(place.said(ModelTrained)) == 1
    assert not place.said(TrainingFailed)
    assert place.job().state == "done"


def test_a_renewal_tells_the_old_owner(place) -> None:
    place.accept()
    old = leases(place, "a", 0)
    job = old.take()
    assert old.renew(job)
    assert leases(place, "b", 30).take() is not None
    assert not old.renew(job)


def test_the_trigger_that_waited_is_trained_for_when_the_job_ends(place, train) -> None:
    from driftloop.contracts.base import chain_of
    from driftloop.trainer.tables import KeptTrigger, Origin

    place.accept()
    with Session(place.engine) as session:
        kept = KeptTrigger.model_validate(
            {
                "trigger": {"event_id": "r", "event_type": "x", "reason": "asked"},
                "since": None,
                "origin": Origin.model_validate(chain_of(meta("r"))),
            }
        )
        pipeline_row(session, NAME).pending = kept.model_dump_json()
        session.commit()
    place.step(place.loop(train))
    [started] = place.said(TrainingStarted)
    assert started.trigger.event_id == "r"
    assert started.meta.chain.id == "chain-r"
    assert place.job().number == 2
    place.step(place.loop(train))
    assert len(place.said(ModelTrained)) == 2


def test_a_stopping_service_gives_the_job_back(place, train) -> None:
    place.accept()
    loop = place.loop(train)
    loop._runtime.stopping.set()
    place.step(loop)
    assert place.job().state == "running"
    place.step(place.loop(train))
    assert len(place.said(ModelTrained)) == 1
