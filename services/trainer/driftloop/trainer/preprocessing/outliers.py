"""Outliers: values beyond quantiles of the training rows are set to those."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from driftloop.models.package import PreprocessingStep
from driftloop.trainer.preprocessing.wiring import (
    Drawing,
    Matrix,
    by_column,
    finite_columns,
)


@dataclass(frozen=True, eq=False)
class Clip:
    """Winsorising; a missing value stays missing.

    Attributes
    ----------
    low, high : (k,) float32.
    """

    low: Matrix
    high: Matrix

    def apply(self, values: Matrix) -> Matrix:
        raised = np.where(values < self.low, self.low, values)
        return np.where(raised > self.high, self.high, raised)

    def wire(self, drawing: Drawing, source: str) -> str:
        low, high = drawing.constant([self.low]), drawing.constant([self.high])
        below = drawing.node("Less", source, low)
        raised = drawing.node("Where", below, low, source)
        above = drawing.node("Greater", raised, high)
        return drawing.node("Where", above, high, raised)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        fitted = by_column(columns, low=self.low, high=self.high)
        return PreprocessingStep(step="clip", columns=list(columns), fitted=fitted)


def fit_clip(matrix: Matrix, quantiles: tuple[float, float]) -> Clip:
    """Learn the quantiles; 0 for a column without values.

    Source: linear interpolation, definition 7 of Hyndman and Fan (1996), doi
    10.1080/00031305.1996.10473566.
    """
    found = [
        np.quantile(values, quantiles) if len(values) else (0.0, 0.0)
        for values in finite_columns(matrix)
    ]
    low, high = np.array(found, dtype=np.float32).T
    return Clip(low, high)
