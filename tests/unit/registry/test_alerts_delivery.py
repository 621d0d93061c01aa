"""People are told once per condition and channel, whatever is killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driftloop.contracts.alerts import AlertAcknowledged, AlertDelivered
from driftloop.registry.alerting.channels import NotSentError
from driftloop.registry.rebuild.state import snapshot_of

from tests.unit.registry.alerts import FAULT, ONE, TWO, World, raised
from tests.unit.registry.approvals import HOUR, Killed
from tests.unit.registry.story import NAME

Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[World] = []

    def world(**alerts: Any) -> World:
        made.append(World(tmp_path, **alerts))
        return made[-1]

    yield world
    for each in made:
        each.kill()


def test_one_condition_one_notice_and_one_when_it_is_over(make: Make) -> None:
    """Raised three times, it is told once; the repeats are counted."""
    world = make(**ONE)
    for event_id in ("a1", "a2", "a3"):
        world.raise_(event_id)
    assert world.look() == ["team raised"]
    assert world.look(60) == []
    world.resolve()
    assert world.look() == ["team resolved"]
    assert world.look(60) == []
    assert world.outcomes() == [
        ("", "deduplicated"), ("", "deduplicated"), ("team", "delivered"),
        ("team", "delivered"),
    ]  # fmt: skip
    world.raise_("a4")  # it is there again: that is another alert
    assert world.look() == ["team raised"]


def test_what_is_told_says_what_to_do(make: Make) -> None:
    world = make(**ONE)
    world.raise_()
    world.look()
    ((_, content),) = world.took
    assert content.heading == f"[critical] {NAME}: Wrong values of temp (range)"
    assert content.cause == "temp: 168 of 168 rows are out of range"
    assert content.remedy.startswith("Mend the source of temp;")
    assert content.console == f"https://loop.example.org/#{NAME}"
    assert (content.since, content.until) == (world.now, None)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_the_record(make: Make, moment: str) -> None:
    """What was stored is published at the start; nobody is told again."""
    world = make(**ONE)
    world.raise_()
    world.kill_after_what_is_said(world.look, moment)
    world.look(1)
    assert [name for name, _ in world.took] == ["team"]
    assert world.outcomes() == [("team", "delivered")]


def test_killed_between_the_call_and_its_record(make: Make) -> None:
    """Told again, with the same id, by which the receiver knows it."""
    world = make(**ONE)
    world.raise_()
    world.is_killed_after_call = True
    with pytest.raises(Killed):
        world.look()
    world.restart()
    assert world.look() == ["team raised"]
    first, second = (content for _, content in world.took)
    assert first.notice_id == second.notice_id
    assert first == second
    assert world.outcomes() == [("team", "delivered")]


def test_a_rebuild_calls_nobody(make: Make, tmp_path: Path) -> None:
    """A database that is built anew holds the same, and tells nobody again."""
    world = make(**ONE)
    world.raise_()
    world.look()
    with world.engine.connect() as connection:
        before = snapshot_of(connection)
    world.kill()
    world.database.unlink()
    world.start()
    assert world.look() == []  # nothing is called while the log is not read
    world.deliver()
    assert world.look() == []
    with world.engine.connect() as connection:
        after = snapshot_of(connection)
    assert before.differing(after) == []
    world.raise_("b1", "another")
    assert world.look() == ["team raised"]


def test_a_receiver_that_fails_is_tried_again_ever_later(make: Make) -> None:
    """The others are told at once; after a day it is given up, and said."""
    world = make(**TWO, routes=[{"channels": ["team", "boss"]}])
    world.refusing["team"] = NotSentError("HTTP 500")
    world.raise_()
    assert world.look() == ["boss raised"]
    tries = 0
    while ("team", "given_up") not in world.outcomes():
        assert world.look(60) == []
        tries += 1
        assert tries < 30, "never given up"
    assert 24 <= tries <= 25
    given_up = world.told(AlertDelivered)[-1]
    assert given_up.attempts >= 24
    assert "HTTP 500" in given_up.detail or "failed" in given_up.detail
    del world.refusing["team"]
    assert world.look(600) == []


def test_a_final_refusal_is_the_end(make: Make) -> None:
    world = make(**ONE)
    world.refusing["team"] = NotSentError("HTTP 410", is_final=True)
    world.raise_()
    assert world.look() == []
    assert world.outcomes() == [("team", "given_up")]


def test_what_is_too_old_is_told_to_nobody(make: Make) -> None:
    """As after an upgrade: a log of years wakes no one."""
    world = make(**ONE)
    world.raise_()
    assert world.look(60 * 25) == []
    assert world.outcomes() == [("team", "given_up")]


def test_a_receiver_that_comes_back_gets_each_notice(make: Make) -> None:
    """One that cannot be sent does not stop those behind it."""
    world = make(**ONE)
    world.refusing["team"] = NotSentError("nobody answered")
    for name in ("x", "y", "z"):
        world.raise_(name, name)
    for _ in range(10):
        world.look(10)
    del world.refusing["team"]
    for _ in range(10):
        world.look(10)
    assert sorted(c.condition for _, c in world.took) == ["x", "y", "z"]


def test_nobody_looks_after_it(make: Make) -> None:
    """After half an hour the boss is called; not when somebody has said so before."""
    world = make(**TWO)
    world.raise_("a1")
    world.raise_("a2", "another")
    assert world.look() == ["team raised", "team raised"]
    said = AlertAcknowledged(pipeline=NAME, alert_id="a2", condition="another", by="a")
    world.say(said, "ack")
    world.deliver()
    assert world.look(29) == []
    assert world.look(1) == ["boss escalated"]
    assert world.took[-1][1].alert_id == "a1"
    assert world.look(600) == []


def test_repeats_until_somebody_looks(make: Make) -> None:
    """Those that were missed are not made up for."""
    world = make(**ONE, repeat_hours=4)
    world.raise_()
    assert world.look() == ["team raised"]
    assert world.look(4 * 60) == ["team repeated"]
    assert world.look(13 * 60) == ["team repeated"]
    world.resolve()
    assert world.look() == ["team resolved"]
    assert world.look(24 * 60) == []


def test_short_ones_are_told_to_nobody(make: Make) -> None:
    world = make(**ONE, hold_minutes=10)
    world.raise_("a1")
    assert world.look(5) == []
    world.resolve()
    assert world.look(60) == []
    world.raise_("a2")
    assert world.look(9) == []
    assert world.look(1) == ["team raised"]


def test_one_that_flickers_is_one(make: Make) -> None:
    """It is over when it has stayed away for long enough."""
    world = make(**ONE, calm_minutes=30)
    world.raise_("a1")
    assert world.look() == ["team raised"]
    for number in range(5):
        world.resolve()
        assert world.look(20) == []
        world.raise_(f"b{number}")
        assert world.look(5) == []
    world.resolve()
    assert world.look(29) == []
    assert world.look(1) == ["team resolved"]


def test_silenced(make: Make) -> None:
    """What goes on when the silence ends is told then; what is over never was."""
    world = make(**ONE)
    world.silence(world.now + HOUR, condition="sensor_fault:*")
    world.raise_("a1")
    world.raise_("a2", "sensor_fault:hum:x")
    world.raise_("a3", "another")
    assert world.look() == ["team raised"]
    assert world.took[-1][1].alert_id == "a3"
    world.look(30)
    world.resolve("sensor_fault:hum:x")
    assert world.look(31) == ["team raised"]
    assert world.took[-1][1].alert_id == "a1"
    assert world.look(600) == []
    silenced = [e for e in world.told(AlertDelivered) if e.outcome == "silenced"]
    assert sorted(e.alert_id for e in silenced) == ["a1", "a2"]
    assert "silenced by ann until" in silenced[0].detail


def test_a_silence_that_is_ended(make: Make) -> None:
    world = make(**ONE)
    begun = world.now
    world.silence(begun + 9 * HOUR)
    world.raise_()
    assert world.look(60) == []
    world.silence(begun, silence_id=f"silence-{begun}-begun", change="ended")
    assert world.look(1) == ["team raised"]


def test_quiet_hours(make: Make) -> None:
    """At night what is critical is told, the rest in the morning, if it goes on."""
    world = make(**ONE, quiet_hours={"start": "22:00", "end": "07:00"})
    assert (world.now.hour, world.now.minute) == (0, 0)
    world.raise_("a1", severity="warning")
    world.raise_("a2", "another", severity="warning")
    world.raise_("a3", "third")
    assert world.look() == ["team raised"]
    world.look(60)
    world.resolve("another")
    assert world.look(5 * 60 + 59) == []
    assert world.look(1) == ["team raised"]
    assert [c.alert_id for _, c in world.took] == ["a3", "a1"]


def test_without_channels_nobody_is_told(make: Make) -> None:
    world = make()
    world.raise_()
    assert world.look() == []
    assert world.outcomes() == []


def test_what_cannot_end_is_over_after_a_week(make: Make) -> None:
    """Raised again within it, it is the same; after it, another one."""
    world = make(**ONE)
    world.raise_("a1", "training-failed/j", can_end=False)
    assert world.look() == ["team raised"]
    world.look(24 * 60 * 6)
    world.raise_("a2", "training-failed/j", can_end=False)
    assert world.look(24 * 60 * 8) == []
    world.raise_("a3", "training-failed/j", can_end=False)
    assert world.look() == ["team raised"]
    assert FAULT not in {c.condition for _, c in world.took}


def test_a_changed_file_holds_at_once(make: Make) -> None:
    """Also for alerts that go on, and for those whose channels were other ones."""
    world = make(**TWO)
    world.raise_()
    assert world.look() == ["team raised"]
    changed = {**TWO, "routes": [{"channels": ["team", "boss"]}], "escalation": []}
    world.change(**changed)
    assert world.look() == ["boss raised"]
    world.resolve()
    assert sorted(world.look()) == ["boss resolved", "team resolved"]
    world.change(**changed, repeat_hours=1)
    assert world.look(600) == []


def test_what_is_over_is_looked_at_no_more(make: Make) -> None:
    """Until the log says something new; a look at years of alerts costs nothing."""
    world = make(**ONE)
    for number in range(3):
        world.raise_(f"a{number}", f"c{number}")
    world.look()
    for number in range(2):
        world.resolve(f"c{number}")
    world.look()
    world.look()
    (known,) = world.deliverer.sight._known.values()
    assert [alert.id for alert in known.alerts] == ["a2"]
    assert world.look(1) == []
    world.raise_("b0", "c0")
    assert world.look() == ["team raised"]


def test_a_repeat_that_is_read_late_ends_nothing_twice(make: Make) -> None:
    """Topics have no common order: what was said before the end may be read after."""
    world = make(**ONE)
    world.raise_("a1")
    world.look()
    early = world.now
    world.now += HOUR
    world.resolve()
    assert world.look() == ["team resolved"]
    world.say(raised(), "a2", early + HOUR / 2)
    world.deliver()
    assert world.look(60) == []
    assert world.outcomes().count(("", "deduplicated")) == 1


def test_what_a_replica_called_and_did_not_say_is_left_to_the_next(make: Make) -> None:
    """It has lost the lock meanwhile: the other one tells it, and says so once."""
    world = make(**ONE)
    world.raise_()
    world.deliverer.round()
    world.deliverer.stand_by()
    assert len(world.took) == 1
    assert world.outcomes() == []
    assert world.look() == ["team raised"]
    assert world.outcomes() == [("team", "delivered")]
    assert world.took[0][1] == world.took[1][1]
