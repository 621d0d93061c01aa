"""Whether answers are wrong more often than before: one test a row, as early as can be.

For answers that are right or wrong. The share of wrong ones before is learned on the
way (or starts from a hold-out); the size of the rise is not assumed: a mixture of rises
is watched at once. How far from the limit it is, beside other detectors, is in
``docs/detection.md``.

It takes rows as independent. Where errors come in runs (hours of a day), compare blocks
of rows instead (:mod:`driftloop.detection.levels`).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from driftloop.detection.recursion import (
    Evidence,
    Floats,
    after,
    last_log_ratio,
    log_ratios,
    mixed,
    most,
)

RUN_LENGTH = 200_000
"""Rows between false alarms, at least: 0.05 in 10,000 rows."""
RISES = (0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
"""Assumed rises of the log odds of a wrong answer. The least is a fifth more of them:
what is smaller is not looked for."""
FALLS = (-0.35, -0.7, -1.4, -2.8, -5.6)
"""Of the same. A fall is no alarm: later rows are compared with the better state."""
CERTAINTY = 8.0
"""Standard errors of the share before, by which a change must differ from it to be
looked for: a share that is itself uncertain makes small changes out of nothing. Before
a rise is found, about as many rows speak for it as then do for the share before."""
MIN_ROWS = 512
"""Of the state before: with fewer, chance makes a low share that seems to rise."""
STEP_ROWS = 512
"""The share before is estimated anew after so many rows, wherever batches end."""
KEPT_ROWS = 50_000
"""Rows that the share before is made of, at most; older ones fade."""
ESTIMATED = 2.0
"""Factor to the run length in the threshold, as the share before is not known but
estimated: simulated streams then have at most the false alarms that were wanted."""
SUSPICION = 0.5
"""Share of the way to an alarm from which suspect rows no longer count as before."""

CHANGES = np.array(RISES + FALLS)
IS_RISE = CHANGES > 0
NO_EVIDENCE = Evidence.none(len(CHANGES))


@dataclass(frozen=True, slots=True)
class Watched:
    """All that is known of a stream of answers; small, and the same as JSON.

    Attributes
    ----------
    seen : rows so far.
    rows, wrong : of the state before; fractions, since old rows fade.
    known_rows, share : the same at the last whole step: what rows are compared with.
    held_wrong : (n_changes,) wrong answers among the rows since each walk's zero.
    """

    run_length: float = RUN_LENGTH
    seen: int = 0
    rows: float = 0.0
    wrong: float = 0.0
    known_rows: float = 0.0
    share: float = 0.5
    evidence: Evidence = NO_EVIDENCE
    held_wrong: tuple[int, ...] = (0,) * len(CHANGES)

    @classmethod
    def since(
        cls, rows: float = 0, wrong: float = 0, run_length: float = RUN_LENGTH
    ) -> "Watched":
        """Return the start, from what a hold-out said of the share of wrong answers."""
        start = cls(run_length=run_length, rows=rows, wrong=wrong)
        return _compared_with(start, rows, wrong)

    @property
    def is_enough(self) -> bool:
        """Whether the share before is known well enough to find any rise at all."""
        return self.least_found is not None

    @property
    def least_found(self) -> float | None:
        """Least share of wrong answers that is looked for; None: not enough data."""
        used = _changed(self.share)[IS_RISE & _is_used(self)]
        return float(used[0]) if len(used) else None

    def as_json(self) -> dict[str, Any]:
        """Return plain values; :meth:`of_json` takes them back."""
        return asdict(self)

    @classmethod
    def of_json(cls, found: dict[str, Any]) -> "Watched":
        """Return the state that :meth:`as_json` wrote, also through a file."""
        held = {k: tuple(v) for k, v in found["evidence"].items()}
        return cls(
            **found
            | {"evidence": Evidence(**held), "held_wrong": tuple(found["held_wrong"])}
        )


@dataclass(frozen=True, slots=True)
class Change:
    """A rise of the share of wrong answers.

    Attributes
    ----------
    at : number of the row that raised the alarm, from 0.
    since : number of the row at which the rise most likely began.
    before, now : shares of wrong answers; ``now`` from ``since`` to ``at``.
    statistic, threshold : logarithms of the evidence and of what makes an alarm.
    """

    at: int
    since: int
    before: float
    now: float
    statistic: float
    threshold: float


def _changed(share: float) -> Floats:
    """Return the share of wrong answers after each of the assumed changes."""
    odds = math.log(share / (1 - share))
    found: Floats = 1 / (1 + np.exp(-(odds + CHANGES)))
    return found


def _threshold(state: Watched) -> float:
    return math.log(ESTIMATED * state.run_length)


def _is_used(state: Watched) -> npt.NDArray[np.bool_]:
    if state.known_rows < MIN_ROWS:
        return np.zeros(len(CHANGES), dtype=bool)
    error = math.sqrt(state.share * (1 - state.share) / state.known_rows)
    found: npt.NDArray[np.bool_] = (
        np.abs(_changed(state.share) - state.share) >= CERTAINTY * error
    )
    return found


def _compared_with(state: Watched, rows: float, wrong: float) -> Watched:
    # Half an answer of each kind more: what was never seen may still be (Jeffreys).
    return replace(state, known_rows=rows, share=(wrong + 0.5) / (rows + 1))


def observe(
    state: Watched, wrong: Sequence[bool] | npt.NDArray[np.bool_]
) -> tuple[Watched, list[Change]]:
    """Take rows in and return the next state and the rises that they show.

    However rows are cut into batches, the result is the same. After a rise the watch
    begins anew with the rows since it began.

    Parameters
    ----------
    wrong : (n_rows,) oldest first.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> share = np.repeat([0.1, 0.3], [5_000, 1_000])
    >>> _, changes = observe(Watched(), rng.random(6_000) < share)
    >>> [(c.at // 100, c.since // 100) for c in changes]
    [(50, 50)]
    """
    rows = np.asarray(wrong, dtype=bool)
    changes = []
    start = 0
    while start < len(rows):
        size = STEP_ROWS - state.seen % STEP_ROWS
        state, used, change = _stepped(state, rows[start : start + size])
        start += used
        if change is not None:
            changes.append(change)
        elif state.seen % STEP_ROWS == 0:
            state = _learned(state)
    return state, changes


def _stepped(
    state: Watched, rows: npt.NDArray[np.bool_]
) -> tuple[Watched, int, Change | None]:
    """Return the state after these rows, or after the one that raises an alarm."""
    is_used, threshold = IS_RISE & _is_used(state), _threshold(state)
    changed = _changed(state.share)
    if_wrong = np.log(changed / state.share)
    if_right = np.log((1 - changed) / (1 - state.share))
    counts = np.cumsum(rows)
    numbers = np.arange(1.0, len(rows) + 1)
    sums = np.outer(if_wrong - if_right, counts.astype(np.float64))
    sums += np.outer(if_right, numbers)
    last, statistic = len(rows) - 1, -math.inf
    highest = most(state.evidence, sums[:, _turns(rows)], len(rows))
    if mixed(highest[:, None], is_used, len(RISES))[0] >= threshold:
        totals = mixed(log_ratios(state.evidence, sums), is_used, len(RISES))
        above = np.flatnonzero(totals >= threshold)
        if len(above):
            last = int(above[0])
            statistic = float(totals[last])
    end = last + 1
    sums = sums[:, :end]
    evidence = after(state.evidence, sums, last_log_ratio(state.evidence, sums))
    held = np.array(evidence.held)
    held_wrong = np.where(
        held >= end,
        np.array(state.held_wrong) + counts[last],
        counts[last] - counts[np.maximum(last - held, 0)],
    )
    state = replace(
        state,
        seen=state.seen + end,
        rows=state.rows + end,
        wrong=state.wrong + int(counts[last]),
        evidence=evidence,
        held_wrong=tuple(held_wrong.tolist()),
    )
    if statistic == -math.inf:
        return state, end, None
    rise = evidence.likeliest(is_used)
    held_rows, held_wrongs = evidence.held[rise], state.held_wrong[rise]
    change = Change(
        at=state.seen - 1,
        since=state.seen - held_rows,
        before=_share_before(state, rise),
        now=held_wrongs / max(held_rows, 1),
        statistic=statistic,
        threshold=threshold,
    )
    anew = Watched.since(held_rows, held_wrongs, state.run_length)
    return replace(anew, seen=state.seen), end, change


def _turns(rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return the places of wrong answers, those before them, the first and the last."""
    is_turn = rows.copy()
    is_turn[:-1] |= rows[1:]
    is_turn[[0, -1]] = True
    return np.flatnonzero(is_turn)


def _share_before(state: Watched, rise: int) -> float:
    rows = state.rows - state.evidence.held[rise]
    return (state.wrong - state.held_wrong[rise]) / rows if rows >= 1 else state.share


def _learned(state: Watched) -> Watched:
    """Estimate the share before anew, without rows that are under suspicion."""
    fade = min(1.0, KEPT_ROWS / state.rows)
    state = replace(state, rows=state.rows * fade, wrong=state.wrong * fade)
    is_used, threshold = _is_used(state), _threshold(state)
    evidence, falls = state.evidence, is_used & ~IS_RISE
    if falls.any() and evidence.total(falls, len(FALLS)) >= threshold:
        fall = evidence.likeliest(falls)
        better = Watched.since(
            evidence.held[fall], state.held_wrong[fall], state.run_length
        )
        return replace(better, seen=state.seen)
    rises = is_used & IS_RISE
    if rises.any() and evidence.total(rises, len(RISES)) > SUSPICION * threshold:
        rise = evidence.likeliest(rises)
        rows = state.rows - evidence.held[rise]
        wrong = max(state.wrong - state.held_wrong[rise], 0.0)
        if rows < MIN_ROWS:
            return state
        return replace(_compared_with(state, rows, wrong), known_rows=state.known_rows)
    state = _compared_with(state, state.rows, state.wrong)
    is_used = _is_used(state)
    return replace(
        state,
        evidence=evidence.only(is_used),
        held_wrong=tuple(np.where(is_used, state.held_wrong, 0).tolist()),
    )
