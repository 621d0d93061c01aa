"""Versions on their way to production are measured apart from what is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from driftloop.contracts.events import (
    BatchScored,
    DriftDetected,
    PerformanceMeasured,
    RequestsAnswered,
)
from driftloop.contracts.pipeline import PRODUCTION, PipelineSpec
from driftloop.monitor.tables import MonitorLabel, MonitorPrediction
from driftloop.monitor.turn import Packaged
from sqlmodel import select

from tests.unit.monitor.story import EVALUATION, NAME, ROWS, InProcess, Shop, spec


def with_staging() -> PipelineSpec:
    content = spec().model_dump(mode="json")
    content["rollout"]["environments"] = [{"name": "staging"}]
    return PipelineSpec.model_validate(content)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def monitor(shop: Shop) -> Iterator[InProcess]:
    found = InProcess(with_staging(), lambda _: Packaged(EVALUATION, shop.sample()))
    found.take(shop.deployed())
    yield found
    found.close()


def in_staging(event: Any) -> Any:
    return event.model_copy(update={"environment": "staging"})


def measured(events: list[Any]) -> list[tuple[str, list[int]]]:
    return [
        (event.environment, [one.version for one in event.measurements])
        for event in events
        if isinstance(event, PerformanceMeasured)
    ]


@pytest.mark.parametrize("is_label_first", [False, True])
def test_each_environment_meets_each_label_once(
    monitor: InProcess, shop: Shop, is_label_first: bool
) -> None:
    scored: list[BatchScored] = [
        shop.scored(0), in_staging(shop.scored(0, version=2, candidate=1)),
    ]  # fmt: skip
    events = [shop.labelled(0), *scored] if is_label_first else [
        *scored, shop.labelled(0),
    ]  # fmt: skip
    told = [one for event in events for one in monitor.take(event)]
    assert measured(told) == [(PRODUCTION, [1]), ("staging", [2, 1])]
    staging = [e for e in told if e.environment == "staging"]
    assert staging[0].row_count == ROWS
    assert staging[0].comparison is not None
    for table in (MonitorLabel, MonitorPrediction):
        assert monitor.session.exec(select(table)).all() == []
    assert measured(monitor.take(shop.labelled(0))) == []


def test_a_pipeline_without_environments_keeps_one_label_a_row(shop: Shop) -> None:
    monitor = InProcess(spec())
    monitor.take(shop.labelled(0))
    waiting = monitor.session.exec(select(MonitorLabel)).all()
    assert {row.pipeline for row in waiting} == {NAME}
    assert len(waiting) == ROWS
    monitor.close()


def test_a_bad_version_in_staging_is_no_drift(shop: Shop) -> None:
    """The same errors in production are; that is the control."""
    verdicts = {}
    for name in ("staging", PRODUCTION):
        bad = Shop(true=lambda _, size: 30 * size)
        monitor = InProcess(with_staging(), lambda _: Packaged(EVALUATION, None))
        monitor.take(shop.deployed())
        for number in range(40):
            monitor.take(bad.observed(number))
            scored = bad.scored(number)
            monitor.take(scored.model_copy(update={"environment": name}))
            monitor.take(bad.labelled(number))
        verdicts[name] = bool(monitor.of(DriftDetected))
        assert monitor.of(PerformanceMeasured)
        monitor.close()
    assert verdicts == {"staging": False, PRODUCTION: True}


def test_answers_in_staging_are_not_compared_with_the_stream(
    monitor: InProcess, shop: Shop
) -> None:
    scored = shop.scored(0)
    asked = RequestsAnswered(
        pipeline=NAME, environment="staging", shard="0", row_count=ROWS,
        span=scored.span, version=2, asked_count=ROWS,
    )  # fmt: skip
    assert monitor.take(asked.with_rows(scored.rows)) == []
