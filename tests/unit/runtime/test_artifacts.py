"""Content-addressed objects: the folder store (S3 is tried on a real server)."""

import io
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from driftloop.contracts.events import BlobRef
from driftloop.runtime.artifacts import ASIDE, AbsentError, FolderStore, uri_of
from driftloop.runtime.errors import Reject, Retry


def test_what_was_put_is_read_back(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    ref = store.put(b"model")
    assert store.get(ref.uri, ref.sha256) == b"model"
    assert ref.size_bytes == 5


def test_the_same_bytes_are_one_object(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert store.put(b"model") == store.put(b"model")
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    ref = store.put(b"model")
    [path] = [p for p in tmp_path.rglob("*") if p.is_file()]
    path.write_bytes(b"modem")
    with pytest.raises(Reject, match="tampered"):
        store.get(ref.uri, ref.sha256)


@pytest.mark.parametrize(
    "uri",
    [
        "artifact:sha256/../../etc/passwd",
        "file:///etc/passwd",
        "artifact:sha256/" + "a" * 63,
        "artifact:sha256/" + "A" * 64,
        uri_of("b" * 64),
        uri_of("a" * 64) + "?x=1",
        "",
    ],
)
def test_only_the_minted_location_is_read(tmp_path: Path, uri: str) -> None:
    with pytest.raises(Reject):
        FolderStore(tmp_path).get(uri, "a" * 64)


def test_a_missing_object_is_a_passing_fault(tmp_path: Path) -> None:
    with pytest.raises(Retry):
        FolderStore(tmp_path).get(uri_of("a" * 64), "a" * 64)


def test_a_file_is_the_same_object_as_its_bytes(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    file = io.BytesIO(b"picture")
    file.read()  # wherever it stands
    ref = store.put_file(file)
    assert ref == store.put(b"picture")
    assert b"".join(store.parts(ref.uri, ref.sha256)) == b"picture"
    assert [one.sha256 for one in store.stored()] == [ref.sha256]


def test_what_is_put_again_is_young_again(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.put(b"picture")
    [path] = [p for p in tmp_path.rglob("*") if p.is_file()]
    os.utime(path, (0, 0))
    [old] = store.stored()
    store.put(b"picture")
    [young] = store.stored()
    assert old.put_at.year == 1970 < young.put_at.year


def test_what_was_deleted_is_absent(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    ref = store.put(b"picture")
    store.delete(ref.sha256)
    store.delete(ref.sha256)
    with pytest.raises(AbsentError):
        next(store.parts(ref.uri, ref.sha256))
    assert not [*store.stored()]


def old_object(store: FolderStore, root: Path) -> tuple[BlobRef, Path]:
    ref = store.put(b"picture")
    [path] = [p for p in root.rglob("*") if p.is_file()]
    os.utime(path, (0, 0))
    return ref, path


NOW = datetime(2024, 1, 1, tzinfo=UTC)


def test_what_nobody_puts_again_can_be_discarded(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    ref, _ = old_object(store, tmp_path)
    assert store.discard(ref.sha256, NOW)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not store.discard(ref.sha256, NOW)  # it is gone already
    store.put(b"picture")
    assert not store.discard(ref.sha256, NOW)  # negative control: it is young
    assert store.get(ref.uri, ref.sha256) == b"picture"


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_what_is_put_while_it_is_discarded_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whoever puts it in whatever moment has it afterwards, whole."""
    store = FolderStore(tmp_path)
    ref, path = old_object(store, tmp_path)
    rename, unlink = Path.rename, Path.unlink

    def slow_rename(self: Path, target: Path) -> Path:
        if moment == "before":
            os.utime(self)  # as put does, after it was looked at
        found = rename(self, target)
        if moment == "between":
            store.put(b"picture")
        return found

    def slow_unlink(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok)
        if moment == "after":
            store.put(b"picture")

    monkeypatch.setattr(Path, "rename", slow_rename)
    monkeypatch.setattr(Path, "unlink", slow_unlink)
    store.discard(ref.sha256, NOW)
    assert store.get(ref.uri, ref.sha256) == b"picture"
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_a_discarding_that_was_killed_is_undone(tmp_path: Path) -> None:
    """The object lay aside; who lists the store puts it back."""
    store = FolderStore(tmp_path)
    ref, path = old_object(store, tmp_path)
    path.rename(path.with_name(f"{path.name}{ASIDE}"))
    assert [one.sha256 for one in store.stored()] == [ref.sha256]
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
