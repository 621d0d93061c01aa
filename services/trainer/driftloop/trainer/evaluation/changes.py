"""What is different between champion and candidate, in words and in curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from driftloop.contracts.measures import SliceResult
from driftloop.contracts.moments import moment_of, moment_text
from driftloop.trainer.evaluation.shapley import Explained
from driftloop.trainer.evaluation.subject import (
    Scene,
    Subject,
    Values,
    missing,
    two_dimensional,
)

CURVES = 3
GRID = 10
MAX_ROWS = 100
SHIFT = 0.05
"""Share of all contributions that a feature has to gain or lose to be named."""
SURE = 0.05
"""Holm's p-value below which a slice is named."""


@dataclass(frozen=True)
class Curve:
    """Mean answer of each model when a feature has one value in every row.

    Attributes
    ----------
    answer : what is shown: the prediction, or the probability of one class.
    values : of the feature, in order; text for a category or a datetime.
    means : role to one mean for each value.
    """

    feature: str
    answer: str
    values: list[float] | list[str]
    means: dict[str, list[float]]


def curves(scene: Scene, importance: dict[str, dict[str, float]]) -> list[Curve]:
    """Return the partial dependence on the features that matter most to either model.

    Source: Friedman (2001), Greedy Function Approximation, section 8.2.
    """
    scene = scene.thinned(MAX_ROWS)
    return [_curve(scene, name) for name in _top(importance)]


def _top(importance: dict[str, dict[str, float]]) -> list[str]:
    """Return the names that lead either model's list, the candidate's first."""
    ranked = [list(one) for one in importance.values()]
    mixed = [name for place in zip_longest(*ranked) for name in place if name]
    return list(dict.fromkeys(mixed))[:CURVES]


def _curve(scene: Scene, name: str) -> Curve:
    classes = scene.candidate.target.classes
    subjects = {
        role: one for role, one in scene.subjects().items() if name in one.feeds
    }
    feed = next(iter(subjects.values())).feeds[name]
    grid = _grid(feed)
    means = {
        role: [_mean(one, name, value, classes) for value in grid]
        for role, one in subjects.items()
    }
    answer = f"probability of {classes[-1]}" if classes else "prediction"
    values = grid.tolist()
    if grid.dtype == np.int64:
        values = [moment_text(moment_of(value)) for value in values]
    return Curve(name, answer, values, means)


def _grid(feed: Values) -> Values:
    if feed.dtype == object:
        values, counts = np.unique(feed.astype(str), return_counts=True)
        return np.sort(values[np.argsort(-counts, kind="stable")][:GRID])
    if feed.dtype == np.int64:
        return _moment_grid(np.sort(feed[~missing(feed)]))
    known = feed[np.isfinite(feed)].astype(np.float64)
    if not len(known):
        return np.zeros(1)
    distinct = np.unique(known)
    if len(distinct) <= GRID:
        return distinct
    return np.unique(np.quantile(known, np.linspace(0.02, 0.98, GRID)))


def _moment_grid(known: Values) -> Values:
    """Return some of the sorted known moments, evenly over them."""
    if not len(known):
        return np.zeros(1, dtype=np.int64)
    places = np.linspace(0.02, 0.98, GRID) * (len(known) - 1)
    return np.unique(known[np.rint(places).astype(np.int64)])


def _mean(subject: Subject, name: str, value: object, classes: Sequence[str]) -> float:
    predicted = subject.predict({name: np.full_like(subject.feeds[name], value)})
    if predicted.score is None:
        return float(np.mean(predicted.prediction))
    own = subject.target.classes
    if classes[-1] not in own:
        return 0.0
    score = two_dimensional(predicted.score)[:, own.index(classes[-1])]
    return float(np.mean(score))


def disagreement(scene: Scene) -> float | None:
    """Return how far apart the answers are; None without a champion.

    Classification: share of rows with another class. Regression: mean distance in
    standard deviations of the target.
    """
    if scene.champion is None:
        return None
    mine, theirs = scene.candidate.predict(), scene.champion.predict()
    if mine.score is not None:
        return float(np.mean(mine.prediction != theirs.prediction))
    distance = np.abs(mine.prediction - theirs.prediction)
    return float(np.mean(distance)) / scene.target_deviation


def shares(explained: Explained) -> dict[str, float]:
    """Return each feature's part in all contributions; they sum up to 1."""
    importance = explained.importance()
    total = sum(importance.values()) or 1.0
    return {name: size / total for name, size in importance.items()}


def in_words(
    apart: float | None,
    is_regression: bool,
    candidate: dict[str, float],
    champion: dict[str, float] | None,
    slices: Sequence[SliceResult],
) -> list[str]:
    """Return what changed, one thing a sentence.

    Parameters
    ----------
    apart : see :func:`disagreement`.
    candidate, champion : each feature's share of the contributions.
    """
    if apart is None or champion is None:
        return ["There is no champion to compare the explanation with."]
    unit = "standard deviations of the target" if is_regression else "of the rows"
    size = f"{apart:.2g} {unit}" if is_regression else f"{apart:.0%} {unit}"
    verb = "differ on average by" if is_regression else "name another class in"
    words = [f"The two models' answers {verb} {size}."]
    words += list(_shifts(candidate, champion))
    for verdict, found in (
        ("Worse", [s for s in slices if s.p_value < SURE]),
        ("Better", sorted((s for s in slices if s.p_better < SURE), key=_p_better)),
    ):
        named = [
            f"{s.column} {s.value} ({s.other:.4g} to {s.candidate:.4g}, "
            f"{s.row_count} rows)"
            for s in found[:5]
        ]
        if named:
            words.append(f"{verdict} than the champion where {'; '.join(named)}.")
    return words


def _p_better(found: SliceResult) -> float:
    return found.p_better


def _shifts(candidate: dict[str, float], champion: dict[str, float]) -> list[str]:
    names = sorted({*candidate, *champion})
    moved = {n: candidate.get(n, 0.0) - champion.get(n, 0.0) for n in names}
    told = sorted(
        (n for n in names if abs(moved[n]) >= SHIFT), key=lambda n: -abs(moved[n])
    )
    if not told:
        return ["Both lean on the same features, to within 5 % of all contributions."]
    return [
        f"{'More' if moved[n] > 0 else 'Less'} depends on {n}: "
        f"{champion.get(n, 0.0):.0%} of the contributions before, "
        f"{candidate.get(n, 0.0):.0%} now."
        for n in told[:5]
    ]
