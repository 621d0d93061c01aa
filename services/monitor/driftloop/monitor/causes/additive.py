"""Small models that a verdict asks: of which stretch is a row, what follows from it.

All are additive over binned columns and solved in closed form or by a few Newton steps,
so that a verdict takes milliseconds and depends on no drawn number.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from driftloop.models.columns import Floats
from driftloop.monitor.causes.stretch import Stretch, Words

BINS = 8
MAX_LISTED_CODES = 31
RIDGES = (1.0, 4.0, 16.0, 64.0)
"""Penalties tried; that with the least leave-one-out error is taken."""
CLASSIFIER_RIDGE = 0.5
NEWTON_STEPS = 8
FOLDS = 4
MAX_LOG_ODDS = 8.0


@dataclass(frozen=True)
class Design:
    """Columns as 0 and 1: one of each bin of an amount, of each code, of null.

    ``edges`` are by column; values beyond the first and last have bins of their own.
    ``sources`` are listed where who sent a row is a column too.
    """

    edges: dict[str, Floats]
    listed: dict[str, list[str]]
    sources: list[str]

    def matrix(self, rows: Stretch, *, is_clipped: bool = False) -> Floats:
        """Return (n_rows, n_bins), with a constant first.

        Parameters
        ----------
        is_clipped : values beyond the first and last count as these.
        """
        parts = [np.ones((len(rows), 1))]
        for name, edges in self.edges.items():
            values = rows.amounts[name]
            at = np.searchsorted(edges, values, side="right")
            at = np.where(values == edges[-1], len(edges) - 1, at)
            if is_clipped and len(edges) > 1:
                at = np.clip(at, 1, len(edges) - 1)
            at = np.where(np.isnan(values), len(edges) + 1, at)
            parts.append(_one_hot(at, len(edges) + 2))
        for name, listed in self.listed.items():
            order = {code: number for number, code in enumerate(listed)}
            other = len(listed)
            found = [order.get(code, other) for code in rows.codes[name].tolist()]
            parts.append(_one_hot(np.array(found, dtype=np.int64), other + 1))
        if self.sources:
            order = {source: number for number, source in enumerate(self.sources)}
            found = [order.get(s, len(order)) for s in rows.source.tolist()]
            parts.append(_one_hot(np.array(found, dtype=np.int64), len(order) + 1))
        return np.hstack(parts)

    def blocks(self) -> dict[str, slice]:
        """Return where the bins of each amount are among the matrix' columns."""
        ends = np.cumsum([1, *(len(edges) + 2 for edges in self.edges.values())])
        return {
            name: slice(int(first), int(end))
            for name, first, end in zip(self.edges, ends[:-1], ends[1:], strict=True)
        }


def _one_hot(at: npt.NDArray[np.int64], width: int) -> Floats:
    found = np.zeros((len(at), width))
    found[np.arange(len(at)), at] = 1.0
    return found


def design_of(rows: Stretch, leave_out: Collection[str] = ()) -> Design:
    """Return the bins of a stretch's columns: quantiles, the most frequent codes."""
    edges = {}
    for name, values in rows.amounts.items():
        known = values[np.isfinite(values)]
        if name not in leave_out and len(known):
            edges[name] = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
    listed = {}
    for name, codes in rows.codes.items():
        if name not in leave_out:
            values, counts = np.unique(codes.astype(str), return_counts=True)
            order = np.argsort(-counts, kind="stable")[:MAX_LISTED_CODES]
            listed[name] = [str(each) for each in values[order]]
    sources = rows.sources if "source" not in leave_out else []
    return Design(
        edges, listed, sources if 1 < len(sources) <= MAX_LISTED_CODES else []
    )


@dataclass(frozen=True)
class Fitted:
    """A ridge regression.

    Attributes
    ----------
    weights : (n_bins, n_outputs).
    residuals : (n_rows, n_outputs) of each row by a fit without it.
    """

    weights: Floats
    residuals: Floats


def regressed(matrix: Floats, target: Floats) -> Fitted:
    """Fit a ridge regression; its penalty by the leave-one-out error.

    Source: the residuals without each row follow from the hat matrix, Allen (1974),
    Technometrics 16; ridge regression is Hoerl and Kennard's (1970), Technometrics 12.
    """
    gram, product = matrix.T @ matrix, matrix.T @ target
    best: Fitted | None = None
    for ridge in RIDGES:
        penalty = np.full(len(gram), ridge)
        penalty[0] = 1e-6
        inverse = np.linalg.inv(gram + np.diag(penalty))
        weights = inverse @ product
        leverage = ((matrix @ inverse) * matrix).sum(axis=1)
        left = np.maximum(1 - leverage, 0.05)[:, None]
        residuals = (target - matrix @ weights) / left
        if best is None or (residuals**2).sum() < (best.residuals**2).sum():
            best = Fitted(weights, residuals)
    assert best is not None  # noqa: S101 - there are penalties
    return best


