"""Figures of detectors: what counts as found, as false, and as the same rate."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.bench import detection, detection_streams


def stream(starts: tuple[int, ...], ends: tuple[int, ...]) -> detection_streams.Stream:
    wrong = np.zeros(ends[-1], dtype=bool)
    return detection_streams.Stream("A", "recurring", 0, wrong, starts, ends, 10.0)


def test_a_delay_is_from_each_start_to_the_first_alarm_in_its_stretch() -> None:
    twice = stream((100, 300), (200, 400))
    told = detection.Told("x", "", 0.0, [[50, 119, 150, 250], [300], None])
    assert detection.delays(told, [twice] * 3) == [
        [20.0, math.inf],
        [math.inf, 1.0],
        [],
    ]


def test_alarms_before_the_first_drift_are_false() -> None:
    told = detection.Told("x", "", 0.0, [[50, 119], [350], None])
    rate = detection.false_rate(told, [stream((100, 300), (200, 400))] * 3)
    assert rate == pytest.approx(10_000 * 1 / 200)


def test_missed_drifts_count_apart_and_spoil_the_median() -> None:
    row = detection.summed([20.0, 40.0, math.inf, math.inf], [10.0] * 4)
    assert (row.mean, row.missed, row.count) == (30.0, 2, 4)
    assert row.ratio == math.inf
    assert "2 of 4 missed" in row.text(best=30.0)
    assert "**" not in row.text(best=30.0)
    assert (
        detection.summed([20.0, 40.0], [10.0] * 2).text(best=30.0).startswith("**30**")
    )


def test_a_threshold_keeps_the_rate_and_no_lower_one_does() -> None:
    """A run of windows above it is one alarm."""
    still = np.array([[0.0, 5.0, 6.0, 0.0, 4.0], [1.0, 0.0, 3.0, 0.0, 0.0]])
    rows = 20_000 * 10  # one alarm is allowed
    threshold = detection.threshold_for(still, rows)
    alarms = [sum(detection.episodes(row >= t) for row in still)
              for t in (threshold, np.nextafter(4.0, 0.0))]  # fmt: skip
    assert alarms == [1, 2]
    assert 4.0 < threshold <= 5.0


def test_least_delay_is_less_for_a_greater_rise() -> None:
    found = [detection_streams.least_delay(0.1, after) for after in (0.15, 0.3, 0.9)]
    assert found == sorted(found, reverse=True)
    assert detection_streams.least_delay(0.2, 0.2) == math.inf


def test_a_table_replaces_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- a: written by the benchmark -->\nold\n<!-- end of a -->\nafter\n"
    )
    monkeypatch.setattr(detection, "PAGE", page)
    for line in ("new", "newer"):
        detection.write_table("a", [line])
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "newer" in text
    assert "old" not in text
