"""The watchdog ends what stands still, and nothing else."""

import threading
from dataclasses import replace

import pytest
from driftloop.runtime.drivers.watchdog import (
    EXIT_STALLED,
    Progress,
    Watchdog,
    is_stalled,
    observe,
)
from driftloop.runtime.transport import DriverStatus

LIMIT_S = 60.0
STUCK = DriverStatus(True, frozenset({("t", 0)}), lag=3, processed=7)


def look_for_two_limits(statuses: list[DriverStatus], beats: list[int]) -> bool:
    """Look every 10 s, cycling through the statuses; True when it would end."""
    progress: Progress | None = None
    for step in range(13):
        now_s = 10.0 * step
        status = statuses[step % len(statuses)]
        progress = observe(progress, status, beats[step % len(beats)], now_s)
        if is_stalled(progress, now_s, LIMIT_S):
            return True
    return False


def test_lag_without_progress_is_a_stall() -> None:
    """Negative control of all cases below."""
    assert look_for_two_limits([STUCK], [0])


@pytest.mark.parametrize(
    "other",
    [
        replace(STUCK, processed=8),
        replace(STUCK, lag=0),
        replace(STUCK, lag=None),
        replace(STUCK, connected=False),
        replace(STUCK, assigned=frozenset({("t", 1)})),
    ],
    ids=["processed", "caught up", "lag unknown", "broker away", "rebalance"],
)
def test_movement_resets_the_clock(other: DriverStatus) -> None:
    """Now and then something else than the stuck status: no stall."""
    assert not look_for_two_limits([STUCK, STUCK, other], [0])


def test_beats_of_the_handler_reset_the_clock() -> None:
    """A long chunk whose messages go on one by one is not stuck."""
    assert not look_for_two_limits([STUCK], list(range(13)))


def test_messages_that_nobody_reads_are_a_stall() -> None:
    """A member without partitions, of a group in which nobody has them."""
    lost = DriverStatus(True, frozenset(), lag=None, processed=0, stranded=3)
    assert look_for_two_limits([lost], [0])
    assert not look_for_two_limits([replace(lost, stranded=0)], [0])
    assert not look_for_two_limits([lost, lost, replace(lost, stranded=0)], [0])


@pytest.mark.parametrize(
    "quiet",
    [replace(STUCK, lag=0), replace(STUCK, connected=False)],
    ids=["caught up", "broker away"],
)
def test_quiet_status_never_stalls(quiet: DriverStatus) -> None:
    """Nothing to do, or nobody to ask: wait for ever."""
    assert not look_for_two_limits([quiet], [0])


def test_clock_starts_when_the_quiet_ends() -> None:
    """Lag that appears after a long quiet time gets the full limit."""
    progress = observe(None, replace(STUCK, lag=0), 0, 0.0)
    progress = observe(progress, replace(STUCK, lag=0), 0, 1000.0)
    progress = observe(progress, STUCK, 0, 1001.0)
    assert not is_stalled(progress, 1001.0 + LIMIT_S, LIMIT_S)
    assert is_stalled(progress, 1001.0 + LIMIT_S + 1, LIMIT_S)


def test_thread_ends_the_process_with_its_code() -> None:
    """The thread calls the end it was given, once, with the code for a stall."""
    codes: list[int] = []
    ended = threading.Event()

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    watchdog = Watchdog(lambda: STUCK, limit_s=0.05, end=end)
    watchdog.start()
    assert ended.wait(120)
    watchdog.stop()
    assert codes == [EXIT_STALLED]
