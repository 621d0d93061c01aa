"""The report of a pipeline's newest dataset version, as the console makes it."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from deltalake import write_deltalake
from driftloop.console.core import Board, Pipeline
from driftloop.console.reports import MAX_ROWS, NoReportError, report_page
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


def test_the_newest_version_is_shown_whatever_the_order(tmp_path: Path) -> None:
    write(tmp_path / "o", "mist")
    write(tmp_path / "o", "snow")
    newest, older = (versioned(tmp_path / "o", version) for version in (1, 0))
    page = report_page(board(applied(), newest, older), Settings(), "bikes")
    assert "bikes, dataset version 1.0" in page
    assert "snow" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    only = report_page(board(applied(), older), Settings(), "bikes")
    assert "snow" not in only


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoReportError, match="bikes has no dataset yet"):
        report_page(None, Settings(), "bikes")
    with pytest.raises(NoReportError, match="no dataset yet"):
        report_page(board(applied()), Settings(), "bikes")
    large = board(applied(), versioned(tmp_path, 0, MAX_ROWS + 1))
    with pytest.raises(NoReportError, match="driftloop datasets report bikes"):
        report_page(large, Settings(), "bikes")
    with pytest.raises(DatasetError):
        report_page(board(applied(), versioned(tmp_path, 7)), Settings(), "bikes")
