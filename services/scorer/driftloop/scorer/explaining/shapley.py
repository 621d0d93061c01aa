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

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from driftloop.scorer.explaining.mixtures import (
    Background,
    Floats,
    Ints,
    Method,
    Outputs,
    Question,
    Visits,
    draws_of,
    mixtures,
    predictions_of_a_visit,
    seeds_of,
    walks,
)

EXACT_COLUMNS = 10
"""With more, a row has too many mixtures with another: 2^11."""
EXACT_SHARE = 0.5
"""Of the time, that looking at all mixtures may take by what the model usually takes:
it has to succeed also when the machine is busier than that."""
MIN_VISITS = 2
"""From one visit alone nobody can say how wrong it is."""
CALL_SECONDS = 0.005
"""Of one call of the model: the thread can stop, and others get on, after each."""
CALL_ROWS = 4096


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
    look = mixtures if method == "exact" else walks
    seeds = seeds_of(question.feeds, n_rows)
    draws = draws_of(seeds, n_background)
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
        visits = Visits(row, start, draws[row, number])
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
