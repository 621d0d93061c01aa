"""What is kept of answers with classes until their labels land."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from driftloop.monitor.estimates import kept

Said = dict[str, list[list[float] | None]]


def answered(
    first: int,
    version: int,
    said: Said,
    rival: tuple[int, Said] | None = None,
) -> pa.Table:
    """Answers of one batch, whose shares are in the order of the classes given."""
    ((classes, shares),) = said.items()
    columns = {
        "id": [f"r{first + n}" for n in range(len(shares))],
        ".version": [version] * len(shares),
        kept.SAID: pa.array(shares, pa.list_(pa.float64())),
    }
    metadata = {kept.CLASSES: json.dumps(list(classes)).encode()}
    if rival is not None:
        ((classes, shares),) = rival[1].items()
        columns[kept.RIVAL_SAID] = pa.array(shares, pa.list_(pa.float64()))
        columns[kept.RIVAL_VERSION] = [rival[0]] * len(shares)
        metadata[kept.RIVAL_CLASSES] = json.dumps(list(classes)).encode()
    return pa.table(columns).replace_schema_metadata(metadata)


def landed(rows: pa.Table) -> pa.Table:
    """The rows with their labels, as a window keeps them."""
    label = pa.array(["a"] * rows.num_rows, pa.string())
    return rows.append_column(kept.LABEL, label)


def test_a_candidate_that_comes_within_a_window_is_read_by_its_own_classes() -> None:
    before = answered(0, 1, {"ab": [[0.9, 0.1], [0.8, 0.2]]})
    beside = answered(2, 1, {"ab": [[0.7, 0.3]]}, (2, {"ba": [[0.4, 0.6]]}))
    rows = landed(kept.together([before, beside]))
    champion, candidate = kept.of_version(rows, 1), kept.of_version(rows, 2)
    assert champion is not None
    assert candidate is not None
    assert kept.shares_of(champion, "ab")[:, 0] == pytest.approx([0.9, 0.8, 0.7])
    assert kept.shares_of(candidate, "ab") == pytest.approx(np.array([[0.6, 0.4]]))


def test_versions_with_other_classes_keep_their_shares_apart() -> None:
    old = answered(0, 1, {"ab": [[0.9, 0.1], None]})
    new = answered(2, 2, {"cba": [[0.1, 0.2, 0.7]]})
    rows = landed(kept.together([old, new]))
    first = kept.of_version(rows.slice(0, 1), 1)
    second = kept.of_version(rows, 2)
    assert first is not None
    assert second is not None
    assert kept.shares_of(first, "abc") == pytest.approx(np.array([[0.9, 0.1, 0]]))
    assert kept.shares_of(second, "abc") == pytest.approx(np.array([[0.7, 0.2, 0.1]]))
    assert rows[kept.SAID].to_pylist()[1] is None, "an answer that failed stays none"


def test_numbers_have_no_classes() -> None:
    rows = pa.table({"id": ["r0"], kept.SAID: [1.5], ".version": [1]})
    assert kept.classes_of(kept.together([rows, rows])) == ()
    assert kept.together([rows, rows]).num_rows == 2
