"""From signals to a verdict: what speaks for each cause, and how much.

Each cause has a weight from 0 to 1, made of the signals that would be there if it were
the cause; weights become confidences by their shares. The numbers here were set on one
set of streams and are judged on another (docs/causes.md).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from driftloop.contracts.events import Cause
from driftloop.monitor.causes import decomposing, labels, moved, seasons
from driftloop.monitor.causes.decomposing import Learnable, Mix, Split
from driftloop.monitor.causes.labels import OfLabeller
from driftloop.monitor.causes.moved import Moved
from driftloop.monitor.causes.seasons import Season
from driftloop.monitor.causes.stretch import Stretch, inputs_after
from driftloop.monitor.error_drift import block_rows

MIN_ROWS = 40
"""Rows of now, and of before, without which nothing is weighed."""
TOO_FEW_ROWS = 12
ENOUGH_ROWS = 96
MIN_RECENT_ROWS = 96
RECENT_RATIO = 0.6
"""Newest part of the rows since a change: its estimated start is often too early."""
DOUBT = 0.12
"""Weight of ``not_enough_data`` however much there is: nothing is quite sure."""
SHARPNESS = 2.0
"""Power of the weights before they are shared: the best one stands out."""
FEW_ROWS_WEIGHT = 0.6
TOLD_RATIO = 2.5
"""Of a rise's larger part to its noise: half-way to sure, more than doubt weighs."""
MAX_MORE_ROWS = 5000
CURED: frozenset[Cause] = frozenset({"concept_drift", "population_shift"})
FAR = (0.35, 0.9)
"""Interquartile ranges from what the other columns say: a world seldom jumps so far
in one column alone."""
VERY_FAR = (0.8, 1.4)
"""Likewise, where there are no labels yet that could tell."""
SEPARATE = (0.5, 0.7)
"""Distance beyond the usual from which a column has nothing in common with before."""
COMMON = (0.05, 0.2)
"""What stretches have in common, below which a relation is hardly seen to differ."""
NEW_STEPS = (0.2, 0.5)
"""Share of values between a sensor's own steps: the world moves in these steps."""
MIN_SPREAD = 0.25
"""Of before's: targets that hardly differ make no error as large as one likes."""
MIN_LONE = 0.5
MIN_CURED = 0.5
"""Confidence in causes that training cures, together, from which one is advised."""
MIN_MOVED = 0.25
"""Strength from which a column may carry a verdict."""
WHOLE = 0.97
WAIT_WINDOWS = 1.5
"""Windows of rows that are waited for while a column is suspected and none is sure."""
SUSPECTED = 0.6
"""What a suspicion weighs at most: enough to hold a training back, and to ask."""
MIN_SUSPECTED = 0.15
"""Distance of a column from before, below which it is not suspected for it."""
MIN_INFERRED = 0.5
"""Confidence from which a fault that is only inferred is told."""
CERTAIN_RISE = (1.8, 2.6)
"""Times that the error rose: by so much, no column that moved by chance matters."""
FAR_BEYOND = (0.3, 0.45)
"""Distance beyond the usual that is seldom chance, however much the error rose."""
BESIDE = (0.4, 0.8)
"""Of a column's distance beyond the usual: another one's, from which both moved."""
MAX_CARRIERS = 5


@dataclass(frozen=True)
class Signals:
    """All that is weighed.

    Attributes
    ----------
    wait_rows : while there are fewer, a suspected column is looked at again.
    settled : columns of which nothing is inferred any more: nobody has confirmed it.
    """

    moved: list[Moved]
    slow: set[str]
    row_count: int
    split: Split | None = None
    mixes: list[Mix] = field(default_factory=list)
    unmoved_within: float = 0.0
    is_untrue: Mapping[str, float] = field(default_factory=dict)
    unexplained: Mapping[str, float] = field(default_factory=dict)
    learnable: Learnable | None = None
    labellers: list[OfLabeller] = field(default_factory=list)
    season: Season | None = None
    grown: float = 1.0
    wait_rows: float = 0.0
    settled: frozenset[str] = frozenset()

    @property
    def is_labelled(self) -> bool:
        return self.split is not None


