"""``driftloop score`` and ``driftloop scores``: whole datasets, by any version."""

from getpass import getuser
from pathlib import Path
from typing import Annotated, Any

import typer
from driftloop.cli.context import CommandError, connect
from driftloop.cli.options import HOME, Home, Json, console, print_json
from driftloop.cli.scores import views, work
from driftloop.contracts.scoring import LATEST, DatasetScored, ScoringFailed

scores_app = typer.Typer(
    help="Datasets that were scored as a whole.", no_args_is_help=True
)
EXIT_INTERRUPTED = 130
"""As a shell has it: 128 and the number of SIGINT."""
JobId = Annotated[str, typer.Argument(help="The job's id, or its beginning.")]
Asker = Annotated[str | None, typer.Option(help="Who asks. Default: you.")]


def score(
    pipeline: Annotated[str, typer.Argument(help="Pipeline's name.")],
    dataset: Annotated[
        str, typer.Option(help="730.365 (observations with labels), 730, or latest.")
    ] = LATEST,
    version: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of the model; it need not be in service. Default: the champion.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Stay, with a bar, until it ends.")] = True,
    by: Asker = None,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why.")] = "",
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Score each row of a dataset version; the answers become a table."""
    installation = connect(home)
    asked = work.request(
        installation, pipeline, dataset, version, by or getuser(), reason
    )
    if not wait:
        if as_json:
            print_json(asked.as_json())
        else:
            console().print(
                f"{pipeline}: dataset {asked.dataset} will be scored, job "
                f"{asked.id[:8]}; see: driftloop scores list {pipeline}",
                soft_wrap=True,
            )
        return
    try:
        with views.score_bar(console(as_json)) as show:
            found = work.follow(installation, asked.id, show)
    except KeyboardInterrupt:
        console(as_json).print(
            f"it goes on; see: driftloop scores list {pipeline}, or end it: driftloop "
            f"scores cancel {asked.id[:8]} --reason TEXT",
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    assert found is not None  # noqa: S101 - it was waited for without a limit
    if as_json:
        print_json(found.as_json())
    if isinstance(found.end, DatasetScored):
        if not as_json:
            console().print(views.ended(found.end), soft_wrap=True)
    elif isinstance(found.end, ScoringFailed):
        raise CommandError(f"{found.end.error}; {found.end.remedy}")
    else:
        raise CommandError(f"it was cancelled {found.what}")


@scores_app.command("list")
def list_scores(
    pipeline: Annotated[str | None, typer.Argument(help="Only this pipeline.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """List scored datasets, newest first, and those on their way."""
    installation = connect(home)
    found = [
        (
            one,
            isinstance(one.end, DatasetScored) and work.is_there(installation, one.end),
        )
        for one in work.read_scores(installation).newest_first(pipeline)
    ]
    if as_json:
        print_json([_json(one, is_there) for one, is_there in found])
    else:
        console().print(views.scores_table(found))


def _json(one: work.Score, is_there: bool) -> dict[str, Any]:
    return one.as_json() | {"is_there": is_there}


@scores_app.command()
def export(
    job: JobId,
    file: Annotated[
        Path, typer.Option("--output", "-o", help="A .parquet or .csv file.")
    ],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Write the answers to a file, by event time."""
    installation = connect(home)
    found = work.read_scores(installation).named(job)
    rows = work.export(installation, found, file)
    if as_json:
        print_json({"job_id": found.id, "file": str(file), "rows": rows})
    else:
        console().print(f"{rows:,} rows in {file}", soft_wrap=True)


@scores_app.command()
def cancel(
    job: JobId,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why.")],
    by: Asker = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """End one that waits or runs; the answers so far are removed."""
    installation = connect(home)
    found = work.read_scores(installation).named(job)
    ended = work.cancel(installation, found, by or getuser(), reason)
    if as_json:
        print_json(ended.as_json())
    else:
        console().print(f"{found.pipeline}: job {found.id[:8]} is cancelled")
