"""Values become arrays, or an error that names the feature and the row."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from driftloop.models.package import InputColumn
from driftloop.scorer import answer_log
from driftloop.scorer.feeds import BadRequest, feeds_of
from driftloop.scorer.open_inference.bodies import request_in
from driftloop.scorer.open_inference.tensors import columns_of

INPUTS = [
    InputColumn(name="temp", type="number", nullable=True),
    InputColumn(name="hour", type="integer"),
    InputColumn(name="is_holiday", type="boolean"),
    InputColumn(name="season", type="category", nullable=True),
    InputColumn(name="weather", type="category"),
]
GOOD = {
    "temp": [1.5, 2.0],
    "hour": [7, 8],
    "is_holiday": [True, False],
    "season": ["winter", "spring"],
    "weather": [1, 2],
}


def test_values_become_columns_of_the_right_type():
    feeds, rows = feeds_of(GOOD | {"other": ["ignored"]}, INPUTS)
    assert rows == 2
    assert {name: array.shape for name, array in feeds.items()} == dict.fromkeys(
        GOOD, (2, 1)
    )
    assert {
        a.dtype for n, a in feeds.items() if n in {"temp", "hour", "is_holiday"}
    } == {np.dtype(np.float32)}
    assert feeds["is_holiday"].tolist() == [[1.0], [0.0]]
    assert feeds["weather"].tolist() == [["1"], ["2"]]


@pytest.mark.parametrize("nested", ["temp", "season", "all"])
def test_values_may_be_lists_of_one(nested):
    columns = {
        name: [[v] for v in values] if nested in (name, "all") else values
        for name, values in GOOD.items()
    }
    plain, _ = feeds_of(GOOD, INPUTS)
    found, rows = feeds_of(columns, INPUTS)
    assert rows == 2
    for name, array in plain.items():
        assert found[name].tolist() == array.tolist()


def test_nulls_are_nan_and_the_empty_category_where_they_are_allowed():
    columns = GOOD | {"temp": [None, 1], "season": [None, "a"]}
    feeds, _ = feeds_of(columns, INPUTS)
    assert np.isnan(feeds["temp"][0, 0])
    assert feeds["season"].tolist() == [[""], ["a"]]


def test_a_category_is_written_as_a_person_would():
    columns = GOOD | {"weather": [1.0, True], "season": [0.5, "x"]}
    feeds, _ = feeds_of(columns, INPUTS)
    assert feeds["weather"].tolist() == [["1"], ["true"]]
    assert feeds["season"].tolist() == [["0.5"], ["x"]]


def test_no_rows():
    feeds, rows = feeds_of({name: [] for name in GOOD}, INPUTS)
    assert rows == 0
    assert feeds["temp"].shape == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hour": [7, None]}, "hour: row 1 is None; expected a number"),
        ({"temp": ["x", 1]}, "temp: row 0 is 'x'; expected a number or null"),
        ({"temp": ["1.5", "2"]}, "temp: row 0 is '1.5'"),
        ({"temp": [1e300, 1]}, "temp: row 0 is no number or too great"),
        ({"hour": [10**400, 1]}, "hour: row 0 is no number or too great"),
        ({"temp": [1.0]}, "hour has 2 values, temp has 1"),
        ({"weather": [None, "a"]}, "weather: row 0 is None; expected text"),
        ({"weather": [{}, "a"]}, "weather: row 0"),
        ({"temp": [[1, 2], [3, 4]]}, "temp: expected one value a row"),
        ({"temp": 3}, "temp: expected a list"),
        ({"weather": "ab"}, "weather: expected a list"),
        ({"temp": None}, "temp: expected a list"),
    ],
)
def test_what_is_not_right_is_named(change, message):
    with pytest.raises(BadRequest, match=message):
        feeds_of(GOOD | change, INPUTS)


def test_a_missing_feature_is_named():
    columns = {name: values for name, values in GOOD.items() if name != "temp"}
    with pytest.raises(BadRequest, match="missing: temp"):
        feeds_of(columns, INPUTS)


OPENED = InputColumn(
    name="opened", type="datetime", nullable=True, timezone="Europe/Berlin"
)


def test_moments_are_whole_microseconds():
    given = ["1970-01-01T00:00:00Z", "1970-01-01 02:00", None, "1969-12-31"]
    hour, least = 3_600_000_000, np.iinfo(np.int64).min
    for values in (given, [[value] for value in given]):
        feeds, rows = feeds_of({"opened": values}, [OPENED])
        assert rows == 4
        assert feeds["opened"].dtype == np.int64
        assert feeds["opened"].ravel().tolist() == [0, hour, least, -25 * hour]


@pytest.mark.parametrize(
    "value", ["soon", "", 5, 1.5, True, "0001-01-01T00:00:00+05:00"]
)
def test_what_is_no_moment_is_refused(value):
    with pytest.raises(BadRequest, match="opened: row 1: .*send ISO 8601 text"):
        feeds_of({"opened": ["2011-01-01", value]}, [OPENED])
    required = OPENED.model_copy(update={"nullable": False})
    with pytest.raises(BadRequest, match="opened: row 0"):
        feeds_of({"opened": [None]}, [required])


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        ({"datatype": "FP64", "data": [1.0]}, "is a datetime: send BYTES, not FP64"),
        ({"datatype": "INT64", "data": [2**62]}, "no moment; an INT64 counts the"),
        ({"datatype": "INT64", "data": ["x"]}, "no moment"),
        ({"datatype": "INT64", "data": [[0]]}, None),
        ({"datatype": "BYTES", "data": ["1970-01-01T00:00:00Z"]}, None),
    ],
)
def test_moments_of_the_open_inference_protocol(tensor, says):
    body = {"inputs": [{"name": "opened", "shape": [1], **tensor}]}
    columns, check = columns_of(request_in(json.dumps(body).encode(), None).tensors)
    if says:
        with pytest.raises(BadRequest, match=says):
            check([OPENED])
        return
    check([OPENED])
    assert feeds_of(columns, [OPENED])[0]["opened"].tolist() == [[0]]


def test_moments_are_told_to_the_monitor_as_such():
    values = np.array([0, np.iinfo(np.int64).min])
    assert answer_log._column(values, "datetime").to_pylist() == [
        datetime(1970, 1, 1, tzinfo=UTC), None,
    ]  # fmt: skip
