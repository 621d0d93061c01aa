"""What a site computes: rows to numbers, and gradient descent from given weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from driftloop.contracts.federated import (
    FederatedColumn,
    FederatedEncoding,
    LocalTraining,
)
from driftloop.models.federated import (
    RowsRefused,
    answers_of,
    matrix_of,
    target_of,
    trained,
)

COLUMNS = [
    FederatedColumn(name="heat", type="number", centre=10, half_range=20),
    FederatedColumn(name="kind", type="category", values=["a", "1"]),
    FederatedColumn(name="is_open", type="boolean"),
]
CLASSES = {"binary": ["no", "yes"], "multiclass": ["x", "y", "z"], "regression": []}


def encoding(task: Any = "binary", **more: Any) -> FederatedEncoding:
    return FederatedEncoding(
        task=task, target="y", classes=CLASSES[task], columns=COLUMNS, **more
    )


def rows(**changed: Any) -> pa.Table:
    columns = {
        "heat": [30.0, None, 0.0],
        "kind": ["a", "other", None],
        "is_open": [True, False, None],
        "y": ["yes", None, "no"],
    } | changed
    return pa.table({name: v for name, v in columns.items() if v is not None})


def test_numbers_are_scaled_and_what_is_missing_or_unknown_is_nothing() -> None:
    assert matrix_of(rows(kind=[1, 2, None]), encoding())[:, 1:3].tolist() == [
        [0, 1], [0, 0], [0, 0],
    ]  # fmt: skip
    assert matrix_of(rows(), encoding()).tolist() == [
        [1, 1, 0, 1], [0, 0, 0, 0], [-0.5, 0, 0, 0],
    ]  # fmt: skip


def test_rows_without_a_target_are_known_as_such() -> None:
    target, known = target_of(rows(), encoding())
    assert (target[:, 0].tolist(), known.tolist()) == ([1, 0, 0], [True, False, True])
    how = encoding("regression", target_centre=5, target_half_range=5)
    target, known = target_of(rows(y=[10.0, None, 5.0]), how)
    assert (target[known, 0].tolist(), known.tolist()) == ([1, 0], [True, False, True])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"heat": None}, "no column 'heat'"),
        ({"heat": ["hot", "x", "y"]}, "column 'heat': text where a number"),
        ({"y": None}, "no column 'y', the target"),
        ({"y": ["yes", "perhaps", "no"]}, "'y' has perhaps; the classes are no, yes"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_column(changed, words) -> None:
    def read(table: pa.Table) -> None:
        matrix_of(table, encoding())
        target_of(table, encoding())

    read(rows())
    with pytest.raises(RowsRefused, match=words):
        read(rows(**changed))


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_one_step_goes_down_the_gradient(task) -> None:
    """The step is that of finite differences of the loss; all rows are one batch."""
    how, draw = encoding(task), np.random.default_rng(0)
    matrix = draw.normal(size=(40, how.width))
    weights = draw.normal(size=how.weight_count)
    number = draw.integers(0, max(2, how.output_count), 40)
    target = np.eye(3)[number] if task == "multiclass" else number.reshape(-1, 1) * 1.0

    def loss(at: Any) -> float:
        said = answers_of(at, matrix, how)
        if task == "regression":
            return float(np.mean((said - target) ** 2) / 2)
        if task == "binary":
            said, truth = np.hstack([1 - said, said]), np.hstack([1 - target, target])
        else:
            truth = target
        return float(-np.mean(np.sum(truth * np.log(said), axis=1)))

    slopes = [
        (loss(weights + 1e-6 * unit) - loss(weights - 1e-6 * unit)) / 2e-6
        for unit in np.eye(len(weights))
    ]
    local = LocalTraining(epochs=1, batch_rows=40, learning_rate=0.1, l2=0)
    after = trained(weights.tolist(), matrix, target, how, local, 0)
    np.testing.assert_allclose(after - weights, -0.1 * np.array(slopes), atol=1e-6)


def test_the_same_seed_gives_the_same_weights() -> None:
    how, draw = encoding(), np.random.default_rng(0)
    matrix, target = draw.normal(size=(50, 4)), draw.integers(0, 2, (50, 1)) * 1.0
    start = [0.0] * how.weight_count
    one, same, other = (
        trained(start, matrix, target, how, LocalTraining(batch_rows=8), seed).tolist()
        for seed in (1, 1, 2)
    )
    assert one == same != other
