"""Columns that go through the same steps, side by side; fitted once, on training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from driftloop.contracts.preprocessing import Family, Steps
from driftloop.models.onnx_model import category_array, moment_array, number_array
from driftloop.models.package import PreprocessingStep
from driftloop.trainer.preprocessing import crosses, moments
from driftloop.trainer.preprocessing.categories import (
    ONE_HOT_CATEGORIES,
    OTHER_CATEGORIES,
    OneHot,
    Ordinal,
    fit_target_mean,
    vocabulary,
)
from driftloop.trainer.preprocessing.hashing import Hashing
from driftloop.trainer.preprocessing.missing import (
    NumberIndicator,
    TextIndicator,
    fit_fill_numbers,
    fit_fill_texts,
)
from driftloop.trainer.preprocessing.outliers import fit_clip
from driftloop.trainer.preprocessing.scaling import fit_scale
from driftloop.trainer.preprocessing.transforms import fit_transform
from driftloop.trainer.preprocessing.wiring import (
    NOTHING,
    Drawing,
    Floats,
    Matrix,
    Step,
    Texts,
)
from driftloop.trainer.preprocessing.words import fit_words


@dataclass(frozen=True)
class Column:
    """What a block reads: a feature, or a cross of several.

    Attributes
    ----------
    inputs : names of features; more than one: their cross.
    is_span : whether these are two moments, and the column the days between them.
    """

    name: str
    family: Family
    inputs: tuple[str, ...]
    is_span: bool = False


@dataclass(frozen=True)
class Block:
    """Fitted steps of columns of one family.

    Attributes
    ----------
    columns : any number of them for numbers, else one.
    steps : in order; none: numbers go through as they are.
    indicator : gives further columns, from the values as they came.
    """

    columns: tuple[Column, ...]
    steps: tuple[Step, ...]
    indicator: Step | None = None

    def matrix(self, rows: pa.Table) -> Matrix:
        """Return (n_rows, width) float32 as the graph makes it."""
        given = values_of(rows, self.columns)
        found = given
        for step in self.steps:
            found = step.apply(found)
        if self.indicator:
            found = np.hstack([found, self.indicator.apply(given)])
        result: Matrix = found
        return result

    def wire(self, drawing: Drawing) -> list[str]:
        """Draw the block; return the outputs that the matrix is made of."""
        sources = [_wire_column(drawing, column) for column in self.columns]
        if not self.steps and not self.indicator:
            return sources
        given = sources[0]
        if len(sources) > 1:
            given = drawing.node("Concat", *sources, axis=1)
        found = given
        for step in self.steps:
            found = step.wire(drawing, found)
        outputs = [found]
        if self.indicator:
            outputs.append(self.indicator.wire(drawing, given))
        return [output for output in outputs if output != NOTHING]

    def records(self) -> list[PreprocessingStep]:
        """Return what the manifest says of each step."""
        names = [column.name for column in self.columns]
        steps = [*self.steps, *([self.indicator] if self.indicator else [])]
        made = [
            PreprocessingStep(
                step=_cross_name(column),
                columns=list(column.inputs),
            )
            for column in self.columns
            if len(column.inputs) > 1
        ]
        return made + [step.record(names) for step in steps]


def values_of(rows: pa.Table, columns: Sequence[Column]) -> Any:
    """Return numbers (n_rows, k) float32, or one column's texts or moments."""
    if columns[0].family == "datetime":
        return _moments(rows, columns[0].inputs[0])
    if columns[0].family != "number":
        return _texts(rows, columns[0])
    return np.hstack([_numbers(rows, column) for column in columns])


def _cross_name(column: Column) -> str:
    if column.is_span:
        return "days_between"
    return "product" if column.family == "number" else "joined"


def _moments(rows: pa.Table, name: str) -> moments.Moments:
    return moment_array(rows.column(name).combine_chunks()).reshape(-1, 1)


def _numbers(rows: pa.Table, column: Column) -> Matrix:
    if column.is_span:
        return moments.between([_moments(rows, name) for name in column.inputs])
    found = [
        number_array(rows.column(name).combine_chunks()).reshape(-1, 1)
        for name in column.inputs
    ]
    return crosses.product(found)


def _texts(rows: pa.Table, column: Column) -> Texts:
    found = [category_array(rows.column(n).combine_chunks()) for n in column.inputs]
    return found[0] if len(found) == 1 else crosses.joined(found)


