"""The terminal's view of a pipeline's windows."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from driftloop.cli.performance.view import (
    labels_in_words,
    performance_of,
    performance_view,
)
from driftloop.contracts.base import Event
from driftloop.contracts.estimates import (
    Basis,
    CalibrationMeasured,
    EstimatorScore,
    LabelsAwaited,
    MetricEstimate,
    PerformanceEstimated,
    PerformanceSettled,
    SettledMetric,
    SliceMeasured,
    Verdict,
)
from driftloop.contracts.events import Span
from rich.console import Console

START = datetime(2024, 1, 1, tzinfo=UTC)
LABELS = LabelsAwaited(
    state="awaited", watermark=START, labelled_until=START, awaited_since=START,
    usual_days=14.0, labelled_ratio=0.98,
)  # fmt: skip


def span(window: int) -> Span:
    start = START + timedelta(days=7 * window)
    return Span(start=start, end=start + timedelta(days=6, hours=23))


def estimated(window: int, value: float | None = 50.0, **changes: Any) -> Event:
    estimates = []
    if value is not None:
        estimates = [
            MetricEstimate(
                metric="mae", value=value, low=value - 9, high=value + 9, level=48.0
            )
        ]
    verdict: Verdict = "cannot_tell" if value is None else "ok"
    said: dict[str, Any] = {
        "pipeline": "shop", "version": 3, "window": window, "span": span(window),
        "row_count": 168, "verdict": verdict, "reason": "because", "labels": LABELS,
        "estimates": estimates, "basis": Basis(row_count=500),
    }  # fmt: skip
    return PerformanceEstimated(**(said | changes))


def settled(window: int, value: float = 55.0) -> Event:
    return PerformanceSettled(
        pipeline="shop", version=3, window=window, span=span(window), row_count=168,
        labelled_count=160, kept_count=168,
        metrics=[SettledMetric(metric="mae", value=value, low=49, high=61)],
        calibration=CalibrationMeasured(error=0.04, bin_count=1, bias=-9.0),
        slices=[
            SliceMeasured(
                column="season", group="spring", row_count=72, value=88.0, low=70,
                high=106, before=48.0, p_value=0.0004,
            )
        ],
        slice_count=6,
        score=EstimatorScore(
            window_count=8, mean_absolute_error=6.1, level_error=8.4, coverage=1.0
        ),
    )  # fmt: skip


def shown(*events: Event) -> str:
    found = performance_of("shop", events, 20)
    assert found is not None
    screen = Console(file=io.StringIO(), width=100)
    screen.print(performance_view(found))
    text: str = screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    return text


def test_a_window_has_its_estimate_and_what_was_measured() -> None:
    text = shown(estimated(1), settled(1), estimated(2, 60.0))
    first, second = (line for line in text.splitlines() if line.startswith("2024-01"))
    assert "55" in first
    assert "x" in first.split("55", 1)[1]
    assert "no labels yet" in second
    assert "─" in second
    assert "o" in second.split("yet", 1)[1]
    for part in (
        "now: ok; because",
        "awaited, since 2024-01-01 00:00, usually within 14 days, 98 % of rows get one",
        "off by 6.1 on average over 8 windows (the last labels alone: 8.4)",
        "the interval held in 100 %",
        "calibration: error 0.04, bias -9",
        "season spring",
    ):
        assert part in " ".join(text.split())


def test_that_nobody_can_tell_is_no_figure() -> None:
    none = LabelsAwaited(state="none_yet")
    text = shown(estimated(1, None, labels=none))
    assert "now: cannot tell; because" in text
    assert "none has landed yet, so nothing is known of the error" in text
    assert "estimates:" not in text
    assert "─ interval" not in text


def test_late_labels_are_said_to_be_late() -> None:
    late = LABELS.model_copy(update={"state": "late"})
    assert labels_in_words(late).startswith("late, longer than usual, since 2024-01-01")


def test_the_newest_windows_are_shown_and_a_repeat_is_one() -> None:
    events = [estimated(n) for n in (1, 2, 2, 3)] + [settled(1)]
    found = performance_of("shop", events, 2)
    assert found is not None
    assert [one.number for one in found.windows] == [2, 3]
    assert performance_of("shop", [], 2) is None


def test_programs_get_all_of_it() -> None:
    found = performance_of("shop", [estimated(1), settled(1), estimated(2)], 20)
    assert found is not None
    answer = json.loads(json.dumps(found.as_json()))
    assert answer["verdict"] == "ok"
    assert answer["labels"]["state"] == "awaited"
    assert answer["score"]["window_count"] == 8
    assert [one["window"] for one in answer["windows"]] == [1, 2]
    assert answer["windows"][1]["settled"] is None
    assert answer["windows"][0]["settled"]["metrics"][0]["value"] == 55.0
