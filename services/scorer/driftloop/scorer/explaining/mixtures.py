"""Answers to mixtures of two rows, and what each column has to do with them; pure.

A visit compares a row with one background row. See :mod:`driftloop.scorer.explaining.
shapley` for what visits are made for.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

PAIRS = 2
"""Orders of a visit, each walked in reverse too; two show how much orders matter."""
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Feeds = Mapping[str, npt.NDArray[Any]]
"""Inputs of a graph by column, each (n_rows, 1)."""
Outputs = Callable[[dict[str, npt.NDArray[Any]], int], Floats]
"""Takes inputs and the number of rows, gives (n_rows, n_outputs)."""
Method = Literal["exact", "sampled"]


@dataclass(frozen=True)
class Background:
    """Rows that an answer is compared with.

    Attributes
    ----------
    outputs : (n_background, n_outputs) what the model says of them.
    """

    feeds: Feeds
    outputs: Floats


@dataclass(frozen=True)
class Question:
    """Rows whose answers are to be explained.

    Attributes
    ----------
    answers : (n_rows,) what the model says of them.
    of : (n_rows,) which of the model's outputs that is.
    """

    feeds: Feeds
    answers: Floats
    of: Ints


@dataclass(frozen=True)
class Visits:
    """Some visits: of which row, to which background row, in orders by which seed."""

    row: Ints
    start: Ints
    seed: npt.NDArray[np.uint64]


def predictions_of_a_visit(method: Method, n_columns: int) -> int:
    """Return how many mixtures of two rows a visit asks about; not the rows themselves.

    >>> predictions_of_a_visit("exact", 3), predictions_of_a_visit("sampled", 30)
    (6, 116)
    """
    if method == "exact":
        return int(2**n_columns - 2)
    return 2 * PAIRS * (n_columns - 1)


def mixtures(
    question: Question, background: Background, outputs: Outputs, visits: Visits
) -> tuple[Floats, Floats]:
    """Return (n_visits, n_columns) contributions, and 0: nothing is left to chance."""
    n_columns = len(question.feeds)
    masks = _subsets(n_columns)[1:-1]
    shape = (len(visits.row), *masks.shape)
    said = _answers(
        question, background, outputs, visits, np.broadcast_to(masks, shape)
    )
    first, last = _ends(question, background, visits)
    changes = np.column_stack([first, said, last]) - first[:, None]
    values = changes @ _weights(n_columns)
    return values, np.zeros_like(values)


def walks(
    question: Question, background: Background, outputs: Outputs, visits: Visits
) -> tuple[Floats, Floats]:
    """Return (n_visits, n_columns) mean contributions, and the variance of that."""
    n_visits, n_columns = len(visits.row), len(question.feeds)
    draws = draws_of(visits.seed, PAIRS * n_columns)
    order = np.argsort(draws.reshape(n_visits, PAIRS, n_columns), axis=2)
    orders = np.stack([order, order[..., ::-1]], axis=2)
    turn = np.argsort(orders, axis=-1)[..., None, :]
    masks = turn < np.arange(1, n_columns)[:, None]
    said = _answers(
        question, background, outputs, visits, masks.reshape(n_visits, -1, n_columns)
    )
    paths = said.reshape(n_visits, 2 * PAIRS, n_columns - 1)
    first, last = _ends(question, background, visits)
    ends = [np.broadcast_to(e[:, None, None], (n_visits, 2 * PAIRS, 1))
            for e in (first, last)]  # fmt: skip
    changes = np.diff(np.concatenate([ends[0], paths, ends[1]], axis=2), axis=2)
    values = np.empty(orders.shape)
    np.put_along_axis(values, orders, changes.reshape(orders.shape), axis=-1)
    pairs = values.mean(axis=2)
    return pairs.mean(axis=1), pairs.var(axis=1, ddof=1) / PAIRS


def _ends(
    question: Question, background: Background, visits: Visits
) -> tuple[Floats, Floats]:
    """Return (n_visits,) the answers to the background row and to the row itself."""
    of = question.of[visits.row]
    return background.outputs[visits.start, of], question.answers[visits.row]


def _answers(
    question: Question,
    background: Background,
    outputs: Outputs,
    visits: Visits,
    masks: npt.NDArray[np.bool_],
) -> Floats:
    """Return (n_visits, n_mixtures) answers.

    Parameters
    ----------
    masks : (n_visits, n_mixtures, n_columns) where a value is the row's own.
    """
    n_visits, n_mixtures, n_columns = masks.shape
    if n_mixtures == 0:
        return np.empty((n_visits, 0))
    flat = masks.reshape(-1, n_columns)
    row = np.repeat(visits.row, n_mixtures)
    start = np.repeat(visits.start, n_mixtures)
    feeds = {
        name: np.where(
            flat[:, column : column + 1], own[row], background.feeds[name][start]
        )
        for column, (name, own) in enumerate(question.feeds.items())
    }
    said = outputs(feeds, len(row))
    return said[np.arange(len(row)), question.of[row]].reshape(n_visits, n_mixtures)


@cache
def _subsets(n_columns: int) -> npt.NDArray[np.bool_]:
    """Return (2^n, n) all sets of columns: none of them first, all of them last."""
    numbers = np.arange(2**n_columns)[:, None]
    found: npt.NDArray[np.bool_] = (numbers >> np.arange(n_columns)) & 1 == 1
    return found


@cache
def _weights(n_columns: int) -> Floats:
    """Return (2^n, n) how much each set's answer counts for each column.

    Shapley (1953): of all orders, the share in which exactly the others of a set come
    before the column.
    """
    subsets = _subsets(n_columns)
    size = subsets.sum(axis=1, keepdims=True)
    share = np.array(
        [1 / (n_columns * math.comb(n_columns - 1, s)) for s in range(n_columns)]
    )
    joined = share[np.maximum(size - 1, 0)]
    left = share[np.minimum(size, n_columns - 1)]
    found: Floats = np.where(subsets, joined, -left)
    return found


def seeds_of(feeds: Feeds, n_rows: int) -> npt.NDArray[np.uint64]:
    """Return (n_rows,) a seed of each row's own, made of its values."""
    seeds = np.empty(n_rows, np.uint64)
    numbers = [
        np.ascontiguousarray(values).view(np.uint8)
        for values in feeds.values()
        if values.dtype != object
    ]
    values_of = np.concatenate(numbers, axis=1) if numbers else np.empty((n_rows, 0))
    texts = [v.ravel().tolist() for v in feeds.values() if v.dtype == object]
    for row in range(n_rows):
        text = "\0".join(values[row] for values in texts)
        digest = hashlib.blake2b(values_of[row].tobytes(), digest_size=8)
        digest.update(text.encode())
        seeds[row] = int.from_bytes(digest.digest(), "little")
    return seeds


def draws_of(seeds: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.uint64]:
    """Return (n_seeds, count) random numbers, the same for the same seed.

    Source: SplitMix64; Steele, Lea and Flood (2014), Fast Splittable Pseudorandom
    Number Generators, OOPSLA, doi 10.1145/2660193.2660195.
    """
    steps = np.arange(1, count + 1, dtype=np.uint64)
    z = seeds[:, None] + steps * GOLDEN_GAMMA
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return found
