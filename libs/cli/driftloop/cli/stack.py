"""The local stack, as the command line shows it."""

from pathlib import Path
from typing import Any

import driftloop.local.stack as local_stack
from rich.console import Console
from rich.table import Table
from rich.text import Text


def up(home: Path, foreground: bool, console: Console) -> None:
    """Start the stack and wait until every process is ready.

    Raises
    ------
    StackError
        When a process is not ready in time.
    """
    report = local_stack.up(home, foreground, progress=console.print)
    if not foreground:
        console.print(status_table(report))


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
    return "\n".join(
        [
            f"console   {urls.get('console')}/?token={token}",
            f"registry  {urls.get('registry')}/docs",
            f"scorer    {urls.get('scorer')}/v2",
            f"ingest    {urls.get('ingest')}/docs",
            f"token     {token_file} (readable by you alone)",
            f"broker    {report['broker']}",
        ]
    )


def status_table(report: dict[str, Any]) -> Table:
    """Return each process with its port, readiness, restarts; then the links."""
    table = Table(
        title=f"driftloop is {report['state']}   {report['home']}",
        title_justify="left",
        caption=links(Path(report["home"])) if report["urls"] else None,
        caption_justify="left",
    )
    for name in ("process", "state", "port", "pid", "restarts", "log"):
        table.add_column(name, overflow="fold")
    for name, process in report["processes"].items():
        ready = process.get("ready")
        table.add_row(
            name,
            Text(
                "ready" if ready else str(process.get("state", "")),
                style="green" if ready else "yellow",
            ),
            str(process.get("port") or ""),
            str(process.get("pid") or ""),
            str(process.get("restarts", 0)),
            str(process.get("log") or ""),
        )
    return table
