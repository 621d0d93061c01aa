"""How much of a risen error comes of other inputs, and how much of another relation.

Two decompositions that both add up to the rise:

* inputs and relation, on the rows that both stretches have in common: Cai, Namkoong and
  Yadlowsky (2023), Diagnosing Model Performance Under Distribution Shift. Where the
  stretches have nothing in common no data can tell the two apart, and that is said.
* mix and rate by slices: Kitagawa (1955), JASA 50; Oaxaca (1973) and Blinder (1973) for
  regressions.
"""

from dataclasses import dataclass

import numpy as np
from driftloop.models.columns import Floats
from driftloop.monitor.causes.additive import (
    Design,
    codes_of,
    design_of,
    learnable,
    regressed,
    regressed_without,
    shares_of_now,
)
from driftloop.monitor.causes.moved import Moved
from driftloop.monitor.causes.stretch import Stretch

MAX_SLICES = 12
RUNS = 12
"""Stretches are cut into so many runs, whose spread is the noise of a mean."""
MIN_SLICE_SHARE = 0.02
MIN_KNOWN = 20
TOLD_APART = 1.5
"""Of what the target does by itself: so far it should have gone to say whether."""
STAYED = (0.3, 0.7)
"""Of the way that the target should have gone: what it did not go of it."""
MIN_RUNS = 4
USUAL_RATIO = 1.4
"""Of the largest step between runs of residuals: so far it may go by chance."""


@dataclass(frozen=True)
class Split:
    """A rise of the mean loss in its parts, in the loss's unit.

    Attributes
    ----------
    inputs, relation : add up to ``total``.
    noise : standard error of ``relation``.
    overlap : what the stretches have in common, 0 to 1.
    shift : how well a row's stretch is told from its inputs: 0 by chance, 1 always.
    """

    total: float
    inputs: float
    relation: float
    noise: float
    overlap: float
    shift: float


def split(before: Stretch, now: Stretch, leave_out: set[str], block_rows: int) -> Split:
    """Split the rise by inputs and relation, on the rows in common.

    A row counts by how usual it is in the other stretch; these weights are bounded,
    unlike those of importance sampling.
    """
    design = design_of(before, leave_out)
    there, here = shares_of_now(design.matrix(before), design.matrix(now))
    common = (_mean(before.loss, there), _mean(now.loss, 1 - here))
    total = float(now.loss.mean() - before.loss.mean())
    relation = common[1] - common[0]
    spread = max(
        _spread(before.loss, there, block_rows),
        _spread(now.loss, 1 - here, block_rows),
    )
    blocks = [max(1.0, len(rows) / block_rows) for rows in (before, now)]
    noise = spread**2 * sum(1 / count for count in blocks)
    ranks = (there[:, None] < here[None, :]).mean()
    ties = (there[:, None] == here[None, :]).mean() / 2
    return Split(
        total=total,
        inputs=total - relation,
        relation=relation,
        noise=noise**0.5,
        overlap=float(np.clip(2 * there.mean(), 0, 1)),
        shift=float(np.clip(2 * (ranks + ties) - 1, 0, 1)),
    )


def _mean(values: Floats, weights: Floats) -> float:
    total = float(weights.sum())
    return float(values @ weights / total) if total > 0 else float(values.mean())


def _spread(values: Floats, weights: Floats, block_rows: int) -> float:
    """Return the standard deviation of a weighted mean from block to block.

    Rows of a day resemble each other and days differ: a mean is as sure as its number
    of blocks says, not of rows.
    """
    blocks = len(values) // block_rows
    if blocks < 2:
        return 0.0
    parts = zip(
        np.array_split(values, blocks), np.array_split(weights, blocks), strict=True
    )
    return float(np.std([_mean(v, w) for v, w in parts], ddof=1))


