"""Validation in order of time: rows to learn from, and the rows after them that judge.

Source: Bergmeir & Benítez (2012), On the use of cross-validation for time series
predictor evaluation, Information Sciences 191, doi 10.1016/j.ins.2011.12.028.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
from driftloop.trainer.recipes import Recipe, obstacle

VALIDATION_RATIO = 0.2
"""Newest share of the training rows that one fold judges on; less with many folds."""


@dataclass(frozen=True)
class Fold:
    """Rows to learn from and the rows right after them that judge."""

    fitting: pa.Table
    validation: pa.Table


def folds_of(rows: pa.Table, count: int) -> list[Fold]:
    """Return expanding folds over rows in order of time, oldest first.

    A fold learns from all that the fold before it learned from and judged on; the
    newest one judges on the end of the rows.

    >>> table = pa.table({"row": range(100)})
    >>> [(f.fitting.num_rows, f.validation.num_rows) for f in folds_of(table, 3)]
    [(40, 20), (60, 20), (80, 20)]
    """
    share = min(VALIDATION_RATIO, 1 / (count + 1))
    starts = [round(rows.num_rows * (1 - share * left)) for left in range(count, 0, -1)]
    return [
        Fold(rows.slice(0, start), rows.slice(start, end - start))
        for start, end in pairwise([*starts, rows.num_rows])
    ]


def comparable(folds: Sequence[Fold], recipes: Sequence[Recipe]) -> list[Fold]:
    """Return the folds that each recipe has the rows for, and the newest, in order.

    Losses of different stretches of time cannot be compared, and before a change there
    is nothing that ``since_drift`` could have learned from.
    """
    return [
        fold
        for fold in folds
        if fold is folds[-1] or all(obstacle(r, fold.fitting) is None for r in recipes)
    ]
