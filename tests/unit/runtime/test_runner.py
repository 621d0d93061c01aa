"""The runner on SQLite with a publisher that can be told to fail."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from driftloop.contracts.base import Event
from driftloop.contracts.events import RetrainRequested
from driftloop.runtime.errors import Reject, Retry, Skip
from driftloop.runtime.handlers import Chunk, DeadLetter, Deps, handler_table
from driftloop.runtime.outbox import Cause, Stopping
from driftloop.runtime.runner import MAX_CRASHES
from driftloop.runtime.transport import Message, Record
from sqlalchemy import text
from sqlmodel import Session

from tests.unit.runtime.bench import Bench, Effect, alert, on_retrain_requested


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, [on_retrain_requested])


def test_effect_and_event_are_stored_and_published_once(bench: Bench) -> None:
    bench.runner.process([bench.message()])
    assert bench.effects() == ["cause"]
    [event] = bench.published()
    assert event == alert().with_meta(event.meta)
    assert event.meta.causation_id == "cause"
    assert event.meta.chain.id == "chain"


def test_what_nothing_caused_has_no_cause_in_the_log(bench: Bench) -> None:
    """Its id and chain follow from its name; the control is the test above."""
    for name in ("alive/1", "alive/1", "alive/2"):
        with bench.outbox.unit(Cause.none(name)) as (_, events):
            events.append(alert())
    first, again, other = (event.meta for event in bench.published())
    assert (first.causation_id, first.chain.id) == (None, "alive/1")
    assert first.id == again.id != other.id


def test_redelivery_changes_nothing(bench: Bench) -> None:
    bench.runner.process([bench.message()])
    bench.restart()
    bench.runner.process([bench.message()])
    assert bench.effects() == ["cause"]
    assert len({e.meta.id for e in bench.published()}) == 1


def test_the_same_event_at_another_offset_changes_nothing(bench: Bench) -> None:
    bench.runner.process([bench.message(0), bench.message(1)])
    assert bench.effects() == ["cause"]
    assert bench.runner.start_offset("retrain-requested", 0) == 2


def test_two_events_have_two_effects(bench: Bench) -> None:
    """Negative control of the two tests above."""
    bench.runner.process([bench.message(0, "a"), bench.message(1, "b")])
    assert bench.effects() == ["a", "b"]
    assert len({e.meta.id for e in bench.published()}) == 2


def test_killed_between_commit_and_publish_the_event_goes_out_later(
    bench: Bench,
) -> None:
    class Killed(BaseException): ...

    def die(records: Sequence[Record], timeout_s: float = 30) -> None:
        raise Killed

    alive, bench.publisher.publish = bench.publisher.publish, die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        bench.runner.process([bench.message()])
    bench.publisher.publish = alive  # type: ignore[method-assign]
    assert bench.published() == []
    bench.restart()
    bench.outbox.recover()
    assert len(bench.published()) == 1
    bench.runner.process([bench.message()])
    assert bench.effects() == ["cause"]
    assert len({e.meta.id for e in bench.published()}) == 1


def test_a_broker_away_for_a_while_loses_nothing(bench: Bench) -> None:
    bench.publisher.failures = 2
    bench.runner.process([bench.message()])
    assert len(bench.published()) == 1


def test_undecodable_record_is_a_dead_letter_with_provenance(bench: Bench) -> None:
    good = bench.message(1)
    bad = Message("retrain-requested", 0, 0, b"k", b"\xff{", ())
    bench.runner.process([bad, good])
    [letter] = bench.dead_letters()
    assert letter["dead-letter-topic"] == "retrain-requested"
    assert letter["dead-letter-offset"] == "0"
    assert "ce_type" in letter["dead-letter-reason"]
    assert bench.effects() == ["cause"]


def test_reject_undoes_the_effect_and_keeps_the_message(tmp_path: Path) -> None:
    def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        deps.session.add(Effect(what="half done"))
        deps.session.flush()
        raise Reject("too late", field="reason")
        yield

    bench = Bench(tmp_path, [on_retrain_requested])
    bench.runner.process([bench.message()])
    assert bench.effects() == []
    assert bench.dead_letters()[0]["dead-letter-reason"] == "reason: too late"


def test_skip_is_final_and_silent(tmp_path: Path) -> None:
    def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        raise Skip("stale")
        yield

    bench = Bench(tmp_path, [on_retrain_requested])
    bench.runner.process([bench.message()])
    assert bench.publisher.sent == []
    assert bench.runner.start_offset("retrain-requested", 0) == 1


def test_retry_keeps_order_and_tries_until_it_works(tmp_path: Path) -> None:
    tries = iter([True, True, False])

    def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        if event.meta.id == "a" and next(tries):
            deps.session.add(Effect(what="half done"))
            raise Retry("store away")
        deps.session.add(Effect(what=event.meta.id))
        return iter(())

    bench = Bench(tmp_path, [on_retrain_requested], retry_limit_s=60)
    bench.runner.process([bench.message(0, "a"), bench.message(1, "b")])
    assert bench.effects() == ["a", "b"]


def test_retry_beyond_the_limit_is_a_dead_letter_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        if event.meta.id == "a":
            raise Retry("store away for good")
        deps.session.add(Effect(what=event.meta.id))
        return iter(())

    bench = Bench(tmp_path, [on_retrain_requested])
    bench.runner.process([bench.message(0, "a"), bench.message(1, "b")])
    assert bench.effects() == ["b"]
    assert "for good" in bench.dead_letters()[0]["dead-letter-reason"]


def test_stop_during_a_retry_leaves_the_message_unhandled(tmp_path: Path) -> None:
    def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        bench.runner.stop()
        raise Retry("store away")
        yield

    bench = Bench(tmp_path, [on_retrain_requested], retry_limit_s=60)
    with pytest.raises(Stopping):
        bench.runner.process([bench.message()])
    assert bench.runner.start_offset("retrain-requested", 0) == 0


def test_a_bug_ends_the_process_and_blocks_only_so_often(tmp_path: Path) -> None:
    def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        deps.session.add(Effect(what=event.meta.id))
        if event.meta.id == "a":
            raise ZeroDivisionError
        return iter(())

    bench = Bench(tmp_path, [on_retrain_requested])
    for _ in range(MAX_CRASHES - 1):
        with pytest.raises(ZeroDivisionError):
            bench.runner.process([bench.message(0, "a")])
        assert bench.runner.start_offset("retrain-requested", 0) == 0
        bench.restart()
    bench.runner.process([bench.message(0, "a"), bench.message(1, "b")])
    assert bench.effects() == ["b"]
    assert bench.dead_letters()[0]["dead-letter-error"] == "ZeroDivisionError"
    assert bench.dead_letters()[0]["dead-letter-attempts"] == str(MAX_CRASHES)


def test_a_chunk_is_one_transaction_and_its_bad_message_a_dead_letter(
    tmp_path: Path,
) -> None:
    def on_rows(messages: Sequence[Message], deps: Deps) -> Iterator:
        for message in messages:
            if message.value == b"bad":
                yield DeadLetter(message, Reject("not a row"))
            else:
                deps.session.add(Effect(what=message.value.decode()))
        yield alert()

    bench = Bench(tmp_path, [Chunk("observation-arrived", on_rows)])
    rows = [
        Message("observation-arrived", 0, n, None, value, ())
        for n, value in enumerate([b"x", b"bad", b"y"])
    ]
    bench.runner.process(rows)
    bench.restart()
    bench.runner.process(rows)
    assert bench.effects() == ["x", "y"]
    assert {letter["dead-letter-id"] for letter in bench.dead_letters()} == {
        "trainer/observation-arrived/0/1"
    }
    assert len({e.meta.id for e in bench.published()}) == 1


def test_a_chunk_that_repeats_in_part_handles_only_the_rest(tmp_path: Path) -> None:
    def on_rows(messages: Sequence[Message], deps: Deps) -> Iterator:
        for message in messages:
            deps.session.add(Effect(what=message.value.decode()))
        return iter(())

    bench = Bench(tmp_path, [Chunk("observation-arrived", on_rows)])
    rows = [
        Message("observation-arrived", 0, n, None, str(n).encode(), ())
        for n in range(3)
    ]
    bench.runner.process(rows[:2])
    bench.runner.process(rows)
    assert bench.effects() == ["0", "1", "2"]


def test_known_messages_are_passed_over(tmp_path: Path) -> None:
    """Without a call; where they end is stored now and then, and never moved back."""
    seen: list[bytes] = []

    def on_rows(messages: Sequence[Message], deps: Deps) -> Iterator:
        seen.extend(message.value for message in messages)
        return iter(())

    def is_known(message: Message, deps: Deps) -> bool:
        return message.value == b"mine"

    topic = "observation-arrived"
    bench = Bench(tmp_path, [Chunk(topic, on_rows, is_known)])
    values = [b"mine", b"mine", b"mine", b"other", b"mine"]
    rows = [Message(topic, 0, n, None, value, ()) for n, value in enumerate(values)]
    bench.runner.process(rows[:2])
    assert (seen, bench.runner.start_offset(topic, 0)) == ([], 0)
    bench.runner.store_positions()
    assert bench.runner.start_offset(topic, 0) == 2
    bench.runner.process(rows[2:4])  # one that is not known: then all of them
    assert (seen, bench.runner.start_offset(topic, 0)) == ([b"mine", b"other"], 4)
    bench.runner.process(rows[:2])
    bench.runner.store_positions()
    assert bench.runner.start_offset(topic, 0) == 4


def test_published_events_are_forgotten(bench: Bench) -> None:
    bench.runner.process([bench.message()])
    bench.outbox.tidy()
    with Session(bench.engine) as session:
        assert session.exec(text("select count(*) from runtime_outbox")).one()[0] == 0


def test_a_handler_with_a_wrong_name_is_refused() -> None:
    def on_something(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        return iter(())

    with pytest.raises(TypeError, match="on_retrain_requested"):
        handler_table([on_something])
