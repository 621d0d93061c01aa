"""Plays histories at random: ``python -m tests.simulation 20000``."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from functools import partial

import structlog

from tests.simulation.clock import simulated_time
from tests.simulation.playing import DEPTHS, failure_of

TELL_EVERY_S = 30.0
SHARES = {"relay": 15, "policy": 4, "chain": 1}
"""Of the worlds among the histories: a cheap one is played more often."""


say = partial(print, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("count", type=int, help="of histories")
    parser.add_argument("--world", choices=sorted(DEPTHS), help="this one alone")
    parser.add_argument("--first", type=int, help="seed to begin with")
    given = parser.parse_args()
    first = secrets.randbelow(10**9) if given.first is None else given.first
    worlds = [given.world] if given.world else [
        world for world, share in SHARES.items() for _ in range(share)
    ]  # fmt: skip
    say(f"{given.count} histories of {', '.join(dict.fromkeys(worlds))} from {first}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    failed, told_at = 0, time.monotonic()
    with simulated_time():
        for number in range(given.count):
            world, seed = worlds[number % len(worlds)], first + number
            failure = failure_of(world, seed)
            if failure is not None:
                failed += 1
                say(f"{world} {seed}:\n{failure}")
            if time.monotonic() - told_at > TELL_EVERY_S:
                told_at = time.monotonic()
                say(f"{number + 1} played, {failed} failed")
    say(f"{given.count} played, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
