"""Trainings for the terminal: a list, one job, a bar."""

from collections.abc import Iterator
from contextlib import contextmanager

from driftloop.cli.jobs.work import Job
from driftloop.contracts.describe import describe, duration
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

STYLES = {"running": "cyan", "done": "green", "failed": "bold red", "cancelled": "dim"}


def jobs_table(jobs: list[Job]) -> Table:
    """Return jobs as a table."""
    table = Table(title="trainings, newest first", title_justify="left")
    for name in ("job", "pipeline", "state", "because of", "started"):
        table.add_column(name, no_wrap=True)
    table.add_column("what", ratio=1)
    for job in jobs:
        table.add_row(
            job.id[:8],
            job.pipeline,
            Text(job.state, style=STYLES[job.state]),
            job.reason.replace("_", " "),
            f"{job.started_at:%Y-%m-%d %H:%M:%S}",
            what_of(job),
        )
    return table


def what_of(job: Job) -> str:
    """Return how a job ended, or how far it is."""
    if job.is_over:
        return job.outcome
    return describe(job.progress) if job.progress else "waits for a trainer"


def job_table(job: Job) -> Table:
    """Return all that is known of one job."""
    table = Table(show_header=False, box=None)
    lines = {
        "job": job.id,
        "pipeline": job.pipeline,
        "state": job.state,
        "because of": job.reason.replace("_", " "),
        "started": f"{job.started_at:%Y-%m-%d %H:%M:%S}",
        "what": what_of(job),
    }
    if job.ended_at:
        took = (job.ended_at - job.started_at).total_seconds()
        lines["took"] = duration(took)
    if job.cpu_seconds is not None:
        lines["CPU"] = duration(job.cpu_seconds)
    for name, value in lines.items():
        table.add_row(Text(name, style="dim"), value)
    return table


class JobBar:
    """A bar that follows one job."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("waits for a trainer", total=1.0)

    def show(self, job: Job) -> None:
        done = 1.0 if job.is_over else job.progress.done_ratio if job.progress else 0.0
        text = job.state if job.is_over else what_of(job)
        self._progress.update(self._task, completed=done, description=text)


@contextmanager
def job_bar(console: Console) -> Iterator[JobBar]:
    """Show a bar while the block runs."""
    with Progress(
        BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"),
        console=console,
    ) as progress:  # fmt: skip
        yield JobBar(progress)
