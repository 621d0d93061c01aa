"""Metrics that follow from the log: the same in any order, none from half of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from driftloop.console.core import Board
from driftloop.console.measured import BUCKETS, Tally
from driftloop.console.metrics import Families, LogCollector
from driftloop.console.reading import STORY_TOPICS
from driftloop.contracts import events as e
from driftloop.contracts.base import Chain, Event
from driftloop.contracts.topics import TOPICS
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from tests.component.console_story import NAME, Story
from tests.unit.console.boards import board_of

WALL = datetime(2026, 1, 1, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def story() -> list[Event]:
    return list(Story(WALL).events())


def told(board: Board, *, is_complete: bool = True) -> CollectorRegistry:
    def tell(families: Families) -> None:
        for name, found in board.pipelines.items():
            counts = {t: n for t, n in found.counts.items() if t in STORY_TOPICS}
            families.tell(name, found.tally, counts)

    registry = CollectorRegistry()
    registry.register(LogCollector(tell, lambda: is_complete))
    return registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"driftloop_{name}", {"pipeline": NAME, **labels})


def test_the_order_of_topics_does_not_matter(story: list[Event]) -> None:
    expected = generate_latest(told(board_of(story)))
    for seed in range(3):
        dice = random.Random(seed)
        places = {topic.name: dice.random() for topic in TOPICS}
        shuffled = sorted(story, key=lambda event: places[event.topic()])
        assert generate_latest(told(board_of(shuffled))) == expected


def test_chains_are_counted_by_reason_and_result(story: list[Event]) -> None:
    registry = told(board_of(story))

    def count(reason: str, result: str) -> float | None:
        return value(
            registry, "chain_duration_seconds_count", reason=reason, result=result
        )

    assert count("first_model", "deployed") == 1
    assert count("concept_drift", "registered") == 4
    assert count("concept_drift", "deployed") == 2
    assert count("concept_drift", "rolled_back") == 1
    assert count("sensor_fault", "deployed") is None
    assert value(registry, "story_events_total", event="drift-detected") == 5
    assert value(registry, "story_events_total", event="batch-ingested") is None
    assert value(registry, "model_deployed_timestamp_seconds", version="3")
    assert value(registry, "model_deployed_timestamp_seconds", version="2") is None


def test_nothing_is_told_before_the_log_has_been_read(story: list[Event]) -> None:
    registry = told(board_of(story), is_complete=False)
    assert value(registry, "story_events_total", event="drift-detected") is None


Tell = Callable[[Event, float], Event]


@pytest.fixture
def tell(story: list[Event]) -> Tell:
    """Returns an event of one chain, so many seconds after its beginning."""
    origin = story[0].meta
    chain = Chain("chain", f"00-{TRACE}-b7ad6b7169203331-01")

    def of(event: Event, after_s: float) -> Event:
        time = WALL + timedelta(seconds=after_s)
        return event.with_meta(replace(origin, id=f"{after_s}", time=time, chain=chain))

    return of


def of_type(story: list[Event], kind: type[Event], version: int) -> Event:
    found = (x for x in story if type(x) is kind and x.version == version)  # type: ignore[attr-defined]
    return next(found)


def test_people_may_take_their_time(story: list[Event], tell: Tell) -> None:
    """A week until the yes is a wait of people, not a slow chain."""
    asked = e.ApprovalRequested(
        pipeline=NAME, version=2, package=of_type(story, e.ModelDeployed, 2).package,  # type: ignore[attr-defined]
        role="approver", people=1,
    )  # fmt: skip
    started = next(x for x in story if isinstance(x, e.TrainingStarted))
    tally, week_s = Tally(), 604_800.0
    for event, after_s in (
        (started, 0.0),
        (asked, 20.0),
        (of_type(story, e.ModelApproved, 2), 20 + week_s),
        (of_type(story, e.ModelDeployed, 2), 40 + week_s),
    ):
        tally.take(tell(event, after_s))
    tally.settle()
    took = tally.durations["first_model", "deployed"]
    assert took.total == pytest.approx(40)
    assert tally.waits.total == pytest.approx(week_s)
    assert took.counts[BUCKETS.index(60.0)] == 1
    families = Families()
    families.tell(NAME, tally, {})
    (example,) = [s.exemplar for s in families.durations.samples if s.exemplar]
    assert example.labels == {"trace_id": TRACE}
    assert example.value == pytest.approx(40)
    tally.settle()
    assert sum(took.counts) == 1, "counted once"


def test_a_chain_whose_beginning_comes_later_is_counted_then(
    story: list[Event], tell: Tell
) -> None:
    tally = Tally()
    tally.take(tell(of_type(story, e.ModelDeployed, 2), 40))
    tally.settle()
    assert not tally.durations
    tally.take(tell(next(x for x in story if isinstance(x, e.TrainingStarted)), 1.0))
    tally.settle()
    assert tally.durations["first_model", "deployed"].total == pytest.approx(39)
