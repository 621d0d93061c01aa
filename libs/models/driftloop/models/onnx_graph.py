"""What a graph that was made elsewhere takes and gives, against what is served here.

Looks at the parsed file only; nothing is run.
"""

from collections.abc import Mapping

import onnx
from driftloop.contracts.pipeline import Task
from driftloop.models.formats import FormatRefused
from driftloop.models.package import STRINGS, ColumnType

ELEMENTS = {
    "float32": onnx.TensorProto.FLOAT,
    "string": onnx.TensorProto.STRING,
    "int64": onnx.TensorProto.INT64,
}
NAMES = {number: name for name, number in ELEMENTS.items()}
HINT = (
    "the graph takes one input of shape (n, 1) for each feature, by its name, and "
    "gives 'prediction'; docs/mlflow-models.md shows how to make it so"
)


def element_of(kind: ColumnType) -> str:
    """Return how a feature's values come into a graph.

    >>> element_of("category"), element_of("integer")
    ('string', 'float32')
    """
    if kind in STRINGS:
        return "string"
    return "int64" if kind == "datetime" else "float32"


def inputs_of(
    model: onnx.ModelProto, features: Mapping[str, ColumnType], task: Task
) -> dict[str, ColumnType]:
    """Return the features that a graph takes, in the pipeline's order.

    Raises
    ------
    FormatRefused
        When it takes, or gives, something else than is served; says what, and what
        it should be.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {i.name: i for i in graph.input if i.name not in constants}
    if unknown := sorted(set(inputs) - set(features)):
        raise FormatRefused(
            f"its inputs {', '.join(map(repr, unknown))} are no features of the "
            f"pipeline, which has {', '.join(features)}; {HINT}"
        )
    if not inputs:
        raise FormatRefused(f"it has no inputs; {HINT}")
    for name, found in inputs.items():
        _check_input(found, element_of(features[name]))
    given = {output.name for output in graph.output}
    wanted = {"prediction"} if task == "regression" else {"prediction", "score"}
    if missing := sorted(wanted - given):
        raise FormatRefused(
            f"it gives {', '.join(sorted(given))} and no {', '.join(missing)}; name "
            "its outputs so"
        )
    return {name: kind for name, kind in features.items() if name in inputs}


def _check_input(found: onnx.ValueInfoProto, wanted: str) -> None:
    tensor = found.type.tensor_type
    dims = [d.dim_value for d in tensor.shape.dim]
    element = NAMES.get(tensor.elem_type, f"element type {tensor.elem_type}")
    if element != wanted or len(dims) != 2 or dims[1] != 1:
        shape = ", ".join(str(d) if d else "n" for d in dims)
        raise FormatRefused(
            f"its input {found.name!r} is {element} of shape ({shape}), not {wanted} "
            f"of shape (n, 1); {HINT}"
        )
