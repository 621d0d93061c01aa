"""Parts of a window: which of them became worse than the rest, and groups' gaps.

The columns and their values are those of the gate's slices: a column that the pipeline
file names, or each category, boolean and integer of few values. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.estimates import SliceMeasured
from driftloop.contracts.measures import GroupGap
from driftloop.models.columns import Floats, numbers, texts
from driftloop.models.losses import measured
from driftloop.monitor.estimates.arrays import Rows, row_losses
from driftloop.monitor.estimates.combining import Z_95, variance_of
from driftloop.monitor.feature_drift import Kind
from driftloop.monitor.labelling.encoding import values_of

MIN_ROWS = 30
"""As for the gate: fewer say nothing about a mean."""
MAX_SLICES = 100
MAX_TOLD = 20
FEW_VALUES = 12
PARTS = 4
MISSING = "missing"
MIN_RISE = 0.25
"""By which a slice's loss has to exceed what it was before anybody is told."""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sides:
    """Which part each row of two tables is in.

    Attributes
    ----------
    names : of the parts.
    before, now : (n_rows,) places in ``names``.
    """

    names: Sequence[str]
    before: Places
    now: Places


@dataclass(frozen=True)
class Side:
    """Labelled rows with their losses.

    Attributes
    ----------
    table : features.
    losses : (n_rows,)
    """

    table: pa.Table
    losses: Floats


def names_of(
    before: pa.Table, now: pa.Table, name: str, kind: Kind, *, is_named: bool
) -> Sides | None:
    """Return which part each row of both sides is in; None: not to be sliced.

    Numbers that a file names are cut into quarters of the rows before.
    """
    if name not in before.schema.names or name not in now.schema.names:
        return None
    if kind in ("category", "boolean"):
        return _values(before, now, name)
    if kind == "integer":
        found = _values(before, now, name)
        if len(found.names) <= FEW_VALUES:
            return found
    if not is_named:
        return None
    first, then = (numbers(values_of(t, name, kind)) for t in (before, now))
    known = first[np.isfinite(first)]
    if not len(known):
        return None
    edges = np.unique(np.quantile(known, np.linspace(0, 1, PARTS + 1)))
    names = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges)]
    names = names or [f"{edges[0]:.4g}"]
    places = [_ranges(values, edges, len(names)) for values in (first, then)]
    return Sides([*names, MISSING], *places)


def _values(before: pa.Table, now: pa.Table, name: str) -> Sides:
    if pa.types.is_integer(now.schema.field(name).type):
        return _codes(before, now, name)
    both = [texts(table[name]) for table in (before, now)]
    column = pa.chunked_array(
        [chunk for one in both for chunk in _chunks(one)], pa.string()
    )
    coded = pc.fill_null(column, MISSING).combine_chunks().dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    places = coded.indices.cast(pa.int64()).to_numpy(zero_copy_only=False)
    first = before.num_rows
    return Sides(coded.dictionary.to_pylist(), places[:first], places[first:])


def _codes(before: pa.Table, now: pa.Table, name: str) -> Sides:
    """Return the parts of whole numbers, without a text of each row."""
    both = np.concatenate([numbers(table[name]) for table in (before, now)])
    is_there = np.isfinite(both)
    values, places = np.unique(both[is_there], return_inverse=True)
    found = np.full(len(both), len(values), dtype=np.int64)
    found[is_there] = places
    names = [str(int(value)) for value in values]
    if not is_there.all():
        names.append(MISSING)
    first = before.num_rows
    return Sides(names, found[:first], found[first:])


def _chunks(column: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]


def _ranges(values: Floats, edges: Floats, count: int) -> Places:
    place = np.clip(np.searchsorted(edges[1:-1], values, "right"), 0, count - 1)
    found: Places = np.where(np.isfinite(values), place, count)
    return found


@dataclass(frozen=True)
class Sums:
    """Rows, sum and sum of squares of the losses of each part of a column."""

    count: Floats
    total: Floats
    squares: Floats

    @classmethod
    def of(cls, places: Places, losses: Floats, parts: int) -> "Sums":
        return cls(
            np.bincount(places, minlength=parts).astype(np.float64),
            np.bincount(places, losses, parts).astype(np.float64),
            np.bincount(places, losses**2, parts).astype(np.float64),
        )

    def part(self, number: int) -> "Moments":
        return Moments(
            float(self.count[number]),
            float(self.total[number]),
            float(self.squares[number]),
        )

    def rest(self, number: int) -> "Moments":
        return Moments(
            float(self.count.sum() - self.count[number]),
            float(self.total.sum() - self.total[number]),
            float(self.squares.sum() - self.squares[number]),
        )


@dataclass(frozen=True)
class Moments:
    """Of some rows' losses."""

    count: float
    total: float
    squares: float

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def variance(self) -> float:
        """Of one row; not below 0, which rounding would give."""
        if self.count < 2:
            return 0.0
        own = self.squares - self.total**2 / self.count
        return max(own, 0.0) / (self.count - 1)


