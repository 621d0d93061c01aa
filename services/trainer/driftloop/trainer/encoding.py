"""From rows to a matrix of numbers, in numpy and as nodes of the served graph.

One encoding for all candidates: numbers, integers and booleans as they are (a null
is NaN), each category as columns of 0 and 1, one for each value seen in training.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.pipeline import Feature
from driftloop.contracts.rows import ROW_FIELDS
from driftloop.models.onnx_model import category_array, number_array
from driftloop.models.package import ColumnType, InputColumn
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

ML = "ai.onnx.ml"
MATRIX = "features"
MAX_CATEGORIES = 64
"""Rarer values of a category share "unknown": all its columns 0."""


@dataclass(frozen=True)
class Encoding:
    """How the features of a pipeline become a matrix.

    Attributes
    ----------
    inputs : features in order; a category names the values that have a column.
    """

    inputs: tuple[InputColumn, ...]

    @property
    def width(self) -> int:
        return sum(
            len(c.categories or ()) if c.type == "category" else 1 for c in self.inputs
        )

    def matrix(self, rows: pa.Table) -> npt.NDArray[np.float32]:
        """Return (n_rows, width) float32."""
        blocks = [_encoded(rows, column) for column in self.inputs]
        return np.hstack(blocks)

    def graph_inputs(self) -> list[ValueInfoProto]:
        """Return the served graph's inputs: one a feature, shape (n_rows, 1)."""
        return [
            helper.make_tensor_value_info(
                c.name,
                TensorProto.STRING if c.type == "category" else TensorProto.FLOAT,
                [None, 1],
            )
            for c in self.inputs
        ]

    def nodes(self) -> tuple[list[NodeProto], list[TensorProto]]:
        """Return nodes that compute ``features`` (n_rows, width), and constants."""
        nodes: list[NodeProto] = []
        parts: list[str] = []
        flat = numpy_helper.from_array(np.array([0, -1], np.int64), "encoding/flat")
        for number, column in enumerate(self.inputs):
            if column.type != "category":
                parts.append(column.name)
                continue
            if not column.categories:
                continue
            hot, part = f"encoding/hot{number}", f"encoding/part{number}"
            nodes.append(
                helper.make_node(
                    "OneHotEncoder", [column.name], [hot], domain=ML, zeros=1,
                    cats_strings=column.categories,
                )
            )  # fmt: skip
            nodes.append(helper.make_node("Reshape", [hot, flat.name], [part]))
            parts.append(part)
        nodes.append(helper.make_node("Concat", parts, [MATRIX], axis=1))
        return nodes, [flat]


def _encoded(rows: pa.Table, column: InputColumn) -> npt.NDArray[np.float32]:
    values = rows.column(column.name).combine_chunks()
    if column.type != "category":
        return number_array(values).reshape(-1, 1)
    texts = category_array(values).astype(str)
    wanted = np.array(column.categories or [], dtype=str)
    return np.asarray(texts[:, None] == wanted[None, :], dtype=np.float32)


def learn_encoding(
    rows: pa.Table, features: dict[str, Feature], target: str
) -> Encoding:
    """Return the encoding of the pipeline's features.

    Parameters
    ----------
    rows : training rows, (n_rows, n_columns).
    features : of the pipeline file; empty: every column but the target and those
        that each row has, by its Arrow type.
    """
    if not features:
        known = {field.name for field in ROW_FIELDS} | {target}
        features = {
            field.name: Feature(type=_type_of(field.type), nullable=True)
            for field in rows.schema
            if field.name not in known
        }
    return Encoding(
        tuple(
            InputColumn(
                name=name,
                type=feature.type,
                nullable=feature.nullable,
                categories=_categories(rows, name)
                if feature.type == "category" else None,
            )
            for name, feature in features.items()
        )
    )  # fmt: skip


def _type_of(kind: pa.DataType) -> ColumnType:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    return "category"


def _categories(rows: pa.Table, name: str) -> list[str]:
    texts = category_array(rows.column(name).combine_chunks())
    counts = Counter(text for text in texts.tolist() if text)
    frequent = sorted(counts, key=lambda text: (-counts[text], text))
    return sorted(frequent[:MAX_CATEGORIES])
