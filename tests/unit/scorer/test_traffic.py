"""Figures of requests are told once, also where the database is away for a while."""

from __future__ import annotations

from typing import Any, cast

import pytest
from driftloop.contracts.events import ScorerReported
from driftloop.scorer import answering
from driftloop.scorer.answering import Traffic, traffic_reporter
from sqlalchemy.exc import ProgrammingError

from tests.unit.scorer.telling import AWAY, BUG, Outbox


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "DRAIN_S", 0.001)


def told(outbox: Outbox, *pipelines: str) -> list[tuple[str, int, int]]:
    """Return what is reported of one failed and one answered call of each pipeline."""
    traffic = Traffic()
    for pipeline in pipelines:
        traffic.add((pipeline, 3, 1), "champion", 5, 0.01, None)
        traffic.add((pipeline, 3, 1), "champion", 2, 0.01, "it broke")
    traffic_reporter(traffic, cast("Any", outbox), "a", outbox.stopping)()
    assert traffic.drain() == {}
    return [
        (event.pipeline, event.versions[0].row_count, event.versions[0].error_count)
        for event in outbox.told
        if isinstance(event, ScorerReported)
    ]


def test_errors_are_told_at_once() -> None:
    wanted = [("bikes", 7, 2), ("rain", 7, 2)]
    assert told(Outbox(2), "bikes", "rain") == wanted


def test_what_could_not_be_told_is_told_later_and_once() -> None:
    wanted = [("bikes", 7, 2), ("rain", 7, 2)]
    assert told(Outbox(4, AWAY, AWAY), "bikes", "rain") == wanted


def test_a_bug_ends_it() -> None:
    with pytest.raises(ProgrammingError):
        told(Outbox(2, BUG), "bikes")
