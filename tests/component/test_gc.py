"""What nothing refers to goes from the store, and nothing else, with a real log."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from driftloop.cli import gc
from driftloop.cli.context import CommandError, Installation
from driftloop.contracts.events import (
    AlertRaised,
    BatchScored,
    DatasetRef,
    PackageRef,
    PipelineApplied,
    Span,
    TableRef,
    TrainingFailed,
    TrainingStarted,
    Trigger,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.scoring import (
    DatasetScored,
    ScoringFailed,
    ScoringPlan,
    ScoringStarted,
)
from driftloop.local.kafka import KafkaNode
from driftloop.models.package import read_package
from driftloop.models.signing import TrustedKeys
from driftloop.runtime.admin import create_topics
from driftloop.runtime.artifacts import ArtifactStore, FolderStore
from driftloop.runtime.datasets import answers_uri
from driftloop.runtime.settings import Settings, load_settings

from tests.component.cli import run_cli
from tests.component.processes import Log, with_id
from tests.unit.registry import story
from tests.unit.scorer.packages import Factory
from tests.unit.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.broker]

DAY = timedelta(days=1)
NOW = datetime.now(UTC)
SPAN = Span(start=NOW, end=NOW)
NAME = "bikes"


class Place:
    """A store, a log, and the command."""

    def __init__(self, home: Path, bootstrap: str) -> None:
        self.home, self.bootstrap = home, bootstrap
        self.log = Log(bootstrap, home)
        self.factory = Factory(home)
        self.store = self.factory.store
        self.mlflow = FolderStore(home / "artifacts/mlflow")
        settings = load_settings(Settings, "cli", home=home, broker=bootstrap)
        self.installation = Installation(home, bootstrap, "", "", settings)

    def age(self, days: float = 10) -> None:
        """Make every object old."""
        moment = (NOW - days * DAY).timestamp()
        for path in (self.home / "artifacts").rglob("*"):
            if path.is_file():
                os.utime(path, (moment, moment))

    def names(self) -> set[str]:
        return {
            path.name for path in (self.home / "artifacts").rglob("*") if path.is_file()
        }

    def run(self, *, delete: bool = True) -> dict[str, Any]:
        return gc.collect(self.installation, gc.GRACE_HOURS, delete=delete).as_json()

    def unused(self, store: FolderStore, text: str) -> str:
        return store.put(text.encode()).sha256

    def alert(self, text: str, event_id: str) -> None:
        event = AlertRaised(
            pipeline=NAME, condition=event_id, severity="info", title="t", detail=text
        )
        self.log.publish(with_id(event, event_id))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    with KafkaNode(tmp_path_factory.mktemp("gc") / "kafka") as found:
        create_topics(found.bootstrap)
        yield found


@pytest.fixture
def place(node: KafkaNode, tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path, node.bootstrap)
    yield found
    found.log.close()


def test_only_what_nothing_refers_to_goes(place: Place) -> None:
    """Rows by claim check, a package's files, and digests within texts stay."""
    rows = pa.RecordBatch.from_pydict({"x": np.random.default_rng(1).random(200_000)})
    large = BatchScored(
        pipeline=NAME, shard="s", row_count=rows.num_rows, span=SPAN,
        champion_version=1, duration_seconds=0.1,
    ).with_rows(rows)  # fmt: skip
    place.log.publish(with_id(large, "large"))
    trained = story.trained(place.factory, "job", pipeline=NAME)
    place.log.publish(trained)
    named = place.unused(place.mlflow, "a file of a run")
    place.alert(f"see sha256:{named}.", "named")
    needed = place.names()
    assert len(needed) == 1 + 1 + 6  # rows; a file; five files and their envelope
    gone = {
        place.unused(place.store, "left by a killed process"),
        place.unused(place.mlflow, "an upload that nobody ended"),
    }
    place.age()
    young = place.unused(place.store, "of a training that runs")

    found = json.loads(run_cli(place.home, place.bootstrap, "gc", "--json"))
    assert {one["sha256"] for one in found["unused"]} == gone
    assert not found["deleted"]
    assert place.names() == needed | gone | {young}  # a dry run deletes nothing

    found = place.run()
    assert {one["sha256"] for one in found["unused"]} == gone
    assert found["unused_bytes"] == 24 + 27
    assert place.names() == needed | {young}
    pems = [p.read_bytes() for p in (place.home / "keys/trusted").glob("*.pem")]
    read_package(trained.package, place.store, TrustedKeys.from_pems(pems))
    assert place.run()["unused"] == []


