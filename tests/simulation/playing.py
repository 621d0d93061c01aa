"""Plays histories by seed; a failing one is made smaller and told step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tests.simulation.chain import ChainWorld, chain
from tests.simulation.history import History
from tests.simulation.invariants import Violation, violations
from tests.simulation.policy import PolicyWorld
from tests.simulation.relay import RelayWorld, relay
from tests.simulation.scenario import Scenario, policy
from tests.simulation.world import World

MOST_TRIES = 80
"""Of making a scenario smaller."""
MOST_STEPS_TOLD = 120


@dataclass(frozen=True)
class Depth:
    """A world, and how its scenarios are drawn."""

    draw: Callable[[int], Scenario]
    build: Callable[[Scenario], World]


DEPTHS = {
    "relay": Depth(relay, RelayWorld),
    "policy": Depth(policy, PolicyWorld),
    "chain": Depth(chain, ChainWorld),
}


def play(scenario: Scenario) -> History:
    return DEPTHS[scenario.world].build(scenario).run()


def scenario_of(world: str, seed: int) -> Scenario:
    return DEPTHS[world].draw(seed)


def shrink(scenario: Scenario, still_fails: Callable[[Scenario], bool]) -> Scenario:
    """Return a scenario with fewer items that still fails; not the least one.

    Halves are left out first, then quarters, down to single items.
    """
    items, tries = scenario.items, 0
    size = max(1, len(items) // 2)
    while size and tries < MOST_TRIES:
        at = 0
        while at < len(items) and tries < MOST_TRIES:
            fewer = (*items[:at], *items[at + size :])
            tries += 1
            if still_fails(replace(scenario, items=fewer)):
                items = fewer
            else:
                at += size
        size //= 2
    return replace(scenario, items=items)


def broken_by(scenario: Scenario) -> frozenset[str]:
    """Return the names of the invariants that a scenario breaks."""
    return frozenset(found.invariant for found in violations(play(scenario)))


def report(scenario: Scenario, found: Sequence[Violation]) -> str:
    """Say what is wrong, how to have it again, and by which steps it comes about."""
    wrong = {each.invariant for each in found}
    small = shrink(scenario, lambda fewer: bool(broken_by(fewer) & wrong))
    history = play(small)
    shown = [each for each in violations(history) if each.invariant in wrong]
    told = history.told[-MOST_STEPS_TOLD:]
    lines = [
        *(f"  {each}" for each in found),
        f"again: pytest tests/simulation -k {scenario.world} --seed {scenario.seed}",
        f"smaller, {len(small.items)} of {len(scenario.items)} items, "
        f"{dict(small.options)}:",
        *(f"  {item}" for item in small.items),
        "breaks:",
        *(f"  {each}" for each in shown),
        "by:",
        *(
            [f"  … {len(history.told) - len(told)} steps before"]
            * (told != history.told)
        ),
        *(f"  {line}" for line in told),
    ]
    return "\n".join(lines)


def failure_of(world: str, seed: int) -> str | None:
    """Play one history; return the report of its failure, None: all is right."""
    scenario = scenario_of(world, seed)
    found = violations(play(scenario))
    return report(scenario, found) if found else None
