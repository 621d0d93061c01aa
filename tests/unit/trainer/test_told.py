"""A trainer's jobs and waiting triggers from what it told of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
from driftloop.contracts.base import Event, derived_id, numbered
from driftloop.contracts.events import (
    DatasetVersioned,
    DriftDetected,
    PipelineApplied,
    RetrainRequested,
    TrainingCancelled,
    TrainingFailed,
    TrainingSkipped,
    TrainingStarted,
)
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.database import open_database
from driftloop.runtime.envelope import encode
from driftloop.runtime.outbox import source_of
from driftloop.runtime.recorded import Recorded
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message
from driftloop.trainer.app import SERVICE
from driftloop.trainer.handlers import (
    Deps,
    on_dataset_versioned,
    on_drift_detected,
    on_retrain_requested,
    on_training_cancel_requested,
)
from driftloop.trainer.tables import TABLES, TrainerJob, last_job, pipeline_row
from sqlmodel import Session, col, select

from tests.unit.trainer.cases import NAME, drift, meta, request, spec, versioned


class Life:
    """A trainer's handlers on a database, and the log that they write."""

    def __init__(self, store: FolderStore) -> None:
        self.store = store
        self.log: list[Message] = []
        self.begin(forgets=True)

    def begin(self, *, forgets: bool = False) -> None:
        """Begin with an empty database; ``forgets``: nothing is read back."""
        recorded = Recorded(source_of("trainer"), SERVICE.recorded)
        for message in [] if forgets else self.log:
            recorded.add(message, self.store)
        applied = PipelineApplied(pipeline=NAME, spec=spec(), applied_by="ada")
        self.session = Session(open_database("sqlite://", TABLES))
        self.deps = Deps(
            session=self.session,
            pipelines=StateView(PipelineApplied, {NAME: applied}),
            wake=threading.Event(),
            recheck=threading.Event(),
            recorded=recorded,
        )

    def read(self, event: Event, event_id: str) -> list[Event]:
        """Handle an input; return what is said, which goes into the log."""
        handlers = {
            DatasetVersioned: on_dataset_versioned,
            DriftDetected: on_drift_detected,
            RetrainRequested: on_retrain_requested,
        }
        handler = handlers.get(type(event), on_training_cancel_requested)
        event = event.with_meta(meta(event_id))
        if isinstance(event, DatasetVersioned):
            self._write(event, event.meta)
        said = list(handler(event, self.deps))
        self.say(said, event_id)
        return said

    def say(self, events: Sequence[Event], cause: str) -> None:
        for name, event in numbered(events, cause):
            origin = event.follows.id if event.follows else cause
            own = replace(meta(name), source=source_of("trainer"), causation_id=origin)
            self._write(event, own)

    def _write(self, event: Event, own) -> None:
        known = {dict(m.headers)["ce_id"] for m in self.log}
        record = encode(event, own, self.store)
        if own.id.encode() not in known:
            place = (record.topic, 0, len(self.log))
            message = Message(*place, record.key, record.value, record.headers)
            self.log.append(message)

    def jobs(self) -> list[tuple]:
        query = select(TrainerJob).order_by(col(TrainerJob.number))
        return [
            (j.id, j.number, j.state, j.data_end, j.label_count, j.champion_version)
            for j in self.session.exec(query)
        ]

    def waits(self) -> list[str | None]:
        row = pipeline_row(self.session, NAME)
        kept = (row.kept(), row.kept_for_person())
        return [one.trigger.event_id if one else None for one in kept]

    def end(self, kind: type[Event], state: str) -> None:
        """End the job that runs."""
        job = last_job(self.session, NAME)
        assert job is not None
        job.state = state
        common = {"pipeline": NAME, "job_id": job.id, "trigger": job.asked().trigger}
        content = {
            TrainingFailed: {"error": "no", "attempts": 1},
            TrainingCancelled: {"cancelled_by": "bob", "reason": "no"},
        }[kind]
        event = kind.model_validate({**common, **content})
        self.say([event], derived_id(job.id, "end", 0))


@pytest.fixture
def life(tmp_path) -> Life:
    return Life(FolderStore(tmp_path))


INPUTS = (
    ("verdict-1", drift(30)),  # before there are rows: it waits
    ("data-1", versioned(1000, 40)),
    ("verdict-2", drift(50)),  # a job runs
    ("wish", request()),
)


def test_another_order_of_topics_comes_to_the_same(life: Life) -> None:
    for name, event in INPUTS:
        life.read(event, name)
    jobs, waits, log = life.jobs(), life.waits(), list(life.log)
    assert waits == ["verdict-2", "wish"]
    for order in (INPUTS, INPUTS[::-1], INPUTS[1:] + INPUTS[:1]):
        life.begin()
        assert [life.read(event, name) for name, event in order] == [[]] * len(order)
        assert (life.jobs(), life.waits(), life.log) == (jobs, waits, log)


def test_one_that_forgets_decides_otherwise(life: Life) -> None:
    """The negative control."""
    for name, event in INPUTS:
        life.read(event, name)
    waits = life.waits()
    life.begin(forgets=True)
    said = [e for name, event in INPUTS[::-1] for e in life.read(event, name)]
    assert said
    assert life.waits() != waits


@pytest.mark.parametrize(
    ("kind", "state"), [(TrainingFailed, "failed"), (TrainingCancelled, "cancelled")]
)
def test_a_job_that_has_ended_is_not_trained_again(
    life: Life, kind: type[Event], state: str
) -> None:
    life.read(versioned(1000, 40), "data-1")
    life.end(kind, state)
    jobs = life.jobs()
    life.begin()
    assert life.read(versioned(1000, 40), "data-1") == []
    assert life.jobs() == jobs
    assert [job[2] for job in jobs] == [state]


def test_a_job_that_has_not_ended_waits_to_be_trained(life: Life) -> None:
    [started] = life.read(versioned(1000, 40), "data-1")
    assert isinstance(started, TrainingStarted)
    life.begin()
    life.read(versioned(1000, 40), "data-1")
    job = last_job(life.session, NAME)
    assert job is not None
    assert (job.id, job.state) == (started.job_id, "waiting")
    asked = job.asked()
    assert (asked.dataset, asked.train_span) == (started.dataset, started.train_span)


def test_an_older_dataset_version_decides_nothing(life: Life) -> None:
    """The newest does, if it was not read before; so what waits is not forgotten."""
    life.read(request(), "wish")
    assert life.waits() == [None, "wish"]
    for number in (1, 2):  # told by the validator while the trainer was away
        event = versioned(1000 * number, 40 * number)
        life._write(event, meta(f"data-{number}"))
    life.begin()
    assert life.read(versioned(1000, 40), "data-1") == []
    [started] = life.read(versioned(2000, 80), "data-2")
    assert isinstance(started, TrainingStarted)
    assert started.trigger.event_id == "wish"
    assert started.label_count == 2000


def test_a_trigger_that_a_later_job_has_dealt_with_waits_no_more(life: Life) -> None:
    [skipped] = life.read(drift(30), "verdict-1")
    assert isinstance(skipped, TrainingSkipped)
    assert skipped.waits is not None
    [started] = life.read(versioned(1000, 40), "data-1")
    assert isinstance(started, TrainingStarted)
    life.begin()
    life.read(versioned(1000, 40), "data-1")
    assert life.waits() == [None, None]
