"""A small installation in one thread: who has the next turn is drawn from a seed.

Processes run the product's own code, one step at a time (:mod:`instance`). What is not
simulated as a service (upstream, people, and scorers where a world has none) acts on
the log as those do (:mod:`actors`). What goes wrong is in :mod:`faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import TypeVar, cast

from driftloop.contracts.base import Chain, Event, Meta
from driftloop.contracts.events import PipelineApplied
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.contracts.topics import TOPICS, dead_letter_topic
from driftloop.runtime.drivers.memory import MemoryBroker
from driftloop.runtime.envelope import decode, encode
from driftloop.runtime.errors import Reject, Retry
from driftloop.runtime.transport import Message, Record

from tests.simulation.clock import CLOCK, Waiting
from tests.simulation.databases import DISKS, Disk
from tests.simulation.history import History, at_rest
from tests.simulation.instance import Instance, Kind
from tests.simulation.scenario import Scenario
from tests.simulation.store import SimulatedStore
from tests.support.kills import Killed

E = TypeVar("E", bound=Event)
MOST_PARTITIONS = 2
MOST_STEPS = 6000
"""A history that needs more does not come to rest."""
JUMP_S = 31.0
"""Of the clock when nobody has anything to do: longer than a lease."""
MOST_TURN_S = 2.0
STILL_JUMPS = 4
"""Jumps after which nothing moves any more."""
PROVENANCE = "dead-letter-"


@dataclass
class Actor:
    """Somebody who reads the log and writes into it, and never fails."""

    world: World

    def act(self) -> bool:
        """Do one thing; return whether there was one to do."""
        raise NotImplementedError

    def settle(self) -> bool:
        """Do what was left for later, once the faults are over."""
        return False


@dataclass
class Later:
    """Something that ends by itself after some steps."""

    at: int
    end: Callable[[], None]


class World:
    """One history, from its begin to its rest."""

    def __init__(
        self,
        scenario: Scenario,
        kinds: Iterable[Kind],
        spec: PipelineSpec,
    ) -> None:
        CLOCK.reset()
        self.scenario, self.seed, self.spec = scenario, scenario.seed, spec
        self.dice = Random(f"schedule/{scenario.world}/{scenario.seed}")
        self.partitions = {
            topic.name: min(topic.partitions, MOST_PARTITIONS) for topic in TOPICS
        }
        self.kinds = {kind.name: kind for kind in kinds}
        letters = dict.fromkeys(map(dead_letter_topic, self.kinds), 1)
        self.broker = MemoryBroker(self.partitions | letters)
        CLOCK.is_endless = lambda: not self.broker.is_available
        self.store = SimulatedStore()
        self.tries: dict[str, int] = {}
        self.actors: list[Actor] = []
        self.step = 0
        self.told: list[str] = []
        self.poison: set[tuple[str, int, int]] = set()
        self.bugs: list[str] = []
        self.wiped: set[str] = set()
        self.has_waited_out = False
        self._later: list[Later] = []
        self._read: dict[str, list[int]] = {}
        self._events: dict[str, list[Event]] = {}
        self._numbers: dict[str, int] = {}
        self._acting: Instance | None = None
        self.instances = [Instance(self, kind, "0") for kind in self.kinds.values()]
        self.say(PipelineApplied(pipeline=spec.name, spec=spec, applied_by="ann"))
        for instance in self.instances:
            self._new_disk(instance)
            instance.start()
        self.store.step = self._step_of_who_acts

    def _disk(self, instance: Instance) -> Disk:
        return DISKS.of(instance.kind.name, instance.kind.tables)

    def _new_disk(self, instance: Instance) -> None:
        disk = self._disk(instance)
        disk.reset()
        disk.step = self._step_of_service(instance.kind.name)

    def _step_of_service(self, service: str) -> Callable[[str], None]:
        def step(name: str) -> None:
            if self._acting is not None and self._acting.kind.name == service:
                self._acting.fuse.step(name)

        return step

    def _step_of_who_acts(self, name: str) -> None:
        if self._acting is not None:
            self._acting.fuse.step(name)

    # the log

    def say(self, event: Event, event_id: str | None = None) -> Meta:
        """Publish what somebody outside says."""
        number = self._numbers[event.topic()] = self._numbers.get(event.topic(), 0) + 1
        name = event_id or f"{event.topic()}-{number}"
        meta = Meta(name, CLOCK.datetime(), "/simulation", Chain(name))
        self.append(encode(event, meta, self.store))
        return meta

    def append(self, record: Record) -> None:
        """Write past an outage: who writes from outside tries until it is there."""
        was_available = self.broker.is_available
        self.broker._set_available(True)
        self.broker.append([record])
        self.broker._set_available(was_available)

    def events(self, kind: type[E]) -> list[E]:
        """Return what is on a topic, in one order; what cannot be read is left out."""
        topic = kind.topic()
        known = self._events.setdefault(topic, [])
        read = self._read.setdefault(topic, [0] * self.partitions[topic])
        for partition, at in enumerate(read):
            for message in self.broker.log(topic, partition)[at:]:
                read[partition] += 1
                try:
                    event = self.decoded(message)
                except (Reject, Retry):
                    continue
                known.append(event)
        return cast("list[E]", known)

    def decoded(self, message: Message) -> Event:
        away, self.store.is_away = self.store.is_away, False
        try:
            return decode(message, self.store)
        finally:
            self.store.is_away = away

    def group_of(self, instance: Instance) -> tuple[str, ...]:
        """Return the replicas of a service that are in its consumer group now."""
        return tuple(
            other.replica
            for other in self.instances
            if other.kind is instance.kind and other.is_alive and not other.is_frozen
        )

    def share_of(
        self, instance: Instance, group: tuple[str, ...]
    ) -> list[tuple[str, int]]:
        """Return the partitions that an instance has in a group."""
        return [
            (topic, partition)
            for topic in instance.kind.topics
            for partition in range(self.partitions[topic])
            if partition % len(group) == group.index(instance.replica)
        ]

    # the course

    def run(self) -> History:
        """Play the scenario, mend what it broke, and let everything come to rest."""
        items = list(self.scenario.items)
        while items:
            due = [item for item in items if item.at <= self.step]
            items = items[len(due) :]
            for item in due:
                self.note("world", str(item).partition(": ")[2])
                getattr(self, f"do_{item.what}")(*item.args)
            if items and not self._turn():
                CLOCK.advance(JUMP_S)
            self.step += 1
            self._end_what_is_over()
        self._heal()
        is_quiet = self._settle()
        if self._replay_waited_out():
            is_quiet = self._settle()
        return at_rest(self, is_quiet=is_quiet)

    def _end_what_is_over(self) -> None:
        over = [later for later in self._later if later.at <= self.step]
        self._later = [later for later in self._later if later.at > self.step]
        for later in over:
            later.end()

    def later(self, steps: int, end: Callable[[], None]) -> None:
        self._later.append(Later(self.step + steps, end))

    def _heal(self) -> None:
        while self._later:
            later, *self._later = self._later
            later.end()
        for instance in self.instances:
            instance.fuse.steps_left = None

    def _settle(self) -> bool:
        """Let everybody work until nothing moves; False: it never stops."""
        still, begin = 0, self.step
        while still < STILL_JUMPS:
            if self.step - begin > MOST_STEPS:
                return False
            self.step += 1
            if self._turn() or self._background() or self._actors_settle():
                still = 0
                continue
            CLOCK.advance(JUMP_S)
            still += 1
        return True

    def _background(self) -> bool:
        return any(self._in(i, loop) for i in self._awake() for loop in i.loops)

    def _actors_settle(self) -> bool:
        return any(actor.settle() for actor in self.actors)

    def _awake(self) -> list[Instance]:
        return [i for i in self.instances if i.is_alive and not i.is_frozen]

    def _turn(self) -> bool:
        """Give somebody a turn who has something to do; False: nobody has."""
        CLOCK.advance(self.dice.random() * MOST_TURN_S)
        who: list[Instance | Actor] = [*self._awake(), *self.actors]
        self.dice.shuffle(who)
        for each in who:
            if isinstance(each, Actor):
                if each.act():
                    return True
            elif self._instance_turn(each):
                return True
        return False

    def _instance_turn(self, instance: Instance) -> bool:
        drawn = self.dice.random()
        if drawn < 0.12 and instance.loops:
            loop = self.dice.choice(list(instance.loops))
            if self._in(instance, loop):
                return True
        if drawn < 0.3 and instance.follow():
            return True
        return self._in(instance, None) or instance.follow()

    def _in(self, instance: Instance, loop: str | None) -> bool:
        """Let a process do one step; whatever ends it, it is started again later."""
        if not instance.is_alive:
            return False
        self._acting = instance
        try:
            if loop is None:
                said = instance.turn(self.dice)
                if said is not None:
                    self.note(instance.name, said)
                return said is not None
            has_done = instance.loops[loop]()
            if has_done:
                self.note(instance.name, loop)
            return has_done
        except Killed as killed:
            self.note(instance.name, f"killed {killed}")
            self._end(instance, self.dice.randrange(20))
            return True
        except Waiting:
            self.note(instance.name, f"waits: {instance.runner.last_error}")
            CLOCK.advance(1.0)
            return True
        except Exception as error:  # noqa: BLE001 - whatever ends a process is noted
            self.note(instance.name, f"ended by {type(error).__name__}: {error}")
            if not instance.disk.is_away:
                self.bugs.append(f"{instance.name}: {type(error).__name__}: {error}")
            self._end(instance, self.dice.randrange(20))
            return True
        finally:
            self._acting = None

    def _end(self, instance: Instance, steps: int) -> None:
        instance.kill()
        self.later(steps, lambda: self._start(instance))

    def _start(self, instance: Instance) -> None:
        if instance.is_alive:
            return
        is_away = self._disk(instance).is_away  # then it cannot even start
        if is_away or not self.broker.is_available:  # it waits for what it follows
            self.later(1, lambda: self._start(instance))
            return
        self.note(instance.name, "starts")
        instance.start()

    def note(self, who: str, what: str) -> None:
        self.told.append(f"{self.step:5} {who}: {what}")

    def _of(self, service: str) -> Instance:
        return next(i for i in self.instances if i.kind.name == service)

    def effects(self) -> dict[str, tuple[str, ...]]:
        """Return what services of this world have noted, where they do so."""
        return {}

    def sent(self) -> dict[str, frozenset[str]]:
        """Return ids of the rows that upstream has sent, by kind."""
        return {}

    def stored(self) -> dict[str, tuple[str, ...]]:
        """Return ids of the rows in the dataset's tables, by kind."""
        return {}

    def serves(self) -> dict[str, int | None]:
        """Return what each replica of the scorer answers with."""
        return {}

    def _replay_waited_out(self) -> int:
        """Publish dead letters again that only waited too long, each of them twice."""
        count = 0
        for service in self.kinds:
            for letter in self.broker.log(dead_letter_topic(service)):
                said = dict(letter.headers)
                place = (
                    said[f"{PROVENANCE}topic"].decode(),
                    int(said[f"{PROVENANCE}partition"]),
                    int(said[f"{PROVENANCE}offset"]),
                )
                if place in self.poison:
                    continue
                headers = tuple(
                    h for h in letter.headers if not h[0].startswith(PROVENANCE)
                )
                for _ in range(2):
                    self.append(Record(place[0], letter.key, letter.value, headers))
                count += 1
        return count


__all__ = ["Actor", "World"]
