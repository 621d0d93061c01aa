"""Which updates of a round count, and the weights that they give: pure functions.

Sources
-------
Averaging: McMahan et al. (2017), arXiv 1602.05629, algorithm 1. Clipping: McMahan et
al. (2018), Learning Differentially Private Recurrent Language Models, arXiv 1710.06963,
section 2 (flat clipping). Trimmed mean: Yin et al. (2018), Byzantine-Robust Distributed
Learning, arXiv 1803.01498, definition 2.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
from driftloop.contracts.federated import (
    FederationRules,
    RefusedBecause,
    SiteShare,
)

Floats = npt.NDArray[np.float64]
Refusal = tuple[RefusedBecause, str]


@dataclass(frozen=True)
class Round:
    """A round that takes updates.

    Attributes
    ----------
    weights : (n_weights,) that it began with.
    """

    number: int
    weights: tuple[float, ...]
    opened_at: datetime
    deadline: datetime


@dataclass(frozen=True)
class Update:
    """What a site has sent; ``values`` is (n_weights,)."""

    site: str
    number: int
    sent_at: datetime
    row_count: int
    values: tuple[float, ...]


def refusal(update: Update, now: Round, sites: Collection[str]) -> Refusal | None:
    """Return why an update does not count; None: it does.

    Parameters
    ----------
    sites : whose updates of this round count already.
    """
    if update.number != now.number:
        return "unknown_round", f"round {now.number} is open, not {update.number}"
    if update.sent_at > now.deadline:
        return "late", f"sent at {update.sent_at:%H:%M:%S}, after the deadline"
    if update.site in sites:
        return "double", "the site's first update of the round counts"
    if len(update.values) != len(now.weights):
        return (
            "wrong_shape",
            f"{len(update.values)} numbers; the round has {len(now.weights)} weights",
        )
    if not all(map(math.isfinite, update.values)):
        return "not_finite", "a number is NaN or infinite; lower the learning rate"
    return None


def aggregated(
    now: Round, updates: Sequence[Update], rules: FederationRules
) -> tuple[list[float], list[SiteShare]]:
    """Return the new weights, and what each site's update was; by the site's name.

    The mean of the clipped updates, weighted by rows. With a trim ratio the weights of
    each position are sorted over the sites and as many left out at both ends; rows do
    not count then, since a site could claim any number of them.
    """
    ordered = sorted(updates, key=lambda update: update.site)
    clipped, shares = [], []
    for update in ordered:
        values, norm = clip(np.array(update.values), rules.clip_norm)
        clipped.append(values)
        shares.append(
            SiteShare(
                site=update.site,
                row_count=update.row_count,
                norm=norm,
                is_clipped=norm > rules.clip_norm,
            )
        )
    stack = np.array(clipped)
    if rules.trim_ratio:
        step = trimmed_mean(stack, rules.trim_ratio)
    else:
        step = np.average(stack, axis=0, weights=[u.row_count for u in ordered])
    return (np.array(now.weights) + step).tolist(), shares


def clip(values: Floats, longest: float) -> tuple[Floats, float]:
    """Return the values, shortened to a length (L2), and how long they were.

    >>> clip(np.array([3.0, 4.0]), 1.0)
    (array([0.6, 0.8]), 5.0)
    """
    greatest = float(np.max(np.abs(values), initial=0.0))
    if greatest == 0:
        return values, 0.0
    # of huge values the squares overflow; of the scaled ones they do not
    norm = min(greatest * float(np.linalg.norm(values / greatest)), MAX_NORM)
    if norm <= longest:
        return values, norm
    unit = values / greatest
    return unit / np.linalg.norm(unit) * longest, norm


MAX_NORM = float(np.finfo(np.float64).max)


def trimmed_mean(stack: Floats, ratio: float) -> Floats:
    """Return (n_weights,) means over the sites without the ends of each column.

    Parameters
    ----------
    stack : (n_sites, n_weights).

    >>> trimmed_mean(np.array([[1.0], [2.0], [900.0]]), 0.34)
    array([2.])
    """
    count = int(ratio * len(stack))
    kept = np.sort(stack, axis=0)[count : len(stack) - count]
    mean: Floats = kept.mean(axis=0)
    return mean


def next_round(
    now: Round, weights: Sequence[float], opened_at: datetime, minutes: float
) -> Round:
    """Return the round after one that ended with these weights."""
    until = opened_at + timedelta(minutes=minutes)
    return Round(now.number + 1, tuple(weights), opened_at, until)
