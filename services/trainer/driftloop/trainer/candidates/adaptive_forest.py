"""river's adaptive random forest, learned row by row in order of time.

Its trees watch their own error with ADWIN and are replaced when it grows, so what
is exported has forgotten what no longer holds. With the mean (or the class counts)
at each leaf every tree is a plain decision tree, which ONNX can hold exactly.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from driftloop.trainer.candidates.river_start import (
    begun,
    facts_of,
    kept,
    learn_rows,
)
from driftloop.trainer.candidates.sample import Sample, refuse_weights
from driftloop.trainer.graph import (
    RAW,
    Core,
    Floats,
    Link,
    Matrix,
    constant,
    imputation,
    medians_of,
)
from driftloop.trainer.trees import Tree, ensemble_node
from onnx import helper
from river.forest import ARFClassifier, ARFRegressor
from river.tree.nodes.branch import NumericBinaryBranch

# Votes count alike: river 0.26 divides a regression's weighted votes by the number of
# trees twice, which would shrink each answer.
FOREST: dict[str, Any] = {
    "n_models": 10,
    "grace_period": 50,
    "disable_weighted_vote": True,
}
AVERAGING = {"aggregation_method": "mean", "leaf_prediction": "mean"}
COUNTING = {"leaf_prediction": "mc"}


def adaptive_forest(sample: Sample) -> Core:
    """Adaptive random forest of Hoeffding trees."""
    refuse_weights("adaptive_forest", sample)
    if sample.classes:
        model = ARFClassifier(seed=sample.seed, **FOREST, **COUNTING)
    else:
        model = ARFRegressor(seed=sample.seed, **FOREST, **AVERAGING)
    facts = facts_of(sample, FOREST)
    medians = medians_of(sample.matrix)
    fresh = {"model": model, "medians": medians.tolist()}
    learned, first = begun(sample, fresh, facts)
    model, medians = learned["model"], np.array(learned["medians"], np.float32)
    learn_rows(sample, model.learn_one, medians, first)

    n_outputs = max(1, len(sample.classes))

    def leaf(node: Any) -> Floats:
        return _leaf(node, n_outputs) / len(model)

    trees = [laid_out(member._root, n_outputs, leaf) for member in model]
    nodes, constants = imputation(medians, "forest/filled")
    link: Link = "identity"
    if sample.classes:
        link = "probability"
        nodes += [
            ensemble_node(trees, np.zeros(n_outputs), "forest/filled", "forest/votes"),
            helper.make_node("ReduceSum", ["forest/votes", "forest/axis"],
                             ["forest/sum"], keepdims=1),
            helper.make_node("Div", ["forest/votes", "forest/sum"], [RAW]),
        ]  # fmt: skip
        constants.append(constant("forest/axis", [1], np.int64))
    else:
        nodes.append(ensemble_node(trees, np.zeros(1), "forest/filled", RAW))

    def predict(matrix: Matrix) -> Floats:
        rows = np.where(np.isnan(matrix), medians, matrix).tolist()
        if not sample.classes:
            return np.array([model.predict_one(dict(enumerate(r))) for r in rows])
        answers = [model.predict_proba_one(dict(enumerate(r))) for r in rows]
        return np.array([[a.get(c, 0.0) for c in range(n_outputs)] for a in answers])

    state = kept(sample, learned, facts)
    return Core(nodes, constants, link, predict, dict(FOREST), state)


def laid_out(root: Any, n_outputs: int, leaf: Callable[[Any], Floats]) -> Tree:
    """Lay a Hoeffding tree out as arrays, parents before children."""
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    value: list[Floats] = []
    todo = [(root, -1, False)]
    while todo:
        node, parent, is_right = todo.pop()
        number = len(feature)
        if parent >= 0:
            (right if is_right else left)[parent] = number
        is_branch = isinstance(node, NumericBinaryBranch)
        feature.append(node.feature if is_branch else 0)
        threshold.append(node.threshold if is_branch else 0.0)
        left.append(-1)
        right.append(-1)
        value.append(np.zeros(n_outputs) if is_branch else leaf(node))
        if is_branch:
            todo += [
                (node.children[1], number, True),
                (node.children[0], number, False),
            ]
    return Tree(
        np.array(feature),
        np.array(threshold),
        np.array(left),
        np.array(right),
        np.ones(len(feature), dtype=bool),
        np.array(value),
    )


def _leaf(node: Any, n_outputs: int) -> Floats:
    if n_outputs == 1:
        return np.array([node.prediction(None)])
    shares = node.prediction(None)
    return np.array([shares.get(number, 0.0) for number in range(n_outputs)])
