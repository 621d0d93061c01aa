"""Windows in which rollouts stand still: each week, or once."""

from datetime import UTC, datetime

import pytest
from driftloop.contracts.freeze import FreezeWindow
from driftloop.contracts.pipeline import PipelineFileError, parse_pipeline


def window(begins: str, ends: str, timezone: str = "UTC") -> FreezeWindow:
    return FreezeWindow(begins=begins, ends=ends, timezone=timezone)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "is_held"),
    [
        ("2026-11-27 17:59", False),  # a Friday
        ("2026-11-27 18:00", True),
        ("2026-11-29 23:59", True),
        ("2026-11-30 07:59", True),
        ("2026-11-30 08:00", False),
    ],
)
def test_a_window_over_the_weekend(moment: str, is_held: bool) -> None:
    assert window("fri 18:00", "mon 08:00").holds(at(moment)) == is_held


def test_a_window_within_a_week() -> None:
    night = window("tue 01:00", "tue 03:00")
    assert night.holds(at("2026-11-24 02:00"))
    assert not night.holds(at("2026-11-25 02:00"))


def test_a_window_between_two_dates() -> None:
    holidays = window("2026-12-20 18:00", "2027-01-04 08:00")
    assert holidays.holds(at("2026-12-31 23:59"))
    assert not holidays.holds(at("2026-12-20 17:59"))
    assert not holidays.holds(at("2027-01-04 08:00"))


def test_the_clock_on_the_wall_of_its_zone_counts_in_summer_and_winter() -> None:
    evening = window("fri 18:00", "fri 20:00", "Europe/Berlin")
    assert evening.holds(at("2026-07-03 16:30"))
    assert not evening.holds(at("2026-07-03 18:30"))
    assert evening.holds(at("2026-11-27 17:30"))
    assert not evening.holds(at("2026-11-27 16:30"))


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ('{begins: "friday", ends: "mon 08:00"}', "such as fri 18:00"),
        ('{begins: "fri 25:00", ends: "mon 08:00"}', "such as fri 18:00"),
        ('{begins: "fri 18:00", ends: "2026-12-20 18:00"}', "of two forms"),
        ('{begins: "fri 18:00", ends: "fri 18:00"}', "are the same"),
        (
            '{begins: "2026-12-20 18:00", ends: "2026-12-19 18:00"}',
            "ends is before begins",
        ),
        ('{begins: "fri 18:00", ends: "mon 08:00", timezone: Moon}', "Europe/Berlin"),
        ('{begins: "fri 18:00", end: "mon 08:00"}', "did you mean 'ends'"),
    ],
)
def test_a_wrong_window_names_the_remedy(line: str, remedy: str) -> None:
    head = "{name: x, task: binary, data: {target: y}, rollout: {freeze: ["
    text = f"{head}{line}]}}}}"
    with pytest.raises(PipelineFileError, match=remedy) as caught:
        parse_pipeline(text)
    assert "rollout.freeze.0" in str(caught.value)


def test_a_shift_of_numbers_needs_a_tolerance() -> None:
    head = "{name: x, data: {target: y}"
    shift = "rollout: {max_prediction_shift: 0.3"
    with pytest.raises(PipelineFileError, match=r"set rollout\.prediction_tolerance"):
        parse_pipeline(f"{head}, task: regression, {shift}}}}}")
    parse_pipeline(f"{head}, task: regression, {shift}, prediction_tolerance: 2}}}}")
    parse_pipeline(f"{head}, task: binary, {shift}}}}}")
