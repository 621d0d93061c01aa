"""Decision trees of any library as one ONNX ``TreeEnsembleRegressor`` node."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from driftloop.trainer.encoding import ML
from onnx import NodeProto, helper

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tree:
    """One tree as arrays over its ``n_nodes`` nodes; the root is node 0.

    Attributes
    ----------
    feature, left, right : (n_nodes,) ints; ``left < 0`` marks a leaf.
    threshold : (n_nodes,) float64; a row goes left when its value is not above.
    missing_left : (n_nodes,) bool; where NaN goes.
    value : (n_nodes, n_outputs) float64, used at leaves.
    """

    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: npt.NDArray[np.bool_]
    value: Floats


def largest_float32_not_above(values: Floats) -> npt.NDArray[np.float32]:
    """Round down to float32, so that a float32 row takes the same branch.

    For a float32 ``x`` and a float64 ``t``: x <= t exactly when x <= result.

    >>> largest_float32_not_above(np.array([0.1])) <= 0.1
    array([ True])
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    above = rounded.astype(np.float64) > values
    return np.where(above, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def ensemble_node(
    trees: Sequence[Tree], base: Floats, source: str, output: str
) -> NodeProto:
    """Return the node that adds up the trees' leaf values and ``base``.

    Parameters
    ----------
    base : (n_outputs,) added to each row.
    source, output : names of the (n_rows, width) input and (n_rows, n_outputs)
        output.

    Source: ONNX-ML operator TreeEnsembleRegressor, version 3.
    """
    sizes = [len(tree.feature) for tree in trees]
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(size) for size in sizes])
    left = np.concatenate([tree.left for tree in trees])
    right = np.concatenate([tree.right for tree in trees])
    is_leaf = left < 0
    threshold = largest_float32_not_above(
        np.concatenate([tree.threshold for tree in trees])
    )
    value = np.concatenate([tree.value for tree in trees])
    leaf_rows = np.flatnonzero(is_leaf)
    n_outputs = value.shape[1]
    return helper.make_node(
        "TreeEnsembleRegressor",
        [source],
        [output],
        domain=ML,
        n_targets=n_outputs,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=base.astype(np.float32).tolist(),
        nodes_treeids=tree_ids.tolist(),
        nodes_nodeids=node_ids.tolist(),
        nodes_featureids=_at(
            np.concatenate([t.feature for t in trees]), is_leaf
        ).tolist(),
        nodes_modes=np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values=np.where(is_leaf, np.float32(0), threshold).tolist(),
        nodes_truenodeids=_at(left, is_leaf).tolist(),
        nodes_falsenodeids=_at(right, is_leaf).tolist(),
        nodes_missing_value_tracks_true=_at(
            np.concatenate([t.missing_left for t in trees]).astype(np.int64), is_leaf
        ).tolist(),
        target_treeids=np.repeat(tree_ids[leaf_rows], n_outputs).tolist(),
        target_nodeids=np.repeat(node_ids[leaf_rows], n_outputs).tolist(),
        target_ids=np.tile(np.arange(n_outputs), len(leaf_rows)).tolist(),
        target_weights=value[leaf_rows].astype(np.float32).reshape(-1).tolist(),
    )


def _at(values: Ints, is_leaf: npt.NDArray[np.bool_]) -> Ints:
    """Zero where a leaf has no such value."""
    return np.where(is_leaf, 0, values)
