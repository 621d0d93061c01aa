"""Files named by rows are uploaded before them, and come out of a dataset again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from driftloop.cli.context import CommandError, Installation
from driftloop.cli.datasets import work
from driftloop.cli.log import Entry
from driftloop.cli.payloads import Uploads
from driftloop.cli.publish import Part, PublishFileError, plan
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Meta
from driftloop.runtime.settings import Settings

from tests.unit.chain.data import DataChain
from tests.unit.cli import running
from tests.unit.cli.test_datasets import DAY
from tests.unit.payloads import SPEC, data_uri, digest, png, row

NOTE = b"a complaint"


class Door:
    """Stands where ingest's HTTP door is."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.busy = 1
        self.refuses = False

    def answer(self, request: httpx.Request) -> httpx.Response:
        data = request.read()
        if self.busy:
            self.busy -= 1
            return httpx.Response(429, headers={"Retry-After": "0"}, json={})
        if self.refuses:
            return httpx.Response(415, json={"title": "its bytes are image/gif"})
        self.got.append((request.url.params["column"], data))
        return httpx.Response(201, json={"sha256": digest(data)})


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def there(tmp_path: Path, door: Door, monkeypatch: pytest.MonkeyPatch) -> Installation:
    def client(_: Installation, timeout_s: float) -> httpx.Client:
        transport = httpx.MockTransport(door.answer)
        return httpx.Client(transport=transport, base_url="http://door")

    monkeypatch.setattr(Installation, "door", client)
    return Installation(tmp_path, "nowhere:1", "", "", Settings(home=tmp_path))


def parts_of(*rows: dict[str, Any]) -> list[Part]:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return [*plan(frame, SPEC, timedelta(days=1), None)]


def test_each_file_is_uploaded_once_and_named_by_digest(
    there: Installation, door: Door, tmp_path: Path
) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img/a.png").write_bytes(png())
    told: list[None] = []
    uploads = Uploads(there, SPEC, tmp_path, lambda: told.append(None))
    known = f"sha256:{digest(b'known')}"
    photos = ["img/a.png", "img/a.png", known, data_uri(png()), None]
    parts = parts_of(*(row(n, photo=photo) for n, photo in enumerate(photos)))
    assert uploads.names(parts) == {"photo": {"img/a.png"}}
    assert not door.got
    (sent,) = map(uploads.sent, parts)
    mine = f"sha256:{digest(png())}"
    assert sent.rows["photo"].to_list() == [mine, mine, known, data_uri(png()), None]
    assert door.got == [("photo", png())]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gone.png", "neither a reference nor a file below"),
        ("../outside.png", "leads out of"),
        ("/etc/hostname", "leads out of"),
        ("link.png", "leads out of"),
        (".", "neither a reference nor a file"),
    ],
)
def test_only_files_of_the_folder_are_sent(
    there: Installation, door: Door, tmp_path: Path, name: str, problem: str
) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(png())
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    uploads = Uploads(there, SPEC, folder)
    with pytest.raises(PublishFileError, match=problem):
        uploads.names(parts_of(row(1, photo=name)))
    assert not door.got


