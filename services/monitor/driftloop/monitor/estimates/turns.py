"""What happens to windows at each event: rows gather, a window closes, labels land.

A window closes when ``monitor.window_rows`` rows of production are scored and their
inputs are here; then its performance is estimated. Labels are put aside as they land
and taken in when a window may be complete by them, or when the next one closes, so that
a message costs the same however many windows wait.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from driftloop.contracts.alerts import AlertResolved
from driftloop.contracts.base import Event
from driftloop.contracts.estimates import LabelsAwaited
from driftloop.contracts.events import AlertRaised, BatchScored, Span
from driftloop.models.pairing import Pair, as_time
from driftloop.monitor import metrics, skew, store
from driftloop.monitor.columns import as_table
from driftloop.monitor.estimates import awaiting, kept, windows
from driftloop.monitor.estimates.closing import Closed, estimated
from driftloop.monitor.estimates.settling import settled
from driftloop.monitor.estimates.windows import Note, Window
from driftloop.monitor.state import Windows
from driftloop.monitor.turn import Packaged, Turn, kinds_of

COMPLETE_RATIO = 0.95
"""Of a window's rows: with so many labels it is settled at once."""
MIN_LABELLED_ROWS = 20
"""With fewer a window whose time is over is dropped, not settled."""
MAX_WAITING_LABELS = 4
"""In windows: labels that no window has taken in yet, the newest."""
NEVER = 1_000_000_000
LABELS_LATE = "labels_late"
"""Condition of the alert that labels have stopped coming."""
MIN_BETWEEN = timedelta(hours=1)
"""Event time between windows: what is told of them is kept for ever, and nobody reads
more. Of a busy hour the newest rows are judged."""


def answers(event: BatchScored) -> pa.RecordBatch:
    """Return what is kept of a scored batch's answers."""
    return kept.answers(event)


def deployed(turn: Turn, version: int, packaged: Packaged) -> None:
    """Know a version by the rows that judged it, before any label of its own lands."""
    session, pipeline, spec = turn.deps.session, turn.watch.pipeline, turn.spec
    windows.drop_holdouts(session, pipeline)
    _note(turn, turn.watch.windows, degrading=0)
    if packaged.holdout is None:
        return
    rows = kept.judged(packaged.holdout, spec.data.target, packaged.classes, version)
    if rows is None:
        return
    times = rows[kept.TIME]
    window = Window(
        number=-version, version=version, start=pc.min(times).as_py(),
        end=pc.max(times).as_py(), row_count=rows.num_rows, kept_count=rows.num_rows,
        is_settled=True, data=None,
        note=Note(
            verdict="ok", reason="hold-out", labelled_count=kept.labelled_count(rows)
        ),
    )  # fmt: skip
    windows.add(session, pipeline, window.with_rows(rows))


def scored(turn: Turn, event: BatchScored) -> None:
    """Count scored rows towards the window."""
    state = awaiting.scored(turn.watch.windows, event.span.start, event.span.end)
    lacks = event.rows.column("champion_prediction").null_count
    _note(
        turn,
        state,
        scored_rows=state.scored_rows + event.row_count,
        unanswered=state.unanswered + lacks,
        seconds=state.seconds + event.duration_seconds,
    )


def landed(turn: Turn, pairs: Sequence[Pair]) -> Iterator[Event]:
    """Put aside labels that have met their predictions; tell that they come again."""
    if not pairs:
        return
    times = [said.time_us for said, _ in pairs]
    newest = as_time(max(times))
    watermark = max(_watermark(turn) or newest, newest)
    was_late = turn.watch.windows.is_late
    state = awaiting.landed(turn.watch.windows, newest, watermark)
    _note(turn, state, landed_rows=state.landed_rows + len(pairs))
    rows = kept.labels(pairs, is_number=turn.spec.task == "regression")
    span = Span(start=as_time(min(times)), end=as_time(max(times)))
    pipeline = turn.watch.pipeline
    store.add_slice(turn.deps.session, pipeline, windows.LANDED, span, rows)
    if was_late and not state.is_late:
        yield AlertResolved(
            pipeline=pipeline,
            condition=LABELS_LATE,
            at=newest,
            why=f"Labels of rows up to {newest:%Y-%m-%d %H:%M} have landed.",
            owner=turn.spec.owner,
        )


def advance(turn: Turn) -> Iterator[Event]:
    """Close a window that is full, and settle those whose labels have landed."""
    state, spec = turn.watch.windows, turn.spec
    seen = turn.watch.seen_until
    has_inputs = seen is not None and (
        state.scored_until is not None and seen >= state.scored_until
    )
    if has_inputs and _is_full(state, spec.monitor.window_rows):
        yield from _close(turn)
        yield from _settle(turn)
    elif 0 < state.wanted_rows <= state.landed_rows:
        yield from _settle(turn)


