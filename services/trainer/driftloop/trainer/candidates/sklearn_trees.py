"""scikit-learn's gradient boosting and random forest."""

from typing import Any

import numpy as np
from driftloop.trainer.candidates.sample import Sample
from driftloop.trainer.candidates.space import Setting, Value
from driftloop.trainer.encoding import MATRIX
from driftloop.trainer.graph import RAW, Core, Link
from driftloop.trainer.trees import Tree, ensemble_node
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

BOOSTING = {
    "max_iter": 200,
    "learning_rate": 0.1,
    "max_leaf_nodes": 31,
    "min_samples_leaf": 20,
    "early_stopping": False,  # its own validation would not be ordered by time
}
LOSSES = {"mae": "absolute_error", "rmse": "squared_error"}
FOREST = {"n_estimators": 100, "min_samples_leaf": 3, "max_leaf_nodes": 512}
FEATURES: tuple[Value, ...] = ("sqrt", 0.3, 0.5, 0.7, 1.0)
"""Share of the columns that a split of the forest may choose from."""
SPACES = {
    "gradient_boosting": (
        Setting("learning_rate", 0.1, 0.01, 0.3),
        Setting("max_iter", 200, 50, 500),
        Setting("max_leaf_nodes", 31, 4, 127),
        Setting("min_samples_leaf", 20, 5, 200),
        Setting("l2_regularization", 0.0, choices=(0.0, 0.1, 1.0, 10.0)),
    ),
    "random_forest": (
        Setting("min_samples_leaf", 3, 1, 50),
        Setting("max_features", "sqrt", choices=FEATURES, only="classes"),
        Setting("max_features", 1.0, choices=FEATURES, only="regression"),
        Setting("n_estimators", 100, 50, 300),
    ),
}


def gradient_boosting(sample: Sample) -> Core:
    """Histogram gradient boosting on the pipeline's own metric."""
    parameters: dict[str, Any] = {**BOOSTING, **sample.parameters}
    if sample.classes:
        model = HistGradientBoostingClassifier(random_state=sample.seed, **parameters)
    else:
        parameters["loss"] = LOSSES[sample.metric]
        model = HistGradientBoostingRegressor(random_state=sample.seed, **parameters)
    # Its bins need a value; what has none is never split on, here as when it is served.
    empty = np.isnan(sample.matrix).all(axis=0)
    matrix = np.where(empty, np.float32(0), sample.matrix)
    model.fit(matrix, sample.target, sample_weight=sample.weights)
    base = np.ravel(model._baseline_prediction).astype(np.float64)
    trees = [
        _boosted(predictor.nodes, output, len(base))
        for iteration in model._predictors
        for output, predictor in enumerate(iteration)
    ]
    node = ensemble_node(trees, base, MATRIX, RAW)
    link: Link = "identity"
    if sample.classes:
        link = "sigmoid" if len(base) == 1 else "softmax"
    return Core([node], [], link, sample.predictor(model), parameters)


def _boosted(nodes: Any, output: int, n_outputs: int) -> Tree:
    is_leaf = nodes["is_leaf"].astype(bool)
    value = np.zeros((len(nodes), n_outputs))
    value[:, output] = nodes["value"]
    return Tree(
        nodes["feature_idx"].astype(np.int64),
        nodes["num_threshold"].astype(np.float64),
        np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
        np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
        nodes["missing_go_to_left"].astype(bool),
        value,
    )


def random_forest(sample: Sample) -> Core:
    """Averaged trees on bootstrap samples."""
    kind = RandomForestClassifier if sample.classes else RandomForestRegressor
    parameters: dict[str, Any] = {**FOREST, **sample.parameters}
    model = kind(random_state=sample.seed, n_jobs=sample.threads, **parameters)
    model.fit(sample.matrix, sample.target, sample_weight=sample.weights)
    count = len(model.estimators_)
    trees = [_grown(estimator.tree_, count) for estimator in model.estimators_]
    node = ensemble_node(trees, np.zeros(trees[0].value.shape[1]), MATRIX, RAW)
    link: Link = "probability" if sample.classes else "identity"
    return Core([node], [], link, sample.predictor(model), parameters)


def _grown(tree: Any, n_trees: int) -> Tree:
    value = tree.value[:, 0, :]
    if value.shape[1] > 1:
        value = value / value.sum(axis=1, keepdims=True)
    return Tree(
        tree.feature.astype(np.int64),
        tree.threshold.astype(np.float64),
        tree.children_left.astype(np.int64),
        tree.children_right.astype(np.int64),
        tree.missing_go_to_left.astype(bool),
        value / n_trees,
    )
