"""Slices: what became worse on one part is found, and chance is not taken for it."""

import numpy as np
import pyarrow as pa
import pytest
from driftloop.trainer.evaluation.slices import (
    MIN_ROWS,
    compare_slices,
    holm,
    slices_of,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.trainer.constructed import columns

KINDS = np.array(["a", "b", "c", "d"] * 100)
ROWS = pa.table(
    {
        "kind": KINDS,
        "code": np.arange(400) % 3,
        "size": np.arange(400.0),
        "many": np.arange(400),
        "flag": np.arange(400) % 2 == 0,
    }
)
COLUMNS = columns(
    kind="category", code="integer", size="number", many="integer", flag="boolean"
)


def named(wanted: list[str] | None = None, rows: pa.Table = ROWS) -> dict:
    return {
        (part.column, part.value): int(part.rows.sum())
        for part in slices_of(rows, COLUMNS, wanted)
    }


def losses(seed: int, count: int = 400) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).normal(size=count))


def test_a_model_that_is_worse_on_one_slice_only_is_found_there() -> None:
    other = losses(0)
    candidate = other + np.where(KINDS == "c", 0.5, -0.2) * losses(1)
    found = compare_slices(slices_of(ROWS, COLUMNS, ["kind"]), candidate, other, "mae")
    assert [one.value for one in found if one.p_value < 0.05] == ["c"]
    assert found[0].value == "c"  # the worst comes first
    assert found[0].candidate > found[0].other
    assert {one.value for one in found if one.p_better < 0.05} == {"a", "b", "d"}
    assert found[0].row_count == 100


def test_chance_makes_no_slice_worse() -> None:
    """Over 300 pairs of equally good models, one of eight slices is called worse as
    seldom as the level says, and without Holm much more often."""
    parts = slices_of(ROWS, COLUMNS, ["kind", "size"])
    assert len(parts) == 8
    runs, false_alarms = 300, 0
    for seed in range(runs):
        found = compare_slices(parts, losses(2 * seed), losses(2 * seed + 1), "mae")
        false_alarms += found[0].p_value <= 0.05
    assert false_alarms / runs < 0.09


def test_what_is_sliced_by_itself() -> None:
    found = named()
    assert {column for column, _ in found} == {"kind", "code", "flag"}
    assert found["code", "0"] == 134
    assert found["flag", "true"] == 200


def test_a_number_that_is_named_is_cut_into_quarters() -> None:
    found = named(["size", "many"])
    assert [count for (column, _), count in found.items() if column == "size"] == [
        100
    ] * 4
    assert ("size", "0 to 99.75") in found
    assert len([1 for column, _ in found if column == "many"]) == 4


@pytest.mark.parametrize(
    ("count", "is_there"), [(MIN_ROWS, True), (MIN_ROWS - 1, False)]
)
def test_a_slice_of_few_rows_says_nothing(count: int, is_there: bool) -> None:
    values = pa.array([None] * count + ["a"] * 100 + ["b"] * 100)
    rows = pa.table({"kind": values})
    found = slices_of(rows, COLUMNS[:1], None)
    assert ("missing" in {part.value for part in found}) is is_there


def test_a_column_of_one_value_is_no_slice() -> None:
    rows = pa.table({"kind": ["a"] * 100})
    assert slices_of(rows, COLUMNS[:1], None) == []
    constant = pa.table({"size": [1.0] * 100})
    assert slices_of(constant, columns(size="number"), ["size"]) == []


@given(st.lists(st.floats(0, 1), max_size=20))
def test_holm_is_between_the_p_values_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for before, after in zip(p_values, adjusted, strict=True):
        assert before <= after <= min(
            1.0, before * len(p_values)
        ) + 1e-12 or after == max(adjusted)
    order = np.argsort(p_values, kind="stable")
    assert all(np.diff(np.array(adjusted)[order]) >= 0)
