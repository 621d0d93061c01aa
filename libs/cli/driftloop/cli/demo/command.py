"""``driftloop demo``: a fresh stack, the scenario, the verdict."""

import time
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
from driftloop.cli import data, stack
from driftloop.cli.context import CommandError, connect
from driftloop.cli.demo.run import run_demo
from driftloop.cli.demo.scenario import DAY, LABEL_DELAY, SOURCE, Scenario
from driftloop.cli.publish import Pace, Part, plan, record_of, send, with_event_time
from driftloop.contracts.pipeline import PipelineSpec, load_pipeline
from driftloop.runtime.transport import Publisher, Record
from rich.console import Console

DEFAULT_FOLDER = Path("examples/bike-demand")
KEEP_DAYS_PER_S = 1.0


def demo_command(console: Console, home: Path, folder: Path, keep: bool) -> bool:
    """Run the demo on a fresh home; return whether it kept its promises.

    Raises
    ------
    CommandError, DemoError
        When the stack does not come up or the chain does not come to rest.
    """
    started = time.monotonic()
    spec = load_pipeline(folder / "pipeline.yaml")
    rows = folder / "rentals.csv"
    if not rows.exists():
        raise CommandError(f"{rows} is not there; name the example: --folder")
    stack.down(home, wipe=True, console=console)
    stack.start(home, foreground=False, console=console)
    links = stack.links(home)
    console.print(f"\n{links.partition(chr(10))[0]}\n", soft_wrap=True)
    installation = connect(home)
    sender = data.publisher(installation)
    try:
        data.apply(installation, folder / "pipeline.yaml")
        kept = run_demo(console, installation, sender, folder, spec, links=links)
        console.print(
            f"{'done' if kept else '[bold red]not as promised[/]'} "
            f"in {time.monotonic() - started:.0f} s"
        )
        if keep:
            keep_publishing(console, sender, folder, spec, home)
    finally:
        sender.close()
        if not keep:
            stack.down(home, wipe=False, console=console)
    return kept


def keep_publishing(
    console: Console,
    sender: Publisher,
    folder: Path,
    spec: PipelineSpec,
    home: Path,
) -> None:
    """Publish the same two years again and again, moved on in time, until Ctrl-C."""
    scenario = Scenario.load(folder, spec)
    timed = with_event_time(scenario.rows, spec)
    first: datetime = timed["due_at"][0]
    last: datetime = timed["due_at"][-1]
    length = timedelta(days=(last - first).days + 1)
    console.print("publishing on at one day a second; Ctrl-C ends it, the stack stays")
    try:
        for lap in range(1, 1000):
            moved = _moved(scenario.rows, spec, lap * length, lap)
            parts = list(plan(moved, spec, DAY, LABEL_DELAY))
            send(
                parts,
                partial(_record, pipeline=spec.name, lap=lap),
                sender,
                Pace(speed=KEEP_DAYS_PER_S * DAY.total_seconds()),
                _ignore,
            )
    except KeyboardInterrupt:
        console.print(
            f"stopped publishing; the stack is up: driftloop status --home {home}; "
            f"end it: driftloop down --home {home}",
            soft_wrap=True,
        )


def _record(part: Part, pipeline: str, lap: int) -> Record:
    return record_of(part, pipeline, SOURCE, f"demo+{lap}")


def _ignore(part: Part) -> None:
    del part


def _moved(
    rows: pl.DataFrame, spec: PipelineSpec, by: timedelta, lap: int
) -> pl.DataFrame:
    """Return the rows at a later time, with ids of their own."""
    timed = with_event_time(rows, spec)
    return timed.with_columns(
        (pl.col("due_at") + by).alias(spec.data.time),
        pl.concat_str(pl.col(spec.data.id), pl.lit(f"+{lap}")).alias(spec.data.id),
    ).drop("due_at")
