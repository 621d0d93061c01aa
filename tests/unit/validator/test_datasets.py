"""Dataset versions: each append once, old versions readable, few files."""

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from driftloop.contracts.events import RowKind
from driftloop.runtime.errors import Reject, Retry
from driftloop.validator import datasets
from driftloop.validator.datasets import Datasets, Position

SCHEMA = pa.schema([("id", pa.string()), ("x", pa.float64())])
LABELS = pa.schema([("id", pa.string()), ("y", pa.float64())])
SCHEMAS: dict[RowKind, pa.Schema] = {"observations": SCHEMA, "labels": LABELS}


def rows(*ids: str, schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    values = [[*ids], *[[1.0] * len(ids)] * (len(schema) - 1)]
    return pa.RecordBatch.from_arrays(
        [pa.array(v, f.type) for v, f in zip(values, schema, strict=True)],
        schema=schema,
    )


def at(offset: int, partition: int = 0) -> Position:
    return Position("batch-ingested", partition, offset)


def ids(uri: str, version: int | None = None) -> list[str]:
    table = DeltaTable(uri, version=version).to_pyarrow_table()
    return sorted(table.column("id").to_pylist())


@pytest.fixture
def sets(tmp_path: Path) -> Datasets:
    return open_sets(tmp_path)


def open_sets(path: Path) -> Datasets:
    return Datasets(lambda pipeline, kind: str(path / pipeline / kind))


def test_an_append_is_a_version(sets: Datasets) -> None:
    one = sets.append("p", "observations", rows("a"), at(0), SCHEMAS)
    two = sets.append("p", "observations", rows("b"), at(1), SCHEMAS)
    assert one.labels is None
    assert ids(two.observations.uri, one.observations.version) == ["a"]
    assert ids(two.observations.uri, two.observations.version) == ["a", "b"]


def test_the_same_position_again_adds_nothing(sets: Datasets, tmp_path: Path) -> None:
    first = sets.append("p", "observations", rows("a"), at(7), SCHEMAS)
    again = sets.append("p", "observations", rows("a"), at(7), SCHEMAS)
    after_kill = open_sets(tmp_path).append(
        "p", "observations", rows("a"), at(7), SCHEMAS
    )
    assert first == again == after_kill
    other = sets.append("p", "observations", rows("b"), at(7, partition=1), SCHEMAS)
    assert ids(other.observations.uri) == ["a", "b"]


def test_a_process_that_has_not_seen_the_append_adds_nothing(tmp_path: Path) -> None:
    """Two instances: one took the partition over while the other was frozen."""
    one, two = open_sets(tmp_path), open_sets(tmp_path)
    one.append("p", "observations", rows("a"), at(0), SCHEMAS)
    two.append("p", "observations", rows("b"), at(0, partition=1), SCHEMAS)
    ref = two.append("p", "observations", rows("c"), at(1), SCHEMAS)
    one.append("p", "observations", rows("c"), at(1), SCHEMAS)
    one.append("p", "observations", rows("d"), at(2), SCHEMAS)
    assert ids(ref.observations.uri) == ["a", "b", "c", "d"]


def test_labels_may_come_first(sets: Datasets) -> None:
    ref = sets.append("p", "labels", rows("a", schema=LABELS), at(0), SCHEMAS)
    assert ids(ref.observations.uri, ref.observations.version) == []
    assert ref.labels is not None
    assert ids(ref.labels.uri, ref.labels.version) == ["a"]


def test_a_table_grows_a_column_and_keeps_one_that_is_gone(sets: Datasets) -> None:
    sets.append("p", "observations", rows("a"), at(0), SCHEMAS)
    wider = pa.schema([("id", pa.string()), ("z", pa.string())])
    batch = pa.RecordBatch.from_pydict({"id": ["b"], "z": ["new"]}, schema=wider)
    ref = sets.append("p", "observations", batch, at(1), SCHEMAS)
    again = sets.append("p", "observations", rows("c"), at(2), SCHEMAS)
    assert again.observations.version == ref.observations.version + 1
    table = DeltaTable(ref.observations.uri).to_pyarrow_table().sort_by("id")
    assert table.to_pylist() == [
        {"id": "a", "x": 1.0, "z": None},
        {"id": "b", "x": None, "z": "new"},
        {"id": "c", "x": 1.0, "z": None},
    ]


def test_a_column_cannot_change_its_type(sets: Datasets) -> None:
    sets.append("p", "observations", rows("a"), at(0), SCHEMAS)
    batch = pa.RecordBatch.from_pydict({"id": ["b"], "x": ["warm"]})
    with pytest.raises(Reject, match="x: is double in the dataset and string"):
        sets.append("p", "observations", batch, at(1), SCHEMAS)


@pytest.mark.parametrize("name", ["wind speed", "a,b;{c}=d", "größe", "Temp.C"])
def test_any_column_name_will_do(sets: Datasets, name: str) -> None:
    schema = pa.schema([("id", pa.string()), (name, pa.float64())])
    schemas: dict[RowKind, pa.Schema] = {"observations": schema, "labels": LABELS}
    ref = sets.append("p", "observations", rows("a", schema=schema), at(0), schemas)
    table = DeltaTable(ref.observations.uri).to_pyarrow_table()
    assert table.column(name).to_pylist() == [1.0]


def test_many_appends_leave_few_files_and_every_version(
    sets: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "COMPACT_APPENDS", 5)
    monkeypatch.setattr(datasets, "MAX_FILES", 3)
    refs = [
        sets.append("p", "observations", rows(f"r{n:02d}"), at(n), SCHEMAS)
        for n in range(20)
    ]
    uri = refs[0].observations.uri
    assert len(DeltaTable(uri).file_uris()) <= 3 + 5 + 1
    for n, ref in enumerate(refs):
        expected = [f"r{m:02d}" for m in range(n + 1)]
        assert ids(uri, ref.observations.version) == expected


def test_a_store_that_is_away_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("a file where a folder must be")
    with pytest.raises(Retry, match="datasets"):
        open_sets(tmp_path).append("p", "observations", rows("a"), at(0), SCHEMAS)
