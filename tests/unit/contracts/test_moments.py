"""One reading of moments, whatever form they come in."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from driftloop.contracts.moments import (
    FIRST_US,
    LAST_US,
    are_moments,
    fixed_moment,
    microseconds,
    moment_of,
    moment_text,
    moments,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.support import examples

UTC_ZONE = ZoneInfo("UTC")
inner = st.datetimes().filter(lambda when: 1 < when.year < 9999)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/Lima", "Asia/Kathmandu"])


@given(st.lists(st.tuples(inner, st.none() | offsets), min_size=1, max_size=8), zones)
@settings(max_examples=examples(50))
def test_every_form_of_a_moment_is_the_same_moment(
    given_: list[tuple[datetime, Any]], zone: str
) -> None:
    whens = [when.replace(tzinfo=offset) for when, offset in given_]
    expected = [
        (w if w.tzinfo else w.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
        for w in whens
    ]
    texts = [when.isoformat() for when in whens]
    spaced = [when.isoformat(" ") for when in whens]
    for values in (texts, spaced, pa.array(texts), whens, [*texts, None]):
        found, wrong = moments(values, zone)
        assert wrong is None
        assert found.to_pylist()[: len(whens)] == expected
    assert [moment_of(microseconds(t, ZoneInfo(zone))) for t in texts] == expected
    held, _ = moments(pa.array(expected, pa.timestamp("us", "UTC")), zone)
    assert held.to_pylist() == expected
    assert [fixed_moment(moment_text(one)) for one in expected] == expected


@pytest.mark.parametrize(
    "value",
    ["soon", "", "2011-13-01", "0001-01-01T00:00:00+14:00", 5, 5.0, True, [1], "12:00",
     "9999-12-31T23:59:59-01:00"],
)  # fmt: skip
def test_what_is_no_moment_is_marked(value: Any) -> None:
    for others in ([], ["2011-01-01T00:00:00Z", None]):
        found, wrong = moments([*others, value])
        assert wrong is not None
        assert wrong.to_pylist() == [False] * len(others) + [True]
        assert found.null_count == len(others[1:]) + 1
    with pytest.raises(ValueError, match="send ISO 8601 text"):
        microseconds(value, UTC_ZONE)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_unit(unit: str) -> None:
    seconds = pa.array([0, -1, None], pa.timestamp("s", "UTC"))
    found, wrong = moments(seconds.cast(pa.timestamp(unit, "America/Lima")), "UTC")
    assert wrong is None
    assert found.cast(pa.int64()).to_pylist() == [0, -1_000_000, None]


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_timestamps_outside_of_the_years_are_none(zone: str) -> None:
    for unit, factor in (("s", 10**6), ("us", 1)):
        given_ = [FIRST_US // factor - 1, 0, LAST_US // factor + 1]
        _, wrong = moments(pa.array(given_, pa.timestamp(unit)), zone)
        assert wrong is not None
        assert wrong.to_pylist() == [True, False, True]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2011-01-01"], True),
        (["2011-01-01T00:00:00Z", "2011-01-01 06:30"], True),
        (["2011-01-01T00:00:00.123456+0100"], True),
        ([], False),
        (["20110101"], False),
        (["2011-W01-1"], False),
        (["2011-13-01"], False),
        (["2011-01-01", "soon"], False),
    ],
)
def test_what_looks_like_a_moment(texts: list[str], expected: bool) -> None:
    assert are_moments(texts) is expected
