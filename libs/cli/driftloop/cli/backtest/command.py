"""``driftloop backtest``."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from driftloop.cli.backtest import child
from driftloop.cli.backtest.replay import replay_view, replayed
from driftloop.cli.backtest.views import report_view
from driftloop.cli.context import CommandError, connect
from driftloop.cli.options import HOME, Home, Json, console, print_json
from driftloop.contracts.pipeline import load_pipeline
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def backtest(
    pipeline: Annotated[
        Path | None, typer.Argument(help="The pipeline file; with --replay: a policy.")
    ] = None,
    more: Annotated[
        list[str] | None, typer.Argument(help="More policies.", metavar="[POLICY]...")
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="bike-demand@latest (or @730.365), a Delta table, a CSV or Parquet "
            "file.",
        ),
    ] = "",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="A policy file, never, always, every-5000 or oracle; repeatable."
        ),
    ] = None,
    bounds: Annotated[
        bool, typer.Option(help="Also never, always, every-N and the oracle.")
    ] = True,
    batch_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows of a batch. Default: as they came.")
    ] = None,
    batch_hours: Annotated[
        float | None, typer.Option(min=0.001, help="Or so many hours of event time.")
    ] = None,
    label_delay_hours: Annotated[
        float | None,
        typer.Option(min=0, help="From a row to its label. Default: as the data say."),
    ] = None,
    candidate: Annotated[
        list[str] | None,
        typer.Option(help="Train these instead of the pipeline's; repeatable."),
    ] = None,
    known_drift: Annotated[
        list[datetime] | None,
        typer.Option(
            "--known-drift",
            "--known-drifts",
            help="When the world changed (UTC); repeatable.",
        ),
    ] = None,
    oracle_trainings: Annotated[
        int, typer.Option(min=1, max=60, help="Moments at which the oracle may train.")
    ] = 12,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. Default: one a core.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Also write a page (x.html), or its chart (x.svg)."),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(help="Instead of data: this pipeline's decisions in the log."),
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Show what other policies would have come to on recorded data.

    Policies say when to train, on what, and what may go into service. The services' own
    code runs over the data in simulated time; nothing is published. With --replay the
    recorded events go through the trainer's policy again: which decisions would differ?
    """
    policies = [*(policy or []), *(more or [])]
    if replay is not None:
        extra = [] if pipeline is None else [str(pipeline)]
        _replay(replay, [*policies, *extra], home, as_json)
        return
    if pipeline is None:
        raise CommandError(
            "name the pipeline file: driftloop backtest pipeline.yaml --from "
            "bike-demand@latest --policy other.yaml"
        )
    if not source:
        raise CommandError(
            "say which recorded data: --from bike-demand@latest, a Delta table, or a "
            "CSV or Parquet file"
        )
    spec = load_pipeline(pipeline)
    asked = {
        "spec": spec.model_dump(mode="json", exclude_unset=True),
        "source": _source(source),
        "policies": [_named(name) for name in policies],
        "bounds": bounds,
        "candidates": candidate or [],
        "rhythm": {
            "batch_rows": batch_rows,
            "batch_hours": batch_hours,
            "label_delay_hours": label_delay_hours,
        },
        "known_drifts": [_utc(time).isoformat() for time in known_drift or []],
        "workers": workers or len(os.sched_getaffinity(0)),
        "oracle_trainings": oracle_trainings,
        "home": str(home.resolve()),
        "html": None if html is None else str(html.resolve()),
    }
    report = _shown(asked, home, as_json)
    if as_json:
        print_json(report)
        return
    out = console()
    out.print(report_view(report))
    if html is not None:
        out.print(f"the page: {html}", soft_wrap=True)


def _source(source: str) -> str:
    """Return a file or folder by its whole path, anything else as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def _named(policy: str) -> str:
    """Return a policy file by its whole path, the name of a bound as it is."""
    path = Path(policy)
    return str(path.resolve()) if path.suffix else policy


def _replay(pipeline: str, policies: list[str], home: Path, as_json: bool) -> None:
    answer = replayed(connect(home), pipeline, policies)
    if as_json:
        print_json(answer)
    else:
        console().print(replay_view(answer))


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _shown(asked: dict[str, Any], home: Path, as_json: bool) -> dict[str, Any]:
    """Run it, with a bar for each policy where somebody looks."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(compact=True),
        console=console(as_json=True),
        transient=True,
        disable=as_json,
    )
    tasks: dict[str, Any] = {}

    def progress(message: dict[str, Any]) -> None:
        name = message["policy"]
        if name not in tasks:
            tasks[name] = bar.add_task(name, total=1.0)
        bar.update(tasks[name], completed=message["done_ratio"])

    with bar:
        return child.ask(asked, home, progress)