@dataclass(frozen=True)
class Mix:
    """A rise by the slices of one column.

    Attributes
    ----------
    column : ``source`` or a code.
    moved : total variation of the slices' shares, beyond what is usual.
    mix : part of the rise that follows from the shares alone.
    rate : part from slices that became harder.
    slices : by how much of the rise each carries, the largest first.
    """

    column: str
    moved: float
    mix: float
    rate: float
    slices: tuple[tuple[str, float], ...]


def mixes(before: Stretch, now: Stretch, leave_out: set[str]) -> list[Mix]:
    """Return the rise by each column with few values, most of it by the mix first."""
    names = ["source", *(n for n in before.codes if n not in leave_out)]
    found = [_mix(before, now, name) for name in names]
    return sorted((m for m in found if m is not None), key=lambda m: -m.mix)


def _mix(before: Stretch, now: Stretch, name: str) -> Mix | None:
    there, here = codes_of(before, name), codes_of(now, name)
    values = sorted({*there.tolist(), *here.tolist()})
    if not 1 < len(values) <= MAX_SLICES:
        return None
    mix, rate, moved, carried = 0.0, 0.0, 0.0, {}
    usual = before.loss.mean()
    for value in values:
        one, other = there == value, here == value
        shares = float(one.mean()), float(other.mean())
        if min(shares) < MIN_SLICE_SHARE:
            if shares[0] < MIN_SLICE_SHARE < shares[1]:
                return None  # a slice that was not there: nothing to compare with
            continue
        losses = float(before.loss[one].mean()), float(now.loss[other].mean())
        step = shares[1] - shares[0]
        mix += step * (sum(losses) / 2 - usual)
        rate += (losses[1] - losses[0]) * sum(shares) / 2
        moved += abs(step) / 2
        carried[value] = step * (losses[0] - usual)
    chance = sum(
        (2 / np.pi * p * (1 - p) * (1 / len(there) + 1 / len(here))) ** 0.5
        for p in [float((there == v).mean()) for v in values]
    )
    order = sorted(carried.items(), key=lambda item: -item[1])
    return Mix(name, max(0.0, moved - chance / 2), mix, rate, tuple(order))


def is_unmoved_within(
    before: Stretch, now: Stretch, mix: Mix, leave_out: set[str]
) -> float:
    """Return how far inputs are as before once the slices' shares are made equal, 0..1.

    Of the earlier rows so many are taken from each slice as there are now; what still
    tells the stretches apart is not the mix.
    """
    there, here = codes_of(before, mix.column), codes_of(now, mix.column)
    taken = np.zeros(len(before), dtype=np.bool_)
    shares = {v: float((here == v).mean()) for v in set(here.tolist())}
    sizes = [(there == v).sum() / s for v, s in shares.items() if s >= MIN_SLICE_SHARE]
    count = min(sizes) if sizes else 0
    for value, share in shares.items():
        places = np.flatnonzero(there == value)
        wanted = min(len(places), round(count * share))
        if wanted:
            taken[places[np.linspace(0, len(places) - 1, wanted).astype(int)]] = True
    if taken.sum() < 40:
        return 0.0
    rest = before.where(taken)
    design = design_of(rest, leave_out | {mix.column})
    a, b = shares_of_now(design.matrix(rest), design.matrix(now))
    ranks = (a[:, None] < b[None, :]).mean() + (a[:, None] == b[None, :]).mean() / 2
    return float(np.clip(1.6 - 2 * ranks, 0, 1))


