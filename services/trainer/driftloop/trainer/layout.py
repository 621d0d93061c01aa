"""Which columns of the matrix belong together, for candidates that care."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from driftloop.trainer.encoding import Encoding
from driftloop.trainer.preprocessing.categories import OneHot
from driftloop.trainer.preprocessing.hashing import Hashing


@dataclass(frozen=True)
class Layout:
    """Columns of the matrix by what they mean together.

    Attributes
    ----------
    groups : (first, end) of the columns of which at most one is 1: one a category.
    channels : columns of one quantity at equal steps, the oldest first; all of a
        length.
    """

    groups: tuple[tuple[int, int], ...] = ()
    channels: tuple[tuple[int, ...], ...] = ()


def layout_of(
    encoding: Encoding, rows: pa.Table, sequences: Mapping[str, Sequence[str]]
) -> Layout:
    """Return the layout of an encoding's matrix.

    Parameters
    ----------
    rows : any that the encoding knows; of one of them the widths are taken.
    sequences : ``train.sequences``; its columns are numbers of the encoding.
    """
    groups: list[tuple[int, int]] = []
    columns: dict[str, int] = {}
    first = 0
    for block in encoding.blocks:
        width = block.matrix(rows.slice(0, 1)).shape[1]
        hot = [step for step in block.steps if isinstance(step, OneHot | Hashing)]
        if block.columns[0].family == "number":
            columns |= {c.name: first + at for at, c in enumerate(block.columns)}
        elif hot:
            of_indicator = 1 if block.indicator else 0
            groups.append((first, first + width - of_indicator))
        first += width
    channels = tuple(tuple(columns[name] for name in s) for s in sequences.values())
    return Layout(tuple(groups), channels)