def _is_full(state: Windows, window_rows: int) -> bool:
    """Whether a window may close: rows enough, and not too soon after the last."""
    if state.scored_rows < window_rows or state.scored_until is None:
        return False
    last = state.closed_until
    return last is None or state.scored_until - last >= MIN_BETWEEN


def _note(turn: Turn, state: Windows, **changes: object) -> None:
    turn.watch = turn.watch.model_copy(
        update={"windows": state.model_copy(update=changes)}
    )


def _watermark(turn: Turn) -> datetime | None:
    """Return the event time up to which rows have been both seen and scored.

    Of two topics one may be read far ahead of the other; labels come with the former.
    """
    seen, scored_until = turn.watch.seen_until, turn.watch.windows.scored_until
    return min(seen, scored_until) if seen and scored_until else None


def horizon_of(turn: Turn) -> timedelta:
    """Return the event time for which a row waits for its label."""
    return timedelta(days=turn.spec.data.label_horizon_days)


def labels_of(turn: Turn) -> LabelsAwaited:
    """Return where the pipeline's labels stand."""
    return awaiting.awaited(turn.watch.windows, _watermark(turn), horizon_of(turn))


# ── closing ─────────────────────────────────────────────────────────────────


def _close(turn: Turn) -> Iterator[Event]:
    """Estimate the performance of the rows that were scored since the last window."""
    state, session = turn.watch.windows, turn.deps.session
    pipeline, spec = turn.watch.pipeline, turn.spec
    slices = [
        one
        for one in store.newest_slices(
            session, pipeline, store.PREDICTIONS, state.scored_rows
        )
        if one.number > state.after
    ]
    if not slices:  # forgotten: far more rows than a window came at once
        _note(turn, state, scored_rows=0, unanswered=0, seconds=0.0)
        return
    said = kept.together([as_table(one.data) for one in slices])
    version = said[skew.VERSION][-1].as_py()
    inputs = store.newest_slices(
        session, pipeline, store.INPUTS, state.scored_rows + spec.monitor.window_rows
    )
    good = [one for one in inputs if not one.is_faulty]
    if not good or kept.SAID not in said.schema.names:
        rows = None  # kept by an earlier release, or all faulty
    else:
        table = store.rows_of(good)
        kinds = kinds_of(spec, table)
        rows = kept.joined(
            said.filter(_is_by(said, version)), table, kinds,
            is_number=spec.task == "regression",
        )  # fmt: skip
    number = state.number + 1
    closed = Closed(
        number=number,
        version=version,
        span=Span(start=min(s.start for s in slices), end=max(s.end for s in slices)),
        row_count=state.scored_rows,
        rows=rows,
        unanswered=state.unanswered,
        seconds=state.seconds,
    )
    _note(
        turn, state, number=number, after=slices[-1].number, scored_rows=0,
        unanswered=0, seconds=0.0, closed_until=state.scored_until,
    )  # fmt: skip
    note = yield from estimated(turn, closed, labels_of(turn))
    if rows is not None and rows.num_rows and number % state.stride == 0:
        window = Window(
            number=number, version=version, start=closed.span.start,
            end=closed.span.end, row_count=closed.row_count,
            kept_count=rows.num_rows, is_settled=False, note=note, data=None,
        )  # fmt: skip
        windows.add(session, pipeline, window.with_rows(rows))


def _is_by(said: pa.Table, version: int) -> pa.ChunkedArray:
    return pc.equal(said[skew.VERSION], version)


# ── settling ────────────────────────────────────────────────────────────────


def _settle(turn: Turn) -> Iterator[Event]:
    """Take landed labels into the windows that wait, and settle what is complete."""
    session, pipeline = turn.deps.session, turn.watch.pipeline
    waiting = windows.opened(session, pipeline)
    arrived = windows.landed(session, pipeline)
    taken: list[Window] = []
    for window in waiting:
        found = window if arrived is None else _with_labels(window, arrived)
        if found is not window:
            windows.save(session, pipeline, found)
        taken.append(found)
    if arrived is not None:
        _keep_the_rest(turn, arrived)
    over: list[int] = []
    for window in taken:
        if not _is_complete(turn, window):
            continue
        if window.note.labelled_count < MIN_LABELLED_ROWS:
            over.append(window.number)
            _count(turn, window, 0)
            continue
        _count(turn, window, window.note.labelled_count)
        done = yield from settled(turn, window)
        windows.save(session, pipeline, done)
        over.append(window.number)
    dropped = [
        w.number
        for w in taken
        if w.number in over and w.note.labelled_count < MIN_LABELLED_ROWS
    ]
    windows.drop(session, pipeline, dropped)
    left = [window for window in taken if window.number not in over]
    _thin(turn, left)
    wanted = NEVER
    if left:
        first = left[0]
        missing = COMPLETE_RATIO * first.kept_count - first.note.labelled_count
        # Of many rows few are kept, so more labels than these have to land.
        wanted = max(1, int(np.ceil(missing * first.row_count / first.kept_count)))
    _note(turn, turn.watch.windows, landed_rows=0, wanted_rows=wanted)