@dataclass(frozen=True)
class Speaking:
    """What speaks for one cause.

    Attributes
    ----------
    carriers : columns, with what each carries of it.
    sources : likewise.
    why : for people; one sentence.
    is_inferred : that values are wrong follows from other columns and the target alone,
        as it may when the world moves.
    """

    weight: float = 0.0
    carriers: Mapping[str, float] = field(default_factory=dict)
    sources: Mapping[str, float] = field(default_factory=dict)
    why: str = ""
    is_inferred: bool = False


@dataclass(frozen=True)
class Weighed:
    """A verdict, with what else was considered.

    Attributes
    ----------
    alternatives : each other cause's confidence, the largest first.
    """

    cause: Cause
    confidence: float
    alternatives: Mapping[Cause, float]
    speaking: Speaking

    @property
    def is_cured_by_training(self) -> bool:
        """Whether training is the cure, more likely than not."""
        shares = {self.cause: self.confidence, **self.alternatives}
        cured = sum(share for cause, share in shares.items() if cause in CURED)
        return self.cause in CURED and cured >= MIN_CURED


def gather(
    before: Stretch,
    now: Stretch,
    known: Stretch,
    season: Season | None = None,
    window_rows: int = 168,
) -> Signals:
    """Measure all signals of two stretches.

    Parameters
    ----------
    before, now : labelled, where the error rose; else their inputs alone are weighed.
    known : rows that the version in service learned from.
    """
    now = _told_alike(now)
    now = now.newest(max(MIN_RECENT_ROWS, round(RECENT_RATIO * len(now))))
    found = moved.moved_columns(before, now, known)
    slow = moved.slow_columns(before, window_rows)
    alone: Mapping[str, float] = {}
    if any(m.is_amount and m.strength >= MIN_MOVED for m in found):  # else of no use
        usual = inputs_after(known, before) if len(known) else before
        alone = decomposing.unexplained(usual, now, slow | {"source"})
    if not (before.is_labelled and now.is_labelled):
        return Signals(found, slow, len(now), unexplained=alone)
    now = as_hard(before, now)
    mixes = decomposing.mixes(before, now, slow)
    return Signals(
        moved=found,
        slow=slow,
        row_count=min(len(now), len(before)),
        split=decomposing.split(before, now, slow, block_rows(window_rows)),
        mixes=mixes,
        unmoved_within=decomposing.is_unmoved_within(before, now, mixes[0], slow)
        if mixes and mixes[0].mix > 0
        else 0.0,
        is_untrue={
            m.column: decomposing.is_untrue(before, now, m, slow)
            for m in found
            if m.is_amount and m.strength >= MIN_MOVED
        },
        unexplained=alone,
        learnable=decomposing.learnables(before, now, slow),
        labellers=labels.labellers(before, now),
        season=season or seasons.of_sample(known, before, now),
        grown=float(now.loss.mean() / max(before.loss.mean(), 1e-12)),
        wait_rows=WAIT_WINDOWS * window_rows,
    )  # fmt: skip


def as_hard(before: Stretch, now: Stretch) -> Stretch:
    """Return now with its losses as if its targets were as hard to guess as before's.

    As the levels are in which a rise is found: in a season with half the demand, half
    the error is no better.
    """
    spread = [
        float(np.abs(rows.target - np.median(rows.target, axis=0)).mean())
        for rows in (before, now)
    ]
    ratio = spread[0] / max(spread[1], MIN_SPREAD * spread[0], 1e-12)
    return replace(now, loss=now.loss * ratio) if ratio > 0 else now


def _told_alike(now: Stretch) -> Stretch:
    """Leave out the newest rows that only some of the sources have sent yet."""
    late = now.times_us >= np.median(now.times_us)
    newest = [
        now.times_us[now.source == source].max()
        for source in set(now.source[late].tolist())
    ]
    return now.where(now.times_us <= min(newest)) if newest else now


