"""A running installation under faults: afterwards every invariant holds.

Everything comes from a seed: which fault, to whom, for how long. What happens between
the faults is not drawn, so a seed gives the same faults and not the same history.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import polars as pl
import pytest
from driftloop.cli import data
from driftloop.cli.context import connect
from driftloop.cli.demo.run import followed
from driftloop.cli.demo.scenario import Board, Scenario
from driftloop.contracts.events import ModelRegistered
from driftloop.contracts.pipeline import load_pipeline
from driftloop.contracts.topics import BY_NAME
from driftloop.local import stack
from rich.console import Console
from rich.table import Table

from tests.chaos.faults import FAULTS, Chaos, Done
from tests.chaos.real import history_of, records_of, wait_for_rest
from tests.simulation.history import History
from tests.simulation.invariants import CHECKS, violations
from tests.simulation.test_invariants import twice, without

EXAMPLE = Path(__file__).parents[2] / "examples" / "bike-demand"
FAULT_COUNT = int(os.environ.get("DRIFTLOOP_CHAOS_FAULTS", "6"))
SEEDS = int(os.environ.get("DRIFTLOOP_CHAOS_SEEDS", "1"))
FIRST_SEED = int(os.environ.get("DRIFTLOOP_CHAOS_FIRST", "1"))
MONTHS_A_FAULT = 0.5
FIRST_MONTHS = 3
SPEED_DAYS_PER_S = 6.0
PAUSE_S = (1.0, 6.0)
REPORTS = Path("build/chaos")

pytestmark = [pytest.mark.timeout(3600), pytest.mark.broker, pytest.mark.slow]


@dataclass
class Outcome:
    seed: int
    faults: list[Done]
    history: History


def until(faults: int) -> datetime:
    """Return up to when data are sent: more faults, more data."""
    months = int(FIRST_MONTHS + faults * MONTHS_A_FAULT)
    return datetime(2011 + months // 12, months % 12 + 1, 1, tzinfo=UTC)


def play(seed: int, home: Path) -> Outcome:
    """Send data through an installation while faults happen to it."""
    dice = random.Random(seed)
    stack.up(home)
    try:
        installation = connect(home)
        spec = load_pipeline(EXAMPLE / "pipeline.yaml")
        data.apply(installation, EXAMPLE / "pipeline.yaml")
        scenario = Scenario.load(EXAMPLE, spec, until(FAULT_COUNT))
        board, stop = Board(spec.name), threading.Event()
        chaos = Chaos(
            installation, spec.name, dice, lambda: records_of(installation, [*BY_NAME])
        )
        sender = data.publisher(installation)
        with followed(installation, board):
            publishing = threading.Thread(
                target=scenario.publish,
                args=(sender, board, SPEED_DAYS_PER_S, lambda _: None, stop),
            )
            publishing.start()
            try:
                for kind in drawn(dice, FAULT_COUNT):
                    time.sleep(dice.uniform(*PAUSE_S))
                    found = chaos.one(kind)
                    print(f"{found.kind} {found.target}: {found.recovered_s:.1f} s")  # noqa: T201
                publishing.join()
                is_quiet = wait_for_rest(home)
            finally:
                stop.set()
                publishing.join()
                sender.close()
        history = history_of(chaos, sent_rows(scenario), is_quiet=is_quiet)
        return Outcome(seed, chaos.done, history)
    finally:
        stack.down(home)


def drawn(dice: random.Random, count: int) -> Iterator[str]:
    """Return so many kinds of faults: each as often as the others, in any order."""
    while count > 0:
        kinds = sorted(FAULTS)
        dice.shuffle(kinds)
        yield from kinds[:count]
        count -= len(kinds)


def sent_rows(scenario: Scenario) -> dict[str, frozenset[str]]:
    column = scenario.spec.data.id
    return {
        kind: frozenset(
            pl.concat([p.rows[column] for p in scenario.parts if p.is_labels is labels])
        )
        for kind, labels in (("observations", False), ("labels", True))
    }


def report(outcome: Outcome, wrong: list[str]) -> None:
    """Print what was done and checked, and write it to a file."""
    times = sorted(done.recovered_s for done in outcome.faults)
    table = Table(title=f"chaos, seed {outcome.seed}")
    for name in ("fault", "times", "longest until all was ready, s"):
        table.add_column(name)
    for kind, count in sorted(Counter(d.kind for d in outcome.faults).items()):
        longest = max(d.recovered_s for d in outcome.faults if d.kind == kind)
        table.add_row(kind, str(count), f"{longest:.1f}")
    console = Console()
    console.print(table)
    records = sum(map(len, outcome.history.records.values()))
    console.print(
        f"{len(times)} faults; until all was ready: median {median(times):.1f} s, "
        f"longest {times[-1]:.1f} s; {records:,} records; "
        f"invariants {', '.join(CHECKS)}: {len(wrong)} violations"
    )
    REPORTS.mkdir(parents=True, exist_ok=True)
    content = {
        "seed": outcome.seed,
        "faults": [asdict(done) for done in outcome.faults],
        "records": records,
        "violations": wrong,
    }
    (REPORTS / f"{outcome.seed}.json").write_text(json.dumps(content, indent=1))


@pytest.mark.parametrize("number", range(SEEDS))
def test_invariants_hold_under_faults(number: int, tmp_path: Path) -> None:
    seed = FIRST_SEED + number
    print(f"again: make chaos FIRST={seed} SEEDS=1 FAULTS={FAULT_COUNT}")  # noqa: T201
    outcome = play(seed, tmp_path / "home")
    wrong = [str(found) for found in violations(outcome.history)]
    report(outcome, wrong)
    assert wrong == []
    assert len(outcome.faults) == FAULT_COUNT
    for spoilt in (without, twice):  # negative controls on this very history
        assert violations(spoilt(outcome.history, ModelRegistered))
