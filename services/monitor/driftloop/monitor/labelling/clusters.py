"""A few rows that stand for many: weighted k-means, and a row near each centre.

Source: Zhdanov (2019), Diverse mini-batch active learning, arXiv 1901.05954: clusters
of rows weighted by how informative they are, one row of each. Seeding: Arthur and
Vassilvitskii (2007), k-means++, SODA.
"""

import numpy as np
from driftloop.models.columns import Floats
from scipy.spatial.distance import cdist

MAX_ROUNDS = 15
"""Of Lloyd's algorithm: its first rounds do nearly all of the work."""
NEARNESS = 3
"""Power by which a row's weight falls with its distance to the centre: a doubtful row
somewhat aside stands for the doubtful ones better than a sure one in the middle."""


def representatives(
    points: Floats, weights: Floats, count: int, dice: np.random.Generator
) -> list[int]:
    """Return at most ``count`` different rows, one of each cluster.

    That of the greatest weight by the cube of 1 + its distance to the centre. Fewer
    rows where there are fewer different points.

    Parameters
    ----------
    points : (n_rows, width), a unit apart where they are usual neighbours.
    weights : (n_rows,) positive; centres are drawn towards heavy rows.

    >>> points = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    >>> sorted(representatives(points, np.ones(6), 2, np.random.default_rng(0)))
    [1, 4]
    """
    if not len(points):
        return []
    centres = _moved(points, weights, _seeded(points, weights, count, dice))
    worth = weights / (1 + cdist(centres, points)) ** NEARNESS
    found = []
    for of_centre in worth:
        place = int(np.argmax(of_centre))
        if of_centre[place] <= 0:
            break
        found.append(place)
        worth[:, np.all(points == points[place], axis=1)] = 0.0
    return found


def _seeded(
    points: Floats, weights: Floats, count: int, dice: np.random.Generator
) -> Floats:
    """Draw rows far from those drawn before, and heavy ones, more often."""
    apart = np.ones(len(points))
    places: list[int] = []
    while len(places) < count:
        chances = weights * apart**2
        if chances.sum() <= 0:
            break  # all points are taken
        place = int(dice.choice(len(points), p=chances / chances.sum()))
        step = np.linalg.norm(points - points[place], axis=1)
        apart = np.minimum(apart, step) if places else step
        places.append(place)
    return points[places].copy()


def _moved(points: Floats, weights: Floats, centres: Floats) -> Floats:
    """Move each centre to the middle of its rows, until none moves."""
    owners = None
    for _ in range(MAX_ROUNDS):
        nearest = cdist(points, centres).argmin(axis=1)
        if owners is not None and np.array_equal(nearest, owners):
            break
        owners = nearest
        for centre in np.unique(owners):
            own = owners == centre
            centres[centre] = np.average(points[own], axis=0, weights=weights[own])
    return centres
