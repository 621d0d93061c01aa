"""``driftloop rebuild``: a service's database from the log alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from driftloop.cli.options import HOME, Home, Json, console, print_json
from driftloop.cli.rebuild.work import Tell
from driftloop.cli.rebuild.work import rebuild as rebuilt
from driftloop.contracts.describe import duration
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

EXIT_DIFFERS = 1


def rebuild(
    service: Annotated[str, typer.Argument(help="Whose database: registry.")],
    into: Annotated[
        str | None,
        typer.Option(help="URL of an empty database; default: a file beside."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the new one in the old one's place.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Build a database anew from the log, and compare it with the one there is."""
    with _bar(console(as_json)) as tell:
        report = rebuilt(home, service, into, replace, tell)
    if as_json:
        print_json(report)
    else:
        for line in told(report):
            console().print(line, soft_wrap=True)
    if report["differing"] and not report["replaced"]:
        raise typer.Exit(EXIT_DIFFERS)


def told(report: dict[str, Any]) -> Iterator[str]:
    """Say in words what came out."""
    took = duration(report["seconds"])
    yield f"{report['event_count']:,} events in {took}, state {report['state'][:16]}"
    differing = ", ".join(report["differing"])
    yield {
        "same": "the database there is holds the same",
        "differs": f"[bold red]the database there is holds something else[/] in "
        f"{differing}",
    }.get(report["compared"], f"not compared with a database: {report['compared']}")
    if report["left_count"]:
        yield f"the registry judges at its start: {report['left_count']} models"
    if report["replaced"]:
        yield f"replaced: {report['database']}"
        if report["kept"]:
            yield f"kept: {report['kept']}; delete it when nobody misses it"
    else:
        yield f"the new one: {report['database'] or 'the database named by --into'}"


@contextmanager
def _bar(to: Console) -> Iterator[Tell]:
    with Progress(
        TextColumn("reading the log"), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), console=to, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
