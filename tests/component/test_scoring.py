"""A dataset is scored as a whole, on a real broker: each row once, after any kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    DatasetRef,
    DatasetVersioned,
    Evaluation,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    PackageRef,
    ServedModel,
    ServingDesired,
    Span,
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
from driftloop.local.kafka import KafkaNode
from sqlalchemy import NullPool, create_engine, text
from support import plain

from tests.component.support import (
    TOKEN,
    Events,
    ServiceProcess,
    open_events,
    wait_until,
)
from tests.servers import PostgresqlServer
from tests.unit.scorer import packages
from tests.unit.scorer.packages import Factory

pytestmark = [pytest.mark.slow, pytest.mark.broker, pytest.mark.timeout(600)]

E = TypeVar("E", bound=Event)
FILES, FILE_ROWS = 6, 2_500
PART_ROWS = 500
"""So that a job has parts enough to be killed between them."""
MANY_FILES = 18
"""For a job that goes on for some seconds, on whatever machine."""


@dataclass
class Place:
    """A scorer, a dataset of some versions, and models that nobody serves."""

    name: str
    home: Path
    events: Events
    factory: Factory
    scorer: ServiceProcess
    packages: dict[int, PackageRef] = field(default_factory=dict)
    requests: int = 0

    @property
    def uri(self) -> str:
        return str(self.home / "datasets" / self.name / "observations")

    def add_rows(self, files: int = FILES, **more: list[Any]) -> int:
        """Append files of rows, each a version that is told; return the newest."""
        version = -1
        for _ in range(files):
            version = self._add_file(more)
        return version

    def _add_file(self, more: dict[str, list[Any]]) -> int:
        there = DeltaTable.is_deltatable(self.uri)
        number = DeltaTable(self.uri).version() + 1 if there else 0
        chance = np.random.default_rng(number)
        start = packages.START + timedelta(days=number)
        columns = {
            "id": [f"{number}-{row}" for row in range(FILE_ROWS)],
            "event_time": pa.array([start] * FILE_ROWS, pa.timestamp("us", "UTC")),
            "size": chance.normal(size=FILE_ROWS),
            "colour": chance.choice(["red", "blue"], FILE_ROWS).tolist(),
        } | more
        write_deltalake(self.uri, pa.table(columns), mode="append")
        dataset = DatasetRef(observations=TableRef(uri=self.uri, version=number))
        self.publish(
            DatasetVersioned(
                pipeline=self.name, kind="observations", dataset=dataset,
                added_count=FILE_ROWS, observation_count=FILE_ROWS * (number + 1),
                label_count=0, span=Span(start=start, end=start),
            ),
            f"rows-{number}",
        )  # fmt: skip
        return number

    def publish(self, event: Event, stem: str, times: int = 1) -> str:
        event_id = f"{self.name}-{stem}"
        self.events.publish(event, event_id, times)
        return event_id

    def register(self, version: int, package: PackageRef | None = None) -> PackageRef:
        """Register a version; its constant is its number, so that answers tell it."""
        made = package or self.factory.package(float(version), pipeline=self.name)
        self.packages[version] = made
        evaluation: Evaluation = packages.manifest(
            self.name, packages.INPUTS, is_binary=False
        ).evaluation
        event = ModelRegistered(
            pipeline=self.name, version=version, job_id="job", package=made,
            algorithm="sum", evaluation=evaluation, gate=[],
        )  # fmt: skip
        self.publish(event, f"registered-{version}")
        return made

    def serve(self, version: int, generation: int = 1) -> None:
        model = ServedModel(version=version, package=self.packages[version])
        wish = ServingDesired(pipeline=self.name, generation=generation, champion=model)
        self.publish(wish, f"desired-{generation}")
        self.scorer.wait_until(
            lambda: self.ask([{"size": 0.0, "colour": "blue"}]) == [float(version)],
            f"version {version} does not answer",
        )

    def request(self, dataset: str, version: int | None = None, times: int = 1) -> str:
        """Ask for a dataset to be scored; return the job's id."""
        self.requests += 1
        event = ScoringRequested(
            pipeline=self.name, dataset=dataset, version=version, requested_by="ann"
        )
        return job_id_of(self.publish(event, f"score-{self.requests}", times))

    def ask(self, rows: list[dict[str, Any]]) -> list[float] | None:
        """Ask the served version at its door; None: it does not answer yet."""
        answer = plain.post(
            f"{self.scorer.url}/pipelines/{self.name}/invocations",
            json={"dataframe_records": rows},
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=60,
        )
        found: list[float] | None = None
        if answer.status_code == 200:
            found = answer.json()["predictions"]
        return found

    def said(self, kind: type[E], job: str) -> list[E]:
        """Events of a job, each once: a repeat has the same id."""
        found = {
            event.meta.id: event
            for event in self.events.of(kind)
            if getattr(event, "job_id", None) == job
        }
        return list(found.values())

    def the(self, kind: type[E], job: str) -> E:
        """Wait for the one event of a kind that a job has."""
        self.scorer.wait_until(lambda: self.said(kind, job), f"no {kind.topic()} came")
        (found,) = self.said(kind, job)
        return found

    def killed_beyond(self, job: str, reached: int) -> int:
        """Kill the scorer once more rows have their answer; return how many."""

        def done() -> int:
            told = self.said(ScoringProgressed, job)
            return max((event.done_count for event in told), default=0)

        self.scorer.wait_until(lambda: done() > reached, "the job does not go on")
        self.scorer.kill()
        assert not self.said(DatasetScored, job)  # else it was killed too late
        self.scorer.start()
        return done()

    def answers(self, scored: DatasetScored) -> dict[str, Any]:
        """Return the answers by row id; each id is there once."""
        ref = scored.answers
        rows = DeltaTable(ref.uri, version=ref.version).to_pyarrow_table().to_pylist()
        found = {row["id"]: row for row in rows}
        assert len(found) == len(rows) == scored.row_count
        return found

    def rows(self, version: int) -> list[dict[str, Any]]:
        table = DeltaTable(self.uri, version=version)
        return list(table.to_pyarrow_table().to_pylist())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def parts(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Events, Factory, ServiceProcess]]:
    with KafkaNode(tmp_path_factory.mktemp("kafka")) as node:
        address = node.bootstrap
        settings = {"scorer_scoring_part_rows": str(PART_ROWS)}
        with (
            open_events(address, home) as events,
            ServiceProcess("scorer", address, home, **settings) as scorer,
        ):
            yield home, events, Factory(home), scorer


