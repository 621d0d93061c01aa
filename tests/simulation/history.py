"""A history once it has come to rest: the log, the databases, and what was done to it.

Plain values: checks read it, and negative controls spoil a copy of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from driftloop.contracts.audit import Entry
from driftloop.contracts.base import Event
from driftloop.contracts.topics import BY_NAME, dead_letter_topic
from driftloop.models.signing import TrustedKeys
from driftloop.registry import tables
from driftloop.registry.audit import all_entries
from driftloop.registry.ledger import Ledger
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.transport import Message
from driftloop.trainer.faults import Faults
from driftloop.trainer.tables import TrainerPipeline
from sqlmodel import Session

from tests.simulation.kinds import TRUSTED, unsent
from tests.simulation.store import SimulatedStore

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario
    from tests.simulation.world import World

E = TypeVar("E", bound=Event)
Place = tuple[str, int, int]


@dataclass(frozen=True)
class History:
    """All that checks may look at.

    Attributes
    ----------
    records : of each topic, dead letters too, in the order of their partitions.
    events : those of them that can be read, decoded.
    poison : places of records that nobody can use.
    services : that are real here, with the topics that they consume.
    wiped : services whose database was built anew from the log.
    lag : of each service, in messages.
    unsent : of each service, events that were stored and are not in the log.
    effects : ids of the events whose effects a service has noted, in order.
    sent : ids of the rows that upstream has sent, by kind.
    stored : ids of the rows in the dataset's tables, by kind.
    faults : what the trainer knows of them; None: it is not real here.
    serves : what each replica of the scorer answers with.
    is_quiet : whether it came to rest.
    bugs : processes that an unexpected error has ended.
    trusted : the keys whose packages count.
    """

    scenario: Scenario
    records: Mapping[str, tuple[Message, ...]]
    events: Mapping[str, tuple[Event, ...]]
    poison: frozenset[Place]
    services: Mapping[str, frozenset[str]]
    wiped: frozenset[str]
    has_waited_out: bool
    lag: Mapping[str, int]
    unsent: Mapping[str, int]
    serves: Mapping[str, int | None]
    effects: Mapping[str, tuple[str, ...]]
    sent: Mapping[str, frozenset[str]]
    stored: Mapping[str, tuple[str, ...]]
    ledger: Ledger | None
    trail: tuple[Entry, ...] | None
    faults: Faults | None
    store: SimulatedStore
    is_quiet: bool
    bugs: tuple[str, ...]
    told: tuple[str, ...]
    trusted: TrustedKeys = TRUSTED

    def of(self, kind: type[E]) -> tuple[E, ...]:
        """Return the events of a kind, each id once."""
        found = {e.meta.id: e for e in reversed(self.events.get(kind.topic(), ()))}
        return cast("tuple[E, ...]", tuple(reversed(found.values())))

    def letters(self, service: str) -> tuple[Message, ...]:
        return self.records.get(dead_letter_topic(service), ())


def at_rest(world: World, *, is_quiet: bool) -> History:
    """Return a world's history."""
    topics = {
        **world.partitions,
        **dict.fromkeys(map(dead_letter_topic, world.kinds), 1),
    }
    records = {
        topic: tuple(
            message
            for partition in range(count)
            for message in world.broker.log(topic, partition)
        )
        for topic, count in topics.items()
    }
    ledger, trail = _facts(world)
    instances = {i.kind.name: i for i in world.instances}
    return History(
        scenario=world.scenario,
        records=records,
        events={
            topic: tuple(_readable(world, messages))
            for topic, messages in records.items()
            if topic in BY_NAME
        },
        poison=frozenset(world.poison),
        services={n: frozenset(kind.topics) for n, kind in world.kinds.items()},
        wiped=frozenset(world.wiped),
        has_waited_out=world.has_waited_out,
        lag={name: each.lag() for name, each in instances.items()},
        unsent={name: unsent(each, records) for name, each in instances.items()},
        serves=world.serves(),
        effects=world.effects(),
        sent=world.sent(),
        stored=world.stored(),
        ledger=ledger,
        trail=trail,
        faults=_known_faults(world),
        store=world.store,
        is_quiet=is_quiet,
        bugs=tuple(world.bugs),
        told=tuple(world.told),
    )


def _readable(world: World, messages: tuple[Message, ...]) -> list[Event]:
    found = []
    for message in messages:
        try:
            found.append(world.decoded(message))
        except (Reject, Retry):
            continue
    return found


def _known_faults(world: World) -> Faults | None:
    trainer = next((i for i in world.instances if i.kind.name == "trainer"), None)
    if trainer is None:
        return None
    with Session(trainer.engine) as session:
        row = session.get(TrainerPipeline, world.spec.name)
        return row.told_faults() if row else Faults()


def _facts(world: World) -> tuple[Ledger | None, tuple[Entry, ...] | None]:
    registry = next((i for i in world.instances if i.kind.name == "registry"), None)
    if registry is None:
        return None, None
    with Session(registry.engine) as session:
        ledger = tables.ledger_of(session, world.spec.name)
        return ledger, tuple(all_entries(session))
