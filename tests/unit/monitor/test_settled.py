"""An inferred fault that nobody confirms ends, and is not told again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from driftloop.contracts.events import (
    Cause,
    DriftEnded,
    Span,
    VerdictOverruled,
)
from driftloop.monitor.overruled import overruled
from driftloop.monitor.state import Fault, Watch
from driftloop.monitor.verdicts import (
    MAX_FAULT_WINDOWS,
    SETTLED_WINDOWS,
    faults_over,
)

from tests.unit.monitor.story import day, spec

WINDOW_DAYS = 7
LONG = (MAX_FAULT_WINDOWS + 1) * WINDOW_DAYS


def watched(*, is_inferred: bool) -> Watch:
    fault = Fault(
        column="heat", kind="observations", check="weighed", is_jump=False,
        since=day(0), detected_at=day(7), is_weighed=True, is_inferred=is_inferred,
    )  # fmt: skip
    return Watch(pipeline="shop", faults=(fault,))


def after(watch: Watch, days: int) -> tuple[Watch, list[DriftEnded]]:
    """The column is still wrong when the window ends."""
    start = day(days) - timedelta(days=WINDOW_DAYS)
    found, events = faults_over(
        watch, [wrong()], Span(start=start, end=day(days)), spec()
    )
    return found, [e for e in events if isinstance(e, DriftEnded)]


def wrong() -> object:
    class Wrong:
        column, strength, nulls, one_value, unseen = "heat", 1.0, 0.0, False, 0.0

    return Wrong()


def test_it_is_settled_once_its_time_is_over() -> None:
    watch, ends = after(watched(is_inferred=True), 2 * WINDOW_DAYS)
    assert (ends, watch.settled) == ([], ())
    watch, [end] = after(watch, LONG)
    assert end.features == ["heat"]
    assert [one.column for one in watch.settled] == ["heat"]


def test_one_that_shows_by_itself_is_never_settled() -> None:
    watch, [_] = after(watched(is_inferred=False), LONG)
    assert watch.settled == ()


@pytest.mark.parametrize(
    ("said", "settled"), [("sensor_fault", ()), ("label_fault", ("heat",))]
)
def test_one_that_a_person_confirms_is_no_longer_inferred(
    said: Cause, settled: tuple[str, ...]
) -> None:
    word = VerdictOverruled(
        pipeline="shop", verdict_id="v", verdict_cause="sensor_fault", cause=said,
        overruled_by="ada", reason="I looked", since=day(0), detected_at=day(7),
    )  # fmt: skip
    watch, _ = overruled(watched(is_inferred=True), word, spec())
    watch, _ = after(watch, LONG)
    assert tuple(one.column for one in watch.settled) == settled


def test_after_half_a_year_it_is_looked_at_anew() -> None:
    watch, _ = after(watched(is_inferred=True), LONG)
    (found,) = watch.settled
    assert found.until == day(LONG + SETTLED_WINDOWS * WINDOW_DAYS)
    for days, settled in ((LONG + WINDOW_DAYS, 1), (LONG + 27 * WINDOW_DAYS, 0)):
        later, _ = after(watch, days)
        assert len(later.settled) == settled