def weigh(signals: Signals, prior: Mapping[Cause, float] | None = None) -> Weighed:
    """Return the verdict.

    Parameters
    ----------
    prior : factor of each cause's weight, learned from overrulings; default 1.
    """
    sensor, schema = _sensor(signals), _schema(signals)
    suspected, doubt = _suspected(signals), _doubt(signals)
    if signals.row_count < signals.wait_rows:
        doubt = _best([doubt, suspected])
    else:
        sensor = _best([sensor, suspected])
    label, mix = _label(signals, 1 - sensor.weight), _mix(signals)
    fault = max(sensor.weight, schema.weight, mix.weight, suspected.weight / SUSPECTED)
    speaking: dict[Cause, Speaking] = {
        "not_enough_data": doubt,
        "sensor_fault": sensor,
        "schema_change": schema,
        "label_fault": label,
        "seasonality": _season(signals),
        "traffic_mix": mix,
        "population_shift": _population(signals, fault),
        "concept_drift": _concept(signals, max(fault, label.weight)),
    }
    factors, enough = prior or {}, _ramp(signals.row_count, TOO_FEW_ROWS, MIN_ROWS)
    powers = {
        cause: (
            said.weight
            * factors.get(cause, 1.0)
            * (1.0 if cause == "not_enough_data" else enough)
        )
        ** SHARPNESS
        for cause, said in speaking.items()
    }
    total = sum(powers.values())
    shares = {cause: power / total for cause, power in powers.items()}
    order = sorted(shares, key=lambda cause: -shares[cause])
    first = order[0]
    if speaking[first].is_inferred and shares[first] < MIN_INFERRED:
        order.remove("not_enough_data")
        order.insert(0, "not_enough_data")
    return Weighed(
        cause=order[0],
        confidence=shares[order[0]],
        alternatives={c: shares[c] for c in order[1:] if shares[c] >= 0.01},
        speaking=speaking[order[0]],
    )


def _ramp(value: float, low: float, high: float) -> float:
    """Return 0 up to ``low``, 1 from ``high`` on, and a line between.

    >>> _ramp(3, 2, 4)
    0.5
    """
    return float(np.clip((value - low) / (high - low), 0, 1))


def _doubt(signals: Signals) -> Speaking:
    few = 1 - _ramp(signals.row_count, MIN_ROWS, ENOUGH_ROWS)
    weight = DOUBT + (FEW_ROWS_WEIGHT - DOUBT) * few
    if signals.split is not None:
        weight = max(weight, 0.5 * (1 - _sure(signals.split)))
    return Speaking(
        weight,
        why=f"{signals.row_count} rows do not tell one cause from another; "
        f"{_as_text(more_rows(signals))}.",
    )


def more_rows(signals: Signals) -> int | None:
    """Return about how many more labelled rows are needed; None: more than is known.

    As many as make the larger part of the rise stand out of its noise, which shrinks
    with the square root of the rows, if both stay as they are.
    """
    wanted = float(ENOUGH_ROWS)
    if signals.split is not None and signals.row_count:
        larger = max(abs(signals.split.relation), abs(signals.split.inputs))
        ratio = larger / max(signals.split.noise, 1e-12)
        if ratio < TOLD_RATIO:
            wanted = signals.row_count * (TOLD_RATIO / max(ratio, 1e-6)) ** 2
    missing = max(0.0, wanted - signals.row_count) / RECENT_RATIO
    return None if missing > MAX_MORE_ROWS else max(10, round(missing / 10) * 10)


def _as_text(rows: int | None) -> str:
    if rows is None:
        return f"more than {MAX_MORE_ROWS:,} labelled rows would be needed"
    return f"it needs about {rows:,} more labelled rows"


def _best(found: Iterable[Speaking]) -> Speaking:
    return max(found, key=lambda s: s.weight, default=Speaking())


def _whose(m: Moved) -> dict[str, float]:
    return {m.source: 1.0} if m.source else {}


def _of(m: Moved) -> str:
    return f"{m.column} of {m.source}" if m.source else m.column


# ── values ──────────────────────────────────────────────────────────────────


