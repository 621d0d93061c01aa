"""Several fitted models as one: a weighted mean of their answers, in one graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from driftloop.contracts.pipeline import EnsembleName
from driftloop.models.onnx_model import Predictions, category_array
from driftloop.models.package import InputColumn, PreprocessingStep
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.encoding import ML
from driftloop.trainer.fitting import Fitted
from driftloop.trainer.graph import (
    ANSWER,
    PREDICTION,
    constant,
    finished,
    label_nodes,
)
from driftloop.trainer.losses import Floats
from onnx import NodeProto, TensorProto, helper

ROUNDS = 20
"""Of the forward selection: weights are multiples of a twentieth."""
MIN_SLICE_ROWS = 30
"""A value with fewer rows has no weights of its own."""
MAX_SLICES = 50


@dataclass(frozen=True)
class Shares:
    """How much each member's answer counts.

    Attributes
    ----------
    weights : (1 + n_values, n_members), each row sums to 1; the first is for rows whose
        value has none of its own.
    column, values : category feature whose value chooses the row of weights.
    """

    weights: Floats
    column: str | None = None
    values: tuple[str, ...] = ()

    def of(self, rows: pa.Table) -> Floats:
        """Return (n_rows, n_members) weights."""
        if self.column is None:
            return np.repeat(self.weights, rows.num_rows, axis=0)
        number = {value: place + 1 for place, value in enumerate(self.values)}
        values = category_array(rows.column(self.column).combine_chunks())
        found: Floats = self.weights[[number.get(str(value), 0) for value in values]]
        return found


def answers(model: Fitted, rows: pa.Table) -> Floats:
    """Return (n_rows, n_outputs): the prediction, or a probability for each class."""
    said = model.loaded().predict(rows)
    if said.score is None:
        return np.asarray(said.prediction, dtype=np.float64).reshape(-1, 1)
    score = said.score
    return np.column_stack([1 - score, score]) if score.ndim == 1 else score


def as_predictions(values: Floats, classes: Sequence[str]) -> Predictions:
    """Return (n_rows, n_outputs) answers as a model gives them."""
    if not classes:
        return Predictions(values[:, 0])
    labels = np.array(classes)[values.argmax(axis=1)]
    return Predictions(labels, values[:, 1] if len(classes) == 2 else values)


def equal_shares(count: int) -> Shares:
    return Shares(np.full((1, count), 1 / count))


def selected_shares(
    members: Sequence[Floats], loss: Callable[[Floats], Floats]
) -> Shares:
    """Choose weights by forward selection with replacement.

    In each round the member is added that makes the mean of all so far best; the best
    round counts. One member alone is among the answers.

    Parameters
    ----------
    members : (n_rows, n_outputs) answers of each.
    loss : (n_rows,) losses of such answers.

    Source: Caruana, Niculescu-Mizil, Crew and Ksikes (2004), Ensemble selection from
    libraries of models, doi 10.1145/1015330.1015432.
    """
    counts = np.zeros(len(members))
    total = np.zeros_like(members[0])
    best: tuple[float, Floats] | None = None
    for done in range(1, ROUNDS + 1):
        found = [float(np.mean(loss((total + one) / done))) for one in members]
        number = int(np.argmin(found))
        counts[number] += 1
        total = total + members[number]
        if best is None or found[number] < best[0]:
            best = found[number], counts / done
    assert best is not None  # noqa: S101 - there was a round
    return Shares(best[1].reshape(1, -1))


def expert_shares(
    rows: pa.Table, columns: Sequence[str], losses: Sequence[Floats]
) -> Shares | None:
    """Choose the best member for each value of one category feature.

    Parameters
    ----------
    columns : features to choose from; the one with the lowest loss is taken.
    losses : (n_rows,) of each member on the rows.

    Returns
    -------
    Shares or None
        None where no value of any column has enough rows.
    """
    table = np.column_stack(losses)
    overall = _only(int(np.argmin(table.mean(axis=0))), len(losses))
    best: tuple[float, Shares] | None = None
    for column in columns:
        values = category_array(rows.column(column).combine_chunks()).astype(str)
        kept, counts = np.unique(values[values != ""], return_counts=True)
        common = sorted(kept[counts >= MIN_SLICE_ROWS].tolist())[:MAX_SLICES]
        if not common:
            continue
        chosen = [
            _only(int(np.argmin(table[values == v].mean(axis=0))), len(losses))
            for v in common
        ]
        shares = Shares(np.vstack([overall, *chosen]), column, tuple(common))
        found = float(np.mean((shares.of(rows) * table).sum(axis=1)))
        if best is None or found < best[0]:
            best = found, shares
    return best[1] if best else None


def _only(number: int, count: int) -> Floats:
    found: Floats = np.eye(count)[number]
    return found


def blended(
    kind: EnsembleName,
    members: Sequence[Fitted],
    shares: Shares,
    told: Sequence[dict[str, Any]],
) -> Fitted:
    """Return the members as one model; those without any weight are left out.

    Parameters
    ----------
    told : what the manifest says of each member besides its weights.
    """
    used = [n for n in range(len(members)) if shares.weights[:, n].any()]
    parts = [members[n] for n in used]
    kept = Shares(shares.weights[:, used], shares.column, shares.values)
    classes = parts[0].classes
    steps: list[PreprocessingStep] = []
    for part in parts:
        steps += [step for step in part.preprocessing if step not in steps]
    parameters: dict[str, Any] = {
        "members": [told[n] for n in used],
        "weights": [[round(float(w), 6) for w in row] for row in kept.weights],
    }
    if kept.column is not None:
        parameters |= {"column": kept.column, "values": ["", *kept.values]}
    return Fitted(
        kind,
        _graph(parts, kept, classes),
        _inputs(parts),
        classes,
        parameters,
        max(part.row_count for part in parts),
        sum(part.fit_seconds for part in parts),
        tuple(steps),
        max(part.parity or 0.0 for part in parts),
    )


def _inputs(parts: Sequence[Fitted]) -> tuple[InputColumn, ...]:
    """Return the features; values that one of the members has a column for."""
    found = []
    for column in parts[0].inputs:
        same = [c for part in parts for c in part.inputs if c.name == column.name]
        lists = [c.categories for c in same if c.categories is not None]
        values = sorted({v for values in lists for v in values}) if lists else None
        found.append(column.model_copy(update={"categories": values}))
    return tuple(found)


def _graph(parts: Sequence[Fitted], shares: Shares, classes: tuple[str, ...]) -> bytes:
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    names = []
    graphs = [onnx.load_from_string(part.model).graph for part in parts]
    inputs = list(graphs[0].input)
    wanted = ANSWER if classes else PREDICTION
    for number, graph in enumerate(graphs):
        prefix = f"member{number}/"
        more_nodes, more_constants = _part(graph, wanted, prefix)
        nodes += more_nodes
        constants += more_constants
        names.append(prefix + wanted)
    weights = _weight_nodes(shares, nodes, constants)
    terms = []
    for number, name in enumerate(names):
        constants.append(constant(f"blend/column{number}", [number], np.int64))
        nodes += [
            helper.make_node(
                "Gather", [weights, f"blend/column{number}"],
                [f"blend/weight{number}"], axis=1,
            ),
            helper.make_node(
                "Mul", [name, f"blend/weight{number}"], [f"blend/term{number}"]
            ),
        ]  # fmt: skip
        terms.append(f"blend/term{number}")
    nodes.append(helper.make_node("Sum", terms, [wanted]))
    if classes:
        more_nodes, more_constants = label_nodes(classes)
        nodes += more_nodes
        constants += more_constants
    return finished(nodes, constants, inputs, classes)


def _part(
    graph: Any, wanted: str, prefix: str
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return what of a member's graph computes ``wanted``, under other names."""
    inputs = {value.name for value in graph.input}
    needed, kept = {wanted}, []
    for node in reversed(graph.node):  # producers stand before their consumers
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)

    def renamed(names: Sequence[str]) -> list[str]:
        return [n if n in inputs or not n else prefix + n for n in names]

    nodes = []
    for node in reversed(kept):
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = renamed(node.input)
        copy.output[:] = renamed(node.output)
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise CandidateRefused(
                f"a member's graph has loops or branches ({node.op_type}) and cannot "
                "be put together with others; leave train.ensembles empty, or leave "
                "that candidate out"
            )
        nodes.append(copy)
    constants = []
    for tensor in graph.initializer:
        if tensor.name in needed:
            copy = TensorProto()
            copy.CopyFrom(tensor)
            copy.name = prefix + tensor.name
            constants.append(copy)
    return nodes, constants


def _weight_nodes(
    shares: Shares, nodes: list[NodeProto], constants: list[TensorProto]
) -> str:
    """Add what looks the weights up; return their name: (1 or n_rows, n_members)."""
    constants.append(constant("blend/weights", shares.weights))
    if shares.column is None:
        return "blend/weights"
    constants.append(constant("blend/flat", [-1], np.int64))
    nodes += [
        helper.make_node("Reshape", [shares.column, "blend/flat"], ["blend/value"]),
        helper.make_node(
            "LabelEncoder", ["blend/value"], ["blend/row"], domain=ML,
            keys_strings=list(shares.values),
            values_int64s=list(range(1, len(shares.values) + 1)), default_int64=0,
        ),
        helper.make_node(
            "Gather", ["blend/weights", "blend/row"], ["blend/chosen"], axis=0
        ),
    ]  # fmt: skip
    return "blend/chosen"
