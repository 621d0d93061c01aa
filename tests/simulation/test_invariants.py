"""Each check sees a history that was spoilt, and finds nothing in a whole one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    ApprovalGiven,
    DriftEnded,
    ModelApproved,
    ModelRegistered,
    ModelTrained,
    ServingDesired,
    TrainingStarted,
)
from driftloop.contracts.identity import AuditNoted
from driftloop.contracts.topics import dead_letter_topic
from driftloop.runtime.transport import Message

from tests.simulation.history import History
from tests.simulation.invariants import CHECKS, violations
from tests.simulation.playing import play
from tests.simulation.scenario import Item, Scenario
from tests.unit.trainer import cases

OPTIONS = {
    "automation": "approve",
    "people": 1,
    "cooldown_days": 0,
    "steps": [0.5],
    "watch_rows": 20,
    "strategy": "canary",
}
ITEMS = (
    Item(0, "data", (2000,)),
    Item(1, "poison", (1,)),
    Item(60, "data", (900,)),
    Item(70, "retrain", (0,)),
    Item(90, "audit", (1,)),
)


@cache
def whole() -> History:
    """Return a history with two versions in service after one another."""
    return play(Scenario("policy", WITH_TWO_VERSIONS, OPTIONS, ITEMS))


WITH_TWO_VERSIONS = 4


def without(history: History, kind: type[Event], at: int = 0) -> History:
    """Take an event out of the log."""
    topic = kind.topic()
    gone = history.events[topic][at]
    left = tuple(e for e in history.events[topic] if e.meta.id != gone.meta.id)
    return replace(history, events={**history.events, topic: left})


def twice(history: History, kind: type[Event]) -> History:
    """Say what an event says again, as another event."""
    topic = kind.topic()
    first = history.events[topic][0]
    other = first.with_meta(replace(first.meta, id="another"))
    return replace(
        history, events={**history.events, topic: (*history.events[topic], other)}
    )


def changed(history: History, topic: str, **fields: Any) -> History:
    """Write the first record of a topic again, with something else in it."""
    records = history.records[topic]
    again = replace(records[0], offset=len(records), **fields)
    return replace(history, records={**history.records, topic: (*records, again)})


def _restless(history: History) -> History:
    return replace(history, is_quiet=False)


def _no_end(history: History) -> History:
    return without(history, ModelTrained)


def _no_version(history: History) -> History:
    return without(history, ModelRegistered)


def _no_decision(history: History) -> History:
    return replace(
        without(history, ModelApproved),
        ledger=replace(history.ledger, standings={}),  # type: ignore[type-var]  # it has one
    )


def _two_versions(history: History) -> History:
    return twice(history, ModelRegistered)


def _two_jobs(history: History) -> History:
    return twice(history, TrainingStarted)


def _other_bytes(history: History) -> History:
    return changed(history, ModelTrained.topic(), value=b"{}")


def _no_cause(history: History) -> History:
    topic = ModelTrained.topic()
    headers = (("ce_id", b"x"), ("ce_causationid", b"nobody"))
    return changed(history, topic, headers=headers)


def _nobody_said_yes(history: History) -> History:
    return replace(history, events={**history.events, ApprovalGiven.topic(): ()})


def _moved_back(history: History) -> History:
    ledger = history.ledger
    assert ledger is not None
    move = next(e for e in ledger.history if e.after == "approved")
    back = replace(move, before="rejected")
    return replace(history, ledger=replace(ledger, history=(*ledger.history, back)))


def _rolled_out_unasked(history: History) -> History:
    return without(history, ModelApproved)


def _lost_artifact(history: History) -> History:
    store = type(history.store)()
    return replace(history, store=store)


def _other_version_serves(history: History) -> History:
    return replace(history, serves=dict.fromkeys(history.serves, 99))


def _lag(history: History) -> History:
    return replace(history, lag={"trainer": 1})


def _unsent(history: History) -> History:
    return replace(history, unsent={"trainer": 1})


def _another_fault(history: History) -> History:
    known = history.faults
    assert known is not None
    end = DriftEnded(
        pipeline=cases.NAME, cause="sensor_fault", features=["a"], since=cases.day(1),
        until=cases.day(2),
    )  # fmt: skip
    return replace(history, faults=known.with_end(end))


def _last_wish_lost(history: History) -> History:
    topic = ServingDesired.topic()
    early = history.events[topic][:1]
    return replace(history, events={**history.events, topic: early}, serves={})


def _altered_note(history: History) -> History:
    trail = history.trail
    assert trail
    bad = replace(trail[0], content={**trail[0].content, "subject": "mallory"})
    return replace(history, trail=(bad, *trail[1:]))


def _hole_in_the_trail(history: History) -> History:
    assert history.trail
    return replace(history, trail=history.trail[1:])


def _note_lost(history: History) -> History:
    return without(history, AuditNoted)


def _letters(history: History, change: Callable[[Message], Message | None]) -> History:
    found = dict(history.records)
    for service in history.services:
        topic = dead_letter_topic(service)
        changed = (change(letter) for letter in found[topic])
        found[topic] = tuple(letter for letter in changed if letter is not None)
    return replace(history, records=found)


def _letter_lost(history: History) -> History:
    return _letters(history, lambda _: None)


def _letter_changed(history: History) -> History:
    return _letters(history, lambda letter: replace(letter, value=b"other"))


def _good_record_aside(history: History) -> History:
    return replace(history, poison=frozenset())


SPOILT: dict[Callable[[History], History], str] = {
    _restless: "0 rest",
    _no_end: "1 outcome",
    _no_version: "1 outcome",
    _no_decision: "1 outcome",
    _two_versions: "2 once",
    _two_jobs: "2 once",
    _other_bytes: "3 identity",
    _no_cause: "3 identity",
    _nobody_said_yes: "4 moves",
    _moved_back: "4 moves",
    _rolled_out_unasked: "4 moves",
    _lost_artifact: "5 artifacts",
    _other_version_serves: "6 serving",
    _lag: "6 serving",
    _unsent: "6 serving",
    _another_fault: "6 serving",
    _last_wish_lost: "6 serving",
    _altered_note: "7 trail",
    _hole_in_the_trail: "7 trail",
    _note_lost: "7 trail",
    _letter_lost: "8 letters",
    _letter_changed: "8 letters",
    _good_record_aside: "8 letters",
}


@pytest.fixture
def history() -> History:
    return whole()


def test_nothing_is_found_in_a_whole_history(history: History) -> None:
    assert violations(history) == []
    assert len(history.of(ModelApproved)) > 1
    assert history.poison
    assert history.trail


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__.strip("_"))
def test_a_spoilt_history_is_seen(
    history: History, spoil: Callable[[History], History]
) -> None:
    assert [*CHECKS[SPOILT[spoil]](spoil(history))]
