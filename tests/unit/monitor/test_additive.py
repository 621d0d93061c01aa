"""Fits that share their inverses are those that each would be alone."""

from __future__ import annotations

import numpy as np
import pytest
from driftloop.monitor.causes.additive import (
    design_of,
    regressed,
    regressed_without,
)
from driftloop.monitor.causes.decomposing import unexplained
from driftloop.monitor.causes.stretch import Stretch

ROWS = 400


def stretch(seed: int, shift: float = 0.0, missing: float = 0.0) -> Stretch:
    draw = np.random.default_rng(seed)
    common = draw.standard_normal(ROWS)
    amounts = {name: common + draw.standard_normal(ROWS) for name in ("a", "b", "c")}
    amounts["a"] = amounts["a"] + shift
    amounts["b"][draw.random(ROWS) < missing] = np.nan
    codes = {"kind": draw.choice(["x", "y"], ROWS).astype(object)}
    source = np.full(ROWS, "till", dtype=object)
    return Stretch(np.arange(ROWS), source, amounts, codes)


def test_a_fit_without_a_block_is_the_fit_of_the_other_columns() -> None:
    rows = stretch(1)
    design = design_of(rows)
    matrix, blocks = design.matrix(rows), design.blocks()
    targets = np.column_stack([rows.amounts[name] for name in blocks])
    together = regressed_without(matrix, targets, list(blocks.values()))
    for at, (name, block) in enumerate(blocks.items()):
        rest = np.delete(matrix, np.arange(block.start, block.stop), axis=1)
        alone = regressed(rest, targets[:, [at]])
        found = together[at]
        assert np.allclose(found.residuals, alone.residuals, atol=1e-9), name
        assert not found.weights[block].any()
        kept = np.delete(found.weights, np.arange(block.start, block.stop), axis=0)
        assert np.allclose(kept, alone.weights, atol=1e-9)
        whole = regressed(matrix, targets[:, [at]])  # with it, it would be another
        assert not np.allclose(found.residuals, whole.residuals, atol=1e-3)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_a_column_that_moves_alone_is_unexplained(missing: float) -> None:
    """The one that moved, with and without gaps in another; none where none did."""
    before = stretch(1, missing=missing)
    found = unexplained(before, stretch(2, shift=3.0, missing=missing), set())
    assert max(found, key=lambda name: found[name]) == "a"
    assert found["a"] > 0.8
    calm = unexplained(before, stretch(3, missing=missing), set())
    assert max(calm.values()) < 0.3
