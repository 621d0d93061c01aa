"""What a site of a federation computes: rows to numbers, and one round of training.

The model is linear: for a row's columns ``x`` each output is ``w · x + b``. Regression
learns the scaled target by squared error, classes their probability by log loss. The
trainer's package is checked against these very functions.

Source: McMahan et al. (2017), Communication-Efficient Learning of Deep Networks from
Decentralized Data, arXiv 1602.05629, algorithm 1 (``ClientUpdate``).
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from driftloop.contracts.federated import FederatedColumn, FederatedEncoding
from driftloop.contracts.federated import LocalTraining as Local
from driftloop.models.onnx_model import category_array, number_array

Floats = npt.NDArray[np.float64]


class RowsRefused(ValueError):  # noqa: N818 - says what happened
    """Rows of a site do not fit the encoding; names the column."""


def matrix_of(rows: pa.Table, encoding: FederatedEncoding) -> Floats:
    """Return (n_rows, width) float64: what the weights are multiplied with.

    Raises
    ------
    RowsRefused
        Names the column that is missing or of a wrong type.
    """
    return np.hstack([_column_of(rows, column) for column in encoding.columns])


def _column_of(rows: pa.Table, column: FederatedColumn) -> Floats:
    if column.name not in rows.column_names:
        raise RowsRefused(
            f"no column {column.name!r}; there are {', '.join(rows.column_names)}"
        )
    values = rows.column(column.name).combine_chunks()
    if column.type == "category":
        return _hot(category_array(values), column.values)
    try:
        numbers = number_array(values).astype(np.float64).reshape(-1, 1)
    except (TypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise RowsRefused(f"column {column.name!r}: {error}") from error
    scaled = (numbers - column.centre) / column.half_range
    return np.where(np.isnan(scaled), 0.0, scaled)


def _hot(texts: npt.NDArray[np.object_], known: Sequence[str]) -> Floats:
    is_known = texts.reshape(-1, 1) == np.array(known, dtype=object)
    return np.asarray(is_known, dtype=np.float64)


def target_of(
    rows: pa.Table, encoding: FederatedEncoding
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return what the outputs should be, (n_rows, n_outputs), and which rows have it.

    Raises
    ------
    RowsRefused
        When the target is missing, no number, or a class that the encoding lacks.
    """
    name = encoding.target
    if name not in rows.column_names:
        raise RowsRefused(f"no column {name!r}, the target; add it")
    values = rows.column(name).combine_chunks()
    if encoding.task == "regression":
        try:
            numbers = number_array(values).astype(np.float64)
        except (TypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise RowsRefused(f"target {name!r}: {error}") from error
        known = np.isfinite(numbers)
        scaled = (numbers - encoding.target_centre) / encoding.target_half_range
        return np.where(known, scaled, 0.0).reshape(-1, 1), known
    texts = category_array(values)
    other = sorted(set(texts.tolist()) - {"", *encoding.classes})
    if other:
        raise RowsRefused(
            f"target {name!r} has {', '.join(other[:3])}; the classes are "
            f"{', '.join(encoding.classes)}"
        )
    hot = _hot(texts, encoding.classes)
    return (hot[:, 1:] if encoding.task == "binary" else hot), texts != ""


def answers_of(
    weights: Sequence[float] | Floats, matrix: Floats, encoding: FederatedEncoding
) -> Floats:
    """Return (n_rows, n_outputs): scaled targets, or probabilities.

    Parameters
    ----------
    weights : (n_outputs * (width + 1),) as in ``federated-round-opened``.
    """
    table = np.asarray(weights, np.float64).reshape(encoding.output_count, -1)
    return _linked(matrix @ table[:, :-1].T + table[:, -1], encoding.task)


def _linked(raw: Floats, task: str) -> Floats:
    if task == "regression":
        return raw
    if task == "binary":
        return np.asarray(
            0.5 * (1 + np.tanh(raw / 2))
        )  # a sigmoid that cannot overflow
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def trained(
    weights: Sequence[float],
    matrix: Floats,
    target: Floats,
    encoding: FederatedEncoding,
    how: Local,
    seed: int,
) -> Floats:
    """Return (n_weights,) after the epochs of one round of stochastic gradient descent.

    Squared error and log loss with their links have one gradient: answer minus target,
    times the row.

    Parameters
    ----------
    matrix, target : (n_rows, width) and (n_rows, n_outputs), of rows with a target.
    """
    draw = np.random.default_rng(seed)
    table = np.array(weights, np.float64).reshape(encoding.output_count, -1)
    inputs = np.hstack([matrix, np.ones((len(matrix), 1))])
    decay = np.full(table.shape[1], how.l2)
    decay[-1] = 0.0
    for _ in range(how.epochs):
        order = draw.permutation(len(inputs))
        for start in range(0, len(order), how.batch_rows):
            part = order[start : start + how.batch_rows]
            rows = inputs[part]
            off = _linked(rows @ table.T, encoding.task) - target[part]
            table -= how.learning_rate * (off.T @ rows / len(part) + decay * table)
    return np.asarray(table.ravel())


def seed_of(seed: int, federation_id: str, site: str, number: int) -> int:
    """Return the seed of a site's round: other rows each time, the same when repeated.

    >>> seed_of(0, "f", "a", 1) == seed_of(0, "f", "a", 1)
    True
    """
    text = f"{seed}/{federation_id}/{site}/{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
