"""Each promise broken in the product is seen: checks that find nothing prove nothing.

A mutant is one plausible mistake. It is played by a few seeds, of which the check that
is named has to find it in one at least; unspoilt, the same seeds keep every promise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from driftloop.contracts.audit import following
from driftloop.contracts.base import Event
from driftloop.contracts.events import BlobRef, ModelRolledBack, ServingDesired
from driftloop.deployer import handlers as deployer
from driftloop.registry import audit, ledger
from driftloop.runtime import database, outbox
from driftloop.runtime.artifacts import uri_of
from driftloop.runtime.database import Unsent
from driftloop.runtime.leases import Leases
from driftloop.runtime.outbox import SESSION_KEY, OutboxRelay
from driftloop.runtime.recorded import Recorded
from driftloop.runtime.runner import Runner
from driftloop.runtime.transport import Message
from driftloop.validator.datasets import Datasets
from sqlmodel import Session

from tests.simulation.clock import CLOCK
from tests.simulation.playing import broken_by, failure_of, scenario_of
from tests.simulation.store import SimulatedStore

Patch = pytest.MonkeyPatch


def commits_before_the_effect(patch: Patch) -> None:
    def attempt(self: Runner[Any], messages: list[Message]) -> None:
        first, end = messages[0], messages[-1].offset + 1
        with self._engine.begin() as connection:
            done = database.next_offset(connection, first.topic, first.partition) or 0
            database.advance(connection, first.topic, first.partition, end)
        todo = [message for message in messages if message.offset >= done]
        with self._outbox.transaction() as session:
            if todo:
                self._handle(session, todo)

    patch.setattr(Runner, "_attempt", attempt)


def knows_no_repeats(patch: Patch) -> None:
    patch.setattr(database, "remember", lambda *_: True)
    patch.setattr(database, "take_next_offset", lambda *_: 0)


def forgets_its_outbox(patch: Patch) -> None:
    patch.setattr(OutboxRelay, "recover", lambda _: None)


def draws_its_ids(patch: Patch) -> None:
    def numbered(events: Iterable[Event], _: str) -> list[tuple[str, Event]]:
        return [(str(CLOCK.uuid()), event) for event in events]

    patch.setattr(outbox, "numbered", numbered)


def publishes_before_it_commits(patch: Patch) -> None:
    @contextmanager
    def transaction(self: OutboxRelay) -> Iterator[Session]:
        with Session(self._engine) as session:
            yield session
            self._unsent += session.info.pop(SESSION_KEY, [])
            self.flush()
            session.commit()

    patch.setattr(OutboxRelay, "transaction", transaction)


def forgets_what_it_said(patch: Patch) -> None:
    patch.setattr(Recorded, "add", lambda *_: None)


def drops_bad_records(patch: Patch) -> None:
    patch.setattr(OutboxRelay, "add_dead_letter", lambda *_: None)


def puts_aside_what_has_to_wait(patch: Patch) -> None:
    def until_done(self: Runner[Any], messages: list[Message]) -> None:
        try:
            self._attempt(messages)
        except Exception as error:  # noqa: BLE001 - that is the mistake
            self._set_aside(messages, error)

    patch.setattr(Runner, "_until_done", until_done)


def takes_late_results(patch: Patch) -> None:
    def held(self: Leases[Any], session: Session, job: Any) -> Any:
        return session.get(self._jobs, job.id)

    patch.setattr(Leases, "held", held)


def counts_every_decision(patch: Patch) -> None:
    patch.setattr(ledger, "objection", lambda *_: None)


def breaks_the_trail(patch: Patch) -> None:
    patch.setattr(audit, "append", _appended_anew)


def _appended_anew(session: Session, event: Any) -> Any:
    """Begin each entry as if it were the first one; only its place goes on."""
    last = audit.last_entry(session)
    entry = following(None, event.as_entry())
    position = 1 if last is None else last.position + 1
    content = audit.canonical(entry.content).decode()
    row = audit.RegistryAudit(
        position=position, content=content, previous=entry.previous, hash=entry.hash
    )
    session.add(row)
    session.flush()
    return row.entry()


def loses_the_end_of_files(patch: Patch) -> None:
    put = SimulatedStore.put

    def shortened(self: SimulatedStore, data: bytes) -> BlobRef:
        ref = put(self, data)
        self.objects[ref.sha256] = data[:-1]
        assert ref.uri == uri_of(ref.sha256)
        return ref

    patch.setattr(SimulatedStore, "put", shortened)


def takes_back_without_a_wish(patch: Patch) -> None:
    stored = deployer._stored

    def told(*given: Any) -> Iterator[Event]:
        events = list(stored(*given))
        is_back = any(isinstance(event, ModelRolledBack) for event in events)
        for event in events:
            if not (is_back and isinstance(event, ServingDesired)):
                yield event

    patch.setattr(deployer, "_stored", told)


def appends_a_batch_again(patch: Patch) -> None:
    append = Datasets.append

    def again(self: Datasets, *given: Any) -> Any:
        *others, position, schemas = given
        other = replace(position, partition=CLOCK.uuid().int % 10**6)
        return append(self, *others, other, schemas)

    patch.setattr(Datasets, "append", again)


def forgets_a_row_of_the_outbox(patch: Patch) -> None:
    store = database.store_unsent

    def all_but_one(connection: Any, rows: Sequence[Unsent]) -> None:
        store(connection, rows)
        database.forget(connection, [rows[-1].event_id])

    patch.setattr(database, "store_unsent", all_but_one)


MUTANTS: dict[Any, tuple[str, str, Sequence[int]]] = {
    commits_before_the_effect: ("1 outcome", "relay", range(200)),
    knows_no_repeats: ("2 once", "relay", range(200)),
    forgets_its_outbox: ("6 serving", "relay", range(200)),
    forgets_a_row_of_the_outbox: ("1 outcome", "relay", range(200)),
    draws_its_ids: ("2 once", "relay", range(200)),
    publishes_before_it_commits: ("3 identity", "relay", range(200)),
    forgets_what_it_said: ("3 identity", "policy", range(40, 120)),
    drops_bad_records: ("8 letters", "relay", range(200)),
    puts_aside_what_has_to_wait: ("8 letters", "relay", range(40, 240)),
    takes_late_results: ("3 identity", "policy", range(40, 200)),
    counts_every_decision: ("4 moves", "policy", range(80)),
    breaks_the_trail: ("7 trail", "policy", range(80)),
    loses_the_end_of_files: ("5 artifacts", "policy", range(80)),
    appends_a_batch_again: ("2 once", "chain", range(100, 160)),
    takes_back_without_a_wish: ("6 serving", "policy", range(60, 200)),
}


@pytest.mark.parametrize("mutate", MUTANTS, ids=lambda mutate: mutate.__name__)
def test_a_mistake_is_found(mutate: Any, monkeypatch: Patch) -> None:
    invariant, world, seeds = MUTANTS[mutate]
    mutate(monkeypatch)
    assert any(invariant in broken_by(scenario_of(world, seed)) for seed in seeds)


def test_a_failure_is_told_with_less_around_it(monkeypatch: Patch) -> None:
    """What to run again, fewer inputs and faults, and the steps that lead to it."""
    forgets_its_outbox(monkeypatch)
    seed = next(
        seed
        for seed in range(200)
        if "6 serving" in broken_by(scenario_of("relay", seed))
    )
    told = failure_of("relay", seed)
    assert told is not None
    assert f"again: pytest tests/simulation -k relay --seed {seed}" in told
    items = len(scenario_of("relay", seed).items)
    left = re.search(rf"smaller, (\d+) of {items} items", told)
    assert left is not None
    assert int(left[1]) < items
    assert "killed before publishing" in told
