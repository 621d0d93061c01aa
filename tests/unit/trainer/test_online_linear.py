"""Learning row by row: it follows a change, and says what it cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driftloop.trainer.candidates import (
    CandidateRefused,
    Sample,
    candidate,
)
from driftloop.trainer.graph import IR_VERSION, OPSETS
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def sample(count: int = 4000, *, offset: float = 0.0, **fields: Any) -> Sample:
    """y = 2 a, and from the middle on y = -2 a."""
    draw = np.random.default_rng(0)
    matrix = draw.normal(size=(count, 3)) + offset
    slope = np.where(np.arange(count) < count / 2, 2.0, -2.0)
    target = slope * (matrix[:, 0] - offset)
    return Sample(matrix.astype(np.float32), target, (), 0, **fields)


def error(name: str, learned: Sample) -> float:
    """Mean error on rows as they are since the change, no skill being 1."""
    newest = sample(400).matrix
    truth = -2.0 * newest[:, 0]
    found = np.abs(candidate(name)(learned).predict(newest) - truth)
    return float(np.mean(found) / np.mean(np.abs(truth)))


def test_it_follows_a_change() -> None:
    assert error("online_linear", sample()) < 0.2


def test_what_weighs_all_rows_alike_does_not() -> None:
    assert error("linear", sample()) > 0.8


def test_weights_are_refused_in_words() -> None:
    with pytest.raises(CandidateRefused, match="recency_half_life_days"):
        candidate("online_linear")(sample(100, weights=np.ones(100)))


@pytest.mark.parametrize("classes", [(), ("a", "b"), ("a", "b", "c")])
def test_numbers_far_from_zero_are_served_as_they_were_learned(
    classes: tuple[str, ...],
) -> None:
    """Means that float32 rounds: of a year, of a time in seconds."""
    far = sample(500, offset=30_000)
    target = (far.target > 0).astype(int) + (far.target > 2) * (len(classes) > 2)
    learned = Sample(far.matrix, target if classes else far.target, classes, 0)
    core = candidate("online_linear")(learned)
    graph = helper.make_graph(
        core.nodes,
        "raw",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("raw", TensorProto.FLOAT, [None, None])],
        core.constants,
    )
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)
    (raw,) = ReferenceEvaluator(model).run(None, {"features": far.matrix})
    found = 1 / (1 + np.exp(-raw)) if core.link == "sigmoid" else raw
    expected = core.predict(far.matrix)
    answer = expected[:, [1]] if core.link == "sigmoid" else expected
    assert found.reshape(answer.shape) == pytest.approx(answer, abs=1e-4)


def test_online_weights_that_are_not_finite_are_refused() -> None:
    spoilt = sample(100)
    spoilt.matrix[50, 0] = np.inf
    with pytest.raises(CandidateRefused, match=r"outliers: clip"):
        candidate("online_linear")(spoilt)
