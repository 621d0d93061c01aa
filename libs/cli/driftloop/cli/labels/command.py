"""``driftloop labels``: rows that people should label, and their answers."""

from pathlib import Path
from typing import Annotated, Any

import typer
from driftloop.cli.context import connect
from driftloop.cli.data import applied
from driftloop.cli.labels import work
from driftloop.cli.options import HOME, Home, Json, console, plain_table, print_json
from rich.table import Table

SHOWN = 20
labels_app = typer.Typer(
    help="Rows whose labels would help most: which, and their answers.",
    no_args_is_help=True,
)
Pipeline = Annotated[str, typer.Argument(help="Pipeline's name.")]


@labels_app.command("wanted")
def list_wanted(
    pipeline: Pipeline,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Most rows; default: {SHOWN}, or all in a file."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="A CSV file to fill in, for: driftloop labels give."),
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """List the rows that people should label, the best first."""
    installation = connect(home)
    most = limit if limit or export or as_json else SHOWN
    found = work.wanted(installation, pipeline, most)
    if export is not None:
        count = work.export(found, applied(installation, pipeline), export)
        console(as_json).print(f"wrote {count} rows to {export}", soft_wrap=True)
    if as_json:
        print_json(found)
    elif export is None:
        console().print(wanted_table(found), soft_wrap=not found["items"])


@labels_app.command()
def give(
    pipeline: Pipeline,
    file: Annotated[Path, typer.Argument(help="The CSV file, with labels filled in.")],
    source: Annotated[
        str, typer.Option(help="Who labelled, as upstream systems are named.")
    ] = "labels",
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Send labels that were filled in; rows without one stay wanted."""
    installation = connect(home)
    spec = applied(installation, pipeline)
    report = work.give(installation, file, spec, source)
    if as_json:
        print_json(report)
    else:
        console().print(
            f"{pipeline}: {report['given']} labels given, "
            f"{report['left_empty']} rows left empty"
        )


def wanted_table(found: dict[str, Any]) -> Table:
    """Return the queue as a table."""
    rows, count = found["items"], found["waiting_count"]
    table = plain_table(f"{found['pipeline']}: {len(rows)} of {count} rows wanted")
    for name in ("row", "time", "score"):
        table.add_column(name, no_wrap=True)
    table.add_column("why", ratio=1)
    for row in rows:
        time = row["event_time"][:16].replace("T", " ")
        table.add_row(
            row["row_id"], time, f"{row['score']:.2f}", "; ".join(row["reasons"])
        )
    if not count:
        table.caption = (
            "no row waits for a label; see labelling.budget_rows in the pipeline file"
        )
    return table
