"""The demo waits as long as the chain goes on, however slow the machine is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import polars as pl
import pytest
from driftloop.cli.demo import run
from driftloop.cli.demo.scenario import Board, Quiet


def say(board: Board) -> None:
    board.entries.append(cast("Any", None))


def test_quiet_begins_anew_with_each_word() -> None:
    now = 0.0
    board = Board("bikes")
    quiet = Quiet(board, lambda: now)
    now = 50.0
    assert quiet.for_s() == 50
    say(board)
    assert quiet.for_s() == 0
    now = 59.0
    assert quiet.for_s() == 9
    quiet.begin()
    assert quiet.for_s() == 0


def test_a_chain_that_is_slow_comes_to_rest_and_one_that_is_silent_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, board = 0.0, Board("bikes")
    monkeypatch.setattr(run, "Quiet", lambda board: Quiet(board, lambda: now))
    rows = pl.DataFrame({"t": ["2012-01-01T00:00:00Z"]})
    found: Any = type("S", (), {"rows": rows})()
    found.spec = type("P", (), {"data": type("D", (), {"time": "t"})})
    said = 0

    def goes_on(*_: object) -> bool:
        nonlocal now, said
        now += 60.0
        said += 1
        if said <= 10:
            say(board)
        if said == 10 and is_done:
            board.measured_until = datetime.max.replace(tzinfo=UTC)
        return False

    monkeypatch.setattr(board, "wait", goes_on)
    is_done = True
    run.settle(board, found)
    assert now == 600
    is_done, board.measured_until, said = False, None, 0
    with pytest.raises(run.DemoError, match="did not come to rest"):
        run.settle(board, found)
    assert said == 12  # two times 60 s without a word
