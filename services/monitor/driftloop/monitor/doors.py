"""Rows that were asked at doors, against the stream and against training."""

from collections.abc import Iterator
from datetime import datetime

import pyarrow as pa
from driftloop.contracts.base import Event
from driftloop.contracts.events import RequestsAnswered
from driftloop.monitor import skew, store
from driftloop.monitor.turn import Turn, kinds_of, newest_rows

MAX_ROWS = 1000
"""Newest rows of each side that are compared, id by id; and the most that are kept of
one minute of requests, so that busy doors cost no more than quiet ones."""


def room_for(turn: Turn, event: RequestsAnswered) -> int:
    """Return how many rows of an event are still kept of its minute."""
    minute, watch = _minute(event), turn.watch
    is_new = watch.asked_minute is None or minute > watch.asked_minute
    if is_new:
        turn.watch = watch.model_copy(
            update={"asked_minute": minute, "minute_rows": 0, "minute_versions": ()}
        )
    return min(event.row_count, MAX_ROWS - turn.watch.minute_rows)


def is_first_look(turn: Turn, event: RequestsAnswered) -> bool:
    """Whether nothing of the version was kept of this minute."""
    return event.version not in turn.watch.minute_versions


def _minute(event: RequestsAnswered) -> datetime:
    return event.span.start.replace(second=0, microsecond=0)


def keep(turn: Turn, event: RequestsAnswered, row_count: int) -> None:
    """Store the first asked rows; those with ids wait for the same in the stream."""
    version = pa.repeat(event.version, row_count)
    rows = event.rows.slice(0, row_count).append_column(skew.VERSION, version)
    store.add_slice(turn.deps.session, event.pipeline, store.ASKED, event.span, rows)
    watch = turn.watch
    has_ids = rows.column(skew.ID).null_count < rows.num_rows
    wait = store.KEPT_WINDOWS * turn.spec.monitor.window_rows
    turn.watch = watch.model_copy(
        update={
            "awaited_rows": wait if has_ids else watch.awaited_rows,
            "asked_rows": watch.asked_rows + row_count,
            "minute_rows": watch.minute_rows + row_count,
            "minute_versions": tuple(sorted({*watch.minute_versions, event.version})),
        }
    )


def passed(turn: Turn, row_count: int) -> None:
    """Count rows of the stream: asked rows are not waited for without end."""
    left = max(0, turn.watch.awaited_rows - row_count)
    turn.watch = turn.watch.model_copy(update={"awaited_rows": left})


def compare(turn: Turn) -> Iterator[Event]:
    """Compare rows that were asked at a door with the same rows in the stream."""
    if not turn.watch.awaited_rows or turn.watch.faults:
        return
    asked = _newest_of(turn, store.ASKED, MAX_ROWS)
    validated = _newest_of(turn, store.INPUTS, MAX_ROWS)
    if asked is None or validated is None or skew.ID not in validated.schema.names:
        return
    scored = _newest_of(turn, store.PREDICTIONS, MAX_ROWS)
    if scored is not None and skew.VERSION not in scored.schema.names:
        scored = None  # kept by an earlier release
    kinds = kinds_of(turn.spec, validated)
    found = skew.value_differences(asked, validated, scored, kinds)
    yield from turn.told(skew.judge_skew(turn.watch, found, turn.spec))


def compare_distributions(turn: Turn) -> Iterator[Event]:
    """Compare a full window of asked rows with what the version learned from."""
    window_rows = turn.spec.monitor.window_rows
    turn.watch = turn.watch.model_copy(update={"asked_rows": 0})
    store.forget_slices(turn.deps.session, turn.watch.pipeline, window_rows)
    sample = store.load_sample(turn.deps.session, turn.watch.pipeline)
    asked = _newest_of(turn, store.ASKED, window_rows)
    if sample is None or asked is None:
        return
    found = skew.distribution_differences(
        sample,
        asked,
        _newest_of(turn, store.INPUTS, window_rows),
        kinds_of(turn.spec, sample.drop_columns([skew.PREDICTION])),
        turn.spec.monitor.feature_alpha,
    )
    yield from turn.told(skew.judge_skew(turn.watch, found, turn.spec))


def _newest_of(turn: Turn, kind: str, most: int) -> pa.Table | None:
    """Return the newest good rows; None: there are none."""
    slices = store.newest_slices(turn.deps.session, turn.watch.pipeline, kind, most)
    good = [row for row in slices if not row.is_faulty]
    return newest_rows(store.rows_of(good), most) if good else None
