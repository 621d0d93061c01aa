"""Which rows' labels would help most: unsure, unlike each other, where data drifted.

Pure: rows and what is known of them in, the chosen rows out, the best first.

Source: the doubt about classes is the margin between the two likeliest (Scheffer,
Decomain and Wrobel, 2001, Active hidden Markov models for information extraction). A
regression does not say how sure it is; there it is how far a row is from what was
learned from, in its inputs times in its answer: improved greedy sampling (Wu, Lin and
Huang, 2019, Active learning for regression using greedy sampling, Information Sciences
474), with the model's answers where the labels are not known here. ``informative``
takes stand-ins of clusters (:mod:`driftloop.monitor.labelling.clusters`): the most
doubtful rows alone are much alike, and teach a model little of what is usual.
``diversity`` is the farthest-first walk of the k-center problem (Gonzalez, 1985,
Theoretical Computer Science 38), used for labels by Sener and Savarese (2018), Active
learning for convolutional neural networks: a core-set approach.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.labelling import Strategy
from driftloop.models.columns import Column, Floats, numbers, texts
from driftloop.monitor.feature_drift import Kind
from driftloop.monitor.labelling.clusters import representatives
from driftloop.monitor.labelling.encoding import (
    nearest,
    points,
    smallest_gaps,
    usual_distance,
    values_of,
)
from driftloop.monitor.skew import PREDICTION

OUTER_SHARE = 0.01
"""Of the reference at each end of a number, and the least of a category's value:
what lies beyond counts as outside."""
NEAR_RATIO = 0.1
"""Of the usual distance between rows: closer ones are near duplicates."""
LEAST_DOUBT = 1e-6
"""A model that is sure of all rows still leaves them in an order by diversity."""
UNLIKE = "unlike the other rows asked for"


@dataclass(frozen=True)
class Pool:
    """Rows that may be asked for, and what they are compared with.

    Attributes
    ----------
    rows : (n_rows, n_columns) without a label, in order of event time.
    margins : (n_rows,) between the probabilities of the two likeliest classes; None:
        a regression.
    answers : (n_rows,) of a regression; None: of classes.
    reference : rows that the model learned from, with its ``prediction``; None: not
        known.
    asked : rows that were asked for earlier and wait for their label.
    asked_answers : (n_asked,) as ``answers``.
    drifted : features that left the reference.
    """

    rows: pa.Table
    margins: Floats | None
    answers: Floats | None
    reference: pa.Table | None
    asked: pa.Table
    asked_answers: Floats | None
    kinds: Mapping[str, Kind]
    drifted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """A row of the pool: its place there, how much its label would help, and why."""

    place: int
    score: float
    reasons: list[str]


@dataclass(frozen=True)
class _Known:
    """What is known of the pool's rows.

    Attributes
    ----------
    points : (n_rows, width)
    usual : distance of a row to the next one.
    to_asked : (n_rows,) distances to rows that wait for their label.
    gaps : (n_rows,) of a regression, from what was learned from or asked for; None:
        of classes, or nothing is known.
    """

    points: Floats
    usual: float
    to_asked: Floats
    gaps: Floats | None = None


@dataclass(frozen=True, slots=True)
class _Taken:
    """A row as it was taken: its worth, and its distance to those taken before."""

    place: int
    worth: float
    novelty: float


def choose(
    pool: Pool,
    strategy: Strategy,
    budget: int,
    drift_weight: float,
    seed: Sequence[int],
) -> list[Choice]:
    """Return at most ``budget`` rows to label, the best first.

    Near duplicates of one another, and of rows asked for earlier, are left out, but by
    ``random``, which is there to compare with.
    """
    count = pool.rows.num_rows
    if strategy == "random":
        drawn = np.random.default_rng(list(seed)).permutation(count)[:budget]
        return [Choice(int(place), 1.0, ["drawn at random"]) for place in drawn]
    known = _known(pool)
    outside = outside_shares(pool)
    region = 1 + drift_weight * _mean_share(outside, count)
    if strategy == "informative":
        taken = _stand_ins(known, region * _doubt(pool, known), budget, seed)
    else:
        taken = _walk(pool, known, region, budget, strategy)
    return [
        Choice(one.place, one.worth, _reasons(pool, known, outside, one, strategy))
        for one in taken
    ]


def _known(pool: Pool) -> _Known:
    basis = pool.rows if pool.reference is None else pool.reference
    asked = pool.asked if pool.asked.num_rows else pool.rows.slice(0, 0)
    rows, earlier, learned = points(basis, [pool.rows, asked, basis], pool.kinds)
    usual = usual_distance(learned)
    known = _Known(rows, usual, nearest(rows, earlier))
    if pool.reference is None or pool.answers is None:
        return known
    said = numbers(pool.reference.column(PREDICTION))
    is_there = np.isfinite(said)
    if not is_there.any():
        return known
    said, learned = said[is_there], learned[is_there]
    spread = float(np.std(said)) or 1.0
    before = pool.asked_answers if pool.asked_answers is not None else said[:0]
    gaps = smallest_gaps(
        (rows / usual, pool.answers / spread),
        (np.vstack([learned, earlier]) / usual, np.append(said, before) / spread),
    )
    return _Known(rows, usual, known.to_asked, gaps)


def _stand_ins(
    known: _Known, worth: Floats, budget: int, seed: Sequence[int]
) -> list[_Taken]:
    """Take a row of each cluster of the worthy rows, the worthiest first."""
    free = np.flatnonzero(known.to_asked >= NEAR_RATIO * known.usual)
    dice = np.random.default_rng(list(seed))
    near = known.points[free] / known.usual
    found = free[representatives(near, worth[free], budget, dice)]
    taken: list[_Taken] = []
    for place in sorted(found.tolist(), key=lambda at: (-worth[at], at)):
        others = known.points[[one.place for one in taken]]
        away = float(nearest(known.points[[place]], others)[0])
        novelty = min(away, float(known.to_asked[place])) / known.usual
        if novelty >= NEAR_RATIO:
            taken.append(_Taken(place, float(worth[place]), novelty))
    return taken


def _walk(
    pool: Pool, known: _Known, region: Floats, budget: int, strategy: Strategy
) -> list[_Taken]:
    """Take the worthiest row again and again; by diversity, the furthest from all."""
    distance = known.to_asked / known.usual
    found: list[_Taken] = []
    while len(found) < min(budget, len(region)):
        is_far = strategy == "diversity"
        worth = region * (_bounded(distance) if is_far else _doubt(pool, known))
        worth[distance < NEAR_RATIO] = -1.0  # near duplicates, and the taken ones
        place = int(np.argmax(worth))
        if worth[place] < 0:
            break
        found.append(_Taken(place, float(worth[place]), float(distance[place])))
        step = np.linalg.norm(known.points - known.points[place], axis=1) / known.usual
        distance = np.minimum(distance, step)
        distance[place] = 0.0
    return found


def _doubt(pool: Pool, known: _Known) -> Floats:
    """Return (n_rows,) above 0, up to 1: how unsure the model is of a row."""
    if pool.margins is not None:
        doubt = 1 - pool.margins
    elif known.gaps is not None:
        doubt = _bounded(known.gaps)
    else:
        doubt = np.ones(len(known.points))
    result: Floats = np.maximum(doubt, LEAST_DOUBT)
    return result


def _bounded(size: Floats) -> Floats:
    """Return d / (1 + d), so that a lone outlier does not beat all others.

    >>> _bounded(np.array([0.0, 1.0, np.inf])).tolist()
    [0.0, 0.5, 1.0]
    """
    result: Floats = 1 - 1 / (1 + size)
    return result


# ── drifted regions ─────────────────────────────────────────────────────────


def outside_shares(pool: Pool) -> dict[str, npt.NDArray[np.bool_]]:
    """Return by drifted feature which rows (n_rows,) lie outside the reference."""
    found: dict[str, npt.NDArray[np.bool_]] = {}
    if pool.reference is None:
        return found
    for name in pool.drifted:
        both = pool.reference.schema.names, pool.rows.schema.names
        if all(name in names for names in both):
            kind = pool.kinds.get(name, "category")
            known, column = (
                values_of(rows, name, kind) for rows in (pool.reference, pool.rows)
            )
            is_number = kind in ("number", "integer", "datetime")
            found[name] = (_beyond if is_number else _rare)(known, column)
    return found


def _beyond(known: Column, column: Column) -> npt.NDArray[np.bool_]:
    usual = numbers(known)
    usual = usual[np.isfinite(usual)]
    if not len(usual):
        return np.zeros(len(column), dtype=bool)
    low, high = np.quantile(usual, [OUTER_SHARE, 1 - OUTER_SHARE])
    values = numbers(column)
    result: npt.NDArray[np.bool_] = (values < low) | (values > high)  # NaN is neither
    return result


def _rare(known: Column, column: Column) -> npt.NDArray[np.bool_]:
    counted = pc.value_counts(texts(known.drop_null())).to_pylist()
    total = sum(entry["counts"] for entry in counted)
    usual = {e["values"] for e in counted if e["counts"] >= OUTER_SHARE * total}
    values = texts(column).to_pylist()
    return np.array([v is not None and v not in usual for v in values], dtype=bool)


def _mean_share(outside: Mapping[str, npt.NDArray[np.bool_]], count: int) -> Floats:
    if not outside:
        return np.zeros(count)
    result: Floats = np.mean(np.array(list(outside.values())), axis=0)
    return result


# ── words ───────────────────────────────────────────────────────────────────


def _reasons(
    pool: Pool,
    known: _Known,
    outside: Mapping[str, npt.NDArray[np.bool_]],
    taken: _Taken,
    strategy: Strategy,
) -> list[str]:
    """Say why a row was chosen, without any of its values."""
    found = []
    if strategy != "diversity" and pool.margins is not None:
        apart = pool.margins[taken.place]
        found.append(
            f"the model hesitates: its two likeliest classes are {apart:.2f} apart"
        )
    elif strategy != "diversity" and known.gaps is not None:
        gap = known.gaps[taken.place]
        found.append(
            f"inputs and answer are {gap:.2g} away from all that the model learned from"
        )
    named = [name for name, is_outside in outside.items() if is_outside[taken.place]]
    if named:
        found.append(
            f"outside what the model learned from in {', '.join(named)}, which drifted"
        )
    if strategy != "uncertainty" and 1 <= taken.novelty < np.inf:
        found.append(UNLIKE)
    return found or ["stands for the rows that are like it"]
