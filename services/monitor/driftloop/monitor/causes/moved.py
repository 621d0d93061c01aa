"""Which columns moved between two stretches, in whose rows, and how it looks.

How far a column is from itself by chance is not taken from a formula, which would have
rows be independent, but from the column: how far runs of the earlier stretch, as long
as the later one, are from the rest of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from driftloop.models.columns import Floats
from driftloop.monitor.causes.stretch import MIN_DISTINCT, NO_VALUE, Stretch, Words
from driftloop.monitor.feature_drift import MIN_ROWS, ks_distance

FULL_DISTANCE = 0.3
"""Beyond what is usual: as in the feature test, so far apart is surely moved."""
USUAL_RUNS = 6
MIN_NULLS = 0.08
"""More null than before by this share of rows is a loss of values."""
STUCK_SHARE = 0.9
USUAL_ONE = 0.5
"""A column that is one value so often is not stuck when it is again."""
LONG_RUNS = 3
"""Stuck takes a run so many times the longest of before (as the validator's check)."""
APART_RATIO = 1.2
"""Of the farthest that a source went its own way before: so far it may go by chance."""
MIN_RENAMED = 0.5
"""Share of rows with codes never seen, from which codes were renamed."""


@dataclass(frozen=True)
class Moved:
    """How one column moved, in all rows or in those of one source.

    Attributes
    ----------
    source : whose rows; empty: all.
    distance, usual : Kolmogorov-Smirnov's D, for codes total variation; usual is what
        the earlier stretch shows by itself.
    nulls : share of null now, less that of before.
    one_value : rows in the longest run of one value now, as a share of the rows, where
        before never had a run of a third of it; 0: not stuck.
    unseen : of codes, the share that look renamed; of amounts, the share of values that
        never came before, of those between the least and the
        most that came, less what is usual: values of another scale fall between the
        steps in which a sensor counts, another population's do not.
    outside : share of values beyond all that came before.
    gone : share of null in the newest eighth of the rows, by their times.
    apart : of one source's amounts: by how many interquartile ranges it moved away from
        the other sources' rows of the same time, less what chance does; whatever
        happens to all sources (weather, demand) is not in it.
    """

    column: str
    source: str
    is_amount: bool
    distance: float
    usual: float
    nulls: float
    one_value: float
    unseen: float
    outside: float
    row_count: int
    gone: float = 0.0
    apart: float = 0.0

    @property
    def strength(self) -> float:
        """0: as usual; 1: surely moved."""
        return float(np.clip(self.beyond / FULL_DISTANCE, 0, 1))

    @property
    def beyond(self) -> float:
        """Distance beyond what is usual, at least 0."""
        return max(0.0, self.distance - self.usual)


def moved_columns(before: Stretch, now: Stretch, known: Stretch) -> list[Moved]:
    """Return how each column moved, in all rows and source by source.

    Parameters
    ----------
    known : what the version in service learned from; its values are no news either.
    """
    found = list(_of_rows(before, now, known, ""))
    sources = [s for s in now.sources if s in set(before.sources)]
    if len(sources) > 1:
        for source in sources:
            there, here = before.source == source, now.source == source
            if min(there.sum(), here.sum()) >= MIN_ROWS:
                mine = _of_rows(before.where(there), now.where(here), known, source)
                found += [
                    replace(m, apart=_apart(before, now, m)) if m.is_amount else m
                    for m in mine
                ]
    return found


def _apart(before: Stretch, now: Stretch, m: Moved) -> float:
    """Return by how much a source went its own way; see :attr:`Moved.apart`.

    The difference in differences of two groups and two times; see Card and Krueger
    (1994), American Economic Review 84.
    """
    usual = _steps(before, m, len(now))
    step = _step(now, m, np.ones(len(now), dtype=np.bool_))
    if step is None or not usual:
        return 0.0
    low, high = np.nanquantile(before.amounts[m.column], [0.25, 0.75])
    if high <= low:
        return 0.0
    middle = float(np.median(usual))
    chance = APART_RATIO * max(abs(each - middle) for each in usual)
    return max(0.0, float((abs(step - middle) - chance) / (high - low)))


def _steps(before: Stretch, m: Moved, length: int) -> list[float]:
    """Return how far a source is from the others in runs of the earlier rows."""
    found = []
    for run in range(min(USUAL_RUNS, len(before) // max(length, 1))):
        here = np.zeros(len(before), dtype=np.bool_)
        here[run * length : (run + 1) * length] = True
        step = _step(before, m, here)
        if step is not None:
            found.append(step)
    return found if len(found) > 1 else []


def _step(rows: Stretch, m: Moved, here: npt.NDArray[np.bool_]) -> float | None:
    values, mine = rows.amounts[m.column], rows.source == m.source
    known = np.isfinite(values) & here
    own, others = values[known & mine], values[known & ~mine]
    if min(len(own), len(others)) < MIN_ROWS // 2:
        return None
    return float(own.mean() - others.mean())


def _gone(is_null: npt.NDArray[np.bool_], times_us: npt.NDArray[np.int64]) -> float:
    """Return the share of null in the newest eighth by time, not by arrival."""
    newest = np.argsort(times_us, kind="stable")[-max(len(is_null) // 8, 1) :]
    return float(is_null[newest].mean()) if len(is_null) else 0.0


def _of_rows(
    before: Stretch, now: Stretch, known: Stretch, source: str
) -> Iterator[Moved]:
    for name, values in now.amounts.items():
        found = _amount(
            name, before.amounts[name], values, known.amounts.get(name), source
        )
        if found is not None:
            yield replace(found, gone=_gone(np.isnan(values), now.times_us))
    for name, codes in now.codes.items():
        moved = _code(name, before.codes[name], codes, known.codes.get(name), source)
        yield replace(moved, gone=_gone(codes == NO_VALUE, now.times_us))


def _amount(
    name: str, before: Floats, now: Floats, known: Floats | None, source: str
) -> Moved | None:
    there, here = _finite(before), _finite(now)
    nulls = float(np.isnan(now).mean() - np.isnan(before).mean()) if len(now) else 0.0
    if len(there) < MIN_ROWS:
        return None
    usual, newest = np.sort(there), np.sort(here)
    ever, samples = usual, [usual]
    if known is not None and len(known):
        samples.append(np.sort(_finite(known)))
        ever = np.sort(np.concatenate(samples))
    is_enough = len(here) >= MIN_ROWS
    distance = ks_distance(usual, newest) if is_enough else 0.0
    is_sensor = len(_lengths(ever)) >= MIN_DISTINCT
    return Moved(
        column=name,
        source=source,
        is_amount=is_sensor,
        distance=distance,
        usual=_usual(there, len(here)),
        nulls=nulls,
        one_value=_stuck(there, here, usual, newest) if is_sensor else 0.0,
        unseen=_unseen(ever, newest, samples) if is_sensor and len(here) else 0.0,
        outside=float(((here < ever[0]) | (here > ever[-1])).mean())
        if len(here)
        else 0.0,
        row_count=len(now),
    )


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _usual(values: Floats, length: int) -> float:
    """Return how far runs of a column are from the rest of it, nearly the farthest."""
    found = []
    count = min(USUAL_RUNS, len(values) // max(length, MIN_ROWS))
    if count > 1 and length >= MIN_ROWS:
        order = np.argsort(values)
        ordered, run_of = values[order], order // length
        for run in range(count):
            is_here = run_of == run
            found.append(ks_distance(ordered[~is_here], ordered[is_here]))
    chance = 0.87 * (1 / max(length, 1) + 1 / len(values)) ** 0.5
    return float(max([chance, *found]))


def _runs(values: Floats) -> int:
    """Return the length of the longest run of one value."""
    if not len(values):
        return 0
    return int(_lengths(values).max())


def _lengths(values: Floats) -> npt.NDArray[np.int64]:
    """Return the lengths of the runs of one value; of ordered values, their counts."""
    starts = np.append(0, np.flatnonzero(values[1:] != values[:-1]) + 1)
    return np.diff(np.append(starts, len(values)))


def _stuck(before: Floats, now: Floats, usual: Floats, newest: Floats) -> float:
    """Return how much of now is one value; ``usual`` and ``newest`` are in order."""
    if len(now) < MIN_ROWS:
        return 0.0
    share = _runs(newest) / len(now)
    if share < STUCK_SHARE or _runs(usual) / len(before) > USUAL_ONE:
        return 0.0
    return share if _runs(now) >= LONG_RUNS * _runs(before) else 0.0


def _unseen(ever: Floats, now: Floats, samples: Sequence[Floats]) -> float:
    """Return the share of values that are new, less how often a value comes once.

    The share of what comes once estimates that of what has never come: Good (1953),
    Biometrika 40.

    Parameters
    ----------
    ever, now : in order.
    samples : what ``ever`` is put together from; they may hold the same rows, which
        would hide how often a value comes once.
    """
    within = now[(now >= ever[0]) & (now <= ever[-1])]
    if len(within) < MIN_ROWS:
        return 0.0
    once = [(_lengths(each) == 1).sum() / len(each) for each in samples if len(each)]
    usual = float(min(once))
    new = float((ever[ever.searchsorted(within)] != within).mean())
    # A column that is measured more finely than it is written shows new values anyway.
    return max(0.0, new - 2 * usual)


def _code(
    name: str, before: Words, now: Words, known: Words | None, source: str
) -> Moved:
    there, here = before[before != NO_VALUE], now[now != NO_VALUE]
    both = np.concatenate([there, here]).astype(str)
    names, at = np.unique(both, return_inverse=True)
    counted = (
        Counted(at[: len(there)], len(names)),
        Counted(at[len(there) :], len(names)),
    )
    shares = counted[0].shares(), counted[1].shares()
    distance = float(np.abs(shares[0] - shares[1]).sum()) / 2
    size = 1 / max(len(there), 1) + 1 / max(len(here), 1)
    usual = float(((2 / np.pi * shares[0] * (1 - shares[0]) * size) ** 0.5).sum()) / 2
    nulls = float((now == NO_VALUE).mean() - (before == NO_VALUE).mean())
    ever = set(names[shares[0] > 0].tolist())
    ever |= set(known.tolist()) if known is not None else set()
    is_new = np.array([n not in ever for n in names.tolist()], dtype=np.bool_)
    new = names[is_new & (shares[1] > 0)].tolist()
    new_share = float(shares[1][is_new].sum())
    vanished = float(shares[0][shares[1] == 0].sum())
    return Moved(
        column=name,
        source=source,
        is_amount=False,
        distance=distance if len(here) else 0.0,
        usual=max(usual, counted[0].usual(len(here))),
        nulls=nulls,
        one_value=0.0,
        unseen=_renamed(new, new_share, vanished),
        outside=0.0,
        row_count=len(now),
    )


def _renamed(new: list[str], share: float, vanished: float) -> float:
    """Return the share of rows whose code looks like a former one renamed.

    Names that are new, as far as former ones are missing for them; new numbers are new
    months and hours, not other names.
    """
    return 0.0 if all(_is_number(code) for code in new) else min(share, vanished)


def _is_number(code: str) -> bool:
    try:
        float(code)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Counted:
    """Codes of a column as the places (n_rows,) of their names in a list."""

    at: npt.NDArray[np.int64]
    names: int

    def shares(self) -> Floats:
        """Return (n_names,) shares of the rows."""
        return _shares(np.bincount(self.at, minlength=self.names))

    def usual(self, length: int) -> float:
        """Return the largest distance of a run of the rows from the rest of them."""
        whole = np.bincount(self.at, minlength=self.names)
        count, found = min(USUAL_RUNS, len(self.at) // max(length, MIN_ROWS)), [0.0]
        for run in range(count if count > 1 else 0):
            here = self.at[run * length : (run + 1) * length]
            mine = np.bincount(here, minlength=self.names)
            apart = np.abs(_shares(whole - mine) - _shares(mine)).sum()
            found.append(float(apart) / 2)
        return max(found)


def _shares(counts: npt.NDArray[np.int64]) -> Floats:
    return np.asarray(counts / max(counts.sum(), 1))


def slow_columns(before: Stretch, rows: int) -> set[str]:
    """Return columns that keep one value for a whole window: calendars, mostly.

    They tell one stretch from another whatever happens, and so explain nothing.
    """
    slow = {n for n, v in before.amounts.items() if _runs(_finite(v)) >= rows}
    for name, codes in before.codes.items():
        changes = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
        if np.diff(np.append(changes, len(codes))).max() >= rows:
            slow.add(name)
    return slow
