"""river's linear models, learned row by row: the newest rows count most.

One pass in order of time with steps that never get smaller, so that the weights follow
a change. A step is divided by the row's squared length (normalised least mean squares):
it mends a share of the row's error whatever the scale and the number of columns, and
cannot overshoot.

**Source**: Haykin, Adaptive Filter Theory, 5th edition, chapter 7.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from driftloop.trainer.candidates.linear import standard_nodes
from driftloop.trainer.candidates.river_start import (
    begun,
    facts_of,
    kept,
    learn_rows,
    rows_of,
)
from driftloop.trainer.candidates.sample import (
    CandidateRefused,
    Sample,
    refuse_weights,
    target_unit,
)
from driftloop.trainer.graph import (
    RAW,
    Core,
    Floats,
    Link,
    Matrix,
    constant,
    medians_of,
)
from onnx import NodeProto, TensorProto, helper
from river import linear_model, multiclass, optim, preprocessing

RATE = {"regression": 0.05, "classes": 1.0}
"""Step size; half of it is the share of a row's error that one step mends. A class's
error is one of probability, at most a quarter of what it is in the weighted sum."""
NEVER_ZERO = 1e-12
"""Added to each class's probability, so that none of them all is not 0 / 0."""


class _Stream:
    """A standardising scaler and a linear model behind it, as river's pipeline is."""

    def __init__(self, scaler: Any, model: Any) -> None:
        self.scaler, self.model = scaler, model

    def learn_one(self, row: dict[int, float], target: Any) -> None:
        self.scaler.learn_one(row)
        scaled = self.scaler.transform_one(row)
        length = 1 + sum(value * value for value in scaled.values())  # 1: the intercept
        self.model.learn_one(scaled, target, w=1 / length)

    def scaled(self, row: dict[int, float]) -> dict[int, float]:
        found: dict[int, float] = self.scaler.transform_one(row)
        return found


def online_linear(sample: Sample) -> Core:
    """Linear or logistic regression in single steps; classes: each against the rest."""
    refuse_weights("online_linear", sample)
    classes = len(sample.classes)
    centre, unit = 0.0, 1.0
    if not classes:
        centre, unit = float(np.mean(sample.target)), target_unit(sample.target)
    facts = facts_of(sample, {"rate": _rate(classes)})
    fresh = {
        "model": _model(classes),
        "scaler": preprocessing.StandardScaler(),
        "medians": medians_of(sample.matrix).tolist(),
        "centre": centre,
        "unit": unit,
    }
    learned, first = begun(sample, fresh, facts)
    medians = np.array(learned["medians"], np.float32)
    centre, unit = learned["centre"], learned["unit"]
    stream = _Stream(learned["scaler"], learned["model"])
    targets = _targets(sample, centre, unit)
    learn_rows(sample, stream.learn_one, medians, first, targets)
    exact_means, exact_scales = _standard(stream, sample.matrix.shape[1])
    means = exact_means.astype(np.float32)
    scales = np.where(exact_scales > 0, exact_scales, 1).astype(np.float32)
    weights, bias = _weights(stream, classes, means, scales)
    weights, bias = weights * unit, bias * unit + centre
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise CandidateRefused(
            "online_linear came to weights that are not finite; a feature has values "
            "that are too large: `outliers: clip` in train.preprocessing bounds them"
        )

    def predict(matrix: Matrix) -> Floats:
        rows = [stream.scaled(row) for row in rows_of(matrix, medians)]
        if not classes:
            found = np.array([stream.model.predict_one(row) for row in rows])
            return np.asarray(found * unit + centre, dtype=np.float64)
        answers = [stream.model.predict_proba_one(row) for row in rows]
        return np.array([[said[c] for c in range(classes)] for said in answers])

    nodes, constants = standard_nodes(medians, means, scales, "online/scaled")
    more_nodes, more_constants, link = _graph(weights, bias, classes)
    nodes += more_nodes
    constants += more_constants
    state = kept(sample, learned, facts)
    return Core(nodes, constants, link, predict, {"rate": _rate(classes)}, state)


def _rate(classes: int) -> float:
    return RATE["classes" if classes else "regression"]


def _model(classes: int) -> Any:
    """Return river's model of the task."""
    rate = _rate(classes)
    how = {"optimizer": optim.SGD(rate), "intercept_lr": rate}
    if not classes:
        return linear_model.LinearRegression(**how)
    logistic = linear_model.LogisticRegression(**how)
    return logistic if classes == 2 else multiclass.OneVsRestClassifier(logistic)


def _targets(sample: Sample, centre: float, unit: float) -> list[Any]:
    """Return the targets as the model wants them."""
    targets: npt.NDArray[Any] = sample.target
    if not sample.classes:
        targets = (targets - centre) / unit
    elif len(sample.classes) == 2:
        targets = targets == 1
    found: list[Any] = targets.tolist()
    return found


def _standard(stream: _Stream, width: int) -> tuple[Floats, Floats]:
    """Return (width,) means and scales; a scale of 0 is a column with one value."""
    means = [stream.scaler.means[column] for column in range(width)]
    variances = [stream.scaler.vars[column] for column in range(width)]
    return np.array(means), np.sqrt(variances)


def _weights(
    stream: _Stream, classes: int, means: Matrix, scales: Matrix
) -> tuple[Floats, Floats]:
    """Return (width, n_outputs) weights and (n_outputs,) bias of the graph.

    They make good for means and scales that are rounded to float32 there.
    """
    model, width = stream.model, len(means)
    models = [model]
    if classes > 2:
        models = [model.classifiers[number] for number in range(classes)]
    exact_means, exact_scales = _standard(stream, width)
    learned = np.array(
        [[one.weights.get(column, 0.0) for one in models] for column in range(width)]
    )
    used = np.where(exact_scales > 0, exact_scales, np.inf)  # river gives 0 for those
    weights = learned / used.reshape(-1, 1)
    bias = np.array([one.intercept for one in models])
    bias += (means.astype(np.float64) - exact_means) @ weights
    return weights * scales.reshape(-1, 1), bias


def _graph(
    weights: Floats, bias: Floats, classes: int
) -> tuple[list[NodeProto], list[TensorProto], Link]:
    """Return nodes from the scaled columns to ``raw``."""
    answer = "online/logits" if classes > 2 else RAW
    gemm = ["online/scaled", "online/weights", "online/bias"]
    nodes = [helper.make_node("Gemm", gemm, [answer])]
    constants = [
        constant("online/weights", weights),
        constant("online/bias", bias),
    ]
    if classes <= 2:
        return nodes, constants, "sigmoid" if classes else "identity"
    nodes += [
        helper.make_node("Sigmoid", [answer], ["online/each"]),
        helper.make_node("Add", ["online/each", "online/never_zero"], ["online/votes"]),
        helper.make_node("ReduceSum", ["online/votes", "online/axis"],
                         ["online/sum"], keepdims=1),
        helper.make_node("Div", ["online/votes", "online/sum"], [RAW]),
    ]  # fmt: skip
    constants += [
        constant("online/never_zero", [NEVER_ZERO]),
        constant("online/axis", [1], np.int64),
    ]
    return nodes, constants, "probability"
