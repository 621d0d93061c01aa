"""``driftloop cost``: what models take of processors and of storage."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from driftloop.cli.context import CommandError, connect
from driftloop.cli.cost.work import Cost, read_costs
from driftloop.cli.datasets.views import bytes_text
from driftloop.cli.options import HOME, Home, Json, console, plain_table, print_json
from rich.console import Group, RenderableType
from rich.text import Text


def cost(
    pipeline: Annotated[
        str | None, typer.Argument(help="Only this pipeline; default: all.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            help="Count only what happened from then on (UTC).",
        ),
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Show by version what trainings, answers and storage have taken."""
    begin = None if since is None else since.replace(tzinfo=UTC)
    found = read_costs(connect(home), pipeline, begin)
    if pipeline is not None and not found:
        raise CommandError(
            f"{pipeline!r} has cost nothing: no dataset and no model; its name is that "
            "in the pipeline file (driftloop models lists those with models)"
        )
    if as_json:
        print_json([one.as_json() for one in found])
    else:
        console().print(cost_view(found), soft_wrap=not found)


def cost_view(costs: list[Cost]) -> RenderableType:
    """Return costs for people."""
    if not costs:
        return Text("nothing has cost anything yet: no dataset and no model")
    return Group(*(part for one in costs for part in _parts(one)))


def _parts(cost: Cost) -> list[RenderableType]:
    table = plain_table(f"{cost.pipeline}: {cost.cpu_seconds:,.1f} s of CPU")
    for name in (
        "version",
        "training",
        "scoring",
        "stream",
        "asked",
        "jobs",
        "package",
    ):
        table.add_column(name, justify="right")
    for one in cost.versions:
        table.add_row(
            f"v{one.version}",
            f"{one.training_cpu_seconds:,.1f} s",
            f"{one.scoring_cpu_seconds:,.1f} s",
            f"{one.stream_rows:,}",
            f"{one.asked_rows:,}",
            f"{one.job_rows:,}",
            bytes_text(one.package_bytes),
        )
    lines = [
        f"dataset: {cost.dataset_rows:,} rows, {bytes_text(cost.dataset_bytes)}; "
        f"tables of answers: {bytes_text(cost.answers_bytes)}"
    ]
    if cost.failed_count:
        took = f"{cost.failed_cpu_seconds:,.1f} s of CPU"
        lines.append(f"trainings and jobs that failed: {cost.failed_count:,}, {took}")
    if cost.cancelled_count:
        lines.append(f"trainings cancelled: {cost.cancelled_count:,}, CPU not known")
    if cost.unregistered_cpu_seconds:
        lines.append(
            f"not registered yet: {cost.unregistered_cpu_seconds:,.1f} s of CPU"
        )
    if cost.rows_from:
        lines.append(
            f"rows of stream and requests: since {cost.rows_from:%Y-%m-%d %H:%M} UTC"
        )
    return [table, Text("\n".join(lines) + "\n")]
