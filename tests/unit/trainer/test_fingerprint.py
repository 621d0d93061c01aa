"""A digest of rows: what they say counts, how they lie in memory does not."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from driftloop.trainer.fingerprint import digest_of

from tests.unit.trainer.cases import rows


def test_chunks_and_slices_do_not_count() -> None:
    whole = rows(60)
    padded = pa.concat_tables([rows(5, seed=9), whole]).slice(5)
    parts = pa.concat_tables([whole.slice(0, 7), whole.slice(7)])
    assert digest_of(whole) == digest_of(padded) == digest_of(parts)


def test_what_lies_under_a_null_does_not_count() -> None:
    mask = pa.array([False, True])
    some = pa.array([1.0, 2.0]).filter(pa.array([True, True]))
    hidden = pa.Array.from_buffers(
        pa.float64(), 2, [pa.py_buffer(b"\x01"), some.buffers()[1]]
    )
    assert hidden.is_null() == mask
    plain = pa.table({"a": pa.array([1.0, None])})
    assert digest_of(pa.table({"a": hidden})) == digest_of(plain)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["a", None], ["a", ""]),
        ([1, None], [1, 0]),
        ([1.0, 2.0], [2.0, 1.0]),
        ([True, False], [False, True]),
        ([1], [1, 1]),
        ([1], [1.0]),
    ],
)
def test_any_other_value_order_or_type_is_another_digest(
    one: list[Any], other: list[Any]
) -> None:
    assert digest_of(pa.table({"a": one})) != digest_of(pa.table({"a": other}))


def test_names_count_and_no_rows_are_fine() -> None:
    assert digest_of(pa.table({"a": [1]})) != digest_of(pa.table({"b": [1]}))
    empty = pa.table({"a": pa.array([], pa.string()), "b": pa.array([], pa.null())})
    assert len(digest_of(empty)) == 64