def _wire_column(drawing: Drawing, column: Column) -> str:
    if len(column.inputs) == 1:
        return column.inputs[0]
    if column.is_span:
        return moments.wire_between(drawing, column.inputs)
    if column.family == "number":
        return crosses.wire_product(drawing, column.inputs)
    return crosses.wire_joined(drawing, column.inputs)


def grouped(columns: Mapping[Column, Steps]) -> list[tuple[list[Column], Steps]]:
    """Put numbers with the same steps together; any other column stays alone.

    Returns
    -------
    list
        In the order in which the first column of each group comes.
    """
    groups: dict[object, tuple[list[Column], Steps]] = {}
    for column, steps in columns.items():
        key = repr(steps) if column.family == "number" else column
        groups.setdefault(key, ([], steps))[0].append(column)
    return list(groups.values())


def fit_block(
    rows: pa.Table, columns: Sequence[Column], steps: Steps, outcomes: Floats
) -> tuple[Block, Matrix]:
    """Learn a block's steps; return it and the matrix that a model is fitted on.

    The matrix is that of :meth:`Block.matrix`, but for target encoding, where a
    training row is encoded by earlier rows only.

    Parameters
    ----------
    rows : training rows, in order of event time.
    outcomes : (n_rows, n_outcomes): the target, or 0 and 1 for each class.
    """
    given = values_of(rows, columns)
    family = columns[0].family
    if family == "number":
        fitted, made = _fit_numbers(given, steps)
    elif family == "category":
        fitted, made = _fit_categories(given, steps, outcomes)
    elif family == "datetime":
        fitted, made = _fit_moments(given, steps)
    else:
        fitted, made = _fit_words(given, steps)
    indicator: Step | None = None
    if steps.indicator:
        indicator = _INDICATORS.get(family, TextIndicator)()
        made = np.hstack([made, indicator.apply(given)])
    return Block(tuple(columns), tuple(fitted), indicator), made


_INDICATORS: dict[Family, type[Step]] = {
    "number": NumberIndicator, "datetime": moments.MomentIndicator,
}  # fmt: skip


def _fit_moments(given: moments.Moments, steps: Steps) -> tuple[list[Step], Matrix]:
    fitted: list[Step] = []
    if steps.missing != "leave":
        fill = moments.fit_fill_moments(given, steps.missing, steps.fill)
        fitted.append(fill)
        given = fill.apply(given)
    parts = moments.fit_parts(given, steps.parts)
    return [*fitted, parts], parts.apply(given)


def _fit_numbers(matrix: Matrix, steps: Steps) -> tuple[list[Step], Matrix]:
    fitted: list[Step] = []

    def through(step: Step) -> Matrix:
        fitted.append(step)
        found: Matrix = step.apply(matrix)
        return found

    if steps.outliers == "clip":
        matrix = through(fit_clip(matrix, steps.clip_quantiles))
    if steps.missing != "leave":
        matrix = through(fit_fill_numbers(matrix, steps.missing, steps.fill))
    if steps.transform != "none":
        matrix = through(fit_transform(matrix, steps.transform))
    if steps.scaling != "none":
        matrix = through(fit_scale(matrix, steps.scaling))
    return fitted, matrix


def _fit_categories(
    texts: Texts, steps: Steps, outcomes: Floats
) -> tuple[list[Step], Matrix]:
    fitted: list[Step] = []
    if steps.missing != "leave":
        fill = fit_fill_texts(texts, steps.missing, steps.fill)
        fitted.append(fill)
        texts = fill.apply(texts)
    most = steps.max_categories or (
        ONE_HOT_CATEGORIES if steps.encoding == "one_hot" else OTHER_CATEGORIES
    )
    if steps.encoding == "target":
        encoder, made = fit_target_mean(
            texts, outcomes, steps.smoothing, most, steps.min_frequency
        )
        return [*fitted, encoder], made
    if steps.encoding == "hashing":
        hashing = Hashing(steps.hash_columns)
        return [*fitted, hashing], hashing.apply(texts)
    known = tuple(vocabulary(texts, most, steps.min_frequency))
    plain = OneHot(known) if steps.encoding == "one_hot" else Ordinal(known)
    return [*fitted, plain], plain.apply(texts)


def _fit_words(texts: Texts, steps: Steps) -> tuple[list[Step], Matrix]:
    fitted: list[Step] = []
    if steps.missing != "leave":
        fill = fit_fill_texts(texts, steps.missing, steps.fill)
        fitted.append(fill)
        texts = fill.apply(texts)
    words = fit_words(
        texts, steps.words, steps.max_words, steps.min_frequency, steps.hash_columns
    )
    return [*fitted, words], words.apply(texts)
