"""The artifact store on a real S3 server, over HTTP."""

from __future__ import annotations

import hashlib
import io
import random
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import BlobRef, RetrainRequested
from driftloop.runtime import artifacts
from driftloop.runtime.artifacts import (
    AbsentError,
    ArtifactStore,
    StoreRefusedError,
    check_store,
    open_store,
    uri_of,
)
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.handlers import Deps
from driftloop.runtime.settings import Settings
from pydantic import SecretStr

from tests.component.support import wait_until
from tests.servers import S3Server
from tests.unit.runtime.bench import Bench, Effect

MIB = 1024 * 1024


@pytest.fixture
def settings(s3: S3Server) -> Settings:
    return s3.new_bucket()


@pytest.fixture
def store(settings: Settings) -> ArtifactStore:
    return open_store(settings)


@pytest.fixture
def own_s3(tmp_path: Path) -> Iterator[S3Server]:
    """Give the test a server of its own, to be stopped or frozen at will."""
    server = S3Server(tmp_path / "own-s3")
    try:
        yield server.start()
    finally:
        server.stop()


def bucket_of(settings: Settings) -> str:
    return str(settings.artifacts_url).split("/")[2]


def objects(s3: S3Server, settings: Settings) -> list[str]:
    found = s3.client().list_objects(bucket_of(settings), recursive=True)
    return [str(each.object_name) for each in found]


@pytest.mark.parametrize("size", [0, 5, 8 * MIB])
def test_what_was_put_is_read_back(store: ArtifactStore, size: int) -> None:
    data = random.Random(size).randbytes(size)
    ref = store.put(data)
    assert ref.size_bytes == size
    assert store.get(ref.uri, ref.sha256) == data


def test_the_same_bytes_are_one_object(
    store: ArtifactStore, settings: Settings, s3: S3Server
) -> None:
    ref = store.put(b"model")
    assert store.put(b"model") == ref
    digest = hashlib.sha256(b"model").hexdigest()
    assert objects(s3, settings) == [f"artifacts/sha256/{digest[:2]}/{digest}"]
    store.put(b"other")
    assert len(objects(s3, settings)) == 2


