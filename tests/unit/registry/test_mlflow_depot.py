"""Bytes of clients' files: what the sweep leaves, paths that are kept, parts' tags."""

import io
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from driftloop.registry.mlflow import experiments, runs
from driftloop.registry.mlflow.depot import Depot
from driftloop.registry.mlflow.errors import Refusal
from driftloop.registry.mlflow.files import Limits, checked_path, files_of
from driftloop.registry.mlflow.parts import Part, Signer, Upload
from driftloop.registry.mlflow.places import Spot, spot_of_uri
from driftloop.registry.mlflow.sweep import GRACE, Sweep

from tests.unit.registry import test_mlflow_tracking
from tests.unit.registry.test_mlflow_tracking import Store

store = test_mlflow_tracking.store
LATER = datetime.now(UTC) + 2 * GRACE


@pytest.fixture
def depot(store: Store, tmp_path: Path) -> Depot:
    limits = Limits(file_bytes=100, owner_bytes=200, owner_files=5, total_bytes=250)
    return Depot(store.journal, store.artifacts, limits, tmp_path / "uploads")


@pytest.fixture
def spot(store: Store) -> Spot:
    number = store.call(experiments.create, name="one")["experiment_id"]
    return a_run(store, number)


def a_run(store: Store, experiment_id: str) -> Spot:
    run = store.call(runs.create, experiment_id=experiment_id)["run"]["info"]
    return spot_of_uri(run["artifact_uri"])


def swept(depot: Depot, at: datetime = LATER) -> int:
    return Sweep(depot.journal, depot.store, lambda: at).once(threading.Event())


def keep(depot: Depot, spot: Spot, path: str, data: bytes) -> None:
    depot.keep("ann", spot._replace(path=path), io.BytesIO(data))


def test_only_what_nobody_has_is_swept(depot: Depot, spot: Spot) -> None:
    """Old and without a row; young ones, and those of any file, stay."""
    keep(depot, spot, "a", b"one")
    keep(depot, spot, "b", b"one")
    keep(depot, spot, "c", b"two")
    depot.put(io.BytesIO(b"a part of an upload"))
    depot.delete("ann", spot._replace(path="a"))
    depot.delete("ann", spot._replace(path="c"))
    assert swept(depot, datetime.now(UTC)) == 0
    assert swept(depot) == 2
    assert len(list(depot.store.stored())) == 1
    file = depot.find(spot._replace(path="b"))
    with depot.scratch() as scratch:
        depot.copy(file.sha256, file.size_bytes, scratch)
    assert swept(depot) == 0


def test_all_owners_together_have_a_limit(
    depot: Depot, store: Store, spot: Spot
) -> None:
    """What is deleted makes room; a file in place of another takes only the rest."""
    other = a_run(store, "1")
    keep(depot, spot, "a", bytes(100))
    keep(depot, other, "a", bytes(100))
    with pytest.raises(Refusal) as refused:
        keep(depot, other, "b", bytes(51))
    assert (refused.value.code, refused.value.status) == ("QUOTA_EXCEEDED", 507)
    assert "would have 251 bytes of files, at most 250" in refused.value.message
    assert "DRIFTLOOP_REGISTRY_MLFLOW_TOTAL_MAX_BYTES" in refused.value.message
    keep(depot, other, "b", bytes(50))
    keep(depot, other, "a", b"x" * 100)
    depot.delete("ann", spot._replace(path="a"))
    keep(depot, spot, "b", bytes(100))


def test_no_file_without_its_bytes(
    depot: Depot, spot: Spot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Swept between put and event: refused for now, and nothing is listed."""
    put = depot.store.put_file

    def put_and_sweep(file: io.BytesIO) -> object:
        ref = put(file)
        assert swept(depot) == 1
        return ref

    with monkeypatch.context() as patched:
        patched.setattr(depot.store, "put_file", put_and_sweep)
        with pytest.raises(Refusal) as refused:
            keep(depot, spot, "a", b"one")
    assert refused.value.code == "TEMPORARILY_UNAVAILABLE"
    with depot.journal.reading() as connection:
        assert files_of(connection, spot.owner) == []
    keep(depot, spot, "a", b"one")  # as the client does by itself


def test_nothing_is_swept_before_the_log_is_read(
    store: Store, depot: Depot, spot: Spot
) -> None:
    """An empty table says nothing then."""
    keep(depot, spot, "a", b"one")
    store.is_current = False
    with pytest.raises(Refusal, match="still being read"):
        swept(depot)
    assert len(list(depot.store.stored())) == 1


NO_PATHS = [
    *("/a", "a/", "a//b", ".", "..", "a/..", "a/../b", "./a", "a\\b", "a;b", "a#b"),
    *("a%2e", "a?b", "a:b", "a*b", 'a"b', "a<b", "a|b", "~a"),
]
LONG = ["a" * 251, "a/" * 600 + "a"]
HIDDEN = ["", "a\0b", "a\nb", "a ", " a", "a.", "a\u200bb", "a\u202eb", "a\ud800b"]


@pytest.mark.parametrize("path", [*NO_PATHS, *LONG, *HIDDEN])
def test_paths_that_are_none(path: str) -> None:
    """Each is refused by what it is, not by where it would lead."""
    with pytest.raises(Refusal):
        checked_path(path)


@pytest.mark.parametrize(
    "path", ["a", "..a", "a..b", "...a", ".a", "a b/c", "ä", "数据", "a=1/b@2", "a~"]
)
def test_paths_that_are(path: str) -> None:
    """Negative control."""
    assert checked_path(path) == path


def test_what_is_signed_is_for_one_use() -> None:
    """An id that was altered or is over, a tag of another part, upload or server."""
    signer, upload = Signer(b"token"), Upload("0/x", 2, 1000)
    upload_id = signer.id_of(upload)
    assert signer.upload_of(upload_id, 999) == upload
    for wrong, at in (
        (upload_id, 1001),
        (upload_id[:-1] + "x", 1),
        ("", 1),
        ("é.é", 1),
    ):
        with pytest.raises(Refusal, match="upload_id"):
            signer.upload_of(wrong, at)
    with pytest.raises(Refusal, match="upload_id"):
        Signer(b"other").upload_of(upload_id, 1)
    part = Part("a" * 64, 3)
    tags = [signer.tag_of(upload_id, number, part) for number in (1, 2)]
    items = [{"part_number": n, "etag": f'"{tag}"'} for n, tag in enumerate(tags, 1)]
    assert signer.parts_of(upload_id, upload, items) == [part, part]
    other = signer.id_of(upload)
    for id_, wrong_items in (
        (other, items),
        (upload_id, [{**items[0], "part_number": 2}, {**items[1], "part_number": 1}]),
        (upload_id, [items[0], {"part_number": 2, "etag": f"{'a' * 64}-3-{'0' * 64}"}]),
        (upload_id, items[:1]),
        (upload_id, [*items, items[0]]),
    ):
        with pytest.raises(Refusal, match="parts"):
            signer.parts_of(id_, upload, wrong_items)
    assert timedelta(seconds=24 * 3600) < GRACE  # parts outlive their upload