def _with_labels(window: Window, arrived: pa.Table) -> Window:
    rows = window.rows
    found = kept.with_labels(rows, arrived)
    count = kept.labelled_count(found)
    if count == window.note.labelled_count:
        return window
    note = window.note.model_copy(update={"labelled_count": count})
    return replace(window.with_rows(found), note=note)


def _keep_the_rest(turn: Turn, arrived: pa.Table) -> None:
    """Put labels aside again whose rows are in no window yet."""
    session, pipeline = turn.deps.session, turn.watch.pipeline
    windows.drop_landed(session, pipeline)
    most = MAX_WAITING_LABELS * max(
        turn.spec.monitor.window_rows, turn.watch.windows.scored_rows
    )
    if not turn.watch.windows.scored_rows:
        return
    newest = arrived.slice(max(0, arrived.num_rows - most)).combine_chunks()
    state = turn.watch.windows
    when = state.scored_until or state.labelled_until
    if when is None or not newest.num_rows:
        return
    (batch,) = newest.to_batches()
    span = Span(start=when, end=when)
    store.add_slice(session, pipeline, windows.LANDED, span, batch)


def _is_complete(turn: Turn, window: Window) -> bool:
    """Whether a window has its labels, or has waited long enough for them."""
    if window.note.labelled_count >= COMPLETE_RATIO * window.kept_count:
        return True
    watermark = _watermark(turn)
    if watermark is None:
        return False
    state = turn.watch.windows
    age = (watermark - window.end).total_seconds() / awaiting.DAY_S
    if age > horizon_of(turn).total_seconds() / awaiting.DAY_S:
        return True
    has_newer = state.labelled_until is not None and state.labelled_until > window.end
    is_usual = len(state.waits) >= awaiting.MIN_WAITS
    return (
        has_newer
        and is_usual
        and window.note.labelled_count >= MIN_LABELLED_ROWS
        and age > awaiting.allowed_days(state, horizon_of(turn))
    )


RATIO_WEIGHT = 0.2
"""Of the newest window in the share of rows that get a label."""


def _count(turn: Turn, window: Window, labelled: int) -> None:
    ratio = labelled / window.kept_count
    before = turn.watch.windows.labelled_ratio
    now = ratio if before is None else before + RATIO_WEIGHT * (ratio - before)
    _note(turn, turn.watch.windows, labelled_ratio=now)


def _thin(turn: Turn, left: Sequence[Window]) -> None:
    """Let half of the windows wait where there are too many, evenly over time."""
    state = turn.watch.windows
    if len(left) > windows.MAX_OPEN:
        stride = 2 * state.stride
        gone = [window.number for window in left if window.number % stride]
        windows.drop(turn.deps.session, turn.watch.pipeline, gone)
        _note(turn, state, stride=stride)
    elif state.stride > 1 and len(left) < windows.MAX_OPEN // 4:
        _note(turn, state, stride=state.stride // 2)


# ── labels that stop ────────────────────────────────────────────────────────


def miss_labels(turn: Turn) -> Iterator[Event]:
    """Tell once when labels have stopped coming for longer than is usual.

    Asked when rows come by the topic that labels come by, too.
    """
    state, watermark = turn.watch.windows, _watermark(turn)
    if watermark is None:
        return
    name, horizon = turn.watch.pipeline, horizon_of(turn)
    days = awaiting.waiting_days(state, watermark)
    metrics.LABEL_WAIT.labels(name).set(days)
    if state.is_late or not awaiting.is_late(state, watermark, horizon):
        return
    if any(fault.kind == "labels" for fault in turn.watch.faults):
        return  # a verdict has told so already
    _note(turn, state, is_late=True)
    since = awaiting.oldest_waiting(state) or watermark
    known = len(state.waits) >= awaiting.MIN_WAITS
    usual = (
        f"labels of this pipeline used to land within {_days(max(state.waits))}"
        if known
        else f"after {_days(awaiting.allowed_days(state, horizon))}, "
        "data.label_horizon_days, a label is too late to be used"
    )
    has_any = state.labelled_until is not None
    yield AlertRaised(
        pipeline=name,
        condition=LABELS_LATE,
        severity="warning",
        title="Labels have stopped coming" if has_any else "No label has come yet",
        detail=f"Rows since {since:%Y-%m-%d %H:%M} ({_days(days)}) have none; {usual}. "
        "Until they come, performance is estimated and errors are not seen.",
        owner=turn.spec.owner,
        can_end=True,
    )


def _days(days: float) -> str:
    """Return a duration as people say it.

    >>> _days(2.0), _days(0.125)
    ('2 days', '3 hours')
    """
    if days >= 2:
        return f"{days:.3g} days"
    return f"{days * 24:.3g} hours"