@pytest.fixture
def place(
    parts: tuple[Path, Events, Factory, ServiceProcess],
    unique_name: Callable[[str], str],
) -> Place:
    return Place(unique_name("town"), *parts)


def test_a_killed_job_gives_each_row_one_answer_and_the_doors_answer(
    place: Place,
) -> None:
    """Also: the request comes twice; a newer version of the dataset is left alone."""
    version = place.add_rows()
    place.add_rows(1)
    place.register(1)
    place.serve(1)
    job = place.request(str(version), times=2)
    reached = 0
    for _ in range(3):
        reached = place.killed_beyond(job, reached)
    scored = place.the(DatasetScored, job)

    rows = place.rows(version)
    found = place.answers(scored)
    assert scored.row_count == len(rows) == FILES * FILE_ROWS
    assert (scored.error_count, scored.version) == (0, 1)
    assert scored.dataset.observations.version == version
    assert set(found) == {row["id"] for row in rows}
    asked = [{"size": row["size"], "colour": row["colour"]} for row in rows]
    said = place.ask(asked)
    assert said == [found[row["id"]]["prediction"] for row in rows]
    assert all(found[row["id"]]["event_time"] == row["event_time"] for row in rows)

    started = place.the(ScoringStarted, job)
    assert started.plan.row_count == scored.row_count
    resumed = [p.resumed_from for p in place.said(ScoringProgressed, job)]
    assert max(r for r in resumed if r) >= reached - PART_ROWS
    for event in (started, scored):
        assert event.meta.chain.id == f"chain-{place.name}-score-1"
    folder = Path(scored.answers.uri)
    assert [x.name for x in folder.parent.iterdir()] == [job]
    committed = DeltaTable(scored.answers.uri).file_uris()
    assert len(list(folder.glob("*.parquet"))) == len(committed)  # nothing is left over


