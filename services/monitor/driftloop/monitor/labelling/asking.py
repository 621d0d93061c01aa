"""Once a window of scored rows: which of them people should label."""

import json
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
from driftloop.contracts.base import Event
from driftloop.contracts.events import BatchScored, LabelsWanted, Span, WantedLabel
from driftloop.models.columns import Floats
from driftloop.models.pairing import EPOCH, Label
from driftloop.monitor import metrics, store
from driftloop.monitor.feature_drift import movements
from driftloop.monitor.labelling import queue
from driftloop.monitor.labelling.choosing import Choice, Pool, choose
from driftloop.monitor.labelling.queue import Said
from driftloop.monitor.skew import ID
from driftloop.monitor.state import Asking
from driftloop.monitor.turn import Turn, kinds_of, newest_rows

MAX_POOL_ROWS = 5000
MAX_REFERENCE_ROWS = 1000
"""Each row is compared with all of these: a few seconds' work at most."""


def scored(turn: Turn, event: BatchScored) -> None:
    """Count scored rows towards the window."""
    if turn.spec.labelling.budget_rows is None:
        return
    asking = turn.watch.labelling
    until = max(asking.scored_until or event.span.end, event.span.end)
    _note(turn, scored_rows=asking.scored_rows + event.row_count, scored_until=until)


def labelled(turn: Turn, labels: list[Label]) -> None:
    """Take rows whose label has come out of the queue."""
    if turn.watch.labelling.window and labels:
        ids = [label.row_id for label in labels]
        queue.settle(turn.deps.session, turn.watch.pipeline, ids)


def ask(turn: Turn) -> Iterator[Event]:
    """Ask for labels when a window of rows is scored and their inputs are here."""
    budget, asking = turn.spec.labelling.budget_rows, turn.watch.labelling
    seen = turn.watch.seen_until
    if budget is None or asking.scored_rows < turn.spec.monitor.window_rows:
        return
    if seen is None or asking.scored_until is None or seen < asking.scored_until:
        return  # rows may be scored before the monitor has their inputs
    _note(turn, scored_rows=0, window=asking.window + 1)
    event = _chosen(turn, budget)
    if event is not None:
        queue.add(turn.deps.session, event)
        metrics.WANTED_LABELS.labels(event.pipeline).inc(len(event.wanted))
        yield event


def _note(turn: Turn, **changes: object) -> None:
    asking: Asking = turn.watch.labelling.model_copy(update=changes)
    turn.watch = turn.watch.model_copy(update={"labelling": asking})


def _chosen(turn: Turn, budget: int) -> LabelsWanted | None:
    found = _pool(turn)
    if found is None:
        return None
    pool, ids, times_us = found
    section, window = turn.spec.labelling, turn.watch.labelling.window
    seed = [zlib.crc32(turn.spec.name.encode()), window]
    chosen = choose(pool, section.strategy, budget, section.drift_weight, seed)
    if not chosen:
        return None
    reference = turn.watch.reference
    return LabelsWanted(
        pipeline=turn.spec.name,
        window=window,
        span=Span(start=_time(times_us[0]), end=_time(times_us[-1])),
        candidate_count=len(ids),
        strategy=section.strategy,
        model_version=reference.version if reference else None,
        drifted=list(pool.drifted),
        wanted=[_wanted(choice, ids, times_us) for choice in chosen],
    )


def _wanted(choice: Choice, ids: list[str], times_us: list[int]) -> WantedLabel:
    return WantedLabel(
        row_id=ids[choice.place],
        event_time=_time(times_us[choice.place]),
        score=choice.score,
        reasons=choice.reasons,
    )


def _time(time_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=time_us)


def _pool(turn: Turn) -> tuple[Pool, list[str], list[int]] | None:
    """Return the window's rows without a label, their ids and times; None: no such."""
    session, pipeline, spec = turn.deps.session, turn.watch.pipeline, turn.spec
    rows = _window(turn)
    if rows is None:
        return None
    places = {row_id: at for at, row_id in enumerate(rows.column(ID).to_pylist())}
    asked = queue.asked_before(session, pipeline, places)
    said = queue.predicted(session, pipeline, places)
    ids = sorted(said.keys() - asked.keys(), key=lambda i: (said[i].time_us, i))
    if not ids:
        return None
    waiting = sorted(said.keys() & {i for i, settled in asked.items() if not settled})
    sample, kinds = _sample(turn), kinds_of(spec, rows)
    drifted: list[str] = []
    if sample is not None:
        found = movements(sample, rows, kinds, spec.monitor.feature_alpha)
        drifted = sorted(m.column for m in found if m.is_moved)
    pool = Pool(
        rows=_taken(rows, [places[i] for i in ids]),
        margins=_margins([said[i] for i in ids]),
        answers=_answers([said[i] for i in ids]),
        reference=sample,
        asked=_taken(rows, [places[i] for i in waiting]),
        asked_answers=_answers([said[i] for i in waiting]),
        kinds=kinds,
        drifted=tuple(drifted),
    )
    return pool, ids, [said[i].time_us for i in ids]


def _window(turn: Turn) -> pa.Table | None:
    """Return the newest good rows, with ids; None: there are none."""
    slices = store.newest_slices(
        turn.deps.session,
        turn.watch.pipeline,
        store.INPUTS,
        turn.spec.monitor.window_rows,
    )
    good = [row for row in slices if not row.is_faulty]
    if not good:
        return None
    rows = newest_rows(store.rows_of(good), MAX_POOL_ROWS)
    return rows if ID in rows.schema.names else None  # kept by an earlier release


def _sample(turn: Turn) -> pa.Table | None:
    """Return rows that the model learned from, evenly taken from many."""
    sample = store.load_sample(turn.deps.session, turn.watch.pipeline)
    if sample is None or sample.num_rows <= MAX_REFERENCE_ROWS:
        return sample
    places = np.linspace(0, sample.num_rows - 1, MAX_REFERENCE_ROWS)
    return _taken(sample, places.astype(np.int64).tolist())


def _taken(rows: pa.Table, places: list[int]) -> pa.Table:
    return rows.take(pa.array(places, pa.int64()))


def _margins(said: list[Said]) -> Floats | None:
    """Return what lies between the two likeliest classes; None: a regression."""
    if any(one.shares is None for one in said):
        return None
    ranked = [sorted([0.0, *json.loads(one.shares or "{}").values()]) for one in said]
    apart = np.array([likely[-1] - likely[-2] for likely in ranked], dtype=np.float64)
    return np.nan_to_num(apart, nan=0.0)  # an answer that is none is a doubtful one


def _answers(said: list[Said]) -> Floats | None:
    """Return what a regression said; None: there are classes."""
    if any(one.number is None for one in said):
        return None
    return np.array([one.number for one in said], dtype=np.float64)