def _sensor(signals: Signals) -> Speaking:
    found = []
    gone = {m.column for m in signals.moved if not m.source and m.gone >= WHOLE}
    for m in signals.moved:
        carriers = {m.column: 1.0}
        lost = _ramp(m.nulls, moved.MIN_NULLS / 2, 2 * moved.MIN_NULLS)
        if lost and m.column not in gone:
            why = f"{m.nulls:.0%} more values of {_of(m)} are missing than before."
            found.append(Speaking(lost, carriers, _whose(m), why))
        if m.one_value:
            why = f"{_of(m)} gives one value only, as it never did for so long."
            found.append(Speaking(1.0, carriers, _whose(m), why))
        is_settled = not m.source and m.column in signals.settled
        if m.is_amount and m.strength >= MIN_MOVED and not is_settled:
            found.append(_wrong_values(signals, m))
    return _best(found)


def _wrong_values(signals: Signals, m: Moved) -> Speaking:
    """Weigh a column that moved by itself: a unit, an offset, one broken source."""
    news = _ramp(m.unseen, 0.05, 0.4)
    own = signals.unexplained.get(m.column, 0.0)
    others = [u for name, u in signals.unexplained.items() if name != m.column]
    alone = _ramp(own, 0.1, 0.4) * _ramp(own - max(others, default=0.0), 0.0, 0.25)
    nothing_common = _ramp(m.distance - m.usual, *SEPARATE) * (
        1 - _ramp(_beside(signals, m), 0.3, 0.6)
    )
    new_steps = _ramp(m.unseen, *NEW_STEPS) * _ramp(m.strength, MIN_MOVED, 0.75)
    alone = max(alone, nothing_common, new_steps)
    works = signals.is_untrue.get(m.column, 0.0)
    if m.source:
        lone = _ramp(m.apart, 0.15, 0.5)
        weight = lone * (0.7 + 0.3 * max(news, works, alone))
        why = (
            f"{_of(m)} moved (distance {m.distance:.2f}) while other sources' did not."
        )
    elif signals.is_labelled:
        plain = 0.8 * max(news, _ramp(own, *FAR), nothing_common)
        sure = 0.7 + 0.3 * news
        weight = alone * float(np.interp(works, [0.0, 0.5, 1.0], [0.0, plain, sure]))
        why = (
            f"{m.column} alone moved (distance {m.distance:.2f}), far from what the "
            "other columns say of it, and the target took no notice."
        )
    else:
        weight = 0.8 * alone * max(news, _ramp(own, *VERY_FAR), nothing_common)
        why = (
            f"{m.column} alone moved (distance {m.distance:.2f}), far from what the "
            "other columns say of it."
        )
    return Speaking(weight, {m.column: 1.0}, _whose(m), why, not m.source)


def _suspected(signals: Signals) -> Speaking:
    """Weigh a column that may be wrong, where nothing shows that it is or is not.

    It left its usual values by itself, and the target does not confirm it. Training on
    wrong values costs more than waiting: what moved by chance comes back with more
    rows, a broken sensor stays. A rise that is many times the usual error is not held
    back: it needs no column.
    """
    if not signals.is_labelled:
        return Speaking()
    beside_the_point = signals.slow | signals.settled
    amounts = [
        m for m in signals.moved if m.is_amount and m.column not in beside_the_point
    ]
    certain = _ramp(signals.grown, *CERTAIN_RISE)
    found = []
    for m in amounts:
        others = [o for o in amounts if o.column != m.column and not o.source]
        beside = max((o.beyond for o in others), default=0.0)
        doubtful = _ramp(signals.is_untrue.get(m.column, 0.5), 0.3, 0.5)
        own = signals.unexplained.get(m.column, 0.0)
        alone = 1 - _ramp(beside / max(m.beyond, 0.01), *BESIDE)
        alone = 0.0 if m.source else alone
        odd = max(_ramp(own, 0.0, 0.2), _ramp(m.outside, 0.05, 0.15))
        odd = odd if m.strength >= MIN_MOVED else 0.0
        far = max(_ramp(m.strength, 0.2, 0.5), odd)
        far = far if m.distance >= MIN_SUSPECTED else 0.0
        clue = doubtful * max(_ramp(m.unseen, 0.1, 0.3), alone * far)
        clue *= 1 - certain * (1 - _ramp(m.beyond, *FAR_BEYOND))
        why = (
            f"{_of(m)} moved by itself (distance {m.distance:.2f}) and the target does "
            "not tell whether its values are right, or the world moved. Who knows may "
            "overrule this."
        )
        found.append(Speaking(clue, {m.column: 1.0}, _whose(m), why, not m.source))
    best = _best(found)
    return replace(best, weight=SUSPECTED * best.weight)


