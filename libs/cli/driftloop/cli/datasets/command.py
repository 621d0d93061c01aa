"""``driftloop datasets``: what the models learn from, version by version."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from driftloop.cli.context import CommandError, connect
from driftloop.cli.datasets import reports, upkeep, views, work
from driftloop.cli.options import HOME, Home, Json, console, print_json
from driftloop.contracts.scoring import LATEST

datasets_app = typer.Typer(
    help="What the models learn from, version by version.", no_args_is_help=True
)
Pipeline = Annotated[str, typer.Argument(help="Pipeline's name.")]
OLDER_THAN_DAYS = 14
"""Twice as long as rows are kept on their topics."""
VERSION_HELP = "730.365 (observations 730 with labels 365), 730, or latest."


@datasets_app.command("list")
def list_datasets(home: Home = HOME, as_json: Json = False) -> None:
    """List pipelines: versions, rows, labels, span, size."""
    lines = work.listed(connect(home))
    if as_json:
        print_json(lines)
    else:
        console().print(views.datasets_table(lines))


@datasets_app.command()
def show(
    pipeline: Pipeline,
    version: Annotated[str, typer.Option(help=VERSION_HELP)] = LATEST,
    every: Annotated[
        bool, typer.Option("--all", help="Every version, not only the newest.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Show a version's columns with their statistics, and the versions."""
    found = work.shown(connect(home), pipeline, version)
    if as_json:
        print_json(found)
    else:
        console().print(views.version_view(found, every))


@datasets_app.command()
def diff(
    pipeline: Pipeline,
    old: Annotated[str, typer.Argument(help=VERSION_HELP)],
    new: Annotated[str, typer.Argument(help=VERSION_HELP)] = LATEST,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Say what changed between two versions: rows, columns, distributions."""
    found = work.differing(connect(home), pipeline, old, new)
    if as_json:
        print_json(found)
    else:
        console().print(views.difference_view(found))


@datasets_app.command()
def export(
    pipeline: Pipeline,
    file: Annotated[
        Path, typer.Option("--output", "-o", help="A .parquet or .csv file.")
    ],
    version: Annotated[str, typer.Option(help=VERSION_HELP)] = LATEST,
    labels: Annotated[
        bool, typer.Option(help="Join each row with its newest label.")
    ] = True,
    known_at: Annotated[
        str | None,
        typer.Option(
            help="Only labels of this event time or earlier: 2012-01-01T00:00:00Z."
        ),
    ] = None,
    payloads: Annotated[
        Path | None,
        typer.Option(help="Also write what the rows refer to into this folder."),
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Write a version's rows to a file, as they were known at a moment."""
    horizon = None if known_at is None else parse_time(known_at)
    found = work.export(
        connect(home), pipeline, version, file, labels, horizon, payloads
    )
    if as_json:
        print_json(found)
    else:
        console().print(
            f"{found['rows']:,} rows ({found['labelled']:,} labelled) of "
            f"{pipeline} version {found['version']} in {file}",
            soft_wrap=True,
        )
        if (files := found["payloads"]) is not None:
            gone = len(files["missing"])
            lost = f", {gone:,} not stored any more" if gone else ""
            console().print(
                f"{files['written'] + files['already_there']:,} payloads in "
                f"{payloads}{lost}",
                soft_wrap=True,
            )


@datasets_app.command()
def report(
    pipeline: Pipeline,
    version: Annotated[str, typer.Option(help=VERSION_HELP)] = LATEST,
    against: Annotated[
        str | None, typer.Option(help="Also what changed since this version.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="Of a batch instead: an event's id, or newest."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .html or .json file.")
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Write a report of a dataset version or a batch, for people to read."""
    installation = connect(home)
    if batch is not None:
        found = reports.of_batch(installation, pipeline, batch)
    else:
        found = reports.of_version(installation, pipeline, version, against)
    if as_json:
        print_json(found)
    else:
        file = file or Path(f"{pipeline}-{found['kind']}.html")
    if file is not None:
        reports.write(found, file)
        console(as_json).print(f"{found['title']}: {file}", soft_wrap=True)


@datasets_app.command()
def maintain(
    pipeline: Pipeline,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Let old rows and files go now, by the pipeline's data.retention."""
    work_on = upkeep.dry_run if is_dry else upkeep.maintain
    found = work_on(connect(home), pipeline)
    if as_json:
        print_json(found)
    else:
        title = "a dry run of the upkeep" if is_dry else "upkeep"
        console().print(views.maintenance_view(found, title))


@datasets_app.command("prune-payloads")
def prune_payloads(
    pipeline: Pipeline,
    older_than_days: Annotated[
        float,
        typer.Option(
            min=0, help="Since the last upload; rows on their way need theirs."
        ),
    ] = OLDER_THAN_DAYS,
    dry_run: Annotated[bool, typer.Option(help="Only count.")] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Delete payloads that no row of the dataset refers to."""
    age = timedelta(days=older_than_days)
    found = work.prune(connect(home), pipeline, age, dry_run)
    if as_json:
        print_json(found)
    else:
        verb = "could go" if dry_run else "deleted"
        console().print(
            f"{found['unreferenced']:,} payloads {verb}, "
            f"{views.bytes_text(found['bytes'])}; rows refer to "
            f"{found['referenced']:,} others",
            soft_wrap=True,
        )


def parse_time(text: str) -> datetime:
    """Return a moment that a person wrote; UTC where no zone is said.

    Raises
    ------
    CommandError
        Shows how to write it.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            f"{text!r} is no time; write it as 2012-01-01T00:00:00Z"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
