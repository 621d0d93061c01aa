"""One run of the demo's data for all tests here: every service is killed once.

Fifteen months of the demo's data with its staged fault, and a kill -9 of each service
at a moment that the printed seed gives.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from driftloop.cli import data
from driftloop.cli.context import Installation
from driftloop.cli.demo.run import followed, settle
from driftloop.cli.demo.scenario import Board, Scenario
from driftloop.contracts.pipeline import load_pipeline
from driftloop.contracts.topics import SERVICES
from driftloop.local import stack

EXAMPLE = Path(__file__).parents[2] / "examples" / "bike-demand"
UNTIL = datetime(2012, 4, 1, tzinfo=UTC)
SPEED_DAYS_PER_S = 6.0


@dataclass
class Run:
    installation: Installation
    scenario: Scenario
    board: Board
    killed: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.time)


def kill_each(home: Path, run: Run, seed: int, stop: threading.Event) -> None:
    """Kill each service once, at a random share of the way."""
    rng = random.Random(seed)
    begin = run.scenario.parts[0].due
    for share, name in sorted((rng.uniform(0.05, 0.9), name) for name in SERVICES):
        moment = begin + share * (UNTIL - begin)
        while not stop.is_set():
            reached = run.board.validated_until
            if reached is not None and reached >= moment:
                break
            time.sleep(0.1)
        pid = stack.status(home)["processes"][name]["pid"]
        if pid and not stop.is_set():
            os.kill(pid, signal.SIGKILL)
            run.killed[name] = pid


@contextmanager
def loop(home: Path, installation: Installation) -> Iterator[Run]:
    """Run the demo's data through an installation, and follow its log."""
    seed = int(os.environ.get("DRIFTLOOP_TEST_SEED", time.time_ns() % 10**6))
    print(f"kill moments: DRIFTLOOP_TEST_SEED={seed}")  # noqa: T201 - to repeat a run
    spec = load_pipeline(EXAMPLE / "pipeline.yaml")
    data.apply(installation, EXAMPLE / "pipeline.yaml")
    scenario = Scenario.load(EXAMPLE, spec, UNTIL)
    result = Run(installation, scenario, Board(spec.name))
    stop = threading.Event()
    sender = data.publisher(installation)
    with followed(installation, result.board):
        killer = threading.Thread(target=kill_each, args=(home, result, seed, stop))
        killer.start()
        try:
            scenario.publish(
                sender, result.board, SPEED_DAYS_PER_S, lambda _: None, stop
            )
            settle(result.board, scenario)
        finally:
            stop.set()
            killer.join()
            sender.close()
        yield result
