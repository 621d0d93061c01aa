"""Sensors that went wrong though each value alone may be right.

All compare with the reference, and a check says nothing about a column that it is
not made for: codes with few values, columns that are one value most of the time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import pyarrow as pa
from driftloop.contracts.checks import Spikes, Stuck, UnitSlip
from driftloop.validator.columns import Failure
from driftloop.validator.reference import (
    BLOCK_ROWS,
    Floats,
    NumberProfile,
    block_figures,
    floats,
    neighbours,
    run_starts,
)

MIN_BLOCK_ROWS = 8
"""Values without which a block's median says too little."""
MAX_BLOCKS = 16
"""Blocks that a batch is cut into, so that a large one costs no more."""
MIN_DISTINCT = 10
"""Below so many values a column is a code, and codes jump and rest by nature."""
RUNS_OF_REFERENCE = 3
"""A run counts as stuck from so many times the longest run of the reference."""
BEYOND_REFERENCE = 1.5
"""A spike is so many times farther out than the reference's farthest value."""
PICKS = 4
"""Values of a long run that are looked at to see whether there may be one."""
STEPS_OF_REFERENCE = 2
"""A slip moves the median by so many of the reference's largest steps."""

Scale = tuple[str, Callable[[float], float]]
TEMPERATURES: tuple[Scale, ...] = (
    ("from °C to °F", lambda x: (x - 32) / 1.8),
    ("from °F to °C", lambda x: x * 1.8 + 32),
    ("from °C to K", lambda x: x - 273.15),
    ("from K to °C", lambda x: x + 273.15),
)
"""What a column may have slipped to, and how that reads in the former scale."""
TEMPERATURE_UNITS = frozenset({"c", "f", "k", "celsius", "fahrenheit", "kelvin"})

Clean = Mapping[str, tuple[float, float]]
"""Median and interquartile range of the last block that had not slipped."""
Runs = Mapping[str, tuple[float, int]]
"""The value that came last and how often in a row."""


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """A column of the batch beside its profile in the reference.

    Attributes
    ----------
    is_temperature : its scale may slip from °C to °F and the like.
    """

    name: str
    array: pa.Array
    values: Floats
    profile: NumberProfile
    is_temperature: bool = False


def number_columns(
    rows: pa.RecordBatch,
    names: Sequence[str],
    profiles: Mapping[str, NumberProfile],
    units: Mapping[str, str | None],
) -> list[NumberColumn]:
    """Return the numbers among ``names`` that can be judged.

    Parameters
    ----------
    units : of the columns, as far as the pipeline file says them.
    """
    there = set(rows.schema.names)
    return [
        NumberColumn(
            name,
            array := rows.column(name),
            floats(array),
            profiles[name],
            is_temperature(name, units.get(name)),
        )
        for name in names
        if name in there
        and name in profiles
        and profiles[name].distinct >= MIN_DISTINCT
    ]


def is_temperature(name: str, unit: str | None) -> bool:
    """Whether a column is a temperature: by its unit, or without one by its name.

    >>> is_temperature("t1", "°C"), is_temperature("temp", None)
    (True, True)
    >>> is_temperature("temp", "°C / 41"), is_temperature("count", None)
    (False, False)
    """
    if unit is None:
        return "temp" in name.lower()
    return unit.strip().removeprefix("°").lower() in TEMPERATURE_UNITS


# ── unit slips ──────────────────────────────────────────────────────────────


def unit_slips(
    rule: UnitSlip, columns: Sequence[NumberColumn], clean: Clean
) -> tuple[list[Failure], dict[str, tuple[float, float]]]:
    """Find blocks of rows whose scale jumped.

    A column without negative values is on a ratio scale: its blocks' medians may not
    leave the range of those in the reference by ``min_factor``, and not jump by it
    either. Else the spread of whole blocks is looked at in the same way. A temperature
    that slips to another scale need not change by a large factor: there the values are
    out of the reference's range, far from the last good ones, and near these when read
    in the other scale.

    Returns
    -------
    tuple
        Failures with the rows of slipped blocks, and the new ``clean``.
    """
    after = dict(clean)
    if not columns:
        return [], after
    starts = _block_starts(len(columns[0].values))
    blocks = _block_figures(columns, starts)
    failures = []
    for at, column in enumerate(columns):
        mask = np.zeros(len(column.values), np.bool_)
        said = ""
        for (start, end), figures in zip(starts, blocks[at], strict=True):
            if not all(map(isfinite, figures)):
                continue
            is_whole = end - start >= BLOCK_ROWS
            last = after.get(column.name)
            slip = _slip(figures, column, last, rule, is_whole)
            if slip is None:
                after[column.name] = figures
            else:
                mask[start:end] = True
                said = said or slip
        if said:
            detail = f"{said}; correct the unit upstream"
            failures.append(
                Failure("unit_slip", column.name, mask, detail, column.array)
            )
    return failures, after


