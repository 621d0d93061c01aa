"""The stretches of rows that a verdict compares, from what the monitor keeps."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.events import Span
from driftloop.models.pairing import EPOCH
from driftloop.monitor import answered, skew, store
from driftloop.monitor.causes.stretch import NO_SOURCE, Stretch, stretches
from driftloop.monitor.causes.weighing import ENOUGH_ROWS
from driftloop.monitor.turn import Turn, kinds_of, newest_rows
from driftloop.monitor.verdicts import LabelledShares

MAX_BEFORE_ROWS = 2000
MAX_NOW_ROWS = 2000
LAG_RATIO = 2.0
"""Labels count as missing after so many times the longest that they took."""


def labelled_stretches(
    turn: Turn, since: datetime, level: float
) -> tuple[Stretch, Stretch, Stretch] | None:
    """Return labelled rows from before ``since``, those since then, and the sample.

    Rows in spans of past faults are in neither. Where the version has answered too few
    rows before, it is compared with what it learned from, whose losses are raised to
    its usual error. None: no row has both its inputs and its label.

    Parameters
    ----------
    level : the version's usual error, as a multiple of a guess without skill.
    """
    reference, spec = turn.watch.reference, turn.spec
    inputs, said = _kept(turn, store.INPUTS), _kept(turn, store.LABELLED)
    if reference is None or inputs is None or said is None:
        return None
    said = said.filter(pc.equal(said.column("version"), reference.version))
    kinds = kinds_of(spec, inputs)
    rows = _joined(said, inputs)
    if rows is None or not kinds:
        return None
    sample = store.load_sample(turn.deps.session, spec.name)
    tables = [rows] if sample is None else [rows, sample]
    found = stretches(tables, kinds)
    whole = _with_answers(found[0], rows)
    known = found[1] if sample is not None else found[0].newest(0)
    if sample is not None:
        known = _with_sample(known, sample, turn)
    times = whole.times_us
    since_us = (since - EPOCH) // np.timedelta64(1, "us").item()
    is_now, is_bad = times >= since_us, np.zeros(len(times), dtype=np.bool_)
    for span in turn.watch.bad_spans:
        start, end = (
            (t - EPOCH) // np.timedelta64(1, "us").item()
            for t in (span.start, span.end)
        )
        is_bad |= (times >= start) & (times < end)
    now = whole.where(is_now & ~is_bad).newest(MAX_NOW_ROWS)
    before = whole.where(~is_now & ~is_bad).newest(MAX_BEFORE_ROWS)
    if len(before) < ENOUGH_ROWS and known.is_labelled:
        mean = (level * reference.no_skill) ** (2 if spec.metric == "rmse" else 1)
        usual = mean / max(float(known.loss.mean()), 1e-12)
        before = replace(known, loss=known.loss * usual)
    return (before, now, known) if len(before) and len(now) else None


def input_stretches(
    turn: Turn, before: pa.Table, now: pa.Table
) -> tuple[Stretch, Stretch, Stretch]:
    """Return inputs of two stretches, and the sample's, without their labels."""
    kinds = kinds_of(turn.spec, now)
    sample = store.load_sample(turn.deps.session, turn.watch.pipeline)
    tables = [newest_rows(before, MAX_BEFORE_ROWS), newest_rows(now, MAX_NOW_ROWS)]
    found = stretches([*tables, *([] if sample is None else [sample])], kinds)
    return found[0], found[1], found[2] if sample is not None else found[0].newest(0)


def _kept(turn: Turn, kind: str) -> pa.Table | None:
    slices = store.kept_slices(
        turn.deps.session, turn.watch.pipeline, kind, turn.spec.monitor.window_rows
    )
    good = [row for row in slices if not row.is_faulty]
    return store.rows_of(good) if good else None


def _joined(said: pa.Table, inputs: pa.Table) -> pa.Table | None:
    """Return answered rows with their inputs, in order of event time."""
    places = {
        row_id: at for at, row_id in enumerate(inputs.column(skew.ID).to_pylist())
    }
    pairs = [
        (at, places[row_id])
        for at, row_id in enumerate(said.column(skew.ID).to_pylist())
        if row_id in places
    ]
    if not pairs:
        return None
    left = said.take(pa.array([at for at, _ in pairs]))
    right = inputs.take(pa.array([at for _, at in pairs]))
    for name in right.schema.names:
        if name not in left.schema.names:
            left = left.append_column(right.schema.field(name), right.column(name))
    return left.sort_by([("event_time", "ascending"), (skew.ID, "ascending")])


def _with_answers(rows: Stretch, table: pa.Table) -> Stretch:
    target, said = answered.outcomes(table)
    labellers = table.column("labeller").to_pylist()
    return replace(
        rows,
        loss=table.column("loss").to_numpy(),
        target=target,
        said=said,
        labeller=np.array(
            [
                source if labeller is None else labeller
                for labeller, source in zip(
                    labellers, rows.source.tolist(), strict=True
                )
            ],
            dtype=object,
        ),
    )


def _with_sample(known: Stretch, sample: pa.Table, turn: Turn) -> Stretch:
    spec = turn.spec
    found = answered.outcomes_of_sample(
        sample, spec.data.target, spec.metric, [str(c) for c in spec.data.classes or ()]
    )
    if found is None:
        return known
    loss, target, said = found
    labeller = np.full(len(known), NO_SOURCE, dtype=object)
    return replace(known, loss=loss, target=target, said=said, labeller=labeller)


def labelled_shares(turn: Turn, inputs: list[store.Slice]) -> LabelledShares | None:
    """Return how many rows have their label, by the newest window and those before it.

    Rows younger than labels take to come are left out, and those that nothing has
    answered yet. None: too few are left.
    """
    spec, lag = turn.spec, turn.watch.label_lag_s
    until, answered_until = turn.watch.seen_until, turn.watch.windows.scored_until
    if until is None or answered_until is None or not inputs:
        return None
    lag_s = LAG_RATIO * (lag or 0.0)
    due = min(until - timedelta(seconds=lag_s), answered_until)
    rows = store.rows_of(inputs).select([skew.ID, "event_time"])
    times = rows.column("event_time").cast(pa.timestamp("us", "UTC"))
    rows = rows.filter(pc.less_equal(times, pa.scalar(due, times.type)))
    window_rows = spec.monitor.window_rows
    if rows.num_rows < window_rows:
        return None
    rows = rows.sort_by([("event_time", "ascending")])
    said = _kept(turn, store.LABELLED)
    ids = rows.column(skew.ID)
    known = ids.slice(0, 0) if said is None else said.column(skew.ID)
    has = pc.is_in(ids, value_set=known.combine_chunks().cast(ids.type)).to_numpy()
    now, before = has[-window_rows:], has[:-window_rows]
    start, end = (
        rows.column("event_time")[at].as_py() for at in (len(rows) - window_rows, -1)
    )
    share = float(before.mean()) if len(before) >= window_rows // 2 else None
    return LabelledShares(
        share, float(now.mean()), window_rows, Span(start=start, end=end)
    )
