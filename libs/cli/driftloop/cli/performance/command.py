"""``driftloop performance``: how good a model is, also where labels are awaited."""

from typing import Annotated

import typer
from driftloop.cli.context import CommandError, connect
from driftloop.cli.log import read_log
from driftloop.cli.options import HOME, Home, Json, console, print_json
from driftloop.cli.performance.view import performance_of, performance_view
from driftloop.contracts.estimates import PerformanceEstimated, PerformanceSettled

TOPICS = [PerformanceEstimated.topic(), PerformanceSettled.topic()]


def performance(
    pipeline: Annotated[str, typer.Argument(help="Pipeline's name.")],
    newest: Annotated[
        int, typer.Option(min=1, max=1000, help="Windows to show, the newest.")
    ] = 20,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Show how good the model is: measured, and estimated where labels are awaited."""
    installation = connect(home)
    entries = read_log(installation.bootstrap, TOPICS, installation.store)
    events = [one.event for one in entries if one.event.pipeline == pipeline]
    found = performance_of(pipeline, events, newest)
    if found is None:
        raise CommandError(
            f"no window of {pipeline!r} has closed yet: it takes monitor.window_rows "
            "scored rows (driftloop watch shows what comes)"
        )
    if as_json:
        print_json(found.as_json())
    else:
        console().print(performance_view(found))
