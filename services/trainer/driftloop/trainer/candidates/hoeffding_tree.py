"""river's Hoeffding adaptive tree, learned row by row in order of time.

Each branch watches its error with ADWIN and grows an alternate tree when it rises,
which takes the branch's place once it is significantly better. An alternate that has
not won when the rows end is dropped, so that the rest is one plain decision tree.
"""

from typing import Any

import numpy as np
from driftloop.trainer.candidates.adaptive_forest import laid_out
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
    imputation,
    medians_of,
)
from driftloop.trainer.trees import ensemble_node
from river.tree import HoeffdingAdaptiveTreeClassifier, HoeffdingAdaptiveTreeRegressor
from river.tree.nodes.branch import DTBranch

TREE: dict[str, Any] = {"grace_period": 50}


def hoeffding_adaptive_tree(sample: Sample) -> Core:
    """One Hoeffding tree that replaces what no longer holds."""
    refuse_weights("hoeffding_adaptive_tree", sample)
    n_outputs = max(1, len(sample.classes))
    if sample.classes:
        model = HoeffdingAdaptiveTreeClassifier(
            seed=sample.seed, leaf_prediction="mc", **TREE
        )
    else:
        model = HoeffdingAdaptiveTreeRegressor(
            seed=sample.seed, leaf_prediction="mean", **TREE
        )
    facts = facts_of(sample, TREE)
    medians = medians_of(sample.matrix)
    fresh = {"model": model, "medians": medians.tolist()}
    learned, first = begun(sample, fresh, facts)
    model, medians = learned["model"], np.array(learned["medians"], np.float32)
    learn_rows(sample, model.learn_one, medians, first)
    state = kept(sample, learned, facts)  # with the alternates, which go on as well
    _drop_alternates(model._root)
    overall = (
        np.bincount(sample.target.astype(int), minlength=n_outputs) / len(sample.target)
        if sample.classes
        else np.zeros(1)
    )

    def shares(counts: dict[int, float]) -> Floats:
        """Shares of the classes; those of all rows where a leaf has seen none."""
        weights = np.array([counts.get(number, 0.0) for number in range(n_outputs)])
        total = weights.sum()
        return weights / total if total > 0 else overall

    def leaf(node: Any) -> Floats:
        answer = node.prediction({}, tree=model)
        return shares(answer) if sample.classes else np.array([answer])

    def predict(matrix: Matrix) -> Floats:
        rows = np.where(np.isnan(matrix), medians, matrix).tolist()
        if not sample.classes:
            return np.array([model.predict_one(dict(enumerate(r))) for r in rows])
        return np.array(
            [shares(model.predict_proba_one(dict(enumerate(r)))) for r in rows]
        )

    nodes, constants = imputation(medians, "tree/filled")
    tree = laid_out(model._root, n_outputs, leaf)
    nodes.append(ensemble_node([tree], np.zeros(n_outputs), "tree/filled", RAW))
    link: Link = "probability" if sample.classes else "identity"
    return Core(nodes, constants, link, predict, dict(TREE), state)


def _drop_alternates(root: Any) -> None:
    todo = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, DTBranch):
            node._alternate_tree = None
            todo += node.children
