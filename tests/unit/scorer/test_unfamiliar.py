"""Values that a version has not learned from are told, others are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driftloop.models.package import ColumnType, InputColumn
from driftloop.scorer.feeds import Feeds, feeds_of
from driftloop.scorer.unfamiliar import Familiar, headers_of
from hypothesis import given
from hypothesis import strategies as st

INPUTS = [
    InputColumn(name="at", type="datetime", timezone="UTC"),
    InputColumn(name="size", type="number", nullable=True, least=-1.5, greatest=2.0),
    InputColumn(name="colour", type="category", nullable=True, categories=["a", "b"]),
    InputColumn(name="free", type="number"),
    InputColumn(name="note", type="text"),
]
FAMILIAR = {
    "at": ["2999-01-01"] * 3,
    "size": [-1.5, None, 2.0],
    "colour": ["a", None, "b"],
    "free": [1e9, -1e9, 0.0],
    "note": ["never", "seen", "before"],
}


def told(**values: list[Any]) -> str:
    feeds, _ = feeds_of(FAMILIAR | values, INPUTS)
    return "; ".join(map(str, Familiar(INPUTS).unfamiliar(feeds)))


def test_what_was_learned_from_is_familiar() -> None:
    """The bounds themselves, missing values, and what has no range."""
    assert told() == ""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"size": [-1.6, 2.0, 0.0]},
            "size: 1 row not within -1.5 to 2, as in training",
        ),
        (
            {"size": [-9.0, 9.0, None]},
            "size: 2 rows not within -1.5 to 2, as in training",
        ),
        (
            {"colour": ["c", "a", None]},
            "colour: 1 row not a value seen in training",
        ),
        (
            {"size": [3.0, 0.0, 0.0], "colour": ["c", "d", "e"]},
            "size: 1 row not within -1.5 to 2, as in training; "
            "colour: 3 rows not a value seen in training",
        ),
    ],
)
def test_what_was_not_is_named(values: dict[str, list[Any]], words: str) -> None:
    assert told(**values) == words


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20))
def test_each_row_outside_is_counted(values: list[float]) -> None:
    column = [InputColumn(name="x", type="number", least=-1.0, greatest=1.0)]
    feeds: Feeds = {"x": np.array(values, dtype=np.float32).reshape(-1, 1)}
    found = Familiar(column).unfamiliar(feeds)
    outside = [value for value in values if not -1 <= value <= 1]
    assert [one.row_count for one in found] == ([len(outside)] if outside else [])


def test_a_model_without_ranges_says_nothing() -> None:
    """As one registered by a client of MLflow, or made before ranges were kept."""
    kinds: dict[str, ColumnType] = {"x": "number", "c": "category"}
    bare = [InputColumn(name=name, type=kind) for name, kind in kinds.items()]
    feeds, _ = feeds_of({"x": [1e30], "c": ["new"]}, bare)
    assert Familiar(bare).unfamiliar(feeds) == []


def test_a_header_holds_any_name() -> None:
    columns = [InputColumn(name="気温, °C", type="number", least=0.0, greatest=1.0)]
    found = Familiar(columns).unfamiliar({"気温, °C": np.array([[2.0]])})
    (value,) = headers_of(found).values()
    assert value.isascii()
    assert "," not in value
    assert headers_of([]) == {}
