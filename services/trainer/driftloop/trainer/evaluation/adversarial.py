"""Small changes of the inputs that turn an answer over, as far as a search finds."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from driftloop.models.onnx_model import Predictions
from driftloop.trainer.evaluation.subject import (
    Feeds,
    Scene,
    Spread,
    Subject,
    shifted,
    two_dimensional,
)
from driftloop.trainer.losses import Floats

BOX_SPREADS = 0.1
"""Greatest change of a number, in its standard deviations in training."""
TURNED_SPREADS = 0.5
"""A prediction that moves by more of the target's standard deviations is another
answer: five times what a model with one steep feature would do."""
SURE_LEAD = 0.5
"""Of the likeliest class over the next one. A row of which the model itself says that
it could be either is turned over by anything, and that is no fault."""
MIN_SURE_ROWS = 10
MAX_ROWS = 100
STEPS = 20
CHANGED_SHARE = 0.3


def flip_ratios(scene: Scene) -> dict[str, float]:
    """Return by role the share of sure answers that a small change turns over.

    A class turns over when another one is likelier; a prediction of a number, which is
    always sure, when it moves by more than :data:`TURNED_SPREADS`. Without the roles
    that have nothing to change, or too few sure answers.
    """
    scene = scene.thinned(MAX_ROWS)
    found = {}
    for role, subject in scene.subjects().items():
        sure = is_sure(subject.predict())
        if _boxes(subject, scene.spreads) and sure.sum() >= MIN_SURE_ROWS:
            found[role] = float(np.mean(flipped(subject, scene.spreads, scene)[sure]))
    return found


def is_sure(predicted: Predictions) -> npt.NDArray[np.bool_]:
    """Return (n_rows,) whether an answer is far ahead of every other one."""
    if predicted.score is None:
        return np.ones(len(predicted.prediction), dtype=bool)
    best = np.sort(two_dimensional(predicted.score), axis=1)
    return np.asarray(best[:, -1] - best[:, -2] >= SURE_LEAD)


def _boxes(subject: Subject, spreads: Mapping[str, Spread]) -> dict[str, float]:
    """Return how far each number may be moved; integers by whole steps."""
    sizes = {
        name: BOX_SPREADS * spread.deviation for name, spread in spreads.items()
        if name in subject.feeds
    }  # fmt: skip
    whole = {name: np.floor(s) for name, s in sizes.items() if spreads[name].is_whole}
    return {name: float(size) for name, size in (sizes | whole).items() if size > 0}


def flipped(
    subject: Subject, spreads: Mapping[str, Spread], scene: Scene
) -> npt.NDArray[np.bool_]:
    """Return (n_rows,) whether a change within the box turned the answer over.

    A random search over the corners and edges of the box that needs no gradient and
    so takes any graph: in each step a random part of the features goes to another
    end, for each row by itself, and stays there where that brings the answer nearer
    to turning. What it does not find may exist all the same.

    Source: the search is that of Andriushchenko et al. (2020), Square Attack, ECCV,
    for columns instead of pixels.
    """
    boxes = _boxes(subject, spreads)
    names, count = list(boxes), subject.row_count
    draw = np.random.default_rng(scene.seed)
    before = subject.predict()
    best = _nearness(before, before, scene.target_deviation)
    places = np.zeros((count, len(names)), dtype=np.int8)
    for step in range(STEPS):
        tried = draw.integers(-1, 2, size=places.shape).astype(np.int8)
        if step:  # the first one moves everything
            is_kept = draw.random(places.shape) > CHANGED_SHARE
            tried = np.where(is_kept, places, tried)
        moved = _moved(subject.feeds, names, boxes, tried)
        nearness = _nearness(before, subject.predict(moved), scene.target_deviation)
        is_nearer = nearness > best
        places[is_nearer], best[is_nearer] = tried[is_nearer], nearness[is_nearer]
    return best >= 1


def _moved(
    feeds: Feeds,
    names: list[str],
    boxes: Mapping[str, float],
    places: npt.NDArray[np.int8],
) -> Feeds:
    return {
        name: shifted(feeds[name], boxes[name] * places[:, [column]])
        for column, name in enumerate(names)
    }


def _nearness(before: Predictions, after: Predictions, deviation: float) -> Floats:
    """Return (n_rows,) how far an answer has come: 1 and more has turned over."""
    if before.score is None or after.score is None:
        way = np.abs(after.prediction - before.prediction)
        return np.asarray(way / (TURNED_SPREADS * deviation), dtype=np.float64)
    rows = np.arange(len(before.score))
    first = two_dimensional(before.score)
    answer = first.argmax(axis=1)
    score = two_dimensional(after.score).copy()
    own = score[rows, answer].copy()
    score[rows, answer] = -np.inf
    # the lead of the first answer, 0 where the lead is gone
    lead = own - score.max(axis=1)
    return np.asarray(np.where(lead <= 0, 1.0, 1 - lead), dtype=np.float64)
