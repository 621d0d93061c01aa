"""One running process of a service: its real runner, outbox and handlers, by steps.

A kill takes everything here; the service's disk, the broker and the store stay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from driftloop.contracts.events import PipelineApplied
from driftloop.runtime.database import next_offset
from driftloop.runtime.handlers import Deps, HandlerTable
from driftloop.runtime.outbox import OutboxRelay, Stopping, source_of
from driftloop.runtime.recorded import Recorded, is_reading_anew
from driftloop.runtime.runner import Runner
from driftloop.runtime.state import StateView
from driftloop.runtime.transport import Message, Record
from opentelemetry.trace import NoOpTracer
from sqlmodel import Session, SQLModel

from tests.simulation.clock import Waiting
from tests.simulation.databases import DISKS
from tests.support.kills import Fuse, FusedPublisher, Killed

if TYPE_CHECKING:
    from tests.simulation.world import World

TRACER = NoOpTracer()
MAX_CHUNK = 4
Place = tuple[str, int]


class Frozen(Exception):  # noqa: N818 - says what happened
    """The process stands still before it publishes; it goes on when it is woken."""


@dataclass(frozen=True)
class Kind:
    """A service as the simulation runs it.

    Attributes
    ----------
    build : returns what the handlers use, and the loops beside the consumer, each as a
        function of one turn that returns whether there was something to do.
    states : topics followed beside those handled.
    recorded : what it reads back with a new database.
    """

    name: str
    table: HandlerTable
    tables: Sequence[type[SQLModel]]
    build: Callable[[Instance], tuple[Deps, dict[str, Callable[[], bool]]]]
    states: tuple[type[Any], ...] = ()
    recorded: Sequence[type[Any]] = ()

    @property
    def topics(self) -> tuple[str, ...]:
        """What it consumes: the topic table says the same, or it would not start."""
        return self.table.topics


class Door(FusedPublisher):
    """What an instance publishes through: may be frozen in front of the broker."""

    is_frozen = False

    def publish(self, records: Sequence[Record], timeout_s: float = 30) -> None:
        if self.is_frozen:
            raise Waiting  # the process stands still
        super().publish(records, timeout_s)


@dataclass
class Instance:
    """A process, from its start to its end.

    Attributes
    ----------
    hand : messages that were read and not yet committed.
    is_processed : whether the effects of those are stored and published.
    is_frozen : it does nothing and has lost its partitions, but not its memory.
    """

    world: World
    kind: Kind
    replica: str
    fuse: Fuse = field(default_factory=Fuse)
    hand: list[Message] = field(default_factory=list)
    is_processed: bool = False
    is_frozen: bool = False
    is_alive: bool = False
    positions: dict[Place, int] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    """Of its consumer group, when it last took its partitions."""

    @property
    def name(self) -> str:
        return f"{self.kind.name}-{self.replica}"

    @property
    def group(self) -> str:
        return f"driftloop-{self.kind.name}"

    # life

    def start(self) -> None:
        """Come up as ``service.run_service`` does: views first, then the outbox."""
        world = self.world
        self.disk = DISKS.of(self.kind.name, self.kind.tables)
        self.engine = self.disk.engine
        self.publisher = Door(world.broker, self.fuse)
        self.recorded = Recorded(source_of(self.kind.name), self.kind.recorded)
        self._read_back()
        self.outbox = OutboxRelay(
            self.kind.name, self.engine, self.publisher, world.store, TRACER,
            self.replica, recorded=self.recorded,
        )  # fmt: skip
        followed = (PipelineApplied, *self.kind.states)
        self.views = {event.topic(): StateView(event) for event in followed}
        self._followed: dict[Place, int] = {}
        self.hand, self.is_processed = [], False
        self.positions, self.members = {}, ()
        self.session = Session(self.engine)
        self.stopping = threading.Event()
        self.is_alive, self.is_frozen = True, False
        while self.follow():
            pass
        for view in self.views.values():
            view.caught_up.set()
        deps, self.loops = self.kind.build(self)
        self.runner: Runner[Any] = Runner(
            self.kind.name, self.kind.table, deps, self.engine, self.outbox,
            world.store, TRACER,
        )  # fmt: skip
        self._is_recovered = False

    def _read_back(self) -> None:
        """Read what the log holds of the service."""
        world = self.world

        def ends() -> dict[Place, int]:
            places = [
                (t, n) for t in self.kind.topics for n in range(world.partitions[t])
            ]
            return {place: end for place in places if (end := world.broker.end(place))}

        if self.recorded.topics and is_reading_anew(self.engine, ends):
            for topic in self.recorded.topics:
                for partition in range(world.partitions[topic]):
                    for message in world.broker.log(topic, partition):
                        self.recorded.add(message, world.store)
        self.recorded.complete.set()

    def kill(self) -> None:
        """Lose everything that is in memory."""
        if self.is_alive:
            self.session.close()
            self.engine.dispose()  # its connections, and what they had begun
        self.is_alive = self.is_frozen = False
        self.hand, self.positions, self.loops = [], {}, {}
        self.fuse.steps_left = None

    # turns

    def follow(self) -> bool:
        """Read the next record of the compacted topics."""
        broker = self.world.broker
        for topic, view in self.views.items():
            for partition in range(self.world.partitions[topic]):
                place = (topic, partition)
                at = self._followed.get(place, 0)
                for message in broker.read(place, at, 1):
                    view.apply(message, self.world.store)
                    self._followed[place] = at + 1
                    return True
        return False

    def turn(self, dice: Random) -> str | None:
        """Do the next step; return what it was, None: there was nothing to do.

        Raises
        ------
        Killed, clock.Waiting
            As the fuse says; while something is away.
        """
        if not self._is_recovered:
            self.outbox.recover()
            self._is_recovered = True
            return "recovers"
        self.outbox.flush()
        if self.hand:
            return self._finish()
        self._rebalance()
        return self._read(dice)

    def _finish(self) -> str:
        if not self.is_processed:
            self.fuse.step("after consume")
            self.runner.process(self.hand)
            self.is_processed = True
            self.fuse.step("before the offset's commit")
            return f"handled {_span(self.hand)}"
        ends = {(m.topic, m.partition): m.offset + 1 for m in self.hand}
        self.world.broker.commit(self.group, ends)
        said = f"committed {_span(self.hand)}"
        self.hand, self.is_processed = [], False
        return said

    def _rebalance(self) -> None:
        group = self.world.group_of(self)
        if group == self.members:
            return
        self.members, self.positions = group, {}
        share = self.world.share_of(self, group)
        for place in share:
            own = self.runner.start_offset(*place)
            group = self.world.broker.committed(self.group, *place)
            self.positions[place] = min(own, own if group is None else group)

    def _read(self, dice: Random) -> str | None:
        broker = self.world.broker
        if not broker.is_available:
            return None
        waiting = [p for p, at in self.positions.items() if at < broker.end(p)]
        if not waiting:
            return None
        place = dice.choice(waiting)
        at = self.positions[place]
        self.hand = broker.read(place, at, dice.randint(1, MAX_CHUNK))
        self.is_processed = False
        self.positions[place] = self.hand[-1].offset + 1
        return f"read {_span(self.hand)}"

    def rewind(self, count: int) -> None:
        """Read committed messages again, as after a rebalance that lost a commit."""
        if self.hand:
            return
        for place, at in self.positions.items():
            self.positions[place] = max(0, at - count)

    def lag(self) -> int:
        """Messages of its topics whose effects the service has not stored."""
        broker = self.world.broker
        with self.engine.begin() as connection:
            return sum(
                broker.end((topic, partition))
                - (next_offset(connection, topic, partition) or 0)
                for topic in self.kind.topics
                for partition in range(self.world.partitions[topic])
            )


def _span(messages: Sequence[Message]) -> str:
    first, last = messages[0], messages[-1]
    end = "" if first is last else f"-{last.offset}"
    return f"{first.topic}/{first.partition}/{first.offset}{end}"


__all__ = ["Instance", "Killed", "Kind", "Stopping"]
