"""Scaling: numbers minus a centre, divided by a width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from driftloop.models.package import PreprocessingStep
from driftloop.trainer.preprocessing.wiring import (
    Drawing,
    Floats,
    Matrix,
    by_column,
    finite_columns,
)

_SINGLE = np.finfo(np.float32)


@dataclass(frozen=True, eq=False)
class Scale:
    """One centre and one width a column.

    Attributes
    ----------
    how : as the pipeline file says it.
    centre, width : (k,) float32; a width is never 0.
    """

    how: str
    centre: Matrix
    width: Matrix

    def apply(self, values: Matrix) -> Matrix:
        with np.errstate(over="ignore"):  # infinite in the graph too
            scaled: Matrix = (values - self.centre) / self.width
        return scaled

    def wire(self, drawing: Drawing, source: str) -> str:
        centred = drawing.node("Sub", source, drawing.constant([self.centre]))
        return drawing.node("Div", centred, drawing.constant([self.width]))

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        return PreprocessingStep(
            step=f"scale_{self.how}",
            columns=list(columns),
            fitted=by_column(columns, centre=self.centre, width=self.width),
        )


def fit_scale(matrix: Matrix, how: str) -> Scale:
    """Learn centre and width; a column that never changes has width 1.

    Both are held to the range of single precision: the range of a column may exceed
    it. A width so small that single precision loses its digits is none.

    ``standard``: mean and standard deviation. ``robust``: median and the distance of
    the quartiles. ``min_max``: least value and range.
    """
    found = [
        _WAYS[how](values) if len(values) else (0.0, 1.0)
        for values in finite_columns(matrix)
    ]
    within = np.clip(found, -_SINGLE.max, _SINGLE.max)
    centre, width = within.astype(np.float32).T
    return Scale(how, centre, np.where(width >= _SINGLE.tiny, width, np.float32(1)))


def _standard(values: Floats) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))


def _robust(values: Floats) -> tuple[float, float]:
    first, middle, third = np.quantile(values, (0.25, 0.5, 0.75))
    return float(middle), float(third - first)


def _min_max(values: Floats) -> tuple[float, float]:
    return float(values.min()), float(np.ptp(values))


_WAYS: dict[str, Callable[[Floats], tuple[float, float]]] = {
    "standard": _standard,
    "robust": _robust,
    "min_max": _min_max,
}
