"""Missing values: what stands for them, and columns that say where they were."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from driftloop.models.package import PreprocessingStep
from driftloop.trainer.preprocessing.wiring import (
    Drawing,
    Floats,
    Matrix,
    Texts,
    by_column,
    finite_columns,
)
from onnx import TensorProto

FLOAT = int(TensorProto.FLOAT)


@dataclass(frozen=True, eq=False)
class FillNumbers:
    """Another value for NaN.

    Attributes
    ----------
    how : as the pipeline file says it.
    by : (k,) float32.
    """

    how: str
    by: Matrix

    def apply(self, values: Matrix) -> Matrix:
        return np.where(np.isnan(values), self.by, values)

    def wire(self, drawing: Drawing, source: str) -> str:
        is_missing = drawing.node("IsNaN", source)
        return drawing.node("Where", is_missing, drawing.constant([self.by]), source)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        return PreprocessingStep(
            step=f"fill_{self.how}",
            columns=list(columns),
            fitted=by_column(columns, value=self.by),
        )


@dataclass(frozen=True)
class FillTexts:
    """Another text for an empty one."""

    how: str
    by: str

    def apply(self, values: Texts) -> Texts:
        return np.array([v or self.by for v in values.tolist()], dtype=object)

    def wire(self, drawing: Drawing, source: str) -> str:
        empty, by = drawing.constant([""], object), drawing.constant([self.by], object)
        return drawing.node("Where", drawing.node("Equal", source, empty), by, source)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        return PreprocessingStep(
            step=f"fill_{self.how}",
            columns=list(columns),
            fitted={name: {"value": self.by} for name in columns},
        )


@dataclass(frozen=True)
class NumberIndicator:
    """1 where a number is missing, else 0."""

    def apply(self, values: Matrix) -> Matrix:
        return np.isnan(values).astype(np.float32)

    def wire(self, drawing: Drawing, source: str) -> str:
        return as_float(drawing, drawing.node("IsNaN", source))

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        return PreprocessingStep(step="missing_indicator", columns=list(columns))


@dataclass(frozen=True)
class TextIndicator:
    """1 where a text is empty, else 0."""

    def apply(self, values: Texts) -> Matrix:
        found = [[text == ""] for text in values.tolist()]
        return np.array(found, dtype=np.float32).reshape(-1, 1)

    def wire(self, drawing: Drawing, source: str) -> str:
        is_missing = drawing.node("Equal", source, drawing.constant([""], object))
        return as_float(drawing, is_missing)

    def record(self, columns: Sequence[str]) -> PreprocessingStep:
        return PreprocessingStep(step="missing_indicator", columns=list(columns))


def as_float(drawing: Drawing, source: str) -> str:
    """Draw the conversion of booleans or integers to float32."""
    return drawing.node("Cast", source, to=FLOAT)


def fit_fill_numbers(matrix: Matrix, how: str, constant: Any) -> FillNumbers:
    """Learn what stands for a missing number; 0 for a column without values."""
    if how == "constant":
        by = [float(constant)] * matrix.shape[1]
    else:
        learn = _WAYS[how]
        by = [learn(v) if len(v) else 0.0 for v in finite_columns(matrix)]
    return FillNumbers(how, np.array(by, dtype=np.float32))


def _commonest(values: Floats) -> float:
    """Return the value that comes most often; the least of equals."""
    found, counts = np.unique(values, return_counts=True)
    return float(found[np.argmax(counts)])


_WAYS: dict[str, Callable[[Floats], float]] = {
    "median": lambda values: float(np.median(values)),
    "mean": lambda values: float(np.mean(values)),
    "most_frequent": _commonest,
}


def fit_fill_texts(texts: Texts, how: str, constant: Any) -> FillTexts:
    """Learn what stands for an empty text; nothing where all are empty."""
    if how == "constant":
        return FillTexts(how, str(constant))
    counts = Counter(text for text in texts.tolist() if text)
    by = min(counts, key=lambda text: (-counts[text], text), default="")
    return FillTexts(how, by)
