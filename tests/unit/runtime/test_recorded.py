"""What a service said before it lost its database is not said otherwise."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from driftloop.contracts.base import Event, derived_id
from driftloop.contracts.events import AlertRaised, BatchIngested, RetrainRequested
from driftloop.runtime import database
from driftloop.runtime.handlers import Deps
from driftloop.runtime.outbox import source_of
from driftloop.runtime.recorded import Recorded, is_reading_anew
from driftloop.runtime.transport import Message, Record

from tests.unit.runtime.bench import Bench, alert, on_retrain_requested

PLACE = ("retrain-requested", 0)


def other_words(detail: str) -> AlertRaised:
    return alert().model_copy(update={"detail": detail})


def saying(*details: str) -> list:
    """Return a service's handlers: it raises an alert of each text."""

    def on_retrain_requested(event: RetrainRequested, deps: Deps) -> Iterator[Event]:
        yield from map(other_words, details)

    return [on_retrain_requested]


def read_back(bench: Bench, records: Sequence[Record], source: str = "") -> Recorded:
    recorded = Recorded(source or source_of("trainer"), [AlertRaised])
    for offset, each in enumerate(records):
        message = Message(each.topic, 0, offset, each.key, each.value, each.headers)
        recorded.add(message, bench.store)
    recorded.complete.set()
    return recorded


def lost(bench: Bench, handlers: list, recorded: Recorded | None) -> list[Record]:
    """Begin with an empty database; return what is said when all is read anew."""
    before = len(bench.publisher.sent)
    bench.end()
    for path in bench.tmp_path.glob("service.db*"):
        path.unlink()
    bench.handlers = handlers
    bench.start()
    if recorded is not None:
        bench.outbox._recorded = recorded
    bench.runner.process([bench.message()])
    return bench.publisher.sent[before:]


def test_what_is_in_the_log_is_not_said_in_other_words(tmp_path: Path) -> None:
    bench = Bench(tmp_path, saying("first"))
    bench.runner.process([bench.message()])
    [said] = bench.publisher.sent
    recorded = read_back(bench, [said])
    assert lost(bench, saying("other"), recorded) == []
    [event] = recorded.of(AlertRaised, "p")
    assert event.detail == "first"
    assert recorded.has_answered("cause")
    assert not recorded.has_answered("another")


def test_without_it_the_same_id_is_said_in_two_ways(tmp_path: Path) -> None:
    """The negative control."""
    bench = Bench(tmp_path, saying("first"))
    bench.runner.process([bench.message()])
    [again] = lost(bench, saying("other"), None)
    [first] = bench.publisher.sent[:1]
    ids = [dict(record.headers)["ce_id"] for record in (first, again)]
    assert ids[0] == ids[1]
    assert first.value != again.value


def test_what_is_not_in_the_log_yet_is_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path, saying("first"))
    bench.runner.process([bench.message()])
    [new] = lost(
        bench, saying("first", "second"), read_back(bench, bench.publisher.sent)
    )
    assert dict(new.headers)["ce_id"] == derived_id("cause", "alert-raised", 1).encode()


def test_only_the_service_s_own_events_are_what_it_said(tmp_path: Path) -> None:
    bench = Bench(tmp_path, saying("first"))
    bench.runner.process([bench.message()])
    recorded = read_back(bench, bench.publisher.sent, source_of("monitor"))
    assert not recorded.has_answered("cause")
    assert len(recorded.of(AlertRaised, "p")) == 1
    assert len(lost(bench, saying("other"), recorded)) == 1


def test_a_record_that_nobody_can_read_says_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [on_retrain_requested])
    whole = bench.message()
    bad = [
        replace(whole, topic="alert-raised"),
        replace(whole, topic="alert-raised", value=b"\xff", headers=()),
        replace(whole, topic="alert-raised", headers=(("ce_id", b"\xff"),)),
    ]
    recorded = Recorded(source_of("trainer"), [AlertRaised])
    for message in bad:
        recorded.add(message, bench.store)
    assert recorded.of(AlertRaised, "p") == []
    assert not recorded.has("cause")


def test_of_events_with_rows_the_ids_alone_are_read(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [on_retrain_requested])
    headers = (
        ("ce_id", b"batch"),
        ("ce_source", b"/driftloop/ingest"),
        ("ce_type", BatchIngested.type_name().encode()),
    )
    recorded = Recorded(source_of("ingest"), [BatchIngested])
    message = Message("batch-ingested", 0, 0, b"p", b"rows", headers)
    recorded.add(message, bench.store)
    assert recorded.has("batch")
    assert recorded.of(BatchIngested, "p") == []


def test_a_service_without_kinds_reads_nothing(tmp_path: Path) -> None:
    recorded = Recorded()
    assert recorded.complete.is_set()
    assert not recorded.topics
    assert not Recorded("/driftloop/trainer", [AlertRaised]).complete.is_set()


def test_an_empty_database_reads_anew_until_it_has_read_what_there_was(
    tmp_path: Path,
) -> None:
    """Also after a kill in between; what comes later is read for the first time."""
    bench = Bench(tmp_path, [on_retrain_requested])
    assert is_reading_anew(bench.engine, lambda: {PLACE: 2})
    bench.runner.process([bench.message(0, "one")])
    bench.restart()
    assert is_reading_anew(bench.engine, lambda: pytest.fail("it is not empty"))
    bench.runner.process([bench.message(1, "two")])
    assert not is_reading_anew(bench.engine, lambda: pytest.fail("it is not empty"))


def test_an_empty_log_is_not_read_anew(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [on_retrain_requested])
    assert not is_reading_anew(bench.engine, dict)


def test_a_database_of_before_is_not_read_anew(tmp_path: Path) -> None:
    """One that has handled messages, and does not say where it began."""
    bench = Bench(tmp_path, [on_retrain_requested])
    bench.runner.process([bench.message()])
    with bench.engine.begin() as connection:
        assert not database.is_empty(connection)
    assert not is_reading_anew(bench.engine, lambda: {PLACE: 9})