def test_a_refusal_names_file_and_reason(
    there: Installation, door: Door, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    door.refuses = True
    (part,) = parts_of(row(1, photo="a.png"))
    with pytest.raises(CommandError, match=r"a\.png: its bytes are image/gif"):
        Uploads(there, SPEC, tmp_path).sent(part)


class Shop:
    """A dataset with payloads, and the command line on it."""

    def __init__(self, path: Path) -> None:
        self.chain = DataChain(path, SPEC)
        rows = [row(n, photo=data_uri(png(bytes([65 + n % 3])))) for n in range(60)]
        rows[0]["note"] = data_uri(NOTE, "text/plain")
        self.publish(rows[:30])
        self.publish(rows[30:])

    def publish(self, rows: list[dict[str, Any]]) -> None:
        self.chain.send("shop", rows)
        self.chain.work("ingest")
        self.chain.work("validator")

    def read_log(self, *_: object) -> list[Entry]:
        applied = e.PipelineApplied(pipeline="shop", spec=SPEC, applied_by="ann")
        first = Entry(applied, Meta("0", DAY, "/s", Chain("0")))
        return [first, *self.chain.log("dataset-versioned")]

    def run(self, *words: str) -> str:
        return running.run("datasets", *words).stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    monkeypatch.setattr(work, "read_log", shop.read_log)
    there = Installation(tmp_path, "nowhere:1", "", "", Settings(home=tmp_path))
    monkeypatch.setattr("driftloop.cli.datasets.command.connect", lambda home: there)
    return shop


def test_payloads_are_shown_by_type_and_size(shop: Shop) -> None:
    photo = shop.json("show", "shop")["columns"]["photo"]
    assert (photo["type"], photo["distinct_count"]) == ("payload", 3)
    assert photo["frequent"] == [{"value": "image/png", "count": 60}]
    assert photo["spread"]["max"] == len(png(b"A"))
    assert f"image/png 100%; {len(png(b'A'))} B to" in shop.run("show", "shop")
    names = [one["version"] for one in shop.json("show", "shop")["history"]]
    found = shop.json("diff", "shop", names[0], names[1])
    assert (found["added"], found["changed"]) == (30, 0)
    shifts = {shift["column"] for shift in found["shifts"]}
    assert {"photo.media_type", "photo.size_bytes"} <= shifts
    file = shop.chain.path / "report.html"
    shop.run("report", "shop", "-o", str(file))
    assert "image/png" in file.read_text("utf-8")


def test_export_writes_verified_files(shop: Shop, tmp_path: Path) -> None:
    folder, file = tmp_path / "out", tmp_path / "rows.csv"
    words = ("export", "shop", "-o", str(file), "--payloads", str(folder))
    found = shop.json(*words)
    assert found["payloads"] == {"written": 4, "already_there": 0, "missing": []}
    pictures = [png(bytes([65 + n])) for n in range(3)]
    wanted = {f"{digest(data)}.png": data for data in pictures}
    wanted[f"{digest(NOTE)}.txt"] = NOTE
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == wanted
    rows = pl.read_csv(file)
    assert rows["photo"][0] == f"sha256:{digest(pictures[0])}"  # publish reads it
    assert shop.json(*words)["payloads"]["already_there"] == 4
    shop.chain.payloads.delete("shop", digest(NOTE))
    (folder / f"{digest(NOTE)}.txt").unlink()
    assert shop.json(*words)["payloads"]["missing"] == [digest(NOTE)]
    assert "not stored any more" in shop.run(*words)
    (stored,) = tmp_path.glob(f"artifacts/payloads/shop/*/*/{digest(pictures[0])}")
    stored.write_bytes(b"other")
    (folder / f"{digest(pictures[0])}.png").unlink()
    with pytest.raises(CommandError, match="tampered"):
        shop.run(*words)
    assert not [path for path in folder.iterdir() if "partial" in path.name]


def test_prune_deletes_only_what_is_old_and_nobody_refers_to(shop: Shop) -> None:
    shop.chain.payloads.put("shop", png(b"nobody's"))
    shop.chain.payloads.put("other", png(b"of another pipeline"))
    assert shop.json("prune-payloads", "shop")["unreferenced"] == 0  # too young
    words = ("prune-payloads", "shop", "--older-than-days", "0")
    assert shop.json(*words, "--dry-run")["unreferenced"] == 1
    found = shop.json(*words)
    assert (found["deleted"], found["referenced"]) == (1, 4)
    left = {each.sha256 for each in shop.chain.payloads.stored("shop")}
    assert len(left) == 4
    assert digest(png(b"nobody's")) not in left
    assert [*shop.chain.payloads.stored("other")]
