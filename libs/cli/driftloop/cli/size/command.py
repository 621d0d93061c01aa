"""``driftloop size``: how many scorers a rate of requests needs, and how large."""

from typing import Annotated

import typer
from driftloop.cli.context import CommandError, connect
from driftloop.cli.options import HOME, Home, Json, console, print_json
from driftloop.cli.size import views, work
from driftloop.cli.size.sizing import Demand, TooSlow, size_for


def size(
    pipeline: Annotated[str, typer.Argument(help="Pipeline's name.")],
    rate: Annotated[
        float, typer.Option(min=0.001, help="Requests a second, of all scorers.")
    ],
    rows: Annotated[int, typer.Option(min=1, help="Of each request.")] = 1,
    within_ms: Annotated[
        float | None,
        typer.Option(min=0.001, help="That 99 of 100 answers may take. Default: any."),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Default: the champion.")
    ] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.05, max=0.95, help="Share of a processor to be used.")
    ] = 0.6,
    spare: Annotated[
        int, typer.Option(min=0, max=100, help="Scorers that may be away.")
    ] = 0,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Say how many scorers a rate of requests needs, and how much memory each."""
    within = None if within_ms is None else within_ms / 1000
    demand = Demand(rate, rows, within, utilisation, spare)
    number, known = work.measured(connect(home), pipeline, version, rows)
    try:
        found = size_for(demand, known)
    except TooSlow as error:
        raise CommandError(f"{pipeline}/{number}: {error}") from error
    if as_json:
        print_json(views.size_json(pipeline, number, demand, known, found))
    else:
        shown = views.size_view(pipeline, number, demand, known, found)
        console().print(shown, soft_wrap=True)
