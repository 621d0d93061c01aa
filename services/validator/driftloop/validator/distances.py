"""Whether the newest rows are distributed like the reference: effect, test and power.

Small batches are gathered as counts until there are rows enough to find an effect of
``min_effect`` with the wanted power. Before that the verdict is "not enough data".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.checks import Distribution
from driftloop.validator.reference import (
    CategoryProfile,
    NumberProfile,
    Reference,
    age,
    floats,
    texts,
)
from scipy import special

Profile = NumberProfile | CategoryProfile
Counts = Mapping[str, Sequence[int]]
"""By column: rows in each bin of the reference's; the last is for all others."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A column's newest rows beside the reference.

    Attributes
    ----------
    effect : Kolmogorov-Smirnov's D at the reference's quantiles, or total variation.
    p_value : None: there are too few rows for a verdict.
    wanted_count : rows for a verdict; None: no number of rows would do, the
        reference is too small.
    """

    column: str
    effect: float
    p_value: float | None
    row_count: int
    wanted_count: int | None


def compared_columns(
    reference: Reference, names: Sequence[str]
) -> dict[str, NumberProfile | CategoryProfile]:
    """Return the profiles of ``names`` that the reference has."""
    profiles: dict[str, Profile] = {
        **reference.numbers, **reference.categories, **reference.ages
    }  # fmt: skip
    return {name: profiles[name] for name in names if name in profiles}


def counted(
    rows: pa.RecordBatch, profiles: Mapping[str, Profile], before: Counts
) -> dict[str, list[int]]:
    """Return the counts with those of new rows."""
    after = {}
    for name, profile in profiles.items():
        if name not in rows.schema.names:
            continue
        is_moment = pa.types.is_timestamp(rows.schema.field(name).type)
        column = age(rows, name) if is_moment else rows.column(name)
        counts = _counts(column, profile)
        known = np.asarray(before.get(name, [0] * len(counts)))
        after[name] = (counts + known).tolist()
    return after


def _counts(column: pa.Array, profile: Profile) -> np.ndarray[tuple[int], np.dtype]:
    column = column.drop_null()
    if isinstance(profile, NumberProfile):
        bins = np.searchsorted(profile.edges, floats(column), side="left")
        return np.bincount(bins, minlength=len(profile.edges) + 1)
    found = {
        entry["values"]: entry["counts"]
        for entry in pc.value_counts(texts(column)).to_pylist()
    }
    own = [found.pop(value, 0) for value in profile.shares]
    return np.array([*own, sum(found.values())])


def distances(
    rule: Distribution, profiles: Mapping[str, Profile], counts: Counts
) -> list[Distance]:
    """Judge each column; ``alpha`` is shared out over them (Bonferroni)."""
    alpha = rule.alpha / max(len(profiles), 1)
    return [
        (_numbers if isinstance(profile, NumberProfile) else _categories)(
            name,
            profile,  # type: ignore[arg-type]
            np.asarray(counts[name]),
            rule,
            alpha,
        )
        for name, profile in profiles.items()
        if name in counts
    ]


def _numbers(
    name: str,
    profile: NumberProfile,
    counts: np.ndarray[tuple[int], np.dtype],
    rule: Distribution,
    alpha: float,
) -> Distance:
    """Two-sample Kolmogorov-Smirnov at fixed points, which is on the safe side.

    Source: Smirnov (1948), Annals of Mathematical Statistics 19; power at least
    ``Phi(2 (sqrt(n) effect - critical))``: Massey (1950), the same, 21.
    """
    critical = float(special.kolmogi(alpha))
    needed = ((critical + float(special.ndtri(rule.power)) / 2) / rule.min_effect) ** 2
    count = int(counts.sum())
    shares = np.cumsum(counts)[:-1] / max(count, 1)
    effect = float(np.abs(shares - profile.shares).max(initial=0.0))
    wanted = _rows_for(needed, profile.count)
    p_value = None
    if wanted is not None and count >= wanted:
        p_value = float(
            special.kolmogorov(_paired(count, profile.count) ** 0.5 * effect)
        )
    return Distance(name, effect, p_value, count, wanted)


def _categories(
    name: str,
    profile: CategoryProfile,
    counts: np.ndarray[tuple[int], np.dtype],
    rule: Distribution,
    alpha: float,
) -> Distance:
    """Chi-square test of homogeneity; the effect is the total variation distance.

    A distance ``d`` has a chi-square divergence of at least ``4 d²`` (Cauchy and
    Schwarz), which bounds the power from below by the noncentral distribution.
    Source: Cohen (1988), Statistical Power Analysis, chapter 7.
    """
    known = np.array([*profile.shares.values()])
    shares = np.append(known, max(1 - known.sum(), 0.0))
    count = int(counts.sum())
    freedom = max(len(shares) - 1, 1)
    critical = float(special.chdtri(freedom, alpha))
    far = special.chndtrinc(critical, freedom, 1 - rule.power)
    wanted = _rows_for(float(far) / (4 * rule.min_effect**2), profile.count)
    effect = float(np.abs(counts / max(count, 1) - shares).sum() / 2)
    p_value = None
    if wanted is not None and count >= wanted:
        table = np.stack([np.rint(shares * profile.count), counts])
        table = table[:, table.sum(axis=0) > 0]
        expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
        statistic = float(((table - expected) ** 2 / expected).sum())
        p_value = float(special.chdtrc(max(table.shape[1] - 1, 1), statistic))
    return Distance(name, effect, p_value, count, wanted)


def _paired(one: int, other: int) -> float:
    """Size of one sample against a known distribution that says as much as two."""
    return one * other / (one + other)


def _rows_for(needed: float, reference_count: int) -> int | None:
    """Return the rows that make ``needed`` with a reference of this size.

    >>> _rows_for(50, 1000), _rows_for(50, 50)
    (53, None)
    """
    if needed >= reference_count:
        return None
    return math.ceil(needed * reference_count / (reference_count - needed))
