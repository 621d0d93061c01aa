"""Nodes of a graph as they are drawn, and what a step of the preprocessing is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from driftloop.models.package import PreprocessingStep
from onnx import NodeProto, TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"
NOTHING = ""
"""Drawn by a step without columns; an operator cannot have none."""
Matrix = npt.NDArray[np.float32]
Texts = npt.NDArray[np.object_]
"""(n_rows,) Python strings; missing is ""."""
Floats = npt.NDArray[np.float64]


@dataclass
class Drawing:
    """Nodes and constants of one part of a graph; names begin with ``prefix``."""

    prefix: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def node(self, operator: str, *inputs: str, domain: str = "", **how: Any) -> str:
        """Add a node with one output; return the output's name."""
        output = f"{self.prefix}/{operator.lower()}{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output], domain=domain, **how)
        )
        return output

    def constant(self, value: npt.ArrayLike, dtype: Any = np.float32) -> str:
        """Add a constant; return its name."""
        name = f"{self.prefix}/constant{len(self.constants)}"
        self.constants.append(
            numpy_helper.from_array(np.asarray(value, dtype=dtype), name)
        )
        return name


class Step(Protocol):
    """A fitted step: numbers (n_rows, k) or texts (n_rows,) in, the same or other out.

    ``apply`` and ``wire`` do the same; a property test compares them.
    """

    def apply(self, values: Any, /) -> Any:
        """Return what the step makes of values."""

    def wire(self, drawing: Drawing, source: str, /) -> str:
        """Draw the step behind ``source``; return its output's name.

        In the graph numbers are (n_rows, k) and texts (n_rows, 1).
        """

    def record(self, columns: Sequence[str], /) -> PreprocessingStep:
        """Return what the manifest says."""


def readable(value: float | np.floating[Any]) -> float:
    """Return a single precision number in its shortest form that is still exact.

    >>> float(np.float32(0.1)), readable(np.float32(0.1))
    (0.10000000149011612, 0.1)
    """
    return float(str(np.float32(value)))


def by_column(
    columns: Sequence[str], **vectors: npt.NDArray[Any]
) -> dict[str, dict[str, Any]]:
    """Return each column's own constants of (k,) vectors."""
    return {
        name: {key: readable(vector[at]) for key, vector in vectors.items()}
        for at, name in enumerate(columns)
    }


def finite_columns(matrix: Matrix) -> list[Floats]:
    """Return the finite values of each column of (n_rows, k)."""
    return [c[np.isfinite(c)].astype(np.float64) for c in matrix.T]
