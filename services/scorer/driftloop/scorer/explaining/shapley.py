"""What each column of a row contributes to its answer: Shapley values, within a time.

Pure: the model and the clock are arguments. A row is compared with background rows, one
after the other. A *visit* compares it with one of them: columns change from the
background row's value to the row's own, and the changes of the answer are shared out
among the columns; they sum up to the whole difference of the two answers. The mean over
all visits is the explanation. With few columns a visit looks at all mixtures of the two
rows and is exact. Else it walks from one row to the other in random orders of the
columns and in their reverse ones.

Whenever the time is over, the visits so far are a sample of all, so they give the same
values with an error that is known, and still sum up.

Source: Shapley (1953), A Value for n-Person Games; Štrumbelj and Kononenko (2014),
Explaining Prediction Models and Individual Predictions with Feature Contributions, for
walks; Lundberg and Lee (2017), NeurIPS, for background rows; Mitchell, Cooper, Frank
and Holmes (2022), Sampling Permutations for Shapley Value Estimation, JMLR 23(43), for
reverse orders; Cochran (1977), Sampling Techniques, section 10.3, for the error.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

EXACT_COLUMNS = 10
"""With more, a row has too many mixtures with another: 2^11."""
EXACT_SHARE = 0.5
"""Of the time, that looking at all mixtures may take by what the model usually takes:
it has to succeed also when the machine is busier than that."""
PAIRS = 2
"""Orders of a visit, each walked in reverse too; two show how much orders matter."""
MIN_VISITS = 2
"""From one visit alone nobody can say how wrong it is."""
CALL_SECONDS = 0.005
"""Of one call of the model: the thread can stop, and others get on, after each."""
CALL_ROWS = 4096
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
class Explained:
    """Contributions to the answers; NaN for rows that there was no time for.

    Attributes
    ----------
    values : (n_rows, n_columns); with ``base`` they sum up to the answers.
    errors : (n_rows, n_columns) standard errors of the values, of having looked at a
        part of all background rows and orders; 0 where all was looked at.
    base : (n_rows,) mean answer to the background rows that were compared with.
    visits : (n_rows,) how many those are.
    """

    values: Floats
    errors: Floats
    base: Floats
    visits: Ints


@dataclass(frozen=True)
class Seen:
    """Sums over visits, never changed; how much was done for them.

    Attributes
    ----------
    visits : (n_rows,).
    base : (n_rows,) of the background rows' answers.
    values, squares : (n_rows, n_columns) of contributions, and of their squares.
    within : (n_rows, n_columns) of the variance that a visit's orders leave.
    calls, predictions : calls of the model, and rows in them.
    is_complete : every row has had all its visits.
    """

    method: Method
    background_count: int
    visits: Ints
    base: Floats
    values: Floats
    squares: Floats
    within: Floats
    calls: int = 0
    predictions: int = 0
    is_complete: bool = False

    def explained(self) -> Explained:
        """Return the means, and how wrong they may be."""
        is_known = self.visits >= MIN_VISITS
        count = np.where(is_known, self.visits, MIN_VISITS).astype(np.float64)
        missing = np.where(is_known, 1.0, np.nan)
        wide = count[:, None]
        mean = self.values / wide
        between = np.maximum(self.squares - wide * mean**2, 0) / (wide - 1)
        share = wide / self.background_count
        variance = (1 - share) * between / wide + share * self.within / wide**2
        return Explained(
            mean * missing[:, None],
            np.sqrt(variance) * missing[:, None],
            self.base / count * missing,
            self.visits,
        )


@dataclass(frozen=True)
class _Visits:
    """Some visits: of which row, to which background row, in orders by which seed."""

    row: Ints
    start: Ints
    seed: npt.NDArray[np.uint64]


def method_for(
    n_rows: int, n_columns: int, n_background: int, pace: float, seconds: float
) -> Method:
    """Return how rows are explained: exactly, if there is time to.

    Parameters
    ----------
    pace : seconds of the model for one of many rows.

    >>> [method_for(1, n, 32, 1e-6, 0.05) for n in (1, 9, 10, 11)]
    ['exact', 'exact', 'sampled', 'sampled']
    """
    if n_columns > EXACT_COLUMNS:
        return "sampled"
    exact = predictions_of_a_visit("exact", n_columns)
    sampled = predictions_of_a_visit("sampled", n_columns)
    takes = n_rows * n_background * exact * pace
    is_cheap = exact <= sampled or takes <= EXACT_SHARE * seconds
    return "exact" if is_cheap else "sampled"


def explain(
    question: Question,
    background: Background,
    outputs: Outputs,
    pace: float,
    until: float,
    clock: Callable[[], float],
) -> Iterator[Seen]:
    """Yield what was found out, after each call of the model, until all is or time is.

    A call is begun only if it should end in time. The same rows get the same values,
    whatever other rows they come with, if they are explained by the same method to
    the end.

    Parameters
    ----------
    pace : seconds of the model for one of many rows, from experience.
    until : when the time is over, by the clock.
    """
    n_rows, n_columns = len(question.answers), len(question.feeds)
    n_background, now = len(background.outputs), clock()
    method = method_for(n_rows, n_columns, n_background, pace, until - now)
    a_visit = predictions_of_a_visit(method, n_columns)
    look = _mixtures if method == "exact" else _walks
    seeds = seeds_of(question.feeds, n_rows)
    draws = _draws(seeds, n_background)
    starts = np.argsort(draws, axis=1, kind="stable")
    everything, done = n_rows * n_background, 0
    seen = _nothing(method, n_background, n_rows, n_columns)
    yield seen
    while done < everything:
        count = _count(a_visit, pace, until - now)
        if count == 0:
            return
        upto = min(done + count, everything)
        row, number = _in_turn(np.arange(done, upto), n_rows)
        start = starts[row, number]
        visits = _Visits(row, start, draws[row, number])
        values, within = look(question, background, outputs, visits)
        base = background.outputs[start, question.of[row]]
        asked, done = a_visit * len(row), upto
        if asked:
            before, now = now, clock()
            pace = (now - before) / asked
        seen = _added(seen, row, base, values, within)
        calls = seen.calls + (1 if asked else 0)
        seen = replace(
            seen, calls=calls, predictions=seen.predictions + asked,
            is_complete=done == everything,
        )  # fmt: skip
        yield seen


def predictions_of_a_visit(method: Method, n_columns: int) -> int:
    """Return how many mixtures of two rows a visit asks about; not the rows themselves.

    >>> predictions_of_a_visit("exact", 3), predictions_of_a_visit("sampled", 30)
    (6, 116)
    """
    if method == "exact":
        return int(2**n_columns - 2)
    return 2 * PAIRS * (n_columns - 1)


def _in_turn(places: Ints, n_rows: int) -> tuple[Ints, Ints]:
    """Return which rows have which of their visits, at places in the order of all.

    Each row in turn has so many that it can be told, then all go on together: where
    time is short, some rows have an explanation rather than none.

    >>> row, number = _in_turn(np.arange(6), 2)
    >>> row.tolist(), number.tolist()
    ([0, 0, 1, 1, 0, 1], [0, 1, 0, 1, 2, 2])
    """
    first_row, first_number = np.divmod(places, MIN_VISITS)
    later_number, later_row = np.divmod(places, n_rows)
    is_first = places < n_rows * MIN_VISITS
    return (
        np.where(is_first, first_row, later_row),
        np.where(is_first, first_number, later_number),
    )


def _count(a_visit: int, pace: float, left: float) -> int:
    """Return how many visits a call makes; 0: there is no time for one."""
    if a_visit == 0:
        return CALL_ROWS
    takes = a_visit * pace
    if left <= 0 or takes > left:
        return 0
    fitting = min(left, CALL_SECONDS) / takes if takes > 0 else CALL_ROWS
    return max(1, min(int(fitting), CALL_ROWS // a_visit))


def _nothing(method: Method, n_background: int, n_rows: int, n_columns: int) -> Seen:
    zeros = np.zeros((n_rows, n_columns))
    return Seen(
        method, n_background, np.zeros(n_rows, np.int64), np.zeros(n_rows),
        zeros, zeros, zeros,
    )  # fmt: skip


def _added(seen: Seen, row: Ints, base: Floats, values: Floats, within: Floats) -> Seen:
    """Return new sums; the old ones may be read by another thread."""
    n_rows = len(seen.visits)
    more = [np.zeros_like(seen.values) for _ in range(3)]
    for total, part in zip(more, (values, values**2, within), strict=True):
        np.add.at(total, row, part)
    return replace(
        seen,
        visits=seen.visits + np.bincount(row, minlength=n_rows),
        base=seen.base + np.bincount(row, base, n_rows),
        values=seen.values + more[0],
        squares=seen.squares + more[1],
        within=seen.within + more[2],
    )


def _mixtures(
    question: Question, background: Background, outputs: Outputs, visits: _Visits
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


def _walks(
    question: Question, background: Background, outputs: Outputs, visits: _Visits
) -> tuple[Floats, Floats]:
    """Return (n_visits, n_columns) mean contributions, and the variance of that."""
    n_visits, n_columns = len(visits.row), len(question.feeds)
    draws = _draws(visits.seed, PAIRS * n_columns)
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
    question: Question, background: Background, visits: _Visits
) -> tuple[Floats, Floats]:
    """Return (n_visits,) the answers to the background row and to the row itself."""
    of = question.of[visits.row]
    return background.outputs[visits.start, of], question.answers[visits.row]


def _answers(
    question: Question,
    background: Background,
    outputs: Outputs,
    visits: _Visits,
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


def _draws(seeds: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.uint64]:
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