def _beside(signals: Signals, m: Moved) -> float:
    """Return how far the farthest other column moved."""
    return max(
        (
            o.strength
            for o in signals.moved
            if o.column not in {m.column, *signals.slow} and not o.source
        ),
        default=0.0,
    )


def _schema(signals: Signals) -> Speaking:
    found = []
    for m in signals.moved:
        if not m.source and m.gone >= WHOLE and m.nulls >= moved.MIN_NULLS:
            why = f"{m.column} has no values any more, whoever sends it."
            found.append(Speaking(1.0, {m.column: 1.0}, {}, why))
        if not m.is_amount and m.column not in signals.slow and m.unseen > 0:
            weight = _ramp(m.unseen, 0.1, moved.MIN_RENAMED)
            why = (
                f"{m.unseen:.0%} of the values of {_of(m)} are names that never came "
                "before."
            )
            found.append(Speaking(weight, {m.column: 1.0}, _whose(m), why))
    return _best(found)


# ── labels ──────────────────────────────────────────────────────────────────


def _label(signals: Signals, right: float) -> Speaking:
    """Weigh what labels show; ``right`` is how far no sensor explains it."""
    if signals.split is None:
        return Speaking()
    calm = right * (1 - _ramp(signals.split.shift, 0.4, 0.9))
    found = [s for of in signals.labellers for s in _of_labels(of)]
    can = signals.learnable
    if can is not None and can.before >= 0.12:
        weight = calm * _ramp(can.before - can.now, 0.4 * can.before, 0.8 * can.before)
        why = (
            "No model can learn these labels: inputs told "
            f"{can.before:.0%} of their variance before and {can.now:.0%} now."
        )
        found.append(Speaking(weight, {}, {}, why))
    best, lone = _best(found), _one_labeller(signals, calm)
    if lone.weight >= MIN_LONE:  # the better explanation: it says whose labels
        return replace(lone, weight=max(lone.weight, best.weight))
    return _best([best, lone])


def _of_labels(of: OfLabeller) -> Iterable[Speaking]:
    sources = {of.source: 1.0} if of.source else {}
    whose = f" of {of.source}" if of.source else ""
    one = _ramp(of.one_value, 0.15, labels.MIN_ONE_SHARE)
    yield Speaking(
        one, {}, sources,
        f"{of.one_value:.0%} more of the labels{whose} than before are one value.",
    )  # fmt: skip
    there, here = of.agreement
    if there >= labels.MIN_AGREEMENT:
        sure = _ramp(-here * of.row_count**0.5, 1.5, 3.5)
        yield Speaking(
            sure * _ramp(-here, 0.05, 0.25), {}, sources,
            f"Labels{whose} say the contrary of the answers that they agreed with.",
        )  # fmt: skip
    factor = max(of.factor, 1 / of.factor)
    agrees = _ramp(here, 0.5 * there, 0.8 * there) if there > 0 else 0.0
    yield Speaking(
        agrees * _ramp(factor, 3.0, labels.IMPLAUSIBLE_FACTOR), {}, sources,
        f"Labels{whose} are {of.factor:.3g} times what they were beside the answers, "
        "and agree with them otherwise: another unit.",
    )  # fmt: skip


def _one_labeller(signals: Signals, calm: float) -> Speaking:
    each = sorted(
        (of for of in signals.labellers if of.source), key=lambda of: -of.grown
    )
    if len(each) < 2:
        return Speaking()
    worst, others = each[0], each[1].grown
    rise = max(worst.grown - 1, 1e-9)
    lone = 1 - _ramp(max(others - 1, 0) / rise, 0.15, 0.5)
    weight = calm * lone * _ramp(rise, 0.15, 0.5)
    why = (
        f"The error on labels of {worst.source} is {worst.grown:.1f} times what it "
        f"was, that on all other labels at most {max(others, 1):.1f} times."
    )
    return Speaking(weight, {}, {worst.source: 1.0}, why)


