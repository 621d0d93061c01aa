"""The local stack, as the command line shows it."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import driftloop.local.stack as local_stack
from driftloop.cli.options import plain_table
from driftloop.local.zipkin import Zipkin
from driftloop.local.zipkin import show as show_traces
from rich.console import Console
from rich.table import Table
from rich.text import Text


def up(
    home: Path,
    foreground: bool,
    scorers: int,
    console: Console,
    environments: Sequence[str] = (),
) -> None:
    """Start the stack, wait until every process is ready, and show where to look.

    Raises
    ------
    StackError
        When a process is not ready in time.
    """
    start(home, foreground, console, scorers, environments)
    if not foreground:
        show(local_stack.status(home), console)


def start(
    home: Path,
    foreground: bool,
    console: Console,
    scorers: int = 1,
    environments: Sequence[str] = (),
) -> None:
    """Start the stack and wait until every process is ready.

    Raises
    ------
    StackError
        When a process is not ready in time.
    """
    if local_stack.status(home)["state"] == "stopped":
        services = local_stack.with_scorers(scorers, environments)
        console.print(
            f"starting Kafka and {len(services)} services in {home}",
            style="dim",
            soft_wrap=True,
        )
    local_stack.up(
        home,
        foreground,
        scorers=scorers,
        environments=environments,
        progress=console.print,
    )


def down(home: Path, wipe: bool, console: Console) -> None:
    """Stop the stack; with ``wipe`` delete its state."""
    was = local_stack.status(home)["state"]
    local_stack.down(home, wipe)
    if was != "stopped":
        console.print(f"stopped{', state deleted' if wipe else ''}")


def status(home: Path) -> dict[str, Any]:
    """Return what runs."""
    return local_stack.status(home)


def links(home: Path) -> str:
    """Return where to look, with the console's login link."""
    report = local_stack.status(home)
    urls = report["urls"]
    token_file = Path(report["token_file"])
    token = token_file.read_text(encoding="utf-8").strip()
    before = [name for name in urls if name.startswith("scorer-")]
    return "\n".join(
        [
            f"console   {urls.get('console')}/?token={token}",
            f"registry  {urls.get('registry')}/docs",
            f"scorer    {urls.get('scorer')}/v2, gRPC at {urls.get('scorer (gRPC)')}",
            *(f"{name}  {urls[name]}/v2" for name in before),
            f"ingest    {urls.get('ingest')}/docs",
            f"token     {token_file} (readable by you alone)",
            f"broker    {report['broker']}",
        ]
    )


def show(report: dict[str, Any], console: Console) -> None:
    """Print each process, then where to look; addresses stay whole to be copied."""
    console.print(status_table(report))
    logs = Path(report["home"]) / "logs"
    console.print(f"\nlogs      {logs}/PROCESS.log", soft_wrap=True)
    if report["urls"]:
        console.print(links(Path(report["home"])), soft_wrap=True)


def status_table(report: dict[str, Any]) -> Table:
    """Return each process with its port, readiness and restarts."""
    table = plain_table(f"driftloop is {report['state']} in {report['home']}")
    table.add_column("process", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("port", "pid", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, process in report["processes"].items():
        ready = process.get("ready")
        restarts = process.get("restarts", 0)
        table.add_row(
            name,
            Text(
                "ready" if ready else str(process.get("state", "")),
                style="green" if ready else "yellow",
            ),
            str(process.get("port") or ""),
            str(process.get("pid") or ""),
            Text(str(restarts), style="yellow" if restarts else ""),
        )
    return table


def traces(home: Path, console: Console) -> None:
    """Show the home's traces in Zipkin until Ctrl-C.

    Raises
    ------
    StackError
        When there are none, or Zipkin does not come up.
    """
    console.print("starting Zipkin (131 MB to fetch, the first time)", style="dim")
    told = 0

    def say(zipkin: Zipkin, count: int) -> None:
        nonlocal told
        if told == 0:
            console.print(f"traces: {zipkin.url}/zipkin/   Ctrl-C ends it")
        if count != told:
            console.print(f"{count:,} spans", style="dim")
        told = count or told

    with suppress(KeyboardInterrupt):
        show_traces(home, Event(), say)