def test_a_version_that_nobody_serves_is_loaded_for_it(place: Place) -> None:
    place.add_rows(1)
    for version in (1, 2):
        place.register(version)
    place.serve(1)
    job = place.request("latest", 2)
    scored = place.the(DatasetScored, job)
    assert scored.version == 2
    assert scored.package == place.packages[2]
    found = place.answers(scored)
    for row in place.rows(0):
        ten = 10.0 if row["colour"] == "red" else 0.0
        want = pytest.approx(row["size"] + ten + 2.0, abs=1e-4)
        assert found[row["id"]]["prediction"] == want
    assert place.ask([{"size": 0.0, "colour": "blue"}]) == [1.0]  # as before


def test_rows_that_a_model_cannot_answer_are_counted(place: Place) -> None:
    sizes = [200.0] * 5 + [0.0] * (FILE_ROWS - 5)
    place.add_rows(1, size=sizes)
    place.register(
        1, place.factory.package(pipeline=place.name, extra=packages.NAN_ABOVE_100)
    )
    scored = place.the(DatasetScored, place.request("0.0", 1))
    assert (scored.row_count, scored.error_count) == (FILE_ROWS, 5)
    found = place.answers(scored)
    assert [i for i, row in found.items() if row["prediction"] is None] == [
        f"0-{row}" for row in range(5)
    ]


def test_what_is_not_there_is_said(place: Place) -> None:
    """And nothing is left of it on the disk."""
    nobody = place.request("latest")
    assert "no version of" in place.the(ScoringFailed, nobody).error
    place.register(1)
    no_rows = place.request("latest", 1)
    assert "has no dataset" in place.the(ScoringFailed, no_rows).error
    place.add_rows(1)
    place.register(2)
    place.register(3)
    foreign = place.factory.package(pipeline=f"{place.name}-other")
    place.register(4, foreign)
    place.register(
        5, place.factory.package(pipeline=place.name, inputs=("weight", "colour"))
    )
    rejected = ModelRejected(
        pipeline=place.name, version=2, reasons=["too slow"], rejected_by="bob"
    )
    place.publish(rejected, "rejected")
    back = ModelRolledBack(
        pipeline=place.name, rollout_id="r", version=3, generation=4, restored=None,
        reason="it was worse",
    )  # fmt: skip
    place.publish(back, "back")
    wrong = {
        place.request("9", 1): "no dataset version '9'; it goes from 0.0 to 0.0",
        place.request("0", 9): "has no version 9",
        place.request("0", 2): "refused: too slow",
        place.request("0", 3): "taken back: it was worse",
        place.request("0", 4): "made for pipeline",
        place.request("0", 5): "has no column weight",
    }
    for job, words in wrong.items():
        failed = place.the(ScoringFailed, job)
        assert words in failed.error
        assert failed.remedy
        assert not place.said(DatasetScored, job)
    right = place.the(DatasetScored, place.request("0", 1))  # negative control
    folder = Path(right.answers.uri).parent
    assert [x.name for x in folder.iterdir()] == [right.job_id]


def test_a_cancelled_job_leaves_nothing(place: Place) -> None:
    place.add_rows(MANY_FILES)
    place.register(1)
    job = place.request("latest", 1)
    place.scorer.wait_until(lambda: place.said(ScoringProgressed, job), "not begun")
    wish = ScoringCancelRequested(
        pipeline=place.name, job_id=job, requested_by="bob", reason="not needed"
    )
    place.publish(wish, "cancel", 2)
    cancelled = place.the(ScoringCancelled, job)
    assert (cancelled.cancelled_by, cancelled.reason) == ("bob", "not needed")
    folder = place.home / "datasets" / place.name / "scores" / job
    place.scorer.wait_until(lambda: not folder.exists(), "its answers are still there")
    last = place.the(DatasetScored, place.request("latest", 1))  # the next one is done
    assert not place.said(DatasetScored, job)
    place.publish(
        ScoringCancelRequested(
            pipeline=place.name, job_id=last.job_id, requested_by="bob", reason="late"
        ),
        "late",
    )
    assert place.the(DatasetScored, place.request("latest", 1))  # after it
    assert not place.said(ScoringCancelled, last.job_id)
    assert len(place.answers(last)) == MANY_FILES * FILE_ROWS


