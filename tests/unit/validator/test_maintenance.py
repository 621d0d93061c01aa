"""Old rows and files go by policy; what a model refers to stays as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from driftloop.contracts.events import TrainingFailed
from driftloop.contracts.pipeline import PipelineFileError, Retention, parse_pipeline
from driftloop.runtime.data.reading import DatasetError
from driftloop.runtime.data.vacuum import plan_vacuum
from driftloop.runtime.database import open_database
from driftloop.runtime.errors import Retry
from driftloop.validator import maintenance
from driftloop.validator.tables import TABLES

from tests.unit.validator.upkeep import (
    BEGIN,
    DAY,
    NAME,
    TRIGGER,
    Bench,
    content,
    folder,
    ids,
    rows_of,
    spec_of,
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, spec_of(keep_days=10))
    yield bench
    bench.engine.dispose()


def test_rows_go_with_the_batch_that_makes_them_too_old(bench: Bench) -> None:
    first = bench.batch(0, "a", "b", value=1.0)
    bench.batch(5, "c")
    bench.batch(6, "a", kind="labels", value=2.0)
    stays = bench.batch(10.9, "d")
    assert ids(stays.dataset) == ["a", "b", "c", "d"]
    goes = bench.batch(11.5, "e")
    assert ids(goes.dataset) == ["c", "d", "e"]
    assert ids(goes.dataset, "labels") == ["a"]  # of its own time, day 6
    assert (goes.observation_count, goes.label_count) == (3, 0)
    (told,) = bench.told
    assert told.cutoff == BEGIN + DAY
    assert told.observations.dropped_count == 2
    assert told.vacuum == "not_due"
    assert ids(first.dataset) == ["a", "b"]  # older versions have what they had
    assert ids(bench.batch(17, "f").dataset, "labels") == []


def test_nothing_goes_without_a_policy(bench: Bench) -> None:
    bench.spec = spec_of(None, vacuums=False)
    bench.batch(0, "a")
    bench.now += 3 * DAY
    last = bench.batch(100, "b")
    assert ids(last.dataset) == ["a", "b"]
    assert bench.told == []
    assert bench.maintain().vacuum == "not_wanted"


def test_one_wrong_time_takes_no_rows_along(bench: Bench) -> None:
    bench.batch(0, "a")
    event = rows_of(1, ("b", "c"), "observations")
    wrong = [BEGIN + DAY, BEGIN + 9_999 * DAY]
    times = pa.array(wrong, pa.timestamp("us", "UTC"))
    rows = event.rows.set_column(1, "event_time", times)
    found = bench.handle(event.with_rows(rows))
    assert ids(found[-1].dataset) == ["a", "b", "c"]
    bench.now = BEGIN + 5 * DAY  # rows of the future are as of now
    assert ids(bench.batch(9_999, "d").dataset) == ["a", "b", "c", "d"]


def test_a_dropped_id_stays_taken_and_its_label_counts_no_more(bench: Bench) -> None:
    bench.batch(0, "a")
    bench.batch(11, "b")
    assert bench.batch(11, "a", "b", kind="labels", value=1.0).label_count == 1
    with pytest.raises(StopIteration):
        bench.batch(11, "a")  # in quarantine, nothing is left of the batch


def test_a_label_that_is_older_than_its_row_stays_with_it(bench: Bench) -> None:
    bench.batch(0, "a", kind="labels", value=1.0)
    bench.batch(0.5, "b", kind="labels", value=1.0)
    bench.batch(0, "old")
    bench.batch(8, "b")
    last = bench.batch(11, "c")
    assert ids(last.dataset) == ["b", "c"]
    assert ids(last.dataset, "labels") == ["b"]
    assert last.label_count == 1


def test_killed_after_the_deletion_counts_the_same(bench: Bench) -> None:
    bench.batch(0, "a", "b", value=1.0)
    bench.batch(5, "c", value=1.0)
    before = bench.batch(11, "d", killed=True)
    told = bench.told
    bench.restart()
    after = bench.batch(11, "d")
    assert after == before
    assert (after.observation_count, after.label_count) == (2, 1)
    assert [t.observations.dropped_count for t in (*told, *bench.told)] == [2, 2]


def test_a_deletion_that_fails_keeps_no_batch_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.batch(0, "a")

    def away(*_: object) -> bool:
        raise OSError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(maintenance, "drop_rows", away)
        assert ids(bench.batch(11, "b").dataset) == ["a", "b"]
    with monkeypatch.context() as patch:
        patch.setattr(maintenance, "dropped_ids", away)
        with pytest.raises(Retry, match="away"):
            bench.batch(11, "c", killed=True)
    last = bench.batch(11, "c")
    assert (ids(last.dataset), last.observation_count) == (["b", "c"], 2)


def test_a_models_version_stays_and_others_say_what_is_kept(bench: Bench) -> None:
    model = bench.batch(0, "a", value=1.0)
    bench.train("j", model.dataset)
    labelled = bench.batch(1, "a", kind="labels", value=3.0)
    bench.train("k", labelled.dataset)
    was = content(model.dataset), content(labelled.dataset)
    gone = bench.batch(5, "b")
    assert labelled.dataset.labels is not None
    kept = [model.dataset.observations.version]
    for n in range(30):
        bench.batch(11 + n / 10, f"c{n}")
    bench.maintain()  # merges the small files, of which the last version has many
    last = bench.batch(14, "d")
    told = bench.maintain()
    assert told.vacuum == "done"
    assert told.observations.vacuumed_count > 20
    assert told.observations.freed_bytes > 20_000
    assert told.observations.kept[:1] == kept
    assert told.labels is not None
    assert (content(model.dataset), content(labelled.dataset)) == was
    assert len(ids(last.dataset)) == 32
    message = (
        f"version {gone.dataset.observations.version} was vacuumed; kept are "
        f"{', '.join(map(str, told.observations.kept))}, all from "
        f"{told.observations.kept_from} on"
    )
    with pytest.raises(DatasetError, match=message):
        ids(gone.dataset)


def test_a_failed_training_lets_its_version_go_in_any_order(bench: Bench) -> None:
    failed = TrainingFailed(
        pipeline=NAME, job_id="j", trigger=TRIGGER, error="no", attempts=1
    )
    versions = [bench.batch(n, f"r{n}") for n in range(3)]
    bench.train("i", versions[0].dataset)
    bench.handle(failed)
    bench.train("j", versions[1].dataset)
    told = bench.maintain()
    assert told.observations.kept == [versions[0].dataset.observations.version]
    bench.handle(failed.model_copy(update={"job_id": "i"}))
    assert bench.maintain().observations.kept == []


def test_no_file_goes_before_every_reference_is_known(bench: Bench) -> None:
    first = bench.batch(0, "a")
    bench.batch(11, "b")
    bench.known = False
    assert bench.maintain().vacuum == "references_unknown"
    assert ids(first.dataset) == ["a"]
    bench.known = True
    assert bench.maintain().vacuum == "done"
    with pytest.raises(DatasetError, match="was vacuumed"):
        ids(first.dataset)


def test_a_new_database_does_not_know_what_was_told(bench: Bench) -> None:
    bench.batch(0, "a")
    bench.batch(11, "b")
    bench.engine.dispose()
    bench.engine = open_database(f"sqlite:///{bench.path}/new.db", TABLES)
    assert bench.maintain().vacuum == "references_unknown"


def test_files_go_once_a_day_by_themselves(bench: Bench) -> None:
    first = bench.batch(0, "a")
    bench.batch(11, "b")
    bench.now += DAY / 2
    bench.batch(11, "c")
    assert ids(first.dataset) == ["a"]
    bench.now += DAY / 2
    bench.batch(11, "d")
    (told,) = bench.told
    assert (told.vacuum, told.requested_by) == ("done", None)
    assert told.observations.vacuumed_count == 1
    bench.now += DAY
    bench.batch(11, "e")
    assert bench.told == []  # nothing was left to delete


def test_a_young_version_and_a_file_on_its_way_stay(bench: Bench) -> None:
    rules = Retention(keep_days=10, keep_versions_days=1)
    data = bench.spec.data.model_copy(update={"retention": rules})
    bench.spec = bench.spec.model_copy(update={"data": data})
    first = bench.batch(0, "a")
    (folder(bench) / "part-1.parquet").write_bytes(b"on its way")
    bench.batch(11, "b")
    told = bench.maintain()
    assert (told.vacuum, told.observations.vacuumed_count) == ("done", 0)
    assert (ids(first.dataset), len([*folder(bench).glob("*.parquet")])) == (["a"], 3)


def test_a_plan_that_would_hurt_a_kept_version_is_not_carried_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delta's own vacuum is asked to keep versions; were it to fail, nothing goes."""
    first = bench.batch(0, "a")
    bench.train("j", first.dataset)
    bench.batch(11, "b")
    real = DeltaTable.vacuum

    def careless(table: DeltaTable, **options: Any) -> Any:
        return real(table, **{**options, "keep_versions": []})

    monkeypatch.setattr(DeltaTable, "vacuum", careless)
    assert bench.maintain().vacuum == "failed"
    assert ids(first.dataset) == ["a"]