def measured_slices(
    before: Side | None,
    now: Side,
    kinds: Mapping[str, Kind],
    wanted: Sequence[str] | None,
    metric: str,
) -> list[SliceMeasured]:
    """Return the slices of a window, the surest to have become worse alone first.

    A slice's rise is held against that of the window's other rows, so that a window
    that is worse as a whole accuses nobody. One-sided, by the normal distribution of
    means, its p-values by Holm's method over all slices.

    Parameters
    ----------
    before : earlier labelled rows of the same version; None: none.
    wanted : columns to slice by; None: those of few values.

    Source: Holm (1979), Scandinavian Journal of Statistics 6(2).
    """
    then = before or Side(now.table.slice(0, 0), np.zeros(0))
    parts: list[tuple[str, str, Moments, Moments, float | None]] = []
    for name, kind in kinds.items():
        if wanted is not None and name not in wanted:
            continue
        basis = then.table if then.table.num_rows else now.table
        found = names_of(basis, now.table, name, kind, is_named=wanted is not None)
        if found is None:
            continue
        count = len(found.names)
        old = Sums.of(found.before[: len(then.losses)], then.losses, count)
        new = Sums.of(found.now, now.losses, count)
        for number, value in enumerate(found.names):
            if MIN_ROWS <= new.count[number] < len(now.losses):
                groups = (
                    new.part(number), old.part(number),
                    new.rest(number), old.rest(number),
                )  # fmt: skip
                parts.append((name, value, *groups[:2], _chance(*groups)))
    parts = sorted(parts, key=lambda part: (-part[2].count, part[0], part[1]))
    parts = parts[:MAX_SLICES]
    chances = _holm([part[4] for part in parts])
    told = [
        _measured(column, value, old, new, metric, chance)
        for (column, value, new, old, _), chance in zip(parts, chances, strict=True)
    ]
    return sorted(told, key=lambda s: 1.0 if s.p_value is None else s.p_value)


def _chance(
    now: Moments, then: Moments, rest: Moments, before: Moments
) -> float | None:
    """Return the chance of so great a rise beside the others; None: too few rows."""
    groups = (now, then, rest, before)
    if min(group.count for group in groups) < MIN_ROWS:
        return None
    spread = sum(group.variance / group.count for group in groups) ** 0.5
    rise = (now.mean - then.mean) - (rest.mean - before.mean)
    if spread == 0:
        return 0.0 if rise > 0 else 1.0
    return 1 - NormalDist().cdf(rise / spread)


def _measured(
    column: str,
    value: str,
    then: Moments,
    now: Moments,
    metric: str,
    chance: float | None,
) -> SliceMeasured:
    loss = measured(metric, np.array([now.mean]))
    spread = {metric: now.variance**0.5}
    reach = Z_95 * variance_of(metric, loss, spread, now.count) ** 0.5
    is_known = then.count >= MIN_ROWS
    return SliceMeasured(
        column=column,
        group=value,
        row_count=int(now.count),
        value=loss,
        low=max(loss - reach, 0.0),
        high=loss + reach,
        before=measured(metric, np.array([then.mean])) if is_known else None,
        p_value=chance,
    )


def _holm(chances: Sequence[float | None]) -> list[float | None]:
    """Return them as they are when so many are looked at; those that are None stay.

    >>> _holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    places = [n for n, chance in enumerate(chances) if chance is not None]
    places.sort(key=lambda n: chances[n] or 0.0)
    adjusted: list[float | None] = [None] * len(chances)
    highest = 0.0
    for rank, place in enumerate(places):
        each = (len(places) - rank) * (chances[place] or 0.0)
        highest = max(highest, min(1.0, each))
        adjusted[place] = highest
    return adjusted


def is_worse_alone(part: SliceMeasured, alpha: float) -> bool:
    """Whether people should hear of a slice: sure, and large."""
    if part.p_value is None or part.before is None or part.p_value >= alpha:
        return False
    return part.value > (1 + MIN_RISE) * part.before


# ── groups ──────────────────────────────────────────────────────────────────


def gaps(
    table: pa.Table,
    rows: Rows,
    kinds: Mapping[str, Kind],
    columns: Sequence[str],
    metric: str,
) -> list[GroupGap]:
    """Return how differently the groups of each column are treated.

    Of two classes the greater of the demographic parity and the equalized odds
    difference, of several the difference in accuracy, of numbers the worst group's
    loss over the best one's. Groups of fewer than thirty rows are left out.

    Source: Agarwal et al. (2018) and Hardt, Price and Srebro (2016), as the gate's.
    """
    found = []
    for name in columns:
        names = names_of(table, table, name, kinds.get(name, "category"), is_named=True)
        if names is None:
            continue
        groups = [names.now == place for place in np.unique(names.now)]
        large = [group for group in groups if group.sum() >= MIN_ROWS]
        small = len(groups) - len(large)
        note = f"{small} of {len(groups)} groups have too few rows" if small else ""
        if len(large) < 2:
            note = note or "one group only"
            found.append(GroupGap(column=name, group_count=len(large), detail=note))
            continue
        difference, ratio = _gap(rows, large, metric)
        found.append(
            GroupGap(
                column=name, group_count=len(large), difference=difference,
                loss_ratio=ratio, detail=note,
            )
        )  # fmt: skip
    return found


def _gap(
    rows: Rows, groups: Sequence[npt.NDArray[np.bool_]], metric: str
) -> tuple[float | None, float | None]:
    if not rows.class_count:
        losses = row_losses(metric, rows)
        means = [float(losses[group].mean()) for group in groups]
        return None, max(means) / min(means) if min(means) > 0 else None
    truth, said = rows.labels().astype(np.int64), rows.said.argmax(axis=1)
    if rows.class_count > 2:
        rates = [[float((truth == said)[group].mean())] for group in groups]
    else:
        rates = [
            [
                _rate(said[group] == 1),
                _rate(said[group & (truth == 1)] == 1),
                _rate(said[group & (truth == 0)] == 1),
            ]
            for group in groups
        ]
    spread = [
        max(known) - min(known)
        for each in zip(*rates, strict=True)
        if len(known := [rate for rate in each if not np.isnan(rate)]) > 1
    ]
    return max(spread, default=0.0), None


def _rate(is_one: npt.NDArray[np.bool_]) -> float:
    return float(is_one.mean()) if len(is_one) else float("nan")
