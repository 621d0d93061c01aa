"""About a thousand histories of the product's own code keep its promises.

``--seed N`` plays one again; ``make simulate`` plays others at random.
"""

from __future__ import annotations

import pytest

from tests.simulation.playing import failure_of, play, scenario_of

BLOCKS = {"relay": 50, "policy": 10, "chain": 3}
"""Of histories in a test: none takes long, also on a slow machine."""
COUNTS = {"relay": 900, "policy": 40, "chain": 9}
"""Of histories in the suite, by world: about a minute of a processor, all together."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "first_seed" not in metafunc.fixturenames:
        return
    seed = metafunc.config.getoption("seed", None)
    cases = [
        (world, first, BLOCKS[world])
        for world, count in COUNTS.items()
        for first in range(0, count, BLOCKS[world])
    ]
    if seed is not None:
        cases = [(world, seed, 1) for world in COUNTS]
    names = [f"{world}-{first}" for world, first, _ in cases]
    metafunc.parametrize(("world", "first_seed", "count"), cases, ids=names)


def test_invariants_hold(world: str, first_seed: int, count: int) -> None:
    for seed in range(first_seed, first_seed + count):
        failure = failure_of(world, seed)
        assert failure is None, f"{world} {seed}:\n{failure}"


@pytest.mark.parametrize("world", COUNTS)
def test_a_seed_gives_the_same_history_again(world: str) -> None:
    one, other = (play(scenario_of(world, 3)) for _ in range(2))
    assert one.told == other.told
    assert one.records == other.records