def _block_starts(count: int) -> list[tuple[int, int]]:
    blocks = min(max(count // BLOCK_ROWS, 1), MAX_BLOCKS)
    ends = [count * (n + 1) // blocks for n in range(blocks)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _block_figures(
    columns: Sequence[NumberColumn], starts: Sequence[tuple[int, int]]
) -> list[list[tuple[float, float]]]:
    """Return each column's blocks' median and spread, of values spread evenly."""
    size = min(BLOCK_ROWS, max(end - start for start, end in starts))
    picked = np.stack(
        [np.linspace(start, end - 1, size).astype(np.intp) for start, end in starts]
    )
    values = np.stack([column.values[picked] for column in columns])
    few = np.isfinite(values).sum(axis=-1) < MIN_BLOCK_ROWS
    both = [
        np.where(few, np.nan, figures).tolist() for figures in block_figures(values)
    ]
    return [list(zip(*of_column, strict=True)) for of_column in zip(*both, strict=True)]


def _slip(
    figures: tuple[float, float],
    column: NumberColumn,
    last: tuple[float, float] | None,
    rule: UnitSlip,
    is_whole: bool,
) -> str | None:
    """Say how a block slipped, or None."""
    profile = column.profile
    if profile.least >= 0:
        now, before = figures[0], last[0] if last else None
        extremes, what = profile.medians, "values"
        is_usual = now == 0 or profile.low <= now <= profile.high
    else:
        now, before = figures[1], last[1] if last else None
        extremes, what = profile.spreads, "differences between values"
        is_usual = not is_whole or now == 0
    if not is_usual and _is_jump(now, extremes, before, rule.min_factor):
        usual = before or sum(extremes) / 2
        return (
            f"{what} are {now / usual:.3g} times the usual ones ({now:.4g}, "
            f"usually {extremes[0]:.4g} to {extremes[1]:.4g})"
        )
    if column.is_temperature:
        return _temperature_slip(figures[0], profile, last)
    return None


def _is_jump(
    now: float, extremes: tuple[float, float], before: float | None, factor: float
) -> bool:
    low, high = extremes
    if high <= 0 or now < 0:
        return False
    if now > high * factor:
        return before is None or now > before * factor
    if low > 0 and now < low / factor:
        return before is None or now < before / factor
    return False


def _temperature_slip(
    median: float, profile: NumberProfile, last: tuple[float, float] | None
) -> str | None:
    near = STEPS_OF_REFERENCE * profile.largest_step
    before = last[0] if last else profile.median
    if profile.least <= median <= profile.most or abs(median - before) <= near:
        return None
    for name, back in TEMPERATURES:
        read = back(median)
        if profile.low <= read <= profile.high and abs(read - before) <= near:
            return (
                f"values went {name}: {median:.4g} would be {read:.4g}, "
                f"after {before:.4g}"
            )
    return None


# ── stuck sensors ───────────────────────────────────────────────────────────


def stuck(
    rule: Stuck, columns: Sequence[NumberColumn], runs: Runs
) -> tuple[list[Failure], dict[str, tuple[float, int]]]:
    """Find runs of one value that the reference's variation makes unlikely.

    Returns
    -------
    tuple
        Failures with the rows of such runs, and the new ``runs``, by which a run
        goes on over batches.
    """
    after = dict(runs)
    failures = []
    for column in columns:
        limit = max(rule.rows, RUNS_OF_REFERENCE * column.profile.longest_run)
        values = column.values
        carried = runs.get(column.name, (np.nan, 0))
        mask = _long_runs(values, limit, carried)
        after[column.name] = _last_run(values, limit, carried)
        if mask is not None:
            detail = (
                f"gives one value for {limit} rows or more, the reference for at most "
                f"{column.profile.longest_run}; look at the sensor"
            )
            failures.append(Failure("stuck", column.name, mask, detail, column.array))
    return failures, after


def _long_runs(
    values: Floats, limit: int, carried: tuple[float, int]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
    """Return the rows of runs that reach ``limit``, with what came before."""
    picked = values[:: max(limit // PICKS, 1)]
    same = picked[1:] == picked[:-1]
    goes_on = carried[1] > 0 and values[0] == carried[0]
    # a long run has PICKS picked values next to each other
    if not goes_on and not (same[2:] & same[1:-1] & same[:-2]).any():
        return None
    starts = run_starts(values)
    lengths = np.diff(starts, append=len(values))
    totals = lengths.copy()
    if goes_on:
        totals[0] += carried[1]
    found = totals >= limit
    return np.repeat(found, lengths) if found.any() else None


def _last_run(
    values: Floats, limit: int, carried: tuple[float, int]
) -> tuple[float, int]:
    """Return the value at the end and its run, counted up to ``limit`` at most."""
    last = float(values[-1])
    if not np.isfinite(last):
        return carried[0], 0
    tail = values[-limit:][::-1]
    differs = tail != last
    length = int(differs.argmax()) if differs.any() else len(tail)
    if length == len(values) and carried[1] and carried[0] == last:
        length += carried[1]
    return last, min(length, limit)


# ── spikes ──────────────────────────────────────────────────────────────────


def spikes(rule: Spikes, columns: Sequence[NumberColumn]) -> Iterator[Failure]:
    """Find values far from the reference's and from their neighbours.

    The distance is a z-score with median and median absolute deviation instead of
    mean and standard deviation, which the spikes themselves would move. Source:
    Iglewicz and Hoaglin (1993), How to Detect and Handle Outliers.
    """
    for column in columns:
        profile, values = column.profile, column.values
        if not profile.sigma:
            continue
        limit = max(rule.threshold, BEYOND_REFERENCE * profile.most_sigmas)
        far = limit * profile.sigma
        low, high = profile.median - far, profile.median + far
        at = np.flatnonzero((values < low) | (values > high))
        if len(values) > 1 and len(at):
            local = rule.threshold * profile.local_sigma
            away = np.abs(values[at] - neighbours(values, at))
            at = at[~(away <= local)]
        if len(at):
            mask = np.zeros(len(values), np.bool_)
            mask[at] = True
            detail = (
                f"is more than {limit:.3g} robust standard deviations from the median "
                f"{profile.median:.4g} and far from the rows around it"
            )
            yield Failure("spikes", column.name, mask, detail, column.array)
