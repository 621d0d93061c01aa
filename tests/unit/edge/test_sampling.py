"""Rows that are kept for home are as its door takes them, and fail no request."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from driftloop.cli.edge.runner import figures as module
from driftloop.cli.edge.runner.answering import Desk
from driftloop.cli.edge.runner.columns import Column, Feeds, Moment
from driftloop.cli.edge.runner.figures import Figures
from driftloop.cli.edge.runner.model import Model, Predictions
from driftloop.cli.edge.runner.package import Home, Package
from driftloop.contracts.edge import EdgeReport
from driftloop.contracts.pipeline import parse_pipeline
from driftloop.ingest.core import typed_rows
from driftloop.ingest.formats import parse

INPUTS = [Column("size", "number", nullable=True), Column("at", "datetime")]
PACKAGE = Package(
    pipeline="bikes", version=1, digest="a" * 64, signer="b", inputs=INPUTS,
    classes=(), outputs=(), samples={}, tolerance={}, home=Home("id", "seen", ()),
    model=b"", forced=None,
)  # fmt: skip
ROWS: dict[str, Any] = {"size": [1.0, None], "at": ["2011-01-01", Moment(0)]}
SPEC = parse_pipeline(
    "{name: bikes, task: regression, data: {time: seen, target: cnt, features: "
    "{size: {nullable: true}, at: {type: datetime}}}}"
)


class Zero(Model):
    """Says 0 to each row."""

    def __init__(self) -> None: ...

    def predict(self, feeds: Feeds, row_count: int) -> Predictions:
        return Predictions(np.zeros(row_count))


def sampled(columns: dict[str, Any], request_id: str | None = None) -> Any:
    figures = Figures(sample_rows=10)
    desk = Desk(PACKAGE, Zero(), figures, "line-4")
    assert len(desk.answer(columns, request_id).said.prediction)
    _, rows = figures.close()
    return sorted(rows, key=lambda row: str(row["id"]))


def test_rows_are_as_they_came() -> None:
    """By their ids; moments as text, and the time of the answer."""
    one, two = sampled(ROWS | {"id": ["r1", 2]})
    assert (one["id"], two["id"]) == ("2", "r1")
    assert (two["size"], two["at"]) == (1.0, "2011-01-01")
    assert (one["size"], one["at"]) == (None, "1970-01-01T00:00:00Z")
    seen = datetime.fromisoformat(one["seen"])
    assert abs((datetime.now(UTC) - seen).total_seconds()) < 600


def test_homes_door_takes_them() -> None:
    """As ingest reads and types rows of this pipeline."""
    body = b"\n".join(json.dumps(row).encode() for row in sampled(ROWS))
    parsed = parse(body, "application/x-ndjson")
    assert not parsed.bad
    typed = typed_rows(parsed, SPEC, "observations", "edge-line-4")
    assert not typed.bad
    assert typed.table.num_rows == 2


@pytest.mark.parametrize("odd", [[{"a": 1}, None], ["r1"], "r1", [[1, 2], [3]], [""]])
def test_ids_and_times_that_are_none_are_made_up(odd: Any) -> None:
    rows = sampled(ROWS | {"id": odd, "seen": odd})
    assert all(row["id"].startswith("line-4/") for row in rows)
    assert len({row["id"] for row in rows}) == len(rows) == 2
    assert all(datetime.fromisoformat(row["seen"]).tzinfo for row in rows)


def test_times_that_rows_bring_are_kept() -> None:
    rows = sampled(ROWS | {"seen": ["2011-05-01T00:00:00Z", "soon"]})
    assert "2011-05-01T00:00:00Z" in {row["seen"] for row in rows}
    assert "soon" not in {row["seen"] for row in rows}


def test_the_id_of_a_request_is_that_of_its_only_row() -> None:
    one = {name: values[:1] for name, values in ROWS.items()}
    assert [row["id"] for row in sampled(one, "order-42")] == ["order-42"]
    assert "order-42" not in {row["id"] for row in sampled(ROWS, "order-42")}


def test_a_clock_that_is_put_back_makes_no_report_that_home_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = Figures()
    figures.answered(1, 0.001, [], 0)

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2001, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(module, "datetime", Earlier)
    told, _ = figures.close()
    about = {"edge": "line-4", "version": 1, "package_digest": "a" * 64}
    report = EdgeReport.model_validate(about | told)
    assert report.until == report.since
