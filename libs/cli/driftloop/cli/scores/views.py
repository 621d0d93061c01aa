"""Scored datasets for the terminal: a list, a bar, how to read the answers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from driftloop.cli.options import plain_table
from driftloop.cli.scores.work import Score
from driftloop.contracts.describe import duration
from driftloop.contracts.scoring import DatasetScored
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

STYLES = {
    "running": "cyan", "scored": "green", "failed": "bold red", "cancelled": "dim",
    "removed": "dim",
}  # fmt: skip


def scores_table(scores: list[tuple[Score, bool]]) -> Table:
    """Return a table; each with whether its answers are there."""
    table = plain_table("scored datasets, newest first")
    for name in ("job", "pipeline", "dataset", "by", "asked"):
        table.add_column(name, no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("what", ratio=1)
    for score, is_there in scores:
        is_gone = score.state == "scored" and not is_there
        state = "removed" if is_gone else score.state
        table.add_row(
            score.id[:8],
            score.pipeline,
            score.dataset,
            "champion" if score.version is None else f"v{score.version}",
            f"{score.asked_at:%Y-%m-%d %H:%M}",
            Text(state, style=STYLES.get(state, "")),
            _rows(score.end) if isinstance(score.end, DatasetScored) else score.what,
        )
    return table


def _rows(scored: DatasetScored) -> str:
    failed = f", {scored.error_count:,} without" if scored.error_count else ""
    return f"{scored.row_count:,} rows{failed}"


def ended(scored: DatasetScored) -> str:
    """Return where the answers are and how to read them."""
    notes = [
        f"{count:,} {what}"
        for count, what in (
            (scored.error_count, "without an answer"),
            (scored.unfamiliar_count, "with values that it has not learned from"),
        )
        if count
    ]
    noted = f" ({', '.join(notes)})" if notes else ""
    took = f"{duration(scored.duration_seconds)}, {scored.cpu_seconds:.1f} s of CPU"
    ref = scored.answers
    return (
        f"{scored.row_count:,} rows by {scored.pipeline}/{scored.version}{noted} in "
        f"{took}\n"
        f"answers: {ref.uri}\n"
        f'read them: polars.read_delta("{ref.uri}", version={ref.version}), or\n'
        f"           driftloop scores export {scored.job_id[:8]} -o answers.parquet"
    )


@contextmanager
def score_bar(console: Console) -> Iterator[Callable[[Score], None]]:
    """Give what shows a job, as a bar, while the block runs."""
    with Progress(
        BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"),
        console=console, transient=True, disable=not console.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task("waits for a scorer (driftloop status)", total=1.0)

        def show(score: Score) -> None:
            told = score.progress
            done = 1.0 if score.state == "scored" else told.done_ratio if told else 0.0
            # the bar tells the share already
            text = score.what.partition(" · ")[2] or score.what
            text = score.state if score.is_over else text
            progress.update(task, completed=done, description=text)

        yield show
