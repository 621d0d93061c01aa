"""``driftloop jobs``: trainings, how far they are, and their end."""

from typing import Annotated

import typer
from driftloop.cli.context import CommandError, connect
from driftloop.cli.jobs import views, work
from driftloop.cli.options import HOME, Home, Json, console, print_json
from driftloop.contracts.events import TrainingCancelRefused

jobs_app = typer.Typer(help="Trainings: list, follow, cancel.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="The job's id, or its beginning.")]


@jobs_app.command("list")
def list_jobs(
    pipeline: Annotated[str | None, typer.Argument(help="Only this pipeline.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """List trainings, newest first."""
    jobs = work.read_jobs(connect(home)).newest_first(pipeline)
    if as_json:
        print_json([job.as_json() for job in jobs])
    else:
        console().print(views.jobs_table(jobs))


@jobs_app.command()
def show(
    job: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, with a bar, until it ends.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Show one training: why, how far, how it ended."""
    installation = connect(home)
    found = work.read_jobs(installation).named(job)
    if follow and not found.is_over:
        with views.job_bar(console(as_json)) as bar:
            found = work.follow(installation, found.id, bar.show)
    if as_json:
        print_json(found.as_json())
    else:
        console().print(views.job_table(found))


@jobs_app.command()
def cancel(
    job: JobId,
    by: Annotated[str, typer.Option(help="Who asks.", envvar="USER")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why.")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """End a training that waits or runs; what it has learned is thrown away."""
    installation = connect(home)
    found = work.read_jobs(installation).named(job)
    answer = work.cancel(installation, found, by, reason)
    if as_json:
        print_json(answer.model_dump(mode="json"))
    if isinstance(answer, TrainingCancelRefused):
        raise CommandError(f"{found.id[:8]} was not cancelled: {answer.detail}")
    if not as_json:
        console().print(f"{found.pipeline}: job {found.id[:8]} is cancelled")