def test_a_file_streams_in_and_out_and_can_be_removed(
    settings: Settings, s3: S3Server
) -> None:
    """In parts larger than what S3 takes at once; a room has objects of its own."""
    data = random.Random(3).randbytes(12 * MIB)
    room = open_store(settings, "payloads/shop")
    ref = room.put_file(io.BytesIO(data))
    assert (ref.sha256, ref.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert b"".join(room.parts(ref.uri, ref.sha256)) == data
    names = objects(s3, settings)
    assert names == [f"artifacts/payloads/shop/sha256/{ref.sha256[:2]}/{ref.sha256}"]
    assert [(one.sha256, one.size_bytes) for one in room.stored()] == [
        (ref.sha256, len(data))
    ]
    with pytest.raises(AbsentError):
        next(open_store(settings).parts(ref.uri, ref.sha256))  # another room
    room.delete(ref.sha256)
    room.delete(ref.sha256)
    with pytest.raises(AbsentError, match="NoSuchKey"):
        next(room.parts(ref.uri, ref.sha256))
    assert not [*room.stored()]


def test_what_is_old_can_be_discarded(settings: Settings) -> None:
    """And what was put since stays."""
    store = open_store(settings)
    ref = store.put(b"model")
    [found] = [one for one in store.stored() if one.sha256 == ref.sha256]
    assert not store.discard(ref.sha256, found.put_at)
    assert store.get(ref.uri, ref.sha256) == b"model"
    assert store.discard(ref.sha256, found.put_at + timedelta(seconds=1))
    assert not store.discard(ref.sha256, found.put_at + timedelta(seconds=1))
    assert not [one for one in store.stored() if one.sha256 == ref.sha256]


def test_put_by_many_at_once(settings: Settings, s3: S3Server) -> None:
    """Several processes store the same object; a reader sees all of it or nothing."""
    data = random.Random(7).randbytes(MIB)
    digest = hashlib.sha256(data).hexdigest()
    expected = BlobRef(uri=uri_of(digest), sha256=digest, size_bytes=len(data))
    seen: list[object] = []

    def put() -> None:
        own = open_store(settings)
        seen.append(own.put(data))
        seen.append(own.get(expected.uri, expected.sha256) == data)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert seen.count(expected) == 8
    assert seen.count(True) == 8
    assert len(objects(s3, settings)) == 1


@pytest.mark.parametrize("changed", [b"modem", b"mod", b"model and more", b""])
def test_changed_bytes_are_refused(
    store: ArtifactStore, settings: Settings, s3: S3Server, changed: bytes
) -> None:
    ref = store.put(b"model")
    [name] = objects(s3, settings)
    s3.client().put_object(bucket_of(settings), name, io.BytesIO(changed), len(changed))
    with pytest.raises(Reject, match="tampered"):
        store.get(ref.uri, ref.sha256)


def test_a_missing_object_is_a_passing_fault(store: ArtifactStore) -> None:
    with pytest.raises(Retry, match="NoSuchKey"):
        store.get(uri_of("a" * 64), "a" * 64)


def test_a_server_that_goes_and_comes_back_costs_only_time(
    tmp_path: Path, own_s3: S3Server
) -> None:
    """The runner waits at the message, and goes on with it."""
    store = open_store(own_s3.new_bucket())
    refs = [store.put(b"before")]

    def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        refs.append(store.put(b"after"))
        deps.session.add(Effect(what=event.meta.id))
        return iter(())

    bench = Bench(tmp_path, [on_retrain_requested], retry_limit_s=120)
    own_s3.stop()
    with pytest.raises(Retry):
        store.get(refs[0].uri, refs[0].sha256)
    worker = threading.Thread(target=lambda: bench.runner.process([bench.message()]))
    worker.start()
    wait_until(lambda: bench.runner.last_error, "the loss was not noticed")
    assert bench.effects() == []
    own_s3.start()
    worker.join(120)
    assert bench.effects() == ["cause"]
    assert [store.get(ref.uri, ref.sha256) for ref in refs] == [b"before", b"after"]
    bench.end()


def test_a_server_that_hangs_is_given_up(
    own_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = own_s3.new_bucket()
    store = open_store(settings)
    ref = store.put(b"model")
    monkeypatch.setattr(artifacts, "READ_TIMEOUT_S", 0.3)
    own_s3.pause()
    try:
        with pytest.raises(Retry, match="timed out"):
            open_store(settings).get(ref.uri, ref.sha256)
    finally:
        own_s3.resume()
    assert store.get(ref.uri, ref.sha256) == b"model"


def with_secret(settings: Settings, _: S3Server) -> Settings:
    return settings.model_copy(update={"s3_secret_key": SecretStr("wrong")})


def with_key(settings: Settings, _: S3Server) -> Settings:
    return settings.model_copy(update={"s3_access_key": SecretStr("wrong")})


def with_bucket(settings: Settings, _: S3Server) -> Settings:
    return settings.model_copy(update={"artifacts_url": "s3://no-such-bucket"})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (with_secret, "SignatureDoesNotMatch"),
        (with_key, "InvalidAccessKeyId"),
        (with_bucket, "NoSuchBucket"),
    ],
)
def test_wrong_settings_are_said_at_the_start(
    s3: S3Server,
    settings: Settings,
    change: Callable[[Settings, S3Server], Settings],
    code: str,
) -> None:
    wrong = open_store(change(settings, s3))
    with pytest.raises(StoreRefusedError, match=code) as refused:
        check_store(wrong)
    assert "DRIFTLOOP_ARTIFACTS_URL" in str(refused.value)
    with pytest.raises(Retry, match=code):
        wrong.put(b"model")


def test_right_settings_and_a_server_away_pass_the_start(own_s3: S3Server) -> None:
    """Negative control of the test above; the server may come later."""
    store = open_store(own_s3.new_bucket())
    check_store(store)
    own_s3.stop()
    check_store(store)


def test_the_settings_must_be_complete(settings: Settings) -> None:
    with pytest.raises(ValueError, match="DRIFTLOOP_S3_SECRET_KEY"):
        open_store(settings.model_copy(update={"s3_secret_key": None}))
