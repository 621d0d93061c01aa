"""From rows to a matrix of numbers, in numpy and as nodes of the served graph.

One encoding for all candidates: the pipeline file's cleaning steps
(:mod:`driftloop.trainer.preprocessing`), each fitted on the training rows. Where it
names none, numbers, integers and booleans go in as they are (a null is NaN), each
category as columns of 0 and 1, one for each value seen in training, and each datetime
as its parts.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from driftloop.contracts.pipeline import Feature, PipelineSpec
from driftloop.contracts.preprocessing import (
    FAMILIES,
    Steps,
    check_preprocessing,
    cross_family,
)
from driftloop.contracts.rows import ROW_FIELDS
from driftloop.contracts.sequences import check_sequences
from driftloop.models.package import (
    STRINGS,
    ColumnType,
    InputColumn,
    PreprocessingStep,
)
from driftloop.trainer.preprocessing.blocks import Block, Column, fit_block, grouped
from driftloop.trainer.preprocessing.categories import OneHot
from driftloop.trainer.preprocessing.wiring import ML, Drawing, Floats, Matrix
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

MATRIX = "features"
__all__ = ["MATRIX", "ML", "Encoding", "EncodingRefused", "learn_encoding"]


_TENSORS: dict[str, int] = {
    **dict.fromkeys(STRINGS, TensorProto.STRING), "datetime": TensorProto.INT64,
}  # fmt: skip


class EncodingRefused(ValueError):  # noqa: N818 - says what happened
    """The pipeline's features cannot become a matrix, and why."""


@dataclass(frozen=True)
class Encoding:
    """How the features of a pipeline become a matrix.

    Attributes
    ----------
    inputs : features in order; a one-hot category names the values with a column.
    blocks : fitted steps; the matrix is what they give, side by side.
    """

    inputs: tuple[InputColumn, ...]
    blocks: tuple[Block, ...]

    def matrix(self, rows: pa.Table) -> Matrix:
        """Return (n_rows, width) float32, as the served graph makes it."""
        return np.hstack([block.matrix(rows) for block in self.blocks])

    def graph_inputs(self) -> list[ValueInfoProto]:
        """Return the served graph's inputs: one a feature, shape (n_rows, 1)."""
        return [
            helper.make_tensor_value_info(
                c.name,
                _TENSORS.get(c.type, TensorProto.FLOAT),
                [None, 1],
            )
            for c in self.inputs
        ]

    def nodes(self) -> tuple[list[NodeProto], list[TensorProto]]:
        """Return nodes that compute ``features`` (n_rows, width), and constants."""
        nodes: list[NodeProto] = []
        constants: list[TensorProto] = []
        parts: list[str] = []
        for number, block in enumerate(self.blocks):
            drawing = Drawing(f"prepare{number}")
            parts += block.wire(drawing)
            nodes += drawing.nodes
            constants += drawing.constants
        nodes.append(helper.make_node("Concat", parts, [MATRIX], axis=1))
        return nodes, constants

    def records(self) -> tuple[PreprocessingStep, ...]:
        """Return the steps as the manifest lists them."""
        return tuple(step for block in self.blocks for step in block.records())


def learn_encoding(
    rows: pa.Table, spec: PipelineSpec, outcomes: Floats
) -> tuple[Encoding, Matrix]:
    """Fit the pipeline's cleaning steps on training rows, and nothing else.

    Parameters
    ----------
    rows : training rows, (n_rows, n_columns), in order of event time.
    outcomes : (n_rows, n_outcomes): the target, or 0 and 1 for each class.

    Returns
    -------
    tuple
        The encoding, and the (n_rows, width) matrix to fit a model on. It is that of
        ``Encoding.matrix`` but for target encoding, which must not see a row's own
        target.

    Raises
    ------
    EncodingRefused
        When the file's steps do not fit the columns, or no column has a value.
    """
    features = features_of(rows, spec)
    section = spec.train.preprocessing
    try:
        types = {name: f.type for name, f in features.items()}
        check_preprocessing(section, types)
        check_sequences(spec.train.sequences, types)
    except ValueError as error:
        raise EncodingRefused(str(error)) from error
    columns: dict[Column, Steps] = {}
    for name, feature in features.items():
        family = FAMILIES[feature.type]
        columns[Column(name, family, (name,))] = section.steps_of(name, family)
    for cross in section.crosses:
        of = FAMILIES[features[cross.columns[0]].type]
        family, names = cross_family(of), tuple(cross.columns)
        column = Column(cross.name, family, names, is_span=of == "datetime")
        columns[column] = section.steps_of_cross(cross, family)
    fitted = [
        fit_block(rows, group, steps, outcomes) for group, steps in grouped(columns)
    ]
    used = [(block, made) for block, made in fitted if made.shape[1]]
    if not used:
        raise EncodingRefused(
            "no feature has a value in training; see what upstream sends"
        )
    blocks = tuple(block for block, _ in used)
    matrix = np.hstack([made for _, made in used])
    inputs = _inputs(features, [b for b, _ in fitted], spec.data.timezone)
    return Encoding(inputs, blocks), matrix


def features_of(rows: pa.Table, spec: PipelineSpec) -> dict[str, Feature]:
    """Return the file's features, or every column but target and row fields."""
    if spec.data.features:
        return spec.data.features
    known = {field.name for field in ROW_FIELDS} | {spec.data.target}
    return {
        field.name: Feature(type=_type_of(field.type), nullable=True)
        for field in rows.schema
        if field.name not in known
    }


def _inputs(
    features: dict[str, Feature], blocks: list[Block], timezone: str
) -> tuple[InputColumn, ...]:
    categories = {
        block.columns[0].name: list(step.categories)
        for block in blocks
        for step in block.steps
        if isinstance(step, OneHot)
    }
    return tuple(
        InputColumn(
            name=name,
            type=feature.type,
            nullable=feature.nullable,
            categories=categories.get(name),
            timezone=timezone if feature.type == "datetime" else None,
        )
        for name, feature in features.items()
    )


def _type_of(kind: pa.DataType) -> ColumnType:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    return "datetime" if pa.types.is_timestamp(kind) else "category"
