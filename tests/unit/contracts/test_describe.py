"""One line of plain words for an event."""

from datetime import UTC, datetime
from typing import Any

from driftloop.contracts.describe import describe
from driftloop.contracts.events import BatchValidated, BatchWarning, Span

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def validated(*verdicts: Any) -> BatchValidated:
    warnings = [
        BatchWarning(
            check="stuck", field="temp", verdict=verdict, row_count=7, detail="…"
        )
        for verdict in verdicts
    ]
    return BatchValidated(
        pipeline="bikes",
        shard="s",
        row_count=24,
        span=Span(start=TIME, end=TIME),
        watermark=TIME,
        warnings=warnings,
    )


def test_a_warning_is_told_beside_the_rows() -> None:
    assert describe(validated("failed")) == (
        "24 observations 2026-01-01 00:00; warnings: temp: stuck (7)"
    )


def test_nothing_failed_nothing_told() -> None:
    for event in (validated(), validated("not_enough_data")):
        assert describe(event) == "24 observations 2026-01-01 00:00"
