"""``driftloop labels``: the queue as a file, and the labels on their way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from driftloop.cli.context import CommandError, Installation
from driftloop.cli.labels import command, work
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.runtime.settings import Settings

from tests.unit.cli import running

SPEC = parse_pipeline(
    "{name: shop, task: binary, data: {id: order, time: at, target: fraud}}"
)
ROWS = [
    {
        "row_id": f"00{number}",
        "event_time": f"2026-01-0{number}T05:00:00Z",
        "score": 1 - number / 10,
        "reasons": ["the model hesitates", "drifted, and far"],
        "window": 3,
        "model_version": 2,
    }
    for number in range(1, 6)
]


class Services:
    """Stands where the monitor and ingest are; serves two rows a page."""

    def __init__(self) -> None:
        self.pages: list[dict[str, str]] = []
        self.posts: list[httpx.Request] = []
        self.refusal = 0

    def monitor(self, request: httpx.Request) -> httpx.Response:
        params = dict(request.url.params)
        self.pages.append(params)
        if "shop" not in request.url.path:
            return httpx.Response(404, json={"title": "there is no pipeline"})
        start = int(params.get("cursor", 0))
        end = start + min(2, int(params["limit"]))
        following = end if end < len(ROWS) else None
        body = {"items": ROWS[start:end], "next_cursor": following}
        return httpx.Response(200, json=body | {"waiting_count": len(ROWS)})

    def ingest(self, request: httpx.Request) -> httpx.Response:
        self.posts.append(request)
        if self.refusal:
            return httpx.Response(self.refusal, json={"title": "not one of no, yes"})
        return httpx.Response(202, json={})


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def there(
    tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> Installation:
    def client(answer: Any) -> httpx.Client:
        transport = httpx.MockTransport(answer)
        return httpx.Client(transport=transport, base_url="http://there")

    monkeypatch.setattr(Installation, "watcher", lambda _: client(services.monitor))
    monkeypatch.setattr(Installation, "door", lambda _: client(services.ingest))
    found = Installation(tmp_path, "nowhere:1", "", "", Settings(home=tmp_path))
    monkeypatch.setattr(command, "connect", lambda _: found)
    monkeypatch.setattr(command, "applied", lambda *_: SPEC)
    return found


def run(*words: str) -> str:
    found = running.run("labels", *words)
    assert found.exit_code == 0, found.output
    return found.stdout


def fill(file: Path, labels: dict[str, str]) -> None:
    frame = pl.read_csv(file, infer_schema=False)
    label = pl.col("order").replace_strict(labels, default=None)
    frame.with_columns(label.alias("fraud")).write_csv(file)


def test_all_pages_are_read_and_no_more_than_wanted(
    there: Installation, services: Services
) -> None:
    assert [r["row_id"] for r in work.wanted(there, "shop", None)["items"]] == [
        row["row_id"] for row in ROWS
    ]
    services.pages.clear()
    assert len(work.wanted(there, "shop", 3)["items"]) == 3
    assert [page["limit"] for page in services.pages] == ["3", "1"]


def test_an_exported_file_comes_back_as_labels(
    there: Installation, services: Services, tmp_path: Path
) -> None:
    """Ids stay text, rows without a label stay behind, only three columns travel."""
    file = tmp_path / "todo.csv"
    assert "wrote 5 rows" in run("wanted", "shop", "--export", str(file))
    exported = pl.read_csv(file, infer_schema=False)
    assert exported.columns == ["order", "at", "fraud", "score", "reasons"]
    assert exported["order"].to_list() == ["001", "002", "003", "004", "005"]
    assert exported["fraud"].null_count() == len(ROWS)
    fill(file, {"002": "yes", "004": " no "})
    assert "2 labels given, 3 rows left empty" in run("give", "shop", str(file))
    (post,) = services.posts
    assert post.url.path == "/v1/pipelines/shop/labels"
    assert post.url.params["source"] == "labels"
    assert post.headers["content-type"] == "text/csv"
    assert post.read().decode().splitlines() == [
        "order,at,fraud",
        "002,2026-01-02T05:00:00Z,yes",
        "004,2026-01-04T05:00:00Z,no",
    ]


def test_the_list_says_why_in_words(there: Installation) -> None:
    shown = run("wanted", "shop", "--limit", "2")
    assert "2 of 5 rows wanted" in shown
    assert "the model hesitates; drifted, and far" in shown
    assert "2026-01-01 05:00" in shown
    found = json.loads(run("wanted", "shop", "--json"))
    assert len(found["items"]) == len(ROWS)


def test_wrong_files_are_refused_with_the_remedy(
    there: Installation, services: Services, tmp_path: Path
) -> None:
    """Negative control: nothing was sent for any of them."""
    file = tmp_path / "todo.csv"
    with pytest.raises(CommandError, match="cannot read"):
        work.give(there, file, SPEC, "x")
    file.write_text("order,fraud\n1,yes\n")
    with pytest.raises(CommandError, match=r"no column at; .*--export"):
        work.give(there, file, SPEC, "x")
    file.write_text("order,at,fraud\n1,2026-01-01T00:00:00Z, \n")
    with pytest.raises(CommandError, match="no row has a fraud yet"):
        work.give(there, file, SPEC, "x")
    assert services.posts == []


def test_tokens_are_not_sent_as_ids(
    there: Installation, services: Services, tmp_path: Path
) -> None:
    """They would be made tokens again, and find no row."""
    file = tmp_path / "todo.csv"
    file.write_text("order,at,fraud\n1,2026-01-01T00:00:00Z,yes\n")
    spec = parse_pipeline(
        "{name: shop, task: binary, data: {id: order, time: at, target: fraud, "
        "features: {sum: {}}, privacy: {order: tokenise}}}"
    )
    with pytest.raises(CommandError, match="driftloop reveal"):
        work.give(there, file, spec, "x")
    assert services.posts == []


def test_what_services_refuse_is_said(
    there: Installation, services: Services, tmp_path: Path
) -> None:
    with pytest.raises(CommandError, match="there is no pipeline"):
        work.wanted(there, "bikes", None)
    services.refusal = 422
    file = tmp_path / "todo.csv"
    file.write_text("order,at,fraud\n1,2026-01-01T00:00:00Z,maybe\n")
    with pytest.raises(CommandError, match="refuses the labels: not one of no, yes"):
        work.give(there, file, SPEC, "x")


def test_without_an_address_the_remedy_is_named(tmp_path: Path) -> None:
    bare = Installation(tmp_path, "nowhere:1", "", "", Settings(home=tmp_path))
    with pytest.raises(CommandError, match="DRIFTLOOP_MONITOR_URL"):
        work.wanted(bare, "shop", None)
    with pytest.raises(CommandError, match="DRIFTLOOP_INGEST_URL"):
        bare.door()
