"""The cheapest world: two small services after one another, and the runtime between.

Each writes a row for each event and tells of it, so that a lost or doubled effect is a
row too few or too many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from random import Random

from driftloop.contracts.base import Event
from driftloop.contracts.events import (
    AlertRaised,
    BlobRef,
    RetrainRequested,
    TrainingSkipped,
    Trigger,
)
from driftloop.runtime.artifacts import uri_of
from driftloop.runtime.errors import Skip
from driftloop.runtime.handlers import Deps, EventHandler, handler_table
from sqlmodel import Field, Session, SQLModel, select

from tests.simulation.faults import FaultyWorld
from tests.simulation.instance import Instance, Kind
from tests.simulation.scenario import Item, Scenario, faults
from tests.simulation.store import SimulatedStore
from tests.unit.trainer import cases

NAME = cases.NAME
SERVICES = ("first", "second")


class FirstEffect(SQLModel, table=True):
    __tablename__ = "simulation_first_effect"
    number: int | None = Field(default=None, primary_key=True)
    of: str


class SecondEffect(SQLModel, table=True):
    __tablename__ = "simulation_second_effect"
    number: int | None = Field(default=None, primary_key=True)
    of: str


@dataclass(frozen=True)
class StoreDeps(Deps):
    """What the first one needs: an object of the store."""

    store: SimulatedStore
    wanted: BlobRef


def on_retrain_requested(event: RetrainRequested, deps: StoreDeps) -> Iterator[Event]:
    """Note it, and tell of it; what nobody asked for is skipped after a write."""
    deps.store.get(deps.wanted.uri, deps.wanted.sha256)
    deps.session.add(FirstEffect(of=event.meta.id))
    deps.session.flush()
    if event.reason == "skip":
        raise Skip("test")
    yield TrainingSkipped(
        pipeline=event.pipeline,
        trigger=Trigger(
            event_id=event.meta.id, event_type=event.topic(), reason=event.reason
        ),
        reason="cooldown",
        detail="too early",
    )


def on_training_skipped(event: TrainingSkipped, deps: Deps) -> Iterator[Event]:
    deps.session.add(SecondEffect(of=event.meta.id))
    yield AlertRaised(
        pipeline=event.pipeline,
        condition=f"skipped/{event.trigger.event_id}",
        severity="info",
        title="t",
        detail="d",
    )


def _kind(name: str, handler: EventHandler, table: type[SQLModel]) -> Kind:
    def build(instance: Instance) -> tuple[Deps, dict[str, Callable[[], bool]]]:
        store, data = instance.world.store, b"wanted"
        digest = sha256(data).hexdigest()
        store.objects[digest] = data
        wanted = BlobRef(uri=uri_of(digest), sha256=digest, size_bytes=len(data))
        views = instance.views["pipeline-applied"]
        return StoreDeps(instance.session, views, store, wanted), {}

    return Kind(name, handler_table([handler]), (table,), build)


KINDS = (
    _kind("first", on_retrain_requested, FirstEffect),
    _kind("second", on_training_skipped, SecondEffect),
)


def relay(seed: int) -> Scenario:
    """Draw requests and faults."""
    dice = Random(f"relay/{seed}")
    steps = dice.choice([20, 50, 100])
    items = [
        Item(dice.randrange(steps), "request", (dice.random() < 0.1,))
        for _ in range(dice.randint(1, 9))
    ]
    items += faults(dice, SERVICES, steps)
    return Scenario("relay", seed, {}, tuple(sorted(items, key=lambda i: i.at)))


class RelayWorld(FaultyWorld):
    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario, KINDS, cases.spec())

    def do_request(self, is_skipped: bool) -> None:
        reason = "skip" if is_skipped else "cooldown"
        self.say(RetrainRequested(pipeline=NAME, requested_by="ann", reason=reason))

    def effects(self) -> dict[str, tuple[str, ...]]:
        tables = {"first": FirstEffect, "second": SecondEffect}
        found = {}
        for instance in self.instances:
            with Session(instance.engine) as session:
                rows = session.exec(select(tables[instance.kind.name].of)).all()
            found[instance.kind.name] = tuple(rows)
        return found
