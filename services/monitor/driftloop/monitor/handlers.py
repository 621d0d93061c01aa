"""What the monitor does at each event: store it, ask the cores, tell what they say."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pyarrow as pa
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    BatchRejected,
    BatchScored,
    BatchValidated,
    ModelDeployed,
    ModelRolledBack,
    PackageRef,
    RequestsAnswered,
    RowKind,
    RowsEvent,
    Span,
    VerdictOverruled,
    place_of,
)
from driftloop.contracts.monitoring import MonitorSection
from driftloop.contracts.overruling import prior
from driftloop.contracts.pipeline import PRODUCTION, PipelineSpec
from driftloop.detection.windows import Windows
from driftloop.models import pairing
from driftloop.models.pairing import Pair
from driftloop.monitor import (
    adaptive,
    compared,
    core,
    doors,
    ending,
    faults,
    joining,
    metrics,
    overruled,
    skew,
    store,
    verdicts,
)
from driftloop.monitor.answered import answered
from driftloop.monitor.causes import seasons, weighing
from driftloop.monitor.causes.moved import moved_columns
from driftloop.monitor.error_drift import MAX_BLOCK_ROWS, MAX_BLOCKS, Rise, block_rows
from driftloop.monitor.estimates import turns
from driftloop.monitor.feature_drift import MIN_ROWS, Kind, Movement, movements
from driftloop.monitor.labelled import with_labelled
from driftloop.monitor.labelling import asking, queue
from driftloop.monitor.sensors import jumps
from driftloop.monitor.state import Block, Watch
from driftloop.monitor.turn import MonitorDeps, Turn, kinds_of, newest_rows, turn_of
from driftloop.runtime.errors import Skip
from driftloop.runtime.handlers import EventHandler

PREDICTION = skew.PREDICTION
PRUNES_A_HORIZON = 20
MAX_ROWS_BEFORE = 2000
"""Enough to know what is usual in a column."""
SEASON_BLOCKS = 28
"""Before a rise, that it is seen against: four windows."""
JUMP_BLOCK_RATIO = 0.8
"""Of a block of labelled rows: a day with a few hours missing is looked at too."""


def on_batch_validated(event: BatchValidated, deps: MonitorDeps) -> Iterator[Event]:
    turn = turn_of(event, deps)
    yield from _quality(turn, event)
    if event.row_count:
        if event.kind == "observations":
            yield from _inputs(turn, event)
            yield from doors.compare(turn)
            doors.passed(turn, event.row_count)
        yield from _labels(turn, event)
        yield from turns.advance(turn)
        yield from turns.miss_labels(turn)
        yield from asking.ask(turn)
    turn.save()


def on_batch_rejected(event: BatchRejected, deps: MonitorDeps) -> Iterator[Event]:
    turn = turn_of(event, deps)
    yield from _quality(turn, event)
    turn.save()


def on_batch_scored(event: BatchScored, deps: MonitorDeps) -> Iterator[Event]:
    turn = turn_of(event, deps)
    if event.environment != PRODUCTION:
        yield from _scored_before_production(turn, event)
        return
    is_rolling_out = event.candidate_version is not None
    turn.watch = turn.watch.model_copy(update={"is_rolling_out": is_rolling_out})
    _keep_predictions(turn, event)
    rows = pairing.predictions_of(
        event.rows, event.champion_version, event.candidate_version
    )
    met = joining.meet_predictions(deps.session, event.pipeline, rows)
    yield from _labelled(turn, met)
    yield from doors.compare(turn)
    turns.scored(turn, event)
    yield from turns.advance(turn)
    asking.scored(turn, event)
    yield from asking.ask(turn)
    turn.save()


def _scored_before_production(turn: Turn, event: BatchScored) -> Iterator[Event]:
    """Measure versions on their way to production; verdicts are about that alone."""
    rows = pairing.predictions_of(
        event.rows, event.champion_version, event.candidate_version
    )
    place = place_of(event.pipeline, event.environment)
    met = joining.meet_predictions(turn.deps.session, place, rows)
    yield from _measured(turn, met, event.environment)


def on_requests_answered(event: RequestsAnswered, deps: MonitorDeps) -> Iterator[Event]:
    if event.environment != PRODUCTION:
        raise Skip("not_in_production")
    turn = turn_of(event, deps)
    room = doors.room_for(turn, event)
    if not room:
        raise Skip("enough_asked_rows")
    is_first = doors.is_first_look(turn, event)
    doors.keep(turn, event, room)
    if is_first:
        yield from doors.compare(turn)
    if turn.watch.asked_rows >= turn.spec.monitor.window_rows:
        yield from doors.compare_distributions(turn)
    turn.save()


def on_model_deployed(event: ModelDeployed, deps: MonitorDeps) -> Iterator[Event]:
    turn = turn_of(event, deps)
    owner = turn.spec.owner
    yield from ending.over(turn.watch, event.version, event.meta.time, owner)
    _judge_from_now(turn, event.version, event.package)
    turn.save()


def on_model_rolled_back(event: ModelRolledBack, deps: MonitorDeps) -> Iterator[Event]:
    turn = turn_of(event, deps)
    restored, judged = event.restored, turn.watch.reference
    if restored and judged and judged.version == restored.version:
        raise Skip("champion_unchanged")
    number = restored.version if restored else None
    yield from ending.over(turn.watch, number, event.meta.time, turn.spec.owner)
    if restored is None:
        turn.watch = core.withdrawn(turn.watch)
        store.drop_sample(deps.session, event.pipeline)
    else:
        _judge_from_now(turn, restored.version, restored.package)
    turn.save()


def on_verdict_overruled(event: VerdictOverruled, deps: MonitorDeps) -> Iterator[Event]:
    turn = turn_of(event, deps)
    yield from turn.told(overruled.overruled(turn.watch, event, turn.spec))
    turn.save()


def _judge_from_now(turn: Turn, version: int, package: PackageRef) -> None:
    session, pipeline = turn.deps.session, turn.watch.pipeline
    packaged = turn.deps.open_package(package)
    turn.watch = core.deployed(turn.watch, version, packaged.evaluation)
    if packaged.sample is None:
        store.drop_sample(session, pipeline)
    else:
        store.save_sample(session, pipeline, version, packaged.sample)
    turns.deployed(turn, version, packaged)


# ── quality ─────────────────────────────────────────────────────────────────


def _quality(turn: Turn, event: BatchValidated | BatchRejected) -> Iterator[Event]:
    session, spec = turn.deps.session, turn.spec
    store.note_batch(session, event)
    has_bad = isinstance(event, BatchRejected) or event.quarantined_count > 0
    if has_bad or turn.watch.faults:
        window = store.newest_batches(
            session, spec.name, event.kind, spec.monitor.window_rows
        )
        limit_of = _usual(turn, event.kind)
        yield from turn.told(
            faults.judge_quality(turn.watch, window, spec, event.kind, limit_of)
        )
    _prune(turn, event.span.end)


def _usual(turn: Turn, kind: RowKind) -> faults.LimitOf | None:
    """Return the limits that follow from the past; None: the file says one."""
    session, monitor = turn.deps.session, turn.spec.monitor
    rate = monitor.fault_false_alarms
    if rate is None:
        return None
    rows = monitor.window_rows * (adaptive.wanted(rate) + 1)
    batches = store.newest_batches(session, turn.spec.name, kind, rows)
    *past, _ = adaptive.windows_of(batches, monitor.window_rows) or [[]]
    spans = [span for span in turn.watch.faulty_spans if span.kind == kind]
    begun = {f.column: f.since for f in turn.watch.faults if f.kind == kind}

    def limit_of(column: str) -> float:
        since = begun.get(column)
        usual = [w for w in past if since is None or w[-1].end < since]
        shares = faults.shares_of(usual, column, spans)
        return adaptive.share_limit(shares, rate, monitor.fault_ratio)

    return limit_of


def _horizon(spec: PipelineSpec) -> timedelta:
    """Event time for which a prediction waits for its label."""
    return timedelta(days=spec.data.label_horizon_days)


def _prune(turn: Turn, now: datetime) -> None:
    """Drop rows behind the horizon, now and then in event time."""
    horizon, last = _horizon(turn.spec), turn.watch.pruned_at
    if last is not None and now - last < horizon / PRUNES_A_HORIZON:
        return
    session, pipeline = turn.deps.session, turn.watch.pipeline
    for name in (PRODUCTION, *_before_production(turn.spec)):
        joining.forget(session, place_of(pipeline, name), now - horizon)
    queue.forget(session, pipeline, now - horizon)
    window_rows = turn.spec.monitor.window_rows
    store.forget_batches(session, pipeline, now - horizon, window_rows)
    turn.watch = turn.watch.model_copy(update={"pruned_at": now})


# ── inputs ──────────────────────────────────────────────────────────────────


def _inputs(turn: Turn, event: BatchValidated) -> Iterator[Event]:
    session, pipeline = turn.deps.session, event.pipeline
    kinds = kinds_of(turn.spec, event.rows)
    names = [name for name in kinds if name in event.rows.schema.names]
    there = [n for n in ("event_time", "source") if n in event.rows.schema.names]
    rows = event.rows.select([skew.ID, *there, *names])
    store.add_slice(session, pipeline, store.INPUTS, event.span, rows)
    seen_before = turn.watch.seen_until
    turn.watch = turn.watch.model_copy(
        update={
            "seen_until": max(seen_before or event.span.end, event.span.end),
            "window_rows": turn.watch.window_rows + event.row_count,
        }
    )
    window_rows = turn.spec.monitor.window_rows
    slices = store.newest_slices(
        session, pipeline, store.INPUTS, window_rows + block_rows(window_rows)
    )
    yield from _jumps(turn, slices, kinds)
    if turn.watch.window_rows >= windows_of(turn.spec.monitor).hop_rows:
        yield from _moved_inputs(turn, kinds)
    judged_end = turn.watch.judged_end
    if judged_end and (seen_before is None or seen_before < judged_end):
        yield from _error(turn)  # a verdict may have waited for these inputs


def _jumps(
    turn: Turn, slices: list[store.Slice], kinds: dict[str, Kind]
) -> Iterator[Event]:
    """Compare the newest block of rows with the good rows before it."""
    window_rows = turn.spec.monitor.window_rows
    wanted = max(MIN_ROWS, round(JUMP_BLOCK_RATIO * block_rows(window_rows)))
    cut, rows = len(slices), 0
    while cut and rows < wanted:
        cut -= 1
        rows += slices[cut].row_count
    before = [row for row in slices[:cut] if not row.is_faulty]
    if sum(row.row_count for row in before) < window_rows // 2:
        return
    block = slices[cut:]
    found = jumps(
        newest_rows(store.rows_of(before), MAX_ROWS_BEFORE),
        newest_rows(store.rows_of(block), MAX_BLOCK_ROWS),
        kinds,
    )
    if found:
        store.mark_faulty(turn.deps.session, block)
    if found or turn.watch.faults:
        span = Span(
            start=min(row.start for row in block), end=max(row.end for row in block)
        )
        yield from turn.told(faults.judge_jumps(turn.watch, found, span, turn.spec))


def _moved_inputs(turn: Turn, kinds: dict[str, Kind]) -> Iterator[Event]:
    """Compare a full window of good rows with the reference sample."""
    session, pipeline = turn.deps.session, turn.watch.pipeline
    how = turn.spec.monitor
    window_rows, windows = how.window_rows, windows_of(how)
    kept = [
        row
        for row in store.kept_slices(session, pipeline, store.INPUTS, window_rows)
        if not row.is_faulty
    ]
    before, slices = _parted(kept, turn.watch, how)
    rows = sum(row.row_count for row in slices)
    if rows < window_rows:  # some were faulty, or the first window is not full
        left = rows if how.window == "tumbling" else 0
        turn.watch = turn.watch.model_copy(update={"window_rows": left})
        return
    turn.watch = turn.watch.model_copy(
        update={"window_after": slices[-1].number, "window_rows": 0}
    )
    store.forget_slices(session, pipeline, window_rows)
    yield from _wrong_inputs(turn, before, slices)
    yield from _missing_labels(turn, kept)
    sample = store.load_sample(session, pipeline)
    if sample is None:
        return
    alpha = windows.alpha_a_look(how.feature_alpha)
    found = movements(sample, store.rows_of(slices), kinds, alpha, how.feature_tests)
    for one in found:
        labels = (pipeline, one.column, one.detector)
        metrics.FEATURE_DRIFT.labels(*labels).set(one.effect / one.least_effect)
    span = Span(start=slices[0].start, end=slices[-1].end)
    yield from turn.told(core.judge_inputs(turn.watch, found, span, turn.spec))


def windows_of(how: MonitorSection) -> Windows:
    """Return the windows in which inputs are compared."""
    kind = Windows.tumbling if how.window == "tumbling" else Windows.hopping
    return kind(how.window_rows)


def _parted(
    kept: list[store.Slice], watch: Watch, how: MonitorSection
) -> tuple[list[store.Slice], list[store.Slice]]:
    """Return the slices before a window of inputs, and those of the window."""
    cut, rows = len(kept), 0
    if how.window == "tumbling":
        cut = sum(row.number <= watch.window_after for row in kept)
    else:
        while cut and rows < how.window_rows:
            cut -= 1
            rows += kept[cut].row_count
    return kept[:cut], kept[cut:]


def _wrong_inputs(
    turn: Turn, earlier: list[store.Slice], slices: list[store.Slice]
) -> Iterator[Event]:
    """Ask of a full window whether its values are wrong; open and close faults."""
    session, spec = turn.deps.session, turn.spec
    if sum(row.row_count for row in earlier) < spec.monitor.window_rows:
        return
    span = Span(start=slices[0].start, end=slices[-1].end)
    before, now, known = compared.input_stretches(
        turn, store.rows_of(earlier), store.rows_of(slices)
    )
    if any(fault.is_weighed for fault in turn.watch.faults):
        found = moved_columns(before, now, known)
        yield from turn.told(verdicts.faults_over(turn.watch, found, span, spec))
    else:
        signals = weighing.gather(before, now, known, None, spec.monitor.window_rows)
        signals = _unsettled(turn.watch, signals)
        weighed = weighing.weigh(signals, prior(turn.watch.overrulings))
        yield from turn.told(
            verdicts.input_fault(turn.watch, weighed, signals, span, spec)
        )
    if any(f.is_weighed and f.kind == "observations" for f in turn.watch.faults):
        store.mark_faulty(session, slices)


def _missing_labels(turn: Turn, inputs: list[store.Slice]) -> Iterator[Event]:
    """Ask of full windows whether their labels came as they used to."""
    if turn.watch.reference is None:
        return
    shares = compared.labelled_shares(turn, inputs)
    if shares is not None:
        yield from turn.told(verdicts.labels_missing(turn.watch, shares, turn.spec))


def _keep_predictions(turn: Turn, event: BatchScored) -> None:
    store.add_slice(
        turn.deps.session,
        event.pipeline,
        store.PREDICTIONS,
        event.span,
        turns.answers(event),
    )


# ── error ───────────────────────────────────────────────────────────────────


def _labels(turn: Turn, event: RowsEvent) -> Iterator[Event]:
    spec = turn.spec
    is_number = spec.task == "regression"
    labels = pairing.labels_of(event.rows, spec.data.target, is_number=is_number)
    asking.labelled(turn, labels)
    met = joining.meet_labels(turn.deps.session, event.pipeline, labels)
    yield from _labelled(turn, met, event.shard if event.kind == "labels" else None)
    for name in _before_production(spec):
        place = place_of(event.pipeline, name)
        met = joining.meet_labels(turn.deps.session, place, labels)
        yield from _measured(turn, met, name)


def _before_production(spec: PipelineSpec) -> list[str]:
    return [environment.name for environment in spec.rollout.environments]


def _measured(turn: Turn, pairs: list[Pair], environment: str) -> Iterator[Event]:
    """Report rows whose label and prediction have met in an environment."""
    spec = turn.spec
    timely = pairing.within(pairs, _horizon(spec))
    for rows in pairing.labelled(timely, spec.metric) if timely else ():
        performance = core.performance(spec.name, spec.metric, rows)
        yield performance.model_copy(update={"environment": environment})


def _labelled(
    turn: Turn, pairs: list[Pair], labeller: str | None = None
) -> Iterator[Event]:
    """Report rows whose label and prediction have met, and judge the error.

    Parameters
    ----------
    labeller : who sent the labels; None: whoever sent the rows.
    """
    timely = pairing.within(pairs, _horizon(turn.spec))
    metrics.LATE_LABELS.labels(turn.spec.name).inc(len(pairs) - len(timely))
    pairs = timely
    yield from turns.landed(turn, pairs)
    if not pairs:
        return
    spec, session = turn.spec, turn.deps.session
    rows = answered(pairs, spec.metric, labeller)
    times = sorted(said.time_us for said, _ in pairs)
    span = Span(start=pairing.as_time(times[0]), end=pairing.as_time(times[-1]))
    store.add_slice(session, spec.name, store.LABELLED, span, rows)
    turn.watch = verdicts.with_label_lag(turn.watch, span.end)
    has_closed = False
    for rows in pairing.labelled(pairs, spec.metric):
        performance = core.performance(spec.name, spec.metric, rows)
        for measurement in performance.measurements:
            metrics.LOSS.labels(spec.name, measurement.role).set(measurement.value)
        metrics.LABELLED_ROWS.labels(spec.name).inc(performance.row_count)
        yield performance
        turn.watch, blocks = with_labelled(
            turn.watch, rows, spec.metric, spec.monitor.window_rows
        )
        store.add_blocks(session, spec.name, blocks)
        if blocks:
            has_closed = True
            end = max(block.end for block in blocks)
            turn.watch = turn.watch.model_copy(update={"judged_end": end})
    if has_closed:
        yield from _error(turn)


def _error(turn: Turn) -> Iterator[Event]:
    watch, spec, session = turn.watch, turn.spec, turn.deps.session
    if watch.reference is None:
        return
    stored = store.load_blocks(session, spec.name, watch.reference.version, MAX_BLOCKS)
    blocks = core.judged_blocks(watch, stored)
    if any(f.is_weighed and f.kind == "labels" for f in watch.faults):
        levels = core.levels(watch, blocks)
        yield from turn.told(verdicts.labels_over(watch, blocks, levels, spec))
        return
    rise = core.error_verdict_due(watch, blocks, spec)
    if rise is None:
        return
    since = blocks[rise.since].start
    signals = _signals(turn, since, rise, blocks)
    weighed = weighing.weigh(signals, prior(watch.overrulings))
    said = _predictions_since(turn, since)
    yield from turn.told(
        verdicts.error_verdict(watch, blocks, rise, weighed, signals, said, spec)
    )
    is_wrong = any(f.is_weighed and f.kind == "observations" for f in turn.watch.faults)
    if is_wrong:
        inputs = store.kept_slices(
            session, spec.name, store.INPUTS, spec.monitor.window_rows
        )
        store.mark_faulty(session, [row for row in inputs if row.end >= since])


def _signals(
    turn: Turn, since: datetime, rise: Rise, blocks: list[Block]
) -> weighing.Signals:
    """Measure what speaks for each cause of a rise."""
    watch, spec = turn.watch, turn.spec
    said = watch.verdict
    if said and said.since and said.version == blocks[-1].version:
        since = min(since, said.since)
    found = compared.labelled_stretches(turn, since, rise.before)
    if found is None:
        return weighing.Signals([], set(), 0)
    everything = store.load_all_blocks(turn.deps.session, spec.name, MAX_BLOCKS)
    season = seasons.year_before(
        everything,
        core.levels(watch, everything),
        (since, blocks[-1].end),
        blocks[max(0, rise.since - SEASON_BLOCKS)].start,
    )
    signals = weighing.gather(*found, season, spec.monitor.window_rows)
    return _unsettled(watch, signals)


def _unsettled(watch: Watch, signals: weighing.Signals) -> weighing.Signals:
    """Infer nothing of columns of which nobody confirmed what was inferred."""
    now = watch.seen_until
    settled = {s.column for s in watch.settled if now is None or s.until > now}
    return replace(signals, settled=frozenset(settled))


def _predictions_since(turn: Turn, since: datetime) -> Movement | None:
    """How far predictions since then are from those on the reference sample."""
    spec = turn.spec
    sample = store.load_sample(turn.deps.session, spec.name)
    said = _rows_since(turn, store.PREDICTIONS, since)
    if sample is None or said is None:
        return None
    kind: Kind = "number" if spec.task == "regression" else "category"
    found = movements(sample, said, {PREDICTION: kind}, spec.monitor.feature_alpha)
    return found[0] if found else None


def _rows_since(turn: Turn, kind: str, since: datetime) -> pa.Table | None:
    """Return the newest good rows, one window at most; None: there are none."""
    slices = [
        row
        for row in store.newest_slices(
            turn.deps.session,
            turn.watch.pipeline,
            kind,
            turn.spec.monitor.window_rows,
        )
        if not row.is_faulty and row.end >= since
    ]
    return store.rows_of(slices) if slices else None


HANDLERS: list[EventHandler] = [
    on_batch_validated,
    on_batch_rejected,
    on_batch_scored,
    on_requests_answered,
    on_model_deployed,
    on_model_rolled_back,
    on_verdict_overruled,
]
