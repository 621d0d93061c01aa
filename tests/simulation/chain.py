"""The whole chain: rows come in at the data door, and every service is real.

Stood in for are the training's computation, and the call of a model, which here is the
sum that the package's graph is made of.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any, cast

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from driftloop.contracts.events import (
    DriftDetected,
    DriftEnded,
    PackageRef,
    RowKind,
    SchemaAccepted,
    ServedModel,
    ServingDesired,
)
from driftloop.contracts.pipeline import PipelineSpec
from driftloop.ingest import handlers as ingest
from driftloop.ingest.app import SERVICE as INGEST
from driftloop.models.onnx_model import Predictions
from driftloop.models.package import PackageRefused, read_package
from driftloop.monitor import handlers as monitor
from driftloop.monitor.app import SERVICE as MONITOR
from driftloop.monitor.turn import MonitorDeps, Packaged
from driftloop.runtime.handlers import Deps, handler_table
from driftloop.runtime.transport import Record
from driftloop.scorer import handlers as scorer
from driftloop.scorer.app import SERVICE as SCORER
from driftloop.scorer.loader import Loader, _is_done, announcer
from driftloop.scorer.shelf import Loaded, Pace, Shelf
from driftloop.validator import handlers as validator
from driftloop.validator.app import SERVICE as VALIDATOR

from tests.simulation.actors import LEASE_S, People
from tests.simulation.databases import DISKS
from tests.simulation.instance import Instance, Kind
from tests.simulation.kinds import KINDS, TRUSTED, Loops, fate_of
from tests.simulation.policy import NAME, Deciding, Resuming
from tests.simulation.scenario import Item, Scenario, faults
from tests.simulation.world import Actor
from tests.unit.chain.data import FusedDatasets
from tests.unit.trainer.cases import day

ROWS_A_DAY = 12
FIRST_DAYS = 5
MOST_DAYS = 40
"""Of data after the faults, for rollouts that need labelled rows."""
SHIFT = 60.0
WORSE = 40.0
MANY = (0, 3, 5, 8, 12, 18)
"""Faults among seven services."""
SERVICES = (
    "ingest", "validator", "scorer", "monitor", "trainer", "registry", "deployer",
)  # fmt: skip

KEPT = ("ingest",)
"""Its database is no read model: it holds keys and tokens, and which rows have come."""


def spec_of(scenario: Scenario) -> PipelineSpec:
    how = scenario.options
    content = {
        "name": NAME,
        "task": "regression",
        "owner": "ada",
        "automation": how["automation"],
        "data": {
            "target": "cnt",
            "features": {
                "size": {"type": "number", "min": 0, "max": 100},
                "colour": {"type": "category"},
            },
        },
        "train": {"min_rows": 40, "candidates": ["linear"]},
        "monitor": {"window_rows": 24},
        "retrain": {"first_rows": 48, "every_rows": how["every_rows"],
                    "cooldown_days": 1},
        "rollout": {"strategy": how["strategy"], "steps": [0.5], "step_rows": 12,
                    "shadow_rows": 12, "watch_rows": 12},
    }  # fmt: skip
    return PipelineSpec.model_validate(content)


def chain(seed: int) -> Scenario:
    """Draw some days of rows, of which some are bad, and faults."""
    dice = Random(f"chain/{seed}")
    steps = dice.choice([150, 300])
    items = [Item(0, "days", (FIRST_DAYS,))]
    for _ in range(dice.randint(1, 5)):
        what = dice.choice(["days", "days", "days", "shift", "bad_day", "same_rows"])
        args = () if what == "shift" else (dice.randint(1, 2),)
        items.append(Item(dice.randrange(steps), what, args))
    for _ in range(dice.randrange(3)):
        what = dice.choice(["drift", "retrain", "rollback", "steer", "audit", "cancel"])
        items.append(Item(dice.randrange(steps), what, (dice.randrange(10**6),)))
    items += faults(dice, SERVICES, steps, MANY, KEPT)
    options = {
        "automation": dice.choice(["full", "full", "approve"]),
        "every_rows": dice.choice([None, 60]),
        "strategy": dice.choice(["shadow_then_canary", "canary"]),
    }
    return Scenario("chain", seed, options, tuple(sorted(items, key=lambda i: i.at)))


class Sum:
    """The model of every package, as its graph says, and what its fate adds."""

    def __init__(self, plus: float) -> None:
        self._plus = plus

    def predict(self, rows: pa.RecordBatch) -> Predictions:
        sizes = np.array(rows.column("size").to_pylist(), dtype=float)
        reds = np.array([c == "red" for c in rows.column("colour").to_pylist()])
        return Predictions(sizes + 10.0 * reds + self._plus)


# ── the services ────────────────────────────────────────────────────────────


def _ingest(instance: Instance) -> tuple[Deps, Loops]:
    deps = ingest.IngestDeps(
        session=instance.session,
        pipelines=instance.views["pipeline-applied"],
        patience=ingest.Patience(0),
    )
    return deps, {}


def _validator(instance: Instance) -> tuple[Deps, Loops]:
    datasets = FusedDatasets(_table_uri)
    datasets.fuse = instance.fuse
    deps = validator.ValidatorDeps(
        session=instance.session,
        pipelines=instance.views["pipeline-applied"],
        datasets=datasets,
        schemas=instance.views["schema-accepted"],
        recorded=instance.recorded,
    )
    return deps, {}


def _table_uri(pipeline: str, kind: RowKind) -> str:
    return str(DISKS.folder / "datasets" / pipeline / kind)


def _monitor(instance: Instance) -> tuple[Deps, Loops]:
    def open_package(ref: PackageRef) -> Packaged:
        package = read_package(ref, instance.world.store, TRUSTED, is_served=True)
        return Packaged(package.manifest.evaluation, None)

    deps = MonitorDeps(
        session=instance.session,
        pipelines=instance.views["pipeline-applied"],
        open_package=open_package,
    )
    return deps, {}


def _scorer(instance: Instance) -> tuple[Deps, Loops]:
    world, shelf = instance.world, Shelf()
    desired = instance.views["serving-desired"]

    def open_model(pipeline: str, model: ServedModel) -> Loaded:
        package = read_package(model.package, world.store, TRUSTED, is_served=True)
        fate = fate_of(world.seed, package.manifest.job_id)
        if fate == "cannot_be_served":
            raise PackageRefused("its model answers NaN")
        plus = WORSE if fate == "worse_live" else 0.1 * model.version
        said = cast("Any", Sum(plus))
        pace = Pace(1e-5, 1e-5)
        return Loaded(model.version, model.package, package.manifest, said, pace)

    loader = Loader(
        shelf,
        open_model,
        announcer(instance.outbox, instance.replica, LEASE_S),
        instance.stopping,
        instance.replica,
    )
    desired.on_change(loader.wish)
    cast("ChainWorld", world).shelves[instance.name] = shelf

    def load() -> bool:
        wish = loader._wishes.get(NAME)
        if wish is None or _is_done(shelf.get(NAME), wish):
            return False
        served = shelf.get(NAME)
        if served and served.is_settled and served.generation == wish.generation:
            return False  # its champion cannot be loaded; the next wish may be
        loader._converge(wish)
        return True

    deps = scorer.ScorerDeps(
        session=instance.session,
        pipelines=instance.views["pipeline-applied"],
        shelf=shelf,
        desired=desired,
        replica=instance.replica,
        report_every=2,
    )
    return deps, {"load": load}


def _kind(
    service: Any,
    handlers: Any,
    build: Callable[[Instance], tuple[Deps, Loops]],
    *states: type[Any],
) -> Kind:
    table = handler_table(handlers.HANDLERS)
    return Kind(service.name, table, service.tables, build, states, service.recorded)


WITH_DATA = (
    _kind(INGEST, ingest, _ingest),
    _kind(VALIDATOR, validator, _validator, SchemaAccepted),
    _kind(SCORER, scorer, _scorer, ServingDesired, DriftDetected, DriftEnded),
    _kind(MONITOR, monitor, _monitor),
)


# ── upstream ────────────────────────────────────────────────────────────────


class Upstream(Actor):
    """Sends more days while a rollout needs labelled rows to be judged by."""

    sent = 0

    def act(self) -> bool:
        return False

    def settle(self) -> bool:
        wishes = self.world.events(ServingDesired)
        if not wishes or wishes[-1].candidate is None or self.sent >= MOST_DAYS:
            return False
        self.sent += 1
        cast("ChainWorld", self.world).do_days(1)
        return True


class ChainWorld(Deciding):
    """Everything but upstream and people."""

    def __init__(self, scenario: Scenario) -> None:
        self.shelves: dict[str, Shelf] = {}
        self.rows: dict[RowKind, set[str]] = {"observations": set(), "labels": set()}
        self._days, self._plus = 0, 0.0
        self._shifts: dict[int, float] = {}
        shutil.rmtree(DISKS.folder / "datasets", ignore_errors=True)
        kinds = [*WITH_DATA, *KINDS.values()]
        super().__init__(scenario, kinds, spec_of(scenario))
        self.actors = [People(self), Upstream(self), Resuming(self)]

    def serves(self) -> dict[str, int | None]:
        alive = {i.name for i in self.instances if i.is_alive}
        found = {}
        for name, shelf in self.shelves.items():
            served = shelf.get(NAME)
            if name in alive and served is not None:
                champion = served.champion
                found[name] = champion.version if champion else None
        return found

    def sent(self) -> dict[str, frozenset[str]]:
        return {kind: frozenset(ids) for kind, ids in self.rows.items()}

    def stored(self) -> dict[str, tuple[str, ...]]:
        found = {}
        for kind in self.rows:
            uri = _table_uri(NAME, kind)
            if DeltaTable.is_deltatable(uri):
                table = DeltaTable(uri).to_pyarrow_table(columns=["id"])
                found[kind] = tuple(table.column("id").to_pylist())
        return found

    def do_shift(self) -> None:
        """From now on the world is another one: the error grows."""
        self._plus = SHIFT - self._plus

    def do_days(self, count: int) -> None:
        for _ in range(count):
            self._day(self._days)
            self._days += 1

    def do_bad_day(self, _: int) -> None:
        """Send a day with rows that break the contract."""
        self._day(self._days, bad=3)
        self._days += 1

    def do_same_rows(self, _: int) -> None:
        """Send a day again, as another message: no row of it is new."""
        if self._days:
            self._day(self._days - 1)

    def _day(self, number: int, bad: int = 0) -> None:
        self.until = float(number)
        plus = self._shifts.setdefault(number, self._plus)
        dice = Random(f"{self.seed}/{number}")
        observed, labels = [], []
        for row in range(ROWS_A_DAY):
            size, colour = dice.uniform(10, 60), dice.choice(["red", "blue"])
            at = day(number) + timedelta(hours=2 * row)
            name = f"{number}-{row}"
            base = {"id": name, "event_time": at.isoformat()}
            truth = size + (10 if colour == "red" else 0) + dice.gauss(0, 3)
            observed.append(base | {"size": size, "colour": colour})
            labels.append(base | {"cnt": truth + plus})
        for row in observed[:bad]:
            row["size"] = 400.0
        self._send("observations", observed)
        self._send("labels", labels)

    def _send(self, kind: RowKind, rows: list[dict[str, Any]]) -> None:
        topic = {"observations": "observation-arrived", "labels": "label-arrived"}[kind]
        self.rows[kind] |= {row["id"] for row in rows}
        self.append(Record(topic, f"{NAME}/pump".encode(), json.dumps(rows).encode()))
