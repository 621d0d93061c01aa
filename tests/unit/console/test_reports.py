"""Reports of dataset versions and batches, as the console makes them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from driftloop.console.core import Board
from driftloop.console.reports import (
    MAX_ROWS,
    NoReportError,
    rendered,
    report_of_batch,
    sizes,
    version_report,
)
from driftloop.console.story import Pipeline
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.runtime.data.reading import DatasetError
from driftloop.runtime.settings import Settings

NOW = datetime(2011, 1, 1, tzinfo=UTC)
SPEC = parse_pipeline("{name: bikes, task: regression, data: {target: cnt}}")
HOSTILE = "<script>alert(1)</script>"


def versioned(uri: Path, version: int, count: int = 40) -> e.DatasetVersioned:
    table = e.TableRef(uri=str(uri), version=version)
    return e.DatasetVersioned(
        pipeline="bikes",
        kind="observations",
        dataset=e.DatasetRef(observations=table),
        added_count=1,
        observation_count=count,
        label_count=0,
        span=e.Span(start=NOW, end=NOW),
    )


def board(*events: Event) -> Pipeline:
    """Return what a board knows after some events."""
    found = Board()
    for number, event in enumerate(events):
        meta = Meta(str(number), NOW, "/s", Chain("c"))
        found.take(event.with_meta(meta))
    return found.pipelines["bikes"]


def applied() -> e.PipelineApplied:
    return e.PipelineApplied(pipeline="bikes", spec=SPEC, applied_by="ann")


def write(uri: Path, name: str) -> None:
    rows = pl.DataFrame(
        {
            "id": [f"{name}{n}" for n in range(40)],
            "event_time": [NOW] * 40,
            "source": ["s"] * 40,
            "sky": [name, HOSTILE] * 20,
            "cnt": [None] * 40,
        },
        schema_overrides={"cnt": pl.Float64},
    )
    write_deltalake(uri, rows.to_arrow(), mode="append")


def html(found: Pipeline, version: str = "latest") -> str:
    return rendered(version_report(found, Settings(), "bikes", version), "html")[0]


def test_the_newest_version_is_shown_whatever_the_order(tmp_path: Path) -> None:
    write(tmp_path / "o", "mist")
    write(tmp_path / "o", "snow")
    newest, older = (versioned(tmp_path / "o", version) for version in (1, 0))
    page = html(board(applied(), newest, older))
    assert "bikes, dataset version 1.0" in page
    assert "snow" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "snow" not in html(board(applied(), older))


def test_a_chosen_version_is_shown(tmp_path: Path) -> None:
    """As HTML and as JSON; another name is refused with the newest one's."""
    write(tmp_path / "o", "mist")
    write(tmp_path / "o", "snow")
    found = board(
        applied(), *(versioned(tmp_path / "o", version) for version in (0, 1))
    )
    assert "snow" not in html(found, "0.0")
    report = version_report(found, Settings(), "bikes", "0.0")
    text, media_type = rendered(report, "json")
    assert media_type == "application/json"
    assert json.loads(text)["version"] == "0.0"
    for name in ("7.0", "1", "../1.0", "latest.0"):
        with pytest.raises(NoReportError, match="newest is 1.0"):
            version_report(found, Settings(), "bikes", name)


def test_sizes_are_read_once(tmp_path: Path) -> None:
    """A version keeps its size; one that cannot be read has none."""
    write(tmp_path / "o", "mist")
    gone = versioned(tmp_path / "o", 3)
    found = board(applied(), versioned(tmp_path / "o", 0), gone)
    answer = sizes(found, Settings(), {})
    assert answer.keys() == {"0.0"}
    assert answer["0.0"] > 0
    assert sizes(found, Settings(), {"0.0": 1, "9.9": 2}) == {"0.0": 1}
    assert sizes(None, Settings(), {}) == {}


def test_a_batch_is_read_again(tmp_path: Path) -> None:
    """From the positions of both halves; what the log dropped is said."""
    rows = pa.RecordBatch.from_pydict({"temp": [0.5, 77.0]})
    common = {"pipeline": "bikes", "shard": "s", "span": e.Span(start=NOW, end=NOW)}
    good = e.BatchValidated(
        row_count=2, quarantined_count=2, watermark=NOW, **common
    ).with_rows(rows)
    reason = e.RejectReason(check="range", field="temp", row_count=2, detail="no")
    bad = e.BatchRejected(
        row_count=2, batch_row_count=4, reasons=[reason], **common
    ).with_rows(rows)
    log: dict[tuple[str, int, int], Event] = {}
    found = Board()
    for event in (good, bad):
        meta = Meta(event.topic(), NOW, "/s", Chain("c"), "b1", event.topic(), 1, 7)
        log[event.topic(), 1, 7] = event.with_meta(meta)
        found.take(event.with_meta(meta))

    def read_at(*place: Any) -> Event | None:
        return log.get(place)

    report = report_of_batch(found.pipelines["bikes"], "bikes", "b1", read_at)
    assert report["facts"]["went on"] == report["facts"]["quarantined"] == 2
    assert report["reasons"][0]["field"] == "temp"
    log.clear()
    with pytest.raises(NoReportError, match="no longer in the log"):
        report_of_batch(found.pipelines["bikes"], "bikes", "b1", read_at)
    with pytest.raises(NoReportError, match="datasets report bikes --batch b2"):
        report_of_batch(found.pipelines["bikes"], "bikes", "b2", read_at)


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoReportError, match="bikes has no dataset yet"):
        version_report(None, Settings(), "bikes")
    with pytest.raises(NoReportError, match="no dataset yet"):
        version_report(board(applied()), Settings(), "bikes")
    large = board(applied(), versioned(tmp_path, 0, MAX_ROWS + 1))
    with pytest.raises(NoReportError, match="driftloop datasets report bikes"):
        version_report(large, Settings(), "bikes")
    with pytest.raises(DatasetError):
        version_report(board(applied(), versioned(tmp_path, 7)), Settings(), "bikes")
