"""Feature crosses: the product of numbers, or categories side by side as one."""

from collections.abc import Sequence

import numpy as np
from driftloop.trainer.preprocessing.wiring import Drawing, Matrix, Texts

BETWEEN = "\x1f"
"""Unit separator: no text that people write has it, so two crosses are not one."""


def product(columns: Sequence[Matrix]) -> Matrix:
    """Return (n_rows, 1), missing where one factor is."""
    found = columns[0]
    for column in columns[1:]:
        with np.errstate(all="ignore"):  # infinite or NaN in the graph too
            found = found * column
    return found


def wire_product(drawing: Drawing, sources: Sequence[str]) -> str:
    """Draw :func:`product`; returns its output's name."""
    found = sources[0]
    for source in sources[1:]:
        found = drawing.node("Mul", found, source)
    return found


def joined(columns: Sequence[Texts]) -> Texts:
    """Return (n_rows,) texts with a separator between; missing is an empty part."""
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return np.array([BETWEEN.join(parts) for parts in rows], dtype=object)


def wire_joined(drawing: Drawing, sources: Sequence[str]) -> str:
    """Draw :func:`joined`; returns its output's name."""
    between = drawing.constant([BETWEEN], object)
    found = sources[0]
    for source in sources[1:]:
        led = drawing.node("StringConcat", found, between)
        found = drawing.node("StringConcat", led, source)
    return found