def test_answers_go_by_their_rule(place: Place) -> None:
    """Of a job that failed, and nothing of one that ended well or still runs."""
    name = "answers"
    spec = PipelineSpec.model_validate(
        {"name": name, "task": "regression", "data": {"target": "cnt"}}
    )
    applied = PipelineApplied(pipeline=name, spec=spec, applied_by="ann")
    place.log.publish(with_id(applied, f"{name}-applied"))
    uris = {}
    for job in ("good", "failed", "runs"):
        uri = uris[job] = answers_uri(place.installation.settings, name, job)
        DeltaTable.create(uri, pa.schema([("id", pa.string())]))
        for path in Path(uri).rglob("*"):
            os.utime(path, ((NOW - 10 * DAY).timestamp(),) * 2)
        plan = ScoringPlan(
            dataset=DatasetRef(observations=TableRef(uri="t", version=0)), version=1,
            package=PackageRef(uri="p", digest="0" * 64, signer="s"), answers_uri=uri,
            row_count=1,
        )  # fmt: skip
        started = ScoringStarted(
            pipeline=name, job_id=job, plan=plan, requested_by="ann"
        )
        place.log.publish(with_id(started, f"{name}-{job}"))
    good = DatasetScored(
        pipeline=name, job_id="good", dataset=plan.dataset, version=1,
        package=plan.package, answers=TableRef(uri=uris["good"], version=0),
        row_count=1, error_count=0, duration_seconds=1, cpu_seconds=1,
        requested_by="ann",
    )  # fmt: skip
    failed = ScoringFailed(
        pipeline=name, job_id="failed", dataset="0", error="e", remedy="r", attempts=1,
        requested_by="ann",
    )  # fmt: skip
    for end in (good, failed):
        place.log.publish(with_id(end, f"{name}-{end.job_id}-end"))

    text = run_cli(place.home, place.bootstrap, "gc")
    assert "1 table of answers" in text
    assert f"{uris['failed']}  its job ended without answers" in text
    assert Path(uris["failed"]).exists()  # a dry run deletes nothing
    found = place.run()
    assert [one["job_id"] for one in found["answers"]] == ["failed"]
    assert {job for job, uri in uris.items() if Path(uri).exists()} == {"good", "runs"}
    assert place.run()["answers"] == []


def test_what_comes_into_use_meanwhile_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by an event, or put again, after all was read; the third goes."""
    named, again, gone = (place.unused(place.store, t) for t in ("named", "again", "x"))
    place.age()
    closure = gc.closure
    reads: list[gc.References] = []

    class Seen(gc.References):
        def __init__(self, store: ArtifactStore) -> None:
            super().__init__(store)
            reads.append(self)

    def slow(*args: Any) -> set[str]:
        used = closure(*args)
        place.alert(named, "named-late")
        wait_until(lambda: named in reads[0].digests, 120)
        place.store.put(b"again")
        return used

    monkeypatch.setattr(gc, "References", Seen)
    monkeypatch.setattr(gc, "closure", slow)
    report = gc.collect(place.installation, 48, delete=True)
    assert [one.object.sha256 for one in report.unused] == [gone]
    assert {one.object.sha256 for one in report.came_back} == {named, again}
    assert place.names() == {named, again}


def test_a_training_that_runs_holds_its_files(place: Place) -> None:
    """Nothing younger than the oldest training without an end goes, however old."""
    unused = place.unused(place.store, "a part of a package")
    place.age(10)
    dataset = DatasetRef(observations=TableRef(uri="x", version=1))
    trigger = Trigger(event_id="e", event_type="t", reason="first_model")
    started = TrainingStarted(
        pipeline=NAME, job_id="running", trigger=trigger, dataset=dataset,
        train_span=SPAN, holdout_span=SPAN,
    )  # fmt: skip
    place.log.publish(with_id(started, "started", time=NOW - 20 * DAY))
    assert place.run()["unused"] == []
    failed = TrainingFailed(
        pipeline=NAME, job_id="running", trigger=trigger, error="x", attempts=1
    )
    place.log.publish(with_id(failed, "failed"))
    assert [one["sha256"] for one in place.run()["unused"]] == [unused]


def test_nothing_goes_where_the_log_is_not_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.unused(place.store, "unused")
    place.age()
    monkeypatch.setattr(gc, "LOG_TIMEOUT_S", 1)
    installation = Installation(
        place.home, "127.0.0.1:1", "", "", place.installation.settings
    )
    with pytest.raises(CommandError, match="not read to its end"):
        gc.collect(installation, 48, delete=True)
    assert place.names() == {hashlib.sha256(b"unused").hexdigest()}