def regressed_without(
    matrix: Floats, targets: Floats, blocks: Sequence[slice]
) -> list[Fitted]:
    """Fit each target as :func:`regressed` does, without a block of the columns.

    All fits share one inverse a penalty: what a block takes with it follows from that
    block of the inverse alone (its Schur complement), so that thirty fits cost little
    more than one.

    Parameters
    ----------
    targets : (n_rows, n_targets).
    blocks : of each target, the columns that are left out; their weights are 0.

    Source: the inverse of a partitioned matrix, Banachiewicz (1937); see Henderson and
    Searle (1981), SIAM Review 23.
    """
    gram, product = matrix.T @ matrix, matrix.T @ targets
    weights = np.zeros(product.shape)
    residuals, least = np.zeros(targets.shape), np.full(len(blocks), np.inf)
    for ridge in RIDGES:
        penalty = np.full(len(gram), ridge)
        penalty[0] = 1e-6
        inverse = np.linalg.inv(gram + np.diag(penalty))
        spread = matrix @ inverse
        fitted = inverse @ product
        leverage = np.repeat((spread * matrix).sum(axis=1)[:, None], len(blocks), 1)
        for at, block in enumerate(blocks):
            own, part = inverse[block, block], spread[:, block]
            fitted[:, at] -= inverse[:, block] @ np.linalg.solve(own, fitted[block, at])
            fitted[block, at] = 0.0  # but for rounding it is so
            leverage[:, at] -= (part * np.linalg.solve(own, part.T).T).sum(axis=1)
        left = (targets - matrix @ fitted) / np.maximum(1 - leverage, 0.05)
        errors = (left**2).sum(axis=0)
        is_better = errors < least
        weights[:, is_better] = fitted[:, is_better]
        residuals[:, is_better] = left[:, is_better]
        least = np.minimum(errors, least)
    return [
        Fitted(weights[:, at : at + 1], residuals[:, at : at + 1])
        for at in range(len(blocks))
    ]


def learnable(matrix: Floats, target: Floats) -> float:
    """Return the share of a target's variance that a fresh fit predicts, at least 0.

    >>> x = np.hstack([np.ones((60, 1)), np.eye(3)[np.arange(60) % 3]])
    >>> round(learnable(x, x[:, 1:2] * 5), 1)
    1.0
    """
    varied = ((target - target.mean(axis=0)) ** 2).sum()
    if varied <= 0:
        return 0.0
    left = (regressed(matrix, target).residuals ** 2).sum()
    return max(0.0, float(1 - left / varied))


def shares_of_now(before: Floats, now: Floats) -> tuple[Floats, Floats]:
    """Return for each row the probability that it is of now, by its columns.

    Both stretches count alike, however long they are, so 0.5 is what is usual in
    either. Each row is judged by a fit without its fold (rows beside each other are of
    one fold, as neighbours resemble each other).

    Returns
    -------
    (n_before,), (n_now,) probabilities.

    Source: the classifier gives the density ratio, Bickel, Brückner and Scheffer
    (2009), JMLR 10; as a two-sample test it is Lopez-Paz and Oquab's (2017), ICLR.
    """
    matrix = np.vstack([before, now])
    is_now = np.repeat([0.0, 1.0], [len(before), len(now)])
    weight = np.repeat([0.5 / len(before), 0.5 / len(now)], [len(before), len(now)])
    weight *= 2 * min(len(before), len(now))
    fold = np.concatenate(
        [np.arange(len(part)) * FOLDS // max(len(part), 1) for part in (before, now)]
    )
    found = np.zeros(len(matrix))
    for one in range(FOLDS):
        rest = fold != one
        weights = _logistic(matrix[rest], is_now[rest], weight[rest])
        found[~rest] = _share(matrix[~rest] @ weights)
    return found[: len(before)], found[len(before) :]


def _share(log_odds: Floats) -> Floats:
    clipped = np.clip(log_odds, -MAX_LOG_ODDS, MAX_LOG_ODDS)
    return np.asarray(1 / (1 + np.exp(-clipped)))


def _logistic(matrix: Floats, outcome: Floats, weight: Floats) -> Floats:
    """Return the weights of a penalised logistic regression, by Newton steps."""
    weights = np.zeros(matrix.shape[1])
    penalty = np.full(matrix.shape[1], CLASSIFIER_RIDGE)
    penalty[0] = 1e-3
    for _ in range(NEWTON_STEPS):
        share = _share(matrix @ weights)
        slope = matrix.T @ (weight * (outcome - share)) - penalty * weights
        curve = np.maximum(weight * share * (1 - share), 1e-6)
        hessian = (matrix * curve[:, None]).T @ matrix + np.diag(penalty)
        step = np.linalg.solve(hessian, slope)
        weights = weights + np.clip(step, -4, 4)
        if np.abs(step).max() < 1e-3:
            break
    return weights


def codes_of(rows: Stretch, name: str) -> Words:
    """Return a slice's column: the sources, or a code."""
    return rows.source if name == "source" else rows.codes[name]
