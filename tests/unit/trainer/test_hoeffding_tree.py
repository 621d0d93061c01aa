"""The adaptive tree: an alternate that has not won is no part of the answer."""

import numpy as np
import pytest
from driftloop.trainer.candidates import hoeffding_tree
from river.tree import HoeffdingAdaptiveTreeRegressor


def test_an_alternate_that_has_not_won_is_dropped() -> None:
    """River itself would average it into the answer, which one tree cannot hold."""
    model = HoeffdingAdaptiveTreeRegressor(
        seed=0, leaf_prediction="mean", **hoeffding_tree.TREE
    )
    draw = np.random.default_rng(3)
    for value in draw.normal(size=1000).tolist():
        model.learn_one({0: value}, float(value > 0))
    before = model.predict_one({0: 1.0})
    assert before == pytest.approx(1.0, abs=0.1)

    root = model._root
    root._alternate_tree = model._new_leaf(parent=root)
    root._alternate_tree.learn_one({0: 1.0}, 100.0, tree=model)
    assert model.predict_one({0: 1.0}) != before

    hoeffding_tree._drop_alternates(root)
    assert model.predict_one({0: 1.0}) == before
