"""Rows of a fault are neither learned nor judged on, and the package says which."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from driftloop.contracts.events import DatasetRef, FaultyStretch, Span, TableRef
from driftloop.contracts.pipeline import DataSection
from driftloop.runtime.artifacts import FolderStore
from driftloop.runtime.errors import Retry
from driftloop.trainer import core, package_files, training
from driftloop.trainer.dataset import labelled_span, read_rows
from driftloop.trainer.request import JobRequest
from driftloop.trainer.settings import no_keys
from driftloop.trainer.training import TrainingRefused

from tests.unit.trainer.cases import START, job, quiet, rows, spec

COUNT = 500
DATA = DataSection(target="y")


def at(hour: float) -> Any:
    return START + timedelta(hours=hour)


def stretch(start: float, end: float | None, **changes: Any) -> FaultyStretch:
    said = {
        "verdict_id": "v", "cause": "sensor_fault", "faulty": "rows",
        "start": at(start), "end": None if end is None else at(end),
    }  # fmt: skip
    return FaultyStretch.model_validate(said | changes)


def spoilt(start: int, end: int, source: str | None = None) -> pa.Table:
    """Rows of two sources by turns; between the hours y is contrary, of one or all."""
    table = rows(COUNT)
    sources = np.array(["north", "south"])[np.arange(COUNT) % 2]
    hours = np.arange(COUNT)
    is_bad = (hours >= start) & (hours <= end)
    if source is not None:
        is_bad &= sources == source
    y = np.where(is_bad, -1000.0, table["y"].to_numpy())
    place = table.schema.get_field_index
    table = table.set_column(place("source"), "source", pa.array(sources))
    return table.set_column(place("y"), "y", pa.array(y))


def asked(folder: Path, table: pa.Table, *faults: FaultyStretch) -> JobRequest:
    write_deltalake(str(folder / "rows"), table)
    request = job(folder / "rows", table, spec())
    return with_faults(request, *faults)


def with_faults(request: JobRequest, *faults: FaultyStretch) -> JobRequest:
    labelled = Span(start=START, end=at(COUNT - 1))
    train_span, holdout_span = core.plan(labelled, request.spec.train, faults)
    return request.model_copy(
        update={
            "left_out": faults, "train_span": train_span, "holdout_span": holdout_span
        }
    )  # fmt: skip


def trained(folder: Path, request: JobRequest) -> training.Trained:
    work = folder / f"work-{len(list(folder.iterdir()))}"
    work.mkdir()
    using = training.Environment(
        FolderStore(folder / "store"), no_keys(), None, 1, work
    )
    return training.train(request, using, quiet)


def ids_of(found: training.Trained) -> set[str]:
    parts = (found.split.training, found.split.holdout)
    return {name for part in parts for name in part["id"].to_pylist()}


def test_a_model_does_not_know_what_a_sensor_got_wrong(tmp_path: Path) -> None:
    request = asked(tmp_path, spoilt(100, 200), stretch(100, 200))
    found = trained(tmp_path, request)
    assert ids_of(found) == {f"r{i:05d}" for i in range(COUNT) if not 100 <= i <= 200}
    assert found.evaluation.candidate < 0.3 * found.evaluation.baseline
    [said] = found.left_out
    assert said.row_count == 101
    assert package_files.manifest_of(found).left_out == [said]
    card = package_files.files_of(found)["card.html"].decode()
    assert "Left out: 101 rows from 2011-01-05 04:00 to 2011-01-09 08:00" in card

    control = trained(tmp_path, with_faults(request))
    assert len(ids_of(control)) == COUNT
    assert control.evaluation.candidate > 10 * found.evaluation.candidate
    assert control.left_out == package_files.manifest_of(control).left_out == []
    assert "Left out" not in package_files.files_of(control)["card.html"].decode()


def test_of_one_sources_fault_the_other_sources_rows_stay(tmp_path: Path) -> None:
    fault = stretch(100, 200, sources=["north"])
    found = trained(tmp_path, asked(tmp_path, spoilt(100, 200, "north"), fault))
    out = {f"r{i:05d}" for i in range(100, 201, 2)}
    assert ids_of(found) == {f"r{i:05d}" for i in range(COUNT)} - out
    assert [each.row_count for each in found.left_out] == [51]
    assert found.evaluation.candidate < 0.3 * found.evaluation.baseline


def test_an_open_fault_counts_its_rows_and_leaves_a_hold_out(tmp_path: Path) -> None:
    found = trained(tmp_path, asked(tmp_path, spoilt(400, COUNT), stretch(400, None)))
    assert [each.row_count for each in found.left_out] == [100]
    times = found.split.holdout["event_time"].to_pylist()
    assert max(times) == at(399)
    assert found.split.holdout.num_rows == 80
    assert found.request.holdout_span.end == at(399)


def test_where_the_faulty_source_is_alone_the_hold_out_moves_too(
    tmp_path: Path,
) -> None:
    """The policy does not know which sources there are; the rows say it."""
    fault = stretch(400, None, sources=["test"])
    found = trained(tmp_path, asked(tmp_path, rows(COUNT), fault))
    assert found.request.holdout_span.end == at(399)
    assert found.split.holdout.num_rows == 80


def test_rows_of_two_faults_count_once(tmp_path: Path) -> None:
    faults = stretch(100, 149), stretch(140, 199, verdict_id="w")
    found = trained(tmp_path, asked(tmp_path, rows(COUNT), *faults))
    assert [each.row_count for each in found.left_out] == [50, 50]


def test_what_a_fault_leaves_is_too_little_and_the_refusal_names_it(
    tmp_path: Path,
) -> None:
    request = asked(tmp_path, rows(COUNT), stretch(50, None))
    with pytest.raises(TrainingRefused) as refused:
        trained(tmp_path, request)
    assert "50 labelled rows" in str(refused.value)
    assert "sensor fault, verdict v" in str(refused.value)
    assert "driftloop overrule" in str(refused.value)
    with pytest.raises(
        TrainingRefused, match=r"no row has a label without .*verdict v"
    ):
        trained(tmp_path, with_faults(request, stretch(-1, None)))


def test_the_same_faults_give_the_same_digest_and_others_another(
    tmp_path: Path,
) -> None:
    request = asked(tmp_path, rows(COUNT), stretch(100, 149))
    digests = [
        trained(tmp_path, each).rows_sha256
        for each in (
            request,
            JobRequest.model_validate_json(request.model_dump_json()),
            with_faults(request, stretch(100, 150)),
        )
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_request_without_faults_is_written_as_before_there_were_any(
    tmp_path: Path,
) -> None:
    request = asked(tmp_path, rows(COUNT))
    assert "left_out" not in request.model_dump_json()
    assert "left_out" in with_faults(request, stretch(1, 2)).model_dump_json()


# ── labels ──────────────────────────────────────────────────────────────────


def labelled(folder: Path) -> DatasetRef:
    """Rows of "test" without targets, but r6; labels of two tools, a day later.

    r0 to r3 by one tool, r4 and r5 by another; it also corrected r3.
    """
    table = rows(8)
    y = [None, None, None, None, None, None, 6.0, None]
    place = table.schema.get_field_index("y")
    table = table.set_column(place, "y", pa.array(y, pa.float64()))
    write_deltalake(str(folder / "rows"), table)
    who = ["bad", "bad", "bad", "bad", "good", "good", "good"]
    labels = pa.table(
        {
            "id": [f"r{i:05d}" for i in (0, 1, 2, 3, 4, 5, 3)],
            "event_time": pa.array([at(24)] * 7, pa.timestamp("us", tz="UTC")),
            "source": who,
            "y": [0.0, 1.0, 2.0, 30.0, 4.0, 5.0, 3.0],
            "revision": [0, 0, 0, 0, 0, 0, 1],
        }
    )
    write_deltalake(str(folder / "labels"), labels)
    return DatasetRef(
        observations=TableRef(uri=str(folder / "rows"), version=0),
        labels=TableRef(uri=str(folder / "labels"), version=0),
    )


def targets(dataset: DatasetRef, *faults: FaultyStretch) -> list[float]:
    span = Span(start=START, end=at(100))
    found, _ = read_rows(dataset, span, DATA, None, faults)
    assert set(found.column_names) == {"id", "event_time", "source", "a", "kind", "y"}
    values: list[float] = found["y"].to_pylist()
    return values


def of_labels(start: float, end: float | None, *sources: str) -> FaultyStretch:
    return stretch(
        start, end, cause="label_fault", faulty="labels", sources=list(sources)
    )


def test_a_faulty_labellers_labels_go_by_the_time_of_their_rows(
    tmp_path: Path,
) -> None:
    dataset = labelled(tmp_path)
    assert targets(dataset) == [0, 1, 2, 3, 4, 5, 6]
    assert targets(dataset, of_labels(1, 5, "bad")) == [0, 3, 4, 5, 6]
    assert targets(dataset, of_labels(1, 5)) == [0, 6]
    assert targets(dataset, of_labels(1, None, "good")) == [0, 1, 2, 6]
    # A label that came with its row is of who sent the row; a fault of rows is too.
    assert targets(dataset, of_labels(1, None, "test")) == [0, 1, 2, 3, 4, 5]
    assert targets(dataset, stretch(1, 5, sources=["test"])) == [0, 6]
    assert targets(dataset, stretch(1, 5, sources=["bad"])) == [0, 1, 2, 3, 4, 5, 6]


def test_the_newest_good_row_ends_the_labelled_time(tmp_path: Path) -> None:
    dataset = labelled(tmp_path)
    found = labelled_span(dataset, DATA, None, (of_labels(4, None),))
    assert found == Span(start=START, end=at(3))
    assert labelled_span(dataset, DATA, None) == Span(start=START, end=at(6))
    assert labelled_span(dataset, DATA, None, (stretch(-1, None),)) is None


def test_a_table_that_is_away_is_waited_for_with_faults_too(tmp_path: Path) -> None:
    request = asked(tmp_path, rows(COUNT), stretch(1, 2))
    table = TableRef(uri=str(tmp_path / "nowhere"), version=0)
    gone = request.model_copy(update={"dataset": DatasetRef(observations=table)})
    with pytest.raises(Retry, match="nowhere"):
        trained(tmp_path, gone)
