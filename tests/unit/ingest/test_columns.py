"""Values that fit their type become it; others stay readable."""

import math
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from driftloop.contracts.moments import MOMENT_TYPE
from driftloop.ingest.columns import row_texts, to_column, to_times

BIG = 2**63
START = datetime(2011, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "kind", "found", "expected"),
    [
        ([1, 2.5, None], "number", pa.float64(), [1.0, 2.5, None]),
        (["1", "2.50", None], "number", pa.float64(), [1.0, 2.5, None]),
        ([1, "warm"], "number", pa.string(), ["1", "warm"]),
        ([1.0, 0.5, "warm"], "number", pa.string(), ["1", "0.5", "warm"]),
        (["1", "warm"], "number", pa.string(), ["1", "warm"]),
        (
            ["0.50", "+1", "1_0", "1.0", "1e3", "-", "", "9" * 40, "x"],
            "number",
            pa.string(),
            ["0.5", "1", "1_0", "1", "1000", "-", "", "9" * 40, "x"],
        ),
        ([True, 1], "number", pa.string(), ["true", "1"]),
        ([[1], {"a": 1}], "number", pa.string(), ["[1]", '{"a":1}']),
        ([1, 2.0], "integer", pa.int64(), [1, 2]),
        ([1, 2.5], "integer", pa.string(), ["1", "2.5"]),
        ([1, BIG], "integer", pa.string(), ["1", str(BIG)]),
        (["1", "2"], "integer", pa.int64(), [1, 2]),
        ([True, None], "boolean", pa.bool_(), [True, None]),
        (["true", "false"], "boolean", pa.bool_(), [True, False]),
        (["true", "yes"], "boolean", pa.string(), ["true", "yes"]),
        ([1, 2.0, "a", None], "category", pa.string(), ["1", "2", "a", None]),
        ([1, 2.0, "a b", None], "text", pa.string(), ["1", "2", "a b", None]),
        ([1, 2], None, pa.int64(), [1, 2]),
        ([1, 2.5], None, pa.float64(), [1.0, 2.5]),
        (["1"], None, pa.string(), ["1"]),
        ([None], "number", pa.float64(), [None]),
        (["2011-01-01", None], "datetime", MOMENT_TYPE, [START, None]),
        ([None], "datetime", MOMENT_TYPE, [None]),
        (pa.array([START]), "datetime", MOMENT_TYPE, [START]),
        (pa.array([START.date()]), "datetime", MOMENT_TYPE, [START]),
        (
            ["2011-01-01T01:00:00+01:00", "soon", 5, None],
            "datetime",
            pa.string(),
            ["2011-01-01 00:00:00.000000Z", "soon", "5", None],
        ),
        (pa.array([5]), "datetime", pa.string(), ["5"]),
        (pa.array([1, 2], pa.int32()), "number", pa.float64(), [1.0, 2.0]),
        (pa.array([1.0, 2.0]), "integer", pa.int64(), [1, 2]),
        (pa.array([1.0, 2.5]), "integer", pa.string(), ["1", "2.5"]),
        (pa.array([1, 2]), "category", pa.string(), ["1", "2"]),
        (pa.array([1.0]), "category", pa.string(), ["1"]),
        (pa.array(["1", "x"]), "number", pa.string(), ["1", "x"]),
        (pa.array(["1"], pa.large_string()), "number", pa.float64(), [1.0]),
        (pa.array([[1, 2]]), "number", pa.string(), ["[1,2]"]),
        (pa.array([b"\xff"]), "category", pa.string(), ["\ufffd"]),
        (pa.array([True]), "number", pa.string(), ["true"]),
        (pa.array([None]), "integer", pa.int64(), [None]),
        (pa.chunked_array([["a"], ["b"]]), "category", pa.string(), ["a", "b"]),
    ],
)
def test_a_column_has_its_type_or_is_text(
    values: object, kind: str, found: pa.DataType, expected: list[object]
) -> None:
    column = to_column(values, kind)
    assert column.type == found
    assert column.to_pylist() == expected


def test_nan_stays_nan() -> None:
    assert math.isnan(to_column([float("nan")], "number")[0].as_py())


@pytest.mark.parametrize(
    "value",
    [
        "2011-07-01T00:00:00+02:00",
        "2011-07-01 00:00",  # in the pipeline's zone
        "2011-07-01",
        "2011-06-30T22:00:00Z",
        " 2011-06-30T22:00Z ",
    ],
)
def test_times_are_utc(value: str) -> None:
    for values in ([value], [value, "bad"], pa.array([value])):
        times, _ = to_times(values, "Europe/Berlin")
        assert times[0].as_py().isoformat() == "2011-06-30T22:00:00+00:00"


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_arrow_times_are_taken_as_they_are(unit: str, timezone: str) -> None:
    array = pa.array([1_309_471_200], pa.timestamp("s", "UTC"))
    times, _ = to_times(array.cast(pa.timestamp(unit, "America/Lima")), timezone)
    assert times[0].as_py().isoformat() == "2011-06-30T22:00:00+00:00"
    naive = pa.array([1_309_471_200], pa.timestamp("s")).cast(pa.timestamp(unit))
    times, _ = to_times(naive, timezone)
    hour = 22 if timezone == "UTC" else 20
    assert times[0].as_py().hour == hour


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "missing"),
        ("", "missing"),
        ("soon", "'soon' is no time"),
        (1_309_471_200, "is no time; send ISO 8601"),
        (True, "is no time"),
        ("0001-01-01T00:00:00+23:00", "is no time"),
    ],
)
def test_what_is_no_time_is_named(value: object, says: str | None) -> None:
    times, wrong = to_times(["2011-01-01T00:00:00Z", value], "UTC")
    assert times[0].is_valid
    if says:
        assert says in wrong[1]
        assert not times[1].is_valid


def test_rows_of_equal_content_have_equal_texts() -> None:
    """Whatever else is in their messages: order, absent columns, form."""
    one = row_texts([("a", pa.array([1.0])), ("b", pa.array(["x"]))], 1)
    other = row_texts(
        [("b", pa.array(["x", "y"])), ("a", pa.array([1.0, 2.0])), ("c", pa.nulls(2))],
        2,
    )
    assert other[0] == one[0]
    assert other[1] != one[0]
    assert row_texts([], 2) == ["", ""]


def test_a_value_cannot_pass_for_two() -> None:
    both = row_texts([("a", pa.array(["1", "12"])), ("b", pa.array(["23", "3"]))], 2)
    assert both[0] != both[1]
