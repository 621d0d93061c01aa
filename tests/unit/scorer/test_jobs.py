"""Jobs that score a dataset: each row once, each end said once, whatever happens."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import (
    DatasetRef,
    ServedModel,
    ServingDesired,
    TableRef,
)
from driftloop.contracts.scoring import (
    DatasetScored,
    ScoringCancelled,
    ScoringCancelRequested,
    ScoringFailed,
    ScoringProgressed,
    ScoringRequested,
    ScoringStarted,
    job_id_of,
)
from driftloop.models.package import InputColumn
from driftloop.runtime.database import open_database
from driftloop.runtime.envelope import decode
from driftloop.runtime.errors import Retry, Skip
from driftloop.runtime.outbox import OutboxRelay
from driftloop.runtime.service import Runtime
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message
from driftloop.scorer.background import give_way
from driftloop.scorer.feeds import feeds_of
from driftloop.scorer.jobs import answers, work
from driftloop.scorer.jobs.answers import AnswersTable, answers_schema
from driftloop.scorer.jobs.asking import ask, cancel
from driftloop.scorer.jobs.facts import CannotScore, Facts
from driftloop.scorer.jobs.loop import MAX_FAILURES, MAX_FAULTS, ScoringJobs
from driftloop.scorer.jobs.source import Source
from driftloop.scorer.settings import ScorerSettings
from driftloop.scorer.shelf import Loaded, Served, Shelf
from driftloop.scorer.tables import ScorerJob
from driftloop.scorer.unfamiliar import Familiar
from opentelemetry.sdk.trace import TracerProvider
from sqlmodel import Session

from tests.unit.runtime.bench import RecordingPublisher
from tests.unit.scorer import packages
from tests.unit.scorer.packages import NAME, Factory
from tests.unit.scorer.test_job_facts import facts, registered, versioned

E = TypeVar("E", bound=Event)
FILES, FILE_ROWS, PART_ROWS = 4, 700, 300
ROWS = FILES * FILE_ROWS


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return Factory(tmp_path_factory.mktemp("home"))


class Place:
    """A dataset, a database, and loops that share both as scorers do."""

    def __init__(self, folder: Path, factory: Factory) -> None:
        self.folder, self.factory = folder, factory
        self.engine = open_database(f"sqlite:///{folder}/scorer.db", [ScorerJob])
        self.publisher = RecordingPublisher()
        self.loaded = factory.loaded(1, 1.0)
        model = ServedModel(version=1, package=self.loaded.package)
        wish = ServingDesired(pipeline=NAME, generation=1, champion=model)
        self.desired = StateView(ServingDesired, {NAME: wish})
        self.uri = str(folder / "datasets" / NAME / "observations")
        self.known = [versioned(0)]
        self.asked = 0
        self.opens: Callable[[str, ServedModel], Loaded] = lambda *_: self.loaded

    def write(self, files: int = FILES, rows: int = FILE_ROWS) -> None:
        for number in range(files):
            size = np.random.default_rng(number).normal(size=rows)
            colours = ["red", "blue"] * (rows // 2)
            write_deltalake(
                self.uri,
                pa.table(
                    {
                        "id": [f"{number}-{row}" for row in range(rows)],
                        "event_time": pa.array(
                            [packages.START] * rows, pa.timestamp("us", "UTC")
                        ),
                        "size": size,
                        "colour": colours[:rows],
                        "extra": ["{}"] * rows,
                    }
                ),
                mode="append",
            )
        version = DeltaTable(self.uri).version()
        dataset = DatasetRef(observations=TableRef(uri=self.uri, version=version))
        told = versioned(version).model_copy(update={"dataset": dataset})
        self.known = [told, registered(1), registered(2)]

    def request(self, dataset: str = "latest", version: int | None = None) -> str:
        self.asked += 1
        event = ScoringRequested(
            pipeline=NAME, dataset=dataset, version=version, requested_by="ann"
        )
        name = f"request-{self.asked}"
        now = packages.START + timedelta(seconds=self.asked)
        event = event.with_meta(Meta(name, now, "/test", Chain(name)))
        with Session(self.engine) as session:
            ask(session, event)
            session.commit()
        return job_id_of(event.meta.id)

    def cancel(self, job: str) -> None:
        event = ScoringCancelRequested(
            pipeline=NAME, job_id=job, requested_by="bob", reason="no need"
        )
        with Session(self.engine) as session:
            cancel(session, event)
            session.commit()

    def loop(
        self, replica: str = "0", lease_s: float = 60, facts_of: Any = None
    ) -> ScoringJobs:
        settings = ScorerSettings(
            home=self.folder, replica=replica, scoring_part_rows=PART_ROWS,
            scoring_lease_seconds=lease_s,
        )  # fmt: skip
        tracer = TracerProvider().get_tracer("test")
        outbox = OutboxRelay(
            "scorer", self.engine, self.publisher, self.factory.store, tracer, replica
        )
        runtime = Runtime(
            settings, self.engine, self.factory.store, outbox, self.publisher, tracer,
            StateView(ServingDesired), {ServingDesired: self.desired},
            Session(self.engine), threading.Event(),
        )  # fmt: skip
        return ScoringJobs(
            runtime, Shelf(), self.opens, threading.Event(),
            facts_of or self.facts,
        )  # fmt: skip

    def facts(self, _: str, wanted: str) -> Facts:
        return facts(*self.known, *self.all_said(), wanted=wanted)

    def row(self, job: str) -> ScorerJob:
        with Session(self.engine, expire_on_commit=False) as session:
            row = session.get(ScorerJob, job)
            assert row is not None
            return row

    def step(self, loop: ScoringJobs) -> bool:
        """One turn of a loop; whatever waits has waited long enough."""
        with self.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE scorer_job SET lease_expires_at = 0 WHERE state = 'waiting'"
            )
        return loop._step()

    def all_said(self) -> list[Event]:
        found: dict[str, Event] = {}
        for record in self.publisher.sent:
            message = Message(
                record.topic, 0, 0, record.key, record.value, record.headers, 0
            )
            event = decode(message, self.factory.store)
            found.setdefault(event.meta.id, event)
        return list(found.values())

    def said(self, kind: type[E]) -> list[E]:
        return [event for event in self.all_said() if isinstance(event, kind)]

    def answers(self) -> list[dict[str, Any]]:
        (scored,) = self.said(DatasetScored)
        ref = scored.answers
        found = DeltaTable(ref.uri, version=ref.version).to_pyarrow_table()
        return list(found.to_pylist())


@pytest.fixture
def place(tmp_path: Path, factory: Factory) -> Place:
    made = Place(tmp_path, factory)
    made.write()
    return made


class Killed(BaseException):
    """The process ends here."""


def test_a_version_is_scored_and_told(place: Place) -> None:
    job = place.request()
    assert place.step(place.loop())
    (started,) = place.said(ScoringStarted)
    assert started.plan.row_count == ROWS
    (scored,) = place.said(DatasetScored)
    assert (scored.job_id, scored.row_count, scored.error_count) == (job, ROWS, 0)
    assert (scored.version, scored.requested_by) == (1, "ann")
    assert scored.cpu_seconds > 0
    assert scored.duration_seconds > 0
    assert scored.meta.chain.id == scored.meta.causation_id == "request-1"
    rows = {row["id"]: row for row in place.answers()}
    assert len(rows) == len(place.answers()) == ROWS
    there = DeltaTable(place.uri).to_pyarrow_table()
    said = place.loaded.answer(there.combine_chunks().to_batches()[0])
    want = dict(zip(there["id"].to_pylist(), said.prediction.to_pylist(), strict=True))
    assert {key: row["prediction"] for key, row in rows.items()} == want
    assert set(rows["0-0"]) == {
        "id", "event_time", "prediction", "unfamiliar", "version",
    }  # fmt: skip
    assert not place.step(place.loop())  # there is nothing else to do


@pytest.mark.parametrize("kill_at", range(1, 11))
def test_a_kill_anywhere_gives_each_row_one_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    """Before the ``kill_at``-th part is committed, and once more just after it."""
    append, calls = AnswersTable.append, 0

    def killed(table: AnswersTable, part: Sequence[pa.RecordBatch], done: int) -> None:
        nonlocal calls
        calls += 1
        if calls == kill_at:
            raise Killed
        append(table, part, done)
        if calls == kill_at + 1:
            raise Killed

    monkeypatch.setattr(AnswersTable, "append", killed)
    place.request()
    kills = 0
    while not place.said(DatasetScored):
        try:
            place.step(place.loop())
        except Killed:
            kills += 1
    parts = -(-ROWS // 500)  # a part ends with a call of the model
    assert kills == sum(kill_at + after <= parts + after for after in (0, 1))
    ids = [row["id"] for row in place.answers()]
    assert len(ids) == len(set(ids)) == ROWS
    assert len(place.said(ScoringStarted)) == 1


def test_a_frozen_scorer_wakes_too_late_and_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has gone on, and finished, while it slept just before a commit."""
    append = AnswersTable.append
    place.request()

    def overtaken(
        table: AnswersTable, part: Sequence[pa.RecordBatch], done: int
    ) -> None:
        monkeypatch.setattr(AnswersTable, "append", append)
        assert place.step(place.loop("b"))
        append(table, part, done)

    monkeypatch.setattr(AnswersTable, "append", overtaken)
    place.step(place.loop("a", lease_s=1e-6))
    assert len(place.said(DatasetScored)) == 1
    assert len({row["id"] for row in place.answers()}) == ROWS
    assert place.row(place.said(DatasetScored)[0].job_id).state == "done"


