"""The served graph of a federation answers as the sites' functions do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.federated import encoding_of
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.models.federated import answers_of, matrix_of
from driftloop.trainer.candidates import CandidateRefused
from driftloop.trainer.federated import candidate
from driftloop.trainer.request import FederatedResult

CLASSES = {"binary": ["no", "yes"], "multiclass": ["x", "y", "z"], "regression": None}


def spec(task: str) -> PipelineSpec:
    features = {
        "kind": {"type": "category", "values": ["b", "a", 3], "nullable": True},
        "heat": {"type": "number", "min": -10, "max": 30, "nullable": True},
        "is_open": {"type": "boolean", "nullable": True},
        "count": {"type": "integer", "min": 0, "max": 9},
    }
    data = {"target": "y", "classes": CLASSES[task], "features": features}
    return PipelineSpec.model_validate({"name": "p", "task": task, "data": data})


def result(task: str, **changes: Any) -> FederatedResult:
    encoding = encoding_of(spec(task), (100, 300) if task == "regression" else None)
    weights = np.random.default_rng(1).normal(size=encoding.weight_count).tolist()
    fields = {
        "federation_id": "f", "rounds": 3, "sites": ["a", "b"], "row_count": 70,
        "encoding": encoding, "weights": weights,
    } | changes  # fmt: skip
    return FederatedResult.model_validate(fields)


def rows() -> pa.Table:
    return pa.table(
        {
            "kind": ["a", "b", None, "3", "new"],
            "heat": [30.0, None, -10.0, 7.25, 1e9],
            "is_open": [True, False, None, True, False],
            "count": [0, 9, 4, 5, 6],
        }
    )


@pytest.mark.parametrize("task", CLASSES)
def test_the_graph_answers_as_the_sites_do(task: str) -> None:
    found, table = result(task), rows().slice(0, 4)
    fitted = candidate.fitted_of(found, table)
    said = fitted.loaded().predict(table)
    expected = answers_of(
        found.weights, matrix_of(table, found.encoding), found.encoding
    )
    if task == "regression":
        np.testing.assert_allclose(
            said.prediction, expected[:, 0] * 100 + 200, rtol=1e-5
        )
    else:
        wanted = expected[:, 0] if task == "binary" else expected
        np.testing.assert_allclose(said.score, wanted, atol=1e-6)
        assert fitted.classes == tuple(CLASSES[task] or ())
    assert (fitted.row_count, fitted.parameters["sites"]) == (70, 2)
    assert fitted.parity is not None


def test_a_graph_that_answers_otherwise_is_refused(monkeypatch) -> None:
    """Negative control: the trainer's own encoding reads a number another way."""
    block_of = candidate._block

    def other(column: Any) -> Any:
        moved = {"centre": column.centre + 1}
        return block_of(column.model_copy(update=moved))

    monkeypatch.setattr(candidate, "_block", other)
    with pytest.raises(CandidateRefused, match="differs by"):
        candidate.fitted_of(result("binary"), rows())


def test_rows_without_a_feature_are_refused() -> None:
    table = rows().drop_columns(["heat"])
    with pytest.raises(CandidateRefused, match="heat"):
        candidate.fitted_of(result("binary"), table)