# ── the world ───────────────────────────────────────────────────────────────


def _season(signals: Signals) -> Speaking:
    season, split = signals.season, signals.split
    if season is None or split is None or split.total <= 0:
        return Speaking()
    explained = (season.grown - 1) / max(signals.grown - 1, 1e-9)
    why = (
        f"The error rose {signals.grown:.2f} times; in {season.reference} it was "
        f"{season.grown:.2f} times that of the weeks before."
    )
    return Speaking(_ramp(explained, 0.4, 0.8), {}, {}, why)


def _mix(signals: Signals) -> Speaking:
    if not signals.mixes or signals.split is None or signals.split.total <= 0:
        return Speaking()
    mix = signals.mixes[0]
    share = _ramp(mix.mix / signals.split.total, 0.3, 0.7)
    weight = share * _ramp(mix.moved, 0.05, 0.15) * signals.unmoved_within
    carried = {v: max(c, 0.0) for v, c in mix.slices[:MAX_CARRIERS] if c > 0}
    total = sum(carried.values()) or 1.0
    shares = {v: c / total for v, c in carried.items()}
    why = (
        f"Other shares of {mix.column} make {mix.mix / signals.split.total:.0%} of the "
        "rise; within them inputs and error are as before."
    )
    is_source = mix.column == "source"
    return Speaking(
        weight, {} if is_source else {mix.column: 1.0}, shares if is_source else {}, why
    )


def _sure(split: Split) -> float:
    """Return how sure the larger part of a rise is, beside its noise."""
    larger = max(abs(split.relation), abs(split.inputs))
    return _ramp(larger / max(split.noise, 1e-12), 1.0, 4.0)


def _carriers(signals: Signals) -> dict[str, float]:
    """Return the columns that moved, by their shares of the movement."""
    found = {
        m.column: m.strength
        for m in signals.moved
        if not m.source and m.strength >= MIN_MOVED and m.column not in signals.slow
    }
    top = sorted(found.items(), key=lambda item: -item[1])[:MAX_CARRIERS]
    total = sum(strength for _, strength in top) or 1.0
    return {column: strength / total for column, strength in top}


def _population(signals: Signals, fault: float) -> Speaking:
    split = signals.split
    carriers = _carriers(signals)
    if split is None:
        weight = max((m.strength for m in signals.moved if not m.source), default=0.0)
        return Speaking(0.5 * weight * (1 - fault), carriers, {}, "Inputs moved.")
    share = split.inputs / split.total if split.total > 0 else 0.0
    nothing_common = 1 - _ramp(split.overlap, 0.1, 0.4)
    explained = max(_ramp(share, 0.2, 0.6), 0.8 * nothing_common)
    sure = 0.3 + 0.7 * _sure(split)
    weight = explained * _ramp(split.shift, 0.2, 0.5) * sure * (1 - fault)
    why = (
        f"Other inputs make {np.clip(share, 0, 1):.0%} of the rise; on those that both "
        f"stretches share ({split.overlap:.0%}) the error is nearer to what it was."
    )
    return Speaking(weight, carriers, {}, why)


def _concept(signals: Signals, fault: float) -> Speaking:
    split = signals.split
    if split is None:
        return Speaking()
    share = split.relation / split.total if split.total > 0 else 0.0
    known = 0.6 + 0.4 * _ramp(split.overlap, *COMMON)
    weight = _ramp(share, 0.25, 0.7) * (0.3 + 0.7 * _sure(split)) * known * (1 - fault)
    grown = {
        of.source: (of.grown - 1) * of.row_count
        for of in signals.labellers
        if of.source
    }
    total = sum(max(g, 0.0) for g in grown.values()) or 1.0
    sources = {s: max(g, 0.0) / total for s, g in grown.items()}
    why = (
        f"For the same inputs the error is higher: {np.clip(share, 0, 1):.0%} of the "
        "rise is of their relation to the target."
    )
    return Speaking(weight, {}, sources, why)
