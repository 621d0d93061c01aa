"""Transforms: another shape for the distribution of a number.

In double precision, in numpy and in the graph: powers lose digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from driftloop.models.package import PreprocessingStep
from driftloop.trainer.preprocessing.wiring import (
    Drawing,
    Floats,
    Matrix,
    finite_columns,
    readable,
)
from onnx import TensorProto

DOUBLE, FLOAT = int(TensorProto.DOUBLE), int(TensorProto.FLOAT)
KNOTS = 51
"""Of the quantile transform: one for each second percentile."""
SMALLEST_POWER = 1e-6
"""Stands for 0, where the formula has its other branch, to within 1e-9."""


@dataclass(frozen=True)
class Log1p:
    """The log of 1 + x, and minus that of 1 - x below 0: no number is refused."""

    def apply(self, values: Matrix) -> Matrix:
        wide = values.astype(np.float64)
        result = np.sign(wide) * np.log(np.abs(wide) + 1.0)
        return result.astype(np.float32)

    def wire(self, drawing: Drawing, source: str) -> str:
        wide = drawing.node("Cast", source, to=DOUBLE)
        one = drawing.constant(1.0, np.float64)
        grown = drawing.node("Add", drawing.node("Abs", wide), one)
        size = drawing.node("Log", grown)
        signed = drawing.node("Mul", drawing.node("Sign", wide), size)
        return drawing.node("Cast", signed, to=FLOAT)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        return PreprocessingStep(step="log1p", columns=list(columns))


@dataclass(frozen=True, eq=False)
class YeoJohnson:
    """A power for each side of 0 that makes a column as normal as it gets.

    Attributes
    ----------
    above, below : (k,) float64, the powers for x >= 0 and for x < 0; never 0.

    Source: Yeo and Johnson (2000), doi 10.1093/biomet/87.4.954.
    """

    above: Floats
    below: Floats

    def apply(self, values: Matrix) -> Matrix:
        wide = values.astype(np.float64)
        is_below = wide < 0
        power = np.where(is_below, self.below, self.above)
        with np.errstate(over="ignore"):  # infinite in the graph too
            size = (np.power(np.abs(wide) + 1.0, power) - 1.0) / power
            return np.where(is_below, -size, size).astype(np.float32)

    def wire(self, drawing: Drawing, source: str) -> str:
        wide = drawing.node("Cast", source, to=DOUBLE)
        one = drawing.constant(1.0, np.float64)
        is_below = drawing.node("Less", wide, drawing.constant(0.0, np.float64))
        below = drawing.constant([self.below], np.float64)
        above = drawing.constant([self.above], np.float64)
        power = drawing.node("Where", is_below, below, above)
        grown = drawing.node("Add", drawing.node("Abs", wide), one)
        raised = drawing.node("Sub", drawing.node("Pow", grown, power), one)
        size = drawing.node("Div", raised, power)
        signed = drawing.node("Where", is_below, drawing.node("Neg", size), size)
        return drawing.node("Cast", signed, to=FLOAT)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        fitted = {n: {"power": float(self.above[i])} for i, n in enumerate(columns)}
        return PreprocessingStep(
            step="yeo_johnson", columns=list(columns), fitted=fitted
        )


@dataclass(frozen=True, eq=False)
class QuantileMap:
    """A value's place among those of training, 0 to 1, straight between the knots.

    Attributes
    ----------
    knots, places : one pair a column, (n_knots,) float64 that grow.
    """

    knots: tuple[Floats, ...]
    places: tuple[Floats, ...]

    def apply(self, values: Matrix) -> Matrix:
        wide = values.astype(np.float64)
        found = [
            np.interp(column, knots, places)
            for column, knots, places in zip(
                wide.T, self.knots, self.places, strict=True
            )
        ]
        result = np.stack(found, axis=1)
        return np.where(np.isnan(values), np.float32(np.nan), result).astype(np.float32)

    def wire(self, drawing: Drawing, source: str) -> str:
        """Draw a sum over the pieces between knots: how far into it, times its rise."""
        wide = drawing.node("Cast", source, to=DOUBLE)
        last = drawing.constant([2], np.int64)
        column = drawing.node("Unsqueeze", wide, last)
        base = drawing.constant([[p[0] for p in self.places]], np.float64)
        start, width, rise = (
            drawing.constant([piece], np.float64) for piece in self._pieces()
        )
        walked = drawing.node("Div", drawing.node("Sub", column, start), width)
        zero, one = (drawing.constant(v, np.float64) for v in (0.0, 1.0))
        inside = drawing.node("Min", drawing.node("Max", walked, zero), one)
        parts = drawing.node("Mul", inside, rise)
        total = drawing.node("ReduceSum", parts, last, keepdims=0)
        return drawing.node("Cast", drawing.node("Add", total, base), to=FLOAT)

    def _pieces(self) -> tuple[Floats, Floats, Floats]:
        """Return starts, widths and rises, (k, n_pieces); a piece too many is flat."""
        most = max(2, *(len(knots) for knots in self.knots))
        shape = (len(self.knots), most - 1)
        start, width, rise = np.zeros(shape), np.ones(shape), np.zeros(shape)
        for at, (knots, places) in enumerate(zip(self.knots, self.places, strict=True)):
            used = len(knots) - 1
            start[at, :used] = knots[:-1]
            width[at, :used] = np.diff(knots)
            rise[at, :used] = np.diff(places)
        return start, width, rise

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        fitted = {
            name: {
                "values": [readable(v) for v in self.knots[at]],
                "places": [readable(v) for v in self.places[at]],
            }
            for at, name in enumerate(columns)
        }
        return PreprocessingStep(step="quantile", columns=list(columns), fitted=fitted)


Transform = Log1p | YeoJohnson | QuantileMap


def fit_transform(matrix: Matrix, how: str) -> Transform:
    """Learn a transform of each column's finite values."""
    if how == "log1p":
        return Log1p()
    columns = finite_columns(matrix)
    if how == "quantile":
        return _quantile_map(columns)
    powers = np.array([_best_power(values) for values in columns])
    return YeoJohnson(_not_zero(powers), _not_zero(2.0 - powers))


def _best_power(values: Floats) -> float:
    """Return the likeliest power; 1, which changes nothing, without a spread."""
    if len(values) < 2 or np.ptp(values) == 0:
        return 1.0
    from scipy import stats  # not above: a third of the service's start

    with np.errstate(all="ignore"):  # the search looks at powers that overflow
        found = float(stats.yeojohnson_normmax(values))
    return found if np.isfinite(found) else 1.0


def _not_zero(powers: Floats) -> Floats:
    return np.where(np.abs(powers) < SMALLEST_POWER, SMALLEST_POWER, powers)


def _quantile_map(columns: Sequence[Floats]) -> QuantileMap:
    knots, places = zip(*(_knots(values) for values in columns), strict=True)
    return QuantileMap(knots, places)


def _knots(values: Floats) -> tuple[Floats, Floats]:
    """Return the values at the places; one that many rows share is in their middle."""
    if not len(values):
        return np.zeros(1), np.zeros(1)
    places = np.linspace(0, 1, KNOTS)
    knots, which = np.unique(np.quantile(values, places), return_inverse=True)
    return knots, np.bincount(which, places) / np.bincount(which)