def is_untrue(
    before: Stretch, now: Stretch, moved: Moved, leave_out: set[str]
) -> float:
    """Return whether the target takes no notice of how a column moved, 0 to 1.

    A small model of the target says how far it should have gone with the column's new
    values. It went there if the world moved (0), and stayed if only the values are
    wrong (1). 0.5: it should have gone no farther than it goes by itself, which tells
    nothing. Values beyond all earlier ones count as the nearest of these.
    """
    others = design_of(before, leave_out | {moved.column})
    one = Design({moved.column: design_of(before).edges[moved.column]}, {}, [])
    there = np.hstack([others.matrix(before), one.matrix(before)])
    seen = one.matrix(now, is_clipped=True)
    here = np.hstack([others.matrix(now), seen])
    fitted = regressed(there, before.target)
    width = seen.shape[1]
    step = seen.mean(axis=0) - there[:, -width:].mean(axis=0)
    wanted = step @ fitted.weights[-width:]
    output = int(np.argmax(np.abs(wanted)))
    left = fitted.residuals[:, output]
    runs = max(2, min(RUNS, len(left) // max(len(now), 1)))
    usual = max(abs(float(part.mean())) for part in np.array_split(left, runs))
    if abs(wanted[output]) <= TOLD_APART * usual:
        return 0.5
    bias = (now.target - here @ fitted.weights)[:, output].mean()
    stayed = float(-bias / wanted[output])
    return float(np.clip((stayed - STAYED[0]) / (STAYED[1] - STAYED[0]), 0, 1))


def unexplained(before: Stretch, now: Stretch, leave_out: set[str]) -> dict[str, float]:
    """Return how far each amount left what the other columns say of it.

    In interquartile ranges of the column, seen from the rows just before, and beyond
    the largest step between neighbouring runs of the earlier rows: a season moves a
    column far, and in steps that it had before. When the world moves its columns move
    together; a broken sensor moves alone.
    """
    design = design_of(before, leave_out)
    there, here = design.matrix(before), design.matrix(now)
    found = dict.fromkeys(now.amounts, 0.0)
    for known, names in _by_known_rows(before, now).items():
        rows = np.frombuffer(known, dtype=np.bool_)
        matrix = there if rows.all() else there[rows]
        blocks = design.blocks()
        targets = np.column_stack([before.amounts[name][rows] for name in names])
        fits = regressed_without(
            matrix, targets, [blocks.get(name, slice(0, 0)) for name in names]
        )
        for name, target, fitted in zip(names, targets.T, fits, strict=True):
            values = now.amounts[name]
            seen = np.isfinite(values)
            rest = (values[seen] - (here[seen] @ fitted.weights)[:, 0]).mean()
            found[name] = _left(target, fitted.residuals[:, 0], float(rest), len(now))
    return found


def _by_known_rows(before: Stretch, now: Stretch) -> dict[bytes, list[str]]:
    """Return the amounts with enough values, by the rows before in which these are."""
    found: dict[bytes, list[str]] = {}
    for name, values in now.amounts.items():
        known = np.isfinite(before.amounts[name])
        if min(known.sum(), np.isfinite(values).sum()) >= MIN_KNOWN:
            found.setdefault(known.tobytes(), []).append(name)
    return found


def _left(target: Floats, residuals: Floats, rest: float, row_count: int) -> float:
    """Return how far ``rest``, the mean residual now, is beyond what is usual.

    Parameters
    ----------
    target, residuals : (n_rows,) of the earlier rows.
    row_count : of now.
    """
    low, high = np.quantile(target, [0.25, 0.75])
    length = min(row_count, len(target) // MIN_RUNS)
    if high <= low or length < MIN_KNOWN:
        return 0.0
    left = residuals[: len(target) - length // 2]  # a change may begin there
    runs = [part.mean() for part in np.array_split(left, len(left) // length)]
    chance = USUAL_RATIO * float(np.abs(np.diff(runs)).max())
    step = abs(rest - float(left[-length:].mean()))
    return float(max(0.0, step - chance) / (high - low))


@dataclass(frozen=True)
class Learnable:
    """Share of the target's variance that a fresh small model predicts."""

    before: float
    now: float


def learnables(before: Stretch, now: Stretch, leave_out: set[str]) -> Learnable:
    """Ask whether labels still follow from inputs at all, whatever the relation is."""
    same = before.newest(len(now))
    return Learnable(
        learnable(design_of(same, leave_out).matrix(same), same.target),
        learnable(design_of(now, leave_out).matrix(now), now.target),
    )