def test_old_log_entries_stay(bench: Bench) -> None:
    """A version is read by the log's files from the checkpoint before it."""
    ref = bench.batch(0, "a").dataset.observations
    log = DeltaTable(ref.uri).metadata().configuration
    assert log["delta.enableExpiredLogCleanup"] == "false"
    bench.maintain()
    entries = sorted((folder(bench) / "_delta_log").glob("*.json"))
    assert json.loads(entries[0].read_text().splitlines()[0])
    assert len(entries) == DeltaTable(ref.uri).version() + 1


def test_a_file_that_no_commit_names_goes_once_it_is_old(bench: Bench) -> None:
    rules = Retention(keep_versions_days=1)
    data = bench.spec.data.model_copy(update={"retention": rules})
    bench.spec = bench.spec.model_copy(update={"data": data})
    bench.batch(0, "a")
    left = folder(bench) / "part-1.parquet"
    left.write_bytes(b"its append was killed")
    old = (datetime.now(UTC) - 3 * DAY).timestamp()
    os.utime(left, (old, old))
    assert bench.maintain().observations.freed_bytes == 21
    assert not left.exists()


def test_versions_are_kept_from_the_one_that_held_at_the_moment(tmp_path: Path) -> None:
    uri = str(tmp_path)
    moments = [datetime.now(UTC)]
    for n in range(3):
        write_deltalake(uri, pa.table({"id": [str(n)]}), mode="append")
        moments.append(datetime.now(UTC) + timedelta(milliseconds=5))
        while datetime.now(UTC) < moments[-1]:
            pass
    table = DeltaTable(uri)
    plans = [plan_vacuum(table, None, {0, 1}, DAY, at + DAY) for at in moments]
    assert [plan.kept_from for plan in plans] == [0, 0, 1, 2]
    assert [plan.kept for plan in plans] == [(), (), (0,), (0, 1)]


def test_a_policy_that_drops_what_training_asks_for_is_refused() -> None:
    text = (
        "{name: p, task: regression, train: {window_days: 60}, "
        "data: {target: y, retention: {keep_days: %d}}}"
    )
    assert parse_pipeline(text % 60).data.retention.keep_days == 60
    with pytest.raises(PipelineFileError, match=r"raise keep_days or lower"):
        parse_pipeline(text % 30)
    with pytest.raises(PipelineFileError, match="keep_versions_days"):
        parse_pipeline(
            "{name: p, task: regression, "
            "data: {target: y, retention: {keep_versions_days: 0.5}}}"
        )
