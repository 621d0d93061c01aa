"""What a history is made of: inputs and faults, drawn from a seed, each one removable.

The order in which processes have their turns is drawn from the same seed while the
history runs, so a scenario is all that is needed to have the same history again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True)
class Item:
    """Something that happens from outside.

    Attributes
    ----------
    at : step of the schedule from which on it happens.
    what : a method of the world, without its ``do_``.
    """

    at: int
    what: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"step {self.at:4}: {self.what}{self.args or ''}"


@dataclass(frozen=True)
class Scenario:
    """A history before it runs."""

    world: str
    seed: int
    options: Mapping[str, Any]
    items: tuple[Item, ...]


FUSE_STEPS = 8
"""Of a service's life after a restart, in which a kill falls."""


FEW = (0, 1, 2, 2, 3, 4, 6, 9)


def faults(
    dice: Random,
    services: Sequence[str],
    steps: int,
    counts: Sequence[int] = FEW,
    kept: Sequence[str] = (),
) -> list[Item]:
    """Draw what goes wrong: most histories have a few faults, some have many.

    Parameters
    ----------
    kept : services whose database is not deleted.
    """
    found, wipeable = [], [name for name in services if name not in kept]
    for _ in range(dice.choice(counts)):
        at, service = dice.randrange(steps), dice.choice(services)
        what = dice.choice(
            ["kill"] * 8
            + ["redeliver"] * 3
            + ["duplicate"] * 3
            + ["poison"] * 2
            + ["freeze"] * 2
            + ["broker_away", "database_away", "store_away", "endless_store_away"]
            + ["wipe"] * 2
        )
        args: tuple[Any, ...]
        match what:
            case "kill":
                args = (service, dice.randrange(FUSE_STEPS), dice.randrange(30))
            case "redeliver":
                args = (service, dice.randint(1, 6))
            case "duplicate" | "poison":
                args = (dice.randrange(10**6),)
            case "freeze":
                args = (service, dice.randrange(2), dice.randint(5, 150))
            case "database_away":
                args = (service, dice.randint(3, 40))
            case "wipe":
                args = (dice.choice(wipeable),)
            case _:
                args = (dice.randint(3, 60),)
        found.append(Item(at, what, args))
    return found


def policy(seed: int) -> Scenario:
    """Draw a history of decisions: trainer, registry and deployer are real."""
    dice = Random(f"policy/{seed}")
    steps = dice.choice([60, 150, 300])
    automation = dice.choice(["full", "approve", "approve", "advise"])
    items = [Item(0, "data", (2000,))]
    items += [
        Item(dice.randrange(steps), "data", (dice.randint(50, 1500),))
        for _ in range(dice.randint(1, 5))
    ]
    inputs = ["drift"] * 4 + ["retrain"] * 2 + ["storm", "cancel", "rollback"]
    inputs += ["steer", "audit", "audit"]
    for _ in range(dice.randint(1, 7)):
        what = dice.choice(inputs)
        items.append(Item(dice.randrange(steps), what, (dice.randrange(10**6),)))
    services = ("trainer", "registry", "deployer")
    items += faults(dice, services, steps)
    options = {
        "automation": automation,
        "people": dice.choice([1, 1, 2]),
        "cooldown_days": dice.choice([0, 0, 3]),
        "steps": dice.choice([[], [0.5]]),
        "watch_rows": dice.choice([0, 20]),
        "strategy": dice.choice(["shadow_then_canary", "canary", "blue_green"]),
    }
    return Scenario("policy", seed, options, tuple(sorted(items, key=lambda i: i.at)))