def test_a_scorer_without_its_database_does_nothing_again(place: Place) -> None:
    """What the log has the end of stays; what it has the beginning of goes on."""
    place.add_rows(2)
    place.register(1)
    place.register(2)
    place.serve(1)
    first = place.the(DatasetScored, place.request("latest"))
    place.add_rows(FILES - 2)
    job = place.request("latest")
    place.scorer.wait_until(lambda: place.said(ScoringProgressed, job), "not begun")
    place.scorer.kill()
    for path in (place.home / "databases").glob("scorer-*"):
        path.unlink()
    place.scorer.start()
    place.serve(2, generation=2)  # the job keeps to its own
    second = place.the(DatasetScored, job)
    assert second.version == 1
    assert len(place.answers(second)) == FILES * FILE_ROWS
    place.the(DatasetScored, place.request("latest", 1))  # whatever was before is done
    assert place.the(DatasetScored, first.job_id) == first
    assert place.answers(first)


def owner_of(job: str, *urls: str) -> str | None:
    """Return which scorer has a job, by their databases; None: nobody yet."""
    query = text("SELECT lease_owner FROM scorer_job WHERE id = :id")
    for url in urls:
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            owner: str | None = connection.execute(query, {"id": job}).scalar()
        if owner is not None:
            return owner
    return None


@pytest.mark.parametrize("is_shared", [True, False])
def test_scorers_share_the_jobs(
    parts: tuple[Path, Events, Factory, ServiceProcess],
    unique_name: Callable[[str], str],
    postgresql: PostgresqlServer,
    *,
    is_shared: bool,
) -> None:
    """One is killed in a job for good; another goes on where it was.

    With one database by the lease. With databases of their own, whoever gets the
    partition reads the request again, and finds in the log and the table how far it is.
    """
    home, events, factory, alone = parts
    settings = {
        "scorer_scoring_part_rows": str(PART_ROWS),
        "scorer_scoring_lease_seconds": "6",
    }
    urls = [f"sqlite:///{home}/databases/scorer-{name}.db" for name in ("a", "b")]
    if is_shared:
        urls = [postgresql.new_database()]
        settings["database_url"] = urls[0]
    alone.kill()  # or it would take its share of the requests
    try:
        with (
            ServiceProcess("scorer", alone.broker, home, replica="a", **settings) as a,
            ServiceProcess("scorer", alone.broker, home, replica="b", **settings) as b,
        ):
            place = Place(unique_name("town"), home, events, factory, a)
            place.add_rows(MANY_FILES)
            place.register(1)
            job = place.request("latest", 1)
            wait_until(lambda: place.said(ScoringProgressed, job), "not begun")
            first = owner_of(job, *urls)
            assert first is not None
            assert not place.said(DatasetScored, job)
            {"a": a, "b": b}[first].kill()
            wait_until(lambda: place.said(DatasetScored, job), "it was left")
            (scored,) = place.said(DatasetScored, job)
            assert len(place.answers(scored)) == MANY_FILES * FILE_ROWS
            assert {first, owner_of(job, *reversed(urls))} <= {"a", "b"}
            assert any(p.resumed_from for p in place.said(ScoringProgressed, job))
            {"a": a, "b": b}[first].start()  # it finds that there is nothing to do
            again = place.request("0", 1)
            wait_until(lambda: place.said(DatasetScored, again), "it does no more")
            assert place.said(DatasetScored, job) == [scored]
            assert place.answers(scored)
    finally:
        alone.start()