def test_another_scorer_leaves_a_job_alone_that_is_being_done(place: Place) -> None:
    place.request()
    taken = place.loop("a")._leases.take()
    assert taken is not None
    assert not place.step(place.loop("b"))
    assert place.step(place.loop("a"))  # restarted


def test_what_the_log_has_the_end_of_is_not_done_again(place: Place) -> None:
    """As when the database is lost: the requests come again, the log is as it was."""
    job = place.request()
    place.step(place.loop())
    with Session(place.engine) as session:
        session.delete(session.get(ScorerJob, job))
        session.commit()
    place.asked = 0
    assert place.request() == job
    before = place.all_said()
    place.step(place.loop())
    assert place.all_said() == before
    assert place.row(job).state == "done"
    assert len(place.answers()) == ROWS


def test_what_the_log_has_the_beginning_of_stays_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is lost, and another version is in service: the job goes on."""
    append = AnswersTable.append

    def killed(table: AnswersTable, part: Sequence[pa.RecordBatch], done: int) -> None:
        append(table, part, done)
        raise Killed

    job = place.request()
    monkeypatch.setattr(AnswersTable, "append", killed)
    with pytest.raises(Killed):
        place.step(place.loop())
    monkeypatch.setattr(AnswersTable, "append", append)
    with Session(place.engine) as session:
        session.delete(session.get(ScorerJob, job))
        session.commit()
    other = ServedModel(version=2, package=place.loaded.package)
    place.desired.put(ServingDesired(pipeline=NAME, generation=2, champion=other))
    place.asked = 0
    place.request()
    place.step(place.loop())
    assert {row["version"] for row in place.answers()} == {1}
    assert len({row["id"] for row in place.answers()}) == ROWS
    assert len(place.said(ScoringStarted)) == 1
    assert place.said(ScoringProgressed)[-1].resumed_from == 500


def test_a_request_from_two_sources_is_one_job(place: Place) -> None:
    place.request()
    place.asked = 0
    with pytest.raises(Skip, match="repeat"):
        place.request()


def test_an_id_of_upstream_is_no_address() -> None:
    """It becomes part of one, so whatever it is, the job has an id of its own."""
    for name in ("../../etc", "a/b", "", "x" * 1000):
        assert UUID(job_id_of(name))
    assert job_id_of("a") == job_id_of("a") != job_id_of("b")


def test_a_cancelled_job_ends_once_and_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = AnswersTable.append
    job = place.request()
    loop = place.loop()

    def then_cancelled(
        table: AnswersTable, part: Sequence[pa.RecordBatch], done: int
    ) -> None:
        append(table, part, done)
        place.cancel(job)
        loop.recheck.set()

    monkeypatch.setattr(AnswersTable, "append", then_cancelled)
    place.step(loop)
    assert not place.said(ScoringCancelled)
    place.step(loop)
    (cancelled,) = place.said(ScoringCancelled)
    assert (cancelled.cancelled_by, cancelled.reason) == ("bob", "no need")
    assert not (place.folder / "datasets" / NAME / "scores" / job).exists()
    assert not place.said(DatasetScored)
    with pytest.raises(Skip, match="ended"):
        place.cancel(job)


def test_a_cancellation_may_come_before_its_request(place: Place) -> None:
    place.cancel(job_id_of("request-1"))
    assert not place.step(place.loop())
    place.request()
    place.step(place.loop())
    assert len(place.said(ScoringCancelled)) == 1
    assert not place.said(ScoringStarted)


def test_a_job_waits_for_what_is_away_and_then_goes_on(place: Place) -> None:
    faults = iter([Retry("the broker is away"), Retry("still")])

    def facts_of(*_: str) -> Facts:
        for fault in faults:
            raise fault
        return facts(*place.known)

    job = place.request()
    loop = place.loop(facts_of=facts_of)
    for _ in range(2):
        place.step(loop)
        assert place.row(job).state == "waiting"
    place.step(loop)
    assert len(place.said(DatasetScored)) == 1


def test_a_job_does_not_wait_for_ever(place: Place) -> None:
    def facts_of(*_: str) -> Facts:
        raise Retry("the broker is away")

    job = place.request()
    loop = place.loop(facts_of=facts_of)
    for _ in range(MAX_FAULTS):
        assert not place.said(ScoringFailed)
        place.step(loop)
    (failed,) = place.said(ScoringFailed)
    assert (failed.error, failed.job_id) == ("the broker is away", job)


def test_a_bug_fails_its_job_alone(place: Place) -> None:
    def broken(*_: object) -> Facts:
        raise ZeroDivisionError("by zero")

    place.request()
    for _ in range(MAX_FAILURES):
        place.step(place.loop(facts_of=broken))
    (failed,) = place.said(ScoringFailed)
    assert failed.error == "ZeroDivisionError: by zero"
    assert failed.attempts == MAX_FAILURES
    place.request()
    place.step(place.loop())
    assert len(place.said(DatasetScored)) == 1


def test_a_version_that_cannot_be_loaded_is_said(place: Place) -> None:
    def refuses(*_: object) -> Loaded:
        raise ValueError("the signature does not fit")

    place.opens = refuses
    place.request(version=2)
    place.step(place.loop())
    (failed,) = place.said(ScoringFailed)
    assert failed.error == "version 2 cannot be loaded: the signature does not fit"
    assert failed.version == 2
    assert not place.said(ScoringStarted)


def test_a_version_is_opened_at_the_priority_of_the_process(place: Place) -> None:
    """Else its trial, a child, waits on a busy machine until it counts as too slow."""
    found: list[int] = []

    def opens(*_: object) -> Loaded:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return place.loaded

    place.opens = opens
    place.request(version=2)
    loop = place.loop()
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    worker = threading.Thread(target=lambda: (give_way(), place.step(loop)))
    worker.start()
    worker.join()
    assert found == [usual]
    assert place.said(DatasetScored)


def test_a_job_that_is_cancelled_while_its_version_is_opened_is_left(
    place: Place,
) -> None:
    goes_on = threading.Event()
    opened = threading.Event()

    def opens(*_: object) -> Loaded:
        opened.set()
        assert goes_on.wait(120)
        return place.loaded

    place.opens = opens
    job = place.request(version=2)
    loop = place.loop()
    worker = threading.Thread(target=place.step, args=(loop,))
    worker.start()
    assert opened.wait(120)
    place.cancel(job)
    loop.recheck.set()
    worker.join(120)
    assert not worker.is_alive()
    place.step(loop)
    assert place.said(ScoringCancelled)
    assert not place.said(DatasetScored)
    goes_on.set()


def test_a_version_in_memory_is_not_loaded_again(place: Place) -> None:
    def refuses(*_: object) -> Loaded:
        raise AssertionError

    place.opens = refuses
    place.request()
    loop = place.loop()
    loop._shelf.show(NAME, Served(1, champion=place.loaded))
    place.step(loop)
    assert len(place.said(DatasetScored)) == 1


def test_a_model_without_any_answer_is_a_failure(place: Place) -> None:
    place.loaded = place.factory.loaded(1, 200.0, extra=packages.RAISES_ABOVE_100)
    job = place.request(version=1)
    place.known[1] = registered(1)
    place.step(place.loop())
    (failed,) = place.said(ScoringFailed)
    assert f"version 1 answered none of {ROWS:,} rows: " in failed.error
    assert not (place.folder / "datasets" / NAME / "scores" / job).exists()


def test_an_empty_version_has_no_answers(place: Place) -> None:
    DeltaTable(place.uri).delete()
    version = DeltaTable(place.uri).version()
    dataset = DatasetRef(observations=TableRef(uri=place.uri, version=version))
    place.known[0] = versioned(version).model_copy(update={"dataset": dataset})
    place.request()
    place.step(place.loop())
    assert place.said(DatasetScored)[0].row_count == 0
    assert place.answers() == []


def test_progress_is_told_now_and_then() -> None:
    now, told = 0.0, list[dict[str, Any]]()
    progress = work.Progress(told.append, 3, 1000, 200, clock=lambda: now)
    progress.reached(300)
    now = 0.5
    progress.reached(400)
    now = 4.0
    progress.reached(600)
    assert [t["done_count"] for t in told] == [300, 600]
    assert [t["eta_seconds"] for t in told] == [None, 4.0]
    assert {t["resumed_from"] for t in told} == {200}


def test_a_source_says_what_it_lacks(place: Place) -> None:
    ref = TableRef(uri=place.uri, version=0)
    with pytest.raises(CannotScore, match="no column weight, height"):
        Source(NAME, ref, ["size", "weight", "height"], None)
    gone = TableRef(uri=f"{place.uri}-gone", version=0)
    with pytest.raises(CannotScore, match="cannot be read at version 0"):
        Source(NAME, gone, ["size"], None)
    source = Source(NAME, ref, ["size"], None)
    assert [batch.num_rows for batch in source.batches(0, 500)] == [500, 200]
    for file in Path(place.uri).glob("*.parquet"):
        file.unlink()
    with pytest.raises(CannotScore, match="cannot be read") as error:
        list(source.batches(0, 500))
    assert "driftloop datasets show" in error.value.remedy


def test_a_source_goes_on_anywhere_in_one_order(place: Place) -> None:
    """Negative control: the order is not that of the commits by chance."""
    source = Source(NAME, TableRef(uri=place.uri, version=FILES - 1), ["size"], None)
    whole = [i for b in source.batches(0, 256) for i in b["id"].to_pylist()]
    assert len(set(whole)) == len(whole) == source.row_count == ROWS
    for start in (1, 255, 256, FILE_ROWS, FILE_ROWS + 1, ROWS - 1, ROWS):
        rest = [i for b in source.batches(start, 100) for i in b["id"].to_pylist()]
        assert rest == whole[start:]


def most_held(uri: str, rows: int) -> tuple[int, int]:
    """Write a file of so many rows; return its bytes, and those held in reading it."""
    columns = [f"x{number}" for number in range(4)]
    chance = np.random.default_rng(0)
    times = np.zeros(rows, dtype="datetime64[us]")
    table = pa.table(
        {
            "id": pa.array(range(rows)).cast(pa.string()),
            "event_time": pa.array(times, pa.timestamp("us", "UTC")),
            **{name: chance.normal(size=rows) for name in columns},
        }
    )
    write_deltalake(uri, table)
    whole = table.nbytes
    del table
    pool = pa.default_memory_pool()
    before, most, seen = pool.bytes_allocated(), 0, 0
    source = Source(NAME, TableRef(uri=uri, version=0), columns, None)
    assert len(source._files) == 1
    for batch in source.batches(0, 500):
        seen += batch.num_rows
        most = max(most, pool.bytes_allocated() - before)
    assert seen == rows
    return whole, most


def test_what_a_source_holds_does_not_grow_with_a_file(tmp_path: Path) -> None:
    small, of_small = most_held(str(tmp_path / "small"), 200_000)
    large, of_large = most_held(str(tmp_path / "large"), 800_000)
    assert large > 3 * small
    assert of_large < 1.2 * of_small
    assert of_large < large / 2


def test_a_column_of_another_type_is_said(place: Place) -> None:
    write_deltalake(
        place.uri,
        pa.table({"id": ["a"], "event_time": [None], "size": ["?"], "colour": ["red"]}),
        mode="overwrite",
        schema_mode="overwrite",
    )
    version = DeltaTable(place.uri).version()
    dataset = DatasetRef(observations=TableRef(uri=place.uri, version=version))
    place.known[0] = versioned(version).model_copy(update={"dataset": dataset})
    place.request()
    place.step(place.loop())
    assert "feature 'size' should be number" in place.said(ScoringFailed)[0].error


def test_answers_of_many_classes_keep_their_scores(tmp_path: Path) -> None:
    schema = answers_schema(["a", "b", "c"])
    assert schema.field(answers.SCORE).type == pa.list_(pa.float64())
    table = AnswersTable(str(tmp_path / "t"), "job", schema, None)
    assert (table.done, table.ref().version) == (0, 0)


INPUTS = [
    InputColumn(name="size", type="number", nullable=True, least=-1.0, greatest=1.0),
    InputColumn(name="colour", type="category", nullable=True, categories=["a"]),
]


def test_unfamiliar_values_are_named_row_by_row() -> None:
    feeds, count = feeds_of(
        {"size": [0.0, 2.0, None, -2.0], "colour": ["a", "a", None, "b"]}, INPUTS
    )
    found = Familiar(INPUTS).by_row(feeds, count)
    assert found == [None, ["size"], None, ["size", "colour"]]
    by_column = {
        one.column: one.row_count for one in Familiar(INPUTS).unfamiliar(feeds)
    }
    assert by_column == {"size": 2, "colour": 1}
