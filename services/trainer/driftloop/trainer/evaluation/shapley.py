"""What each feature has to do with an answer: Shapley values on the served graph."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from driftloop.trainer.evaluation.subject import Subject, two_dimensional
from driftloop.trainer.losses import Floats

BACKGROUND_ROWS = 8
"""Rows that an answer is compared with; each is walked from in an order of the
features and in the reverse one."""
MAX_ROWS = 48
MIN_ROWS = 8
MAX_PREDICTIONS = 12_000


@dataclass(frozen=True)
class Explained:
    """Contributions to the answers of some rows.

    Attributes
    ----------
    features : names, in the order of the columns.
    values : (n_rows, n_features); with ``base`` they sum up to ``answers``.
    base : mean answer on the background rows, for each row's class.
    answers : (n_rows,) predictions, or log odds of the likeliest class.
    classes : (n_rows,) which class that is; empty for regression.
    """

    features: tuple[str, ...]
    values: Floats
    base: Floats
    answers: Floats
    classes: tuple[str, ...]

    def importance(self) -> dict[str, float]:
        """Return the mean size of each feature's contributions, greatest first."""
        sizes = np.abs(self.values).mean(axis=0)
        found = dict(zip(self.features, sizes.tolist(), strict=True))
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def rows_to_explain(subject: Subject) -> npt.NDArray[np.int64]:
    """Return rows evenly over time; fewer where there are many features."""
    walks = 2 * BACKGROUND_ROWS * (len(subject.feeds) + 1)
    wanted = int(np.clip(MAX_PREDICTIONS // walks, MIN_ROWS, MAX_ROWS))
    spread = np.linspace(0, subject.row_count - 1, min(wanted, subject.row_count))
    return np.unique(spread.astype(np.int64))


def explain(subject: Subject, index: npt.NDArray[np.int64], seed: int) -> Explained:
    """Explain the answers to some rows of the hold-out.

    Walks from a background row to the explained one, features changing one by one in
    a random order and in its reverse; the change of the answer at a feature's turn is
    its contribution. Contributions sum up exactly to the difference of the answer from
    the background's mean, and are exact where features act by themselves (a linear
    model); elsewhere they are an estimate. Every feature is one player, a category
    with all its columns of the graph. For classes the log odds are explained.

    Source: Štrumbelj and Kononenko (2014), Explaining Prediction Models and Individual
    Predictions with Feature Contributions, for walks; Mitchell, Cooper, Frank and
    Holmes (2022), Sampling Permutations for Shapley Value Estimation, JMLR 23(43), for
    pairs of reverse orders; Lundberg and Lee (2017), NeurIPS, for the values.
    """
    explained, names = subject.take(index), tuple(subject.feeds)
    likeliest = _likeliest(explained)
    background = np.linspace(0, subject.row_count - 1, BACKGROUND_ROWS)
    walks = _walks(len(index), background.astype(np.int64), len(names), seed)
    of = likeliest[walks.row]
    values = np.zeros((len(index), len(names)))
    first = before = _answers(subject, index, walks, 0, of)
    for step in range(1, len(names) + 1):
        after = _answers(subject, index, walks, step, of)
        np.add.at(values, (walks.row, walks.order[:, step - 1]), after - before)
        before = after
    count = 2 * len(background)
    classes = subject.target.classes
    return Explained(
        names,
        values / count,
        np.bincount(walks.row, first, len(index)) / count,
        np.bincount(walks.row, before, len(index)) / count,
        tuple(classes[number] for number in likeliest) if classes else (),
    )


@dataclass(frozen=True)
class _Walks:
    """From which row to which one, and in which order features change."""

    row: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    turn: npt.NDArray[np.int64]


def _walks(
    n_rows: int, background: npt.NDArray[np.int64], n_features: int, seed: int
) -> _Walks:
    draw = np.random.default_rng(seed)
    row = np.repeat(np.arange(n_rows), len(background))
    start = np.tile(background, n_rows)
    order = np.array([draw.permutation(n_features) for _ in row])
    both = np.concatenate([order, order[:, ::-1]])
    return _Walks(np.tile(row, 2), np.tile(start, 2), both, np.argsort(both, axis=1))


def _answers(
    subject: Subject,
    index: npt.NDArray[np.int64],
    walks: _Walks,
    step: int,
    of: npt.NDArray[np.int64],
) -> Floats:
    """Return (n_walks,) answers after so many steps."""
    feeds = {}
    for column, (name, values) in enumerate(subject.feeds.items()):
        source = np.where(walks.turn[:, column] < step, index[walks.row], walks.start)
        feeds[name] = values[source]
    predicted = subject.model.predict_arrays(feeds, len(walks.row))
    return subject.outputs(predicted, of)


def _likeliest(subject: Subject) -> npt.NDArray[np.int64]:
    """Return (n_rows,) the likeliest class of each; 0 for regression."""
    score = subject.predict().score
    if score is None:
        return np.zeros(subject.row_count, dtype=np.int64)
    result: npt.NDArray[np.int64] = two_dimensional(score).argmax(axis=1)
    return result
