"""Estimates of performance on rows without labels, each by another assumption.

No one of them is best everywhere: a calibration follows what the answers say of
themselves, a model of the loss follows the inputs, weights follow the population, and
the level of the last labelled rows follows what none of these can see. How they are put
together is :mod:`combining`'s matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from driftloop.models.columns import Floats
from driftloop.models.losses import log_losses, measured
from driftloop.monitor.estimates.arrays import (
    MIN_SHARE,
    Rows,
    expected_roc_auc,
    roc_auc,
    row_losses,
)
from driftloop.monitor.estimates.shift import (
    effective_count,
    logistic,
    quadratic,
    shift_of,
    standardised,
)
from scipy.spatial.distance import cdist
from scipy.special import expit

HALF_LIFE_WINDOWS = 4.0
"""Age at which a labelled row counts half."""
NEIGHBOURS = 25
MAX_ASKED_ROWS = 150
"""Of a window, evenly taken, whose neighbours are looked for: the costly part."""
MAX_EDGE_ROWS = 600
"""Of the labelled ones, evenly taken, that a row can be further out than."""
EDGE_NEIGHBOURS = 6
EDGE_QUANTILE = 0.9
"""Of the distances among labelled rows: beyond it a row is further out than usual."""
SLOPE = 0.75
"""Standard deviations of the target by which an answer may be wrong for each standard
deviation of the inputs that its row is further out. In 19 of 20 simulated windows with
such rows it takes no more; others were drawn to report it (tests/bench/estimate.py)."""
LOSS_RIDGE = 10.0
CALIBRATION_RIDGE = 1e-2
CONDITIONAL_RIDGE = 10.0
MAX_CLASSES = 20
"""Beyond it each class has too few rows for a calibration of its own."""

LEVEL = "level"


@dataclass(frozen=True)
class Opinions:
    """What each expert says of a window.

    Attributes
    ----------
    by_metric : metric to expert to value; :data:`LEVEL` is always there.
    alike_count : as how many labelled rows like the window's the reference counts.
    deviation : standard deviation of one row's loss, by metric.
    is_shifted : the window is of another population than the labelled rows.
    unseen : by how much a regression's loss may be higher for rows that are further out
        than any labelled one; in the target's unit.
    """

    by_metric: Mapping[str, Mapping[str, float]]
    alike_count: float
    deviation: Mapping[str, float]
    is_shifted: bool = False
    unseen: float = 0.0


def metrics_of(metric: str, class_count: int) -> list[str]:
    """Return the metrics that are estimated, the pipeline's first.

    >>> metrics_of("log_loss", 2), metrics_of("mae", 0)
    (['log_loss', 'accuracy', 'roc_auc'], ['mae'])
    """
    if not class_count:
        return [metric]
    return [metric, "accuracy", *(["roc_auc"] if class_count == 2 else [])]


def opinions(known: Rows, window: Rows, metric: str) -> Opinions:
    """Return every expert's estimate of the window's performance.

    Parameters
    ----------
    known : labelled rows of the version, a few dozen at least.
    window : rows without labels.
    """
    ages = np.zeros(known.count) if known.ages is None else known.ages
    recency: Floats = 0.5 ** (ages / HALF_LIFE_WINDOWS)
    points = standardised(
        np.hstack([known.points, _spread(known)]),
        np.hstack([window.points, _spread(window)]),
    )
    shift = shift_of(*points)
    alike = shift.weights * recency
    unseen = 0.0
    if known.class_count:
        found = _of_classes(known, window, metric, recency, alike, points)
    else:
        found = _of_numbers(known, metric, recency, alike, points)
        deviations = further_out(*points)
        unseen = SLOPE * deviations * float(np.std(known.labels()))
    deviation = {
        name: _deviation(row_losses(name, known), recency)
        for name in found
        if name != "roc_auc"
    }
    count = effective_count(alike) * shift.overlap
    return Opinions(found, count, deviation, is_shifted=shift.is_there, unseen=unseen)


def _spread(rows: Rows) -> Floats:
    """Return the answers as columns beside the points."""
    if not rows.class_count:
        return rows.said[:, None]
    return _odds(rows.said[:, 1:])


def _odds(shares: Floats) -> Floats:
    held = np.clip(shares, MIN_SHARE, 1 - MIN_SHARE)
    result: Floats = np.log(held / (1 - held))
    return result


def _deviation(losses: Floats, weights: Floats) -> float:
    middle = float(np.average(losses, weights=weights))
    return float(np.sqrt(np.average((losses - middle) ** 2, weights=weights)))


def _mean(metric: str, losses: Floats, weights: Floats) -> float:
    mean = np.array([np.average(losses, weights=weights)])
    return measured(metric, np.maximum(mean, 0.0) if metric != "accuracy" else mean)


# ── numbers ─────────────────────────────────────────────────────────────────


def _of_numbers(
    known: Rows,
    metric: str,
    recency: Floats,
    alike: Floats,
    points: list[Floats],
) -> dict[str, dict[str, float]]:
    """Direct estimation of the loss: from rows near by, by a line, by weights.

    Source: the idea of a model of the loss as in NannyML's direct loss estimation;
    nearest neighbours: Stone (1977), Annals of Statistics 5(4).
    """
    losses = row_losses(metric, known)
    mine, theirs = points
    line = _line(mine, losses, recency, theirs)
    said = {
        LEVEL: _mean(metric, losses, recency),
        "reweighted": _mean(metric, losses, alike),
        "neighbours": _near(metric, mine, losses, recency, theirs, line),
        "conditional": _mean(metric, line, np.ones(len(line))),
    }
    return {metric: said}


def _near(
    metric: str,
    mine: Floats,
    losses: Floats,
    weights: Floats,
    theirs: Floats,
    line: Floats,
) -> float:
    """Mean loss of the known rows next to the window's.

    They are looked for on some of its rows; the line says how these differ from the
    rest.
    """
    step = -(-len(theirs) // MAX_ASKED_ROWS)
    apart = cdist(theirs[::step], mine, "sqeuclidean")
    wanted = min(NEIGHBOURS, len(mine))
    places = np.argpartition(apart, wanted - 1, axis=1)[:, :wanted]
    means = np.average(losses[places], axis=1, weights=weights[places])
    beside = float(line.mean() - line[::step].mean())
    return _mean(metric, means + beside, np.ones(len(means)))


def _line(mine: Floats, losses: Floats, weights: Floats, theirs: Floats) -> Floats:
    """Return (n_rows,) losses by ridge on points and squares, held to losses seen."""
    design = quadratic(mine)
    penalty = np.full(design.shape[1], LOSS_RIDGE)
    penalty[0] = 0.0
    matrix = (design * weights[:, None]).T @ design + np.diag(penalty)
    found = np.linalg.solve(matrix, design.T @ (weights * losses))
    said: Floats = np.clip(quadratic(theirs) @ found, losses.min(), losses.max())
    return said


def further_out(known: Floats, window: Floats) -> float:
    """Return how far the window's rows lie beyond the labelled ones, on average.

    A row's distance is that to its sixth nearest labelled one; what
    counts is by how much it is greater than the distances among labelled rows. What is
    learned stays as it is at the edge of what was seen, and the truth goes on.

    Parameters
    ----------
    known, window : (n_rows, width) in standard deviations.

    >>> known = np.random.default_rng(0).normal(size=(500, 2))
    >>> further_out(known, known[:100]) < 0.02 < 3 < further_out(known, known + 4)
    True
    """
    edge = known[:: -(-len(known) // MAX_EDGE_ROWS)]
    wanted = min(EDGE_NEIGHBOURS, len(edge) - 1)
    if wanted < 1:
        return 0.0
    asked = window[:: -(-len(window) // MAX_ASKED_ROWS)]
    some = edge[:: -(-len(edge) // MAX_ASKED_ROWS)]
    apart = np.partition(cdist(asked, edge), wanted - 1, axis=1)[:, wanted - 1]
    usual = np.partition(cdist(some, edge), wanted, axis=1)[:, wanted]  # 0: itself
    limit = np.quantile(usual, EDGE_QUANTILE)
    beyond = np.mean(np.maximum(apart - limit, 0.0))
    return float(max(beyond - np.mean(np.maximum(usual - limit, 0.0)), 0.0))


# ── classes ─────────────────────────────────────────────────────────────────


def _of_classes(
    known: Rows,
    window: Rows,
    metric: str,
    recency: Floats,
    alike: Floats,
    points: list[Floats],
) -> dict[str, dict[str, float]]:
    """Take metrics' expectations under probabilities calibrated in three ways.

    Source: Kull, Silva Filho and Flach (2017), Beyond Sigmoids (beta calibration);
    confidence-based estimation of performance as in NannyML; the weighted one after
    Bialek et al. (2024).
    """
    names = metrics_of(metric, known.class_count)
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for name in names:
        value = _known_value(name, known, recency)
        if value is not None:
            found[name][LEVEL] = value
        if name != "roc_auc":
            found[name]["reweighted_level"] = _mean(
                name, row_losses(name, known), alike
            )
    if known.class_count > MAX_CLASSES:
        return found
    chances = {
        "calibrated": _calibrated(known, window, recency),
        "reweighted": _calibrated(known, window, alike),
        "conditional": _calibrated(known, window, recency, points),
    }
    for expert, chance in chances.items():
        for name in names:
            value = _expected(name, window.said, chance)
            if value is not None:
                found[name][expert] = value
    return found


def _known_value(metric: str, known: Rows, weights: Floats) -> float | None:
    if metric == "roc_auc":
        return roc_auc(known.said[:, 1], (known.labels() == 1).astype(np.float64))
    return _mean(metric, row_losses(metric, known), weights)


def _expected(metric: str, said: Floats, chance: Floats) -> float | None:
    if metric == "roc_auc":
        return expected_roc_auc(said[:, 1], chance[:, 1])
    if metric == "accuracy":
        rows = np.arange(len(said))
        return float(np.mean(chance[rows, said.argmax(axis=1)]))
    losses = log_losses(said.ravel()).reshape(said.shape)
    return float(np.mean(np.sum(chance * losses, axis=1)))


def _calibrated(
    known: Rows,
    window: Rows,
    weights: Floats,
    points: list[Floats] | None = None,
) -> Floats:
    """Return (n_rows, n_classes) calibrated chances of the window's rows.

    Parameters
    ----------
    points : both sides' points, where the calibration may depend on the inputs.
    """
    count, truth = known.class_count, known.labels()
    result = np.zeros((window.count, count))
    classes = [1] if count == 2 else range(count)
    for number in classes:
        mine, theirs = _beta(known.said[:, number]), _beta(window.said[:, number])
        ridge = CALIBRATION_RIDGE
        if points is not None:
            mine = np.hstack([quadratic(points[0]), mine[:, 1:]])
            theirs = np.hstack([quadratic(points[1]), theirs[:, 1:]])
            ridge = CONDITIONAL_RIDGE
        outcome = (truth == number).astype(np.float64)
        result[:, number] = expit(theirs @ logistic(mine, outcome, weights, ridge))
    if count == 2:
        result[:, 0] = 1 - result[:, 1]
    else:
        result /= np.maximum(result.sum(axis=1, keepdims=True), MIN_SHARE)
    return result


def _beta(share: Floats) -> Floats:
    """Return (n_rows, 3): a constant, ln p and -ln (1 - p)."""
    held = np.clip(share, MIN_SHARE, 1 - MIN_SHARE)
    return np.column_stack([np.ones(len(held)), np.log(held), -np.log1p(-held)])
