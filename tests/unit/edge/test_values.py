"""The runner takes, refuses and doubts the values that the scorer does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from driftloop.cli.edge.runner import columns as edge
from driftloop.cli.edge.runner import forms, inference, unfamiliar
from driftloop.cli.edge.runner.errors import BadRequest as EdgeBadRequest
from driftloop.models.package import InputColumn
from driftloop.scorer import feeds as home
from driftloop.scorer import invocations
from driftloop.scorer import unfamiliar as home_unfamiliar
from driftloop.scorer.open_inference.bodies import request_in
from driftloop.scorer.open_inference.tensors import columns_of
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.support import examples

INPUTS = [
    InputColumn(name="size", type="number", nullable=True, least=-1.5, greatest=2.0),
    InputColumn(name="count", type="integer", least=0.0, greatest=9.0),
    InputColumn(name="is_on", type="boolean", nullable=True),
    InputColumn(name="colour", type="category", categories=["a", "b"], nullable=True),
    InputColumn(name="note", type="text"),
    InputColumn(name="at", type="datetime", timezone="Europe/Berlin", nullable=True),
]
EDGE_INPUTS = [
    edge.Column(**column.model_dump(mode="json", exclude_none=True))
    for column in INPUTS
]
GOOD: dict[str, list[Any]] = {
    "size": [1.0, None, 0],
    "count": [1, 2, 3],
    "is_on": [True, None, 0],
    "colour": ["a", 1.0, None],
    "note": ["x", True, 0.5],
    "at": ["2011-07-01T00:00:00", "2011-07-01", None],
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["a", "", "1", "2011-01-01", "2011-10-30T02:30:00", "0001-01-01T00:00+14:00"]
    ),
    st.lists(st.integers(0, 3), max_size=2),
)


def outcome(call: Callable[[], tuple[dict[str, Any], int]]) -> Any:
    """Return arrays and rows, or the words of a refusal."""
    try:
        feeds, rows = call()
    except (home.BadRequest, EdgeBadRequest) as error:
        return str(error)
    return rows, {
        name: (values.dtype.str, values.shape, [repr(v) for v in values.ravel()])
        for name, values in sorted(feeds.items())
    }


def both(columns: Any) -> Any:
    """Return what both make of values, which is the same."""
    ours = outcome(lambda: edge.feeds_of(columns, EDGE_INPUTS))
    assert ours == outcome(lambda: home.feeds_of(columns, INPUTS))
    return ours


def test_values_become_the_same_arrays() -> None:
    rows, arrays = both(GOOD)
    assert rows == 3
    assert arrays["colour"][2] == ["'a'", "'1'", "''"]
    assert arrays["at"][2][0] == "np.int64(1309471200000000)"  # two hours before UTC's


@settings(max_examples=examples(300))
@given(st.sampled_from(list(GOOD)), st.integers(0, 2), VALUES)
def test_any_value_is_taken_or_refused_alike(name: str, row: int, value: Any) -> None:
    columns = {key: list(values) for key, values in GOOD.items()}
    columns[name][row] = value
    both(columns)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": [1.0, "x", 0]}, "size: row 1 is 'x'; expected a number or null"),
        ({"count": [1, None, 3]}, "count: row 1 is None; expected a number"),
        ({"size": [1e300, 1.0, 1.0]}, "size: row 0 is no number or too great"),
        ({"note": ["x", None, "y"]}, "note: row 1 is None; expected text"),
        ({"at": ["soon", None, None]}, "at: row 0: 'soon' is no time; send ISO 8601"),
        ({"at": [5, None, None]}, "at: row 0: '5' is no time; send ISO 8601"),
        ({"count": [1, 2]}, "count has 2 values, size has 3"),
        ({"count": [[1, 2], [1], [1]]}, "count: expected one value a row"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, list[Any]], words: str) -> None:
    assert both(GOOD | change).startswith(words)


def test_a_missing_column_is_named() -> None:
    assert both({k: v for k, v in GOOD.items() if k != "note"}) == "missing: note"


def test_rows_of_a_file_are_counted_from_its_begin() -> None:
    with pytest.raises(EdgeBadRequest, match="count: row 1001 is None"):
        edge.feeds_of(GOOD | {"count": [1, None, 3]}, EDGE_INPUTS, 1000)


BODIES: list[Any] = [
    {"dataframe_split": {"columns": ["size", "note"], "data": [[1, "x"], [2, "y"]]}},
    {"dataframe_records": [{"size": 1, "note": "x"}, {"size": None}]},
    {"instances": [[1, 1, True, "a", "x", None]]},
    {"inputs": {"size": [1, 2], "note": "x"}},
    {"inputs": [[1, 1, True, "a", "x", None]]},
    {},
    {"instances": [], "inputs": []},
    {"dataframe_split": {"columns": []}},
    {"dataframe_split": {"columns": "a", "data": []}},
    {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}},
    {"dataframe_split": {"columns": ["a"], "data": [{"a": 1}]}},
    {"dataframe_records": {"a": 1}},
]


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_each_form_is_read_alike(body: dict[str, Any]) -> None:
    assert told(lambda: forms.columns_of_json(body, EDGE_INPUTS)) == told(
        lambda: invocations.columns_of_json(body, INPUTS)
    )


def told(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (home.BadRequest, EdgeBadRequest) as error:
        return str(error)


@pytest.mark.parametrize(
    "text",
    [
        b"size,is_on,note\n1,true,x\n,FALSE,\nabc,2,y\n",
        b"",
        b"size\n1,2\n",
        b'size\n"1\n',
        b"\xff\xfe",
        b"size,note\n\n1,x\n",
    ],
    ids=str,
)
def test_csv_is_read_alike(text: bytes) -> None:
    assert told(lambda: forms.columns_of_csv(text, EDGE_INPUTS)) == told(
        lambda: invocations.columns_of_csv(text, INPUTS)
    )


def test_a_column_that_comes_twice_is_refused() -> None:
    twice = {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}
    with pytest.raises(EdgeBadRequest, match="column 'a' comes twice"):
        forms.columns_of_json(twice, EDGE_INPUTS)
    with pytest.raises(EdgeBadRequest, match="column 'a' comes twice"):
        forms.columns_of_csv(b"a,a\n1,2\n", EDGE_INPUTS)


@pytest.mark.parametrize(
    "data", [b"{", b"[1]", b"null", b'"x"', b'{"a": NaN}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(EdgeBadRequest, match="the body"):
        forms.json_object(data)


def tensor(name: str, datatype: str, data: Any, shape: Any = None) -> dict[str, Any]:
    count = [len(data)] if isinstance(data, list) else [1]
    return {
        "name": name,
        "datatype": datatype,
        "shape": count if shape is None else shape,
        "data": data,
    }


TENSORS: list[Any] = [
    [tensor("size", "FP32", [1.0, None])],
    [tensor("size", "FP64", [[1.0], [2.0]], [2, 1])],
    [tensor("at", "INT64", [0, None, [1_000_000]])],
    [tensor("at", "BYTES", ["2011-01-01"])],
    [tensor("id", "BYTES", ["r1"]), tensor("note", "BYTES", ["x"])],
    [tensor("size", "FP64", [1.0], [2])],
    [tensor("size", "FP64", [1.0], [1, 2])],
    [tensor("size", "FP65", [1.0])],
    [tensor("size", "BYTES", ["1"])],
    [tensor("note", "FP64", [1.0])],
    [tensor("other", "FP64", [1.0])],
    [tensor("at", "INT64", [2**62])],
    [tensor("at", "INT64", ["2011-01-01"])],
    [tensor("size", "FP64", [1.0]), tensor("size", "FP64", [1.0])],
    [tensor("size", "FP64", "1.0")],
    [{"datatype": "FP64"}],
    [],
    None,
]


@pytest.mark.parametrize("tensors", TENSORS, ids=str)
def test_tensors_are_read_alike(tensors: Any) -> None:
    """Values that moments have come from are compared as moments."""
    body = {"inputs": tensors}

    def at_home() -> Any:
        columns, check = columns_of(request_in(json.dumps(body).encode(), None).tensors)
        check(INPUTS)
        return columns

    ours = told(lambda: inference.columns_of(body, EDGE_INPUTS))
    theirs = told(at_home)
    if isinstance(ours, dict) and "at" in ours:
        wanted = [c for c in INPUTS if c.name == "at"]
        mine = [c for c in EDGE_INPUTS if c.name == "at"]
        assert outcome(lambda: edge.feeds_of(ours, mine)) == outcome(
            lambda: home.feeds_of(theirs, wanted)
        )
    else:
        assert ours == theirs


@pytest.mark.parametrize(
    "parameter",
    ["binary_data_size", "binary_data", "shared_memory_region", "sequence_id"],
)
def test_what_would_change_the_answer_is_refused(parameter: str) -> None:
    given_ = tensor("size", "FP64", [1.0]) | {"parameters": {parameter: 8}}
    with pytest.raises(EdgeBadRequest, match=f"input 'size': parameter '{parameter}'"):
        inference.columns_of({"inputs": [given_]}, EDGE_INPUTS)
    plain = tensor("size", "FP64", [1.0]) | {"parameters": {"other": 8}}  # the control
    assert inference.columns_of({"inputs": [plain]}, EDGE_INPUTS) == {"size": [1.0]}


ROWS = st.tuples(
    st.one_of(st.none(), st.floats(-4, 4, width=32)),
    st.integers(-3, 12),
    st.sampled_from(["a", "b", "c", None]),
)


@settings(max_examples=examples(100))
@given(st.lists(ROWS, min_size=1, max_size=12))
def test_the_same_values_are_unfamiliar(rows: list[tuple[Any, Any, Any]]) -> None:
    columns = {
        "size": [row[0] for row in rows],
        "count": [row[1] for row in rows],
        "is_on": [True] * len(rows),
        "colour": [row[2] for row in rows],
        "note": ["new"] * len(rows),
        "at": ["2999-01-01"] * len(rows),
    }
    feeds, count = edge.feeds_of(columns, EDGE_INPUTS)
    found, row_count = unfamiliar.Familiar(EDGE_INPUTS).unfamiliar(feeds, count)
    theirs = home_unfamiliar.Familiar(INPUTS).unfamiliar(feeds)
    assert unfamiliar.in_words(found) == home_unfamiliar.in_words(theirs)
    assert unfamiliar.header_of(found) == home_unfamiliar.headers_of(theirs).get(
        home_unfamiliar.UNFAMILIAR_HEADER, ""
    )
    odd = [
        (size is not None and not -1.5 <= size <= 2)
        or not 0 <= number <= 9
        or colour == "c"
        for size, number, colour in rows
    ]
    assert row_count == sum(odd)


def test_the_least_moment_is_numpys() -> None:
    assert edge.MISSING_MOMENT == np.iinfo(np.int64).min == home.MISSING_MOMENT
