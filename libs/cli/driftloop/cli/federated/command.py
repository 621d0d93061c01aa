"""``driftloop federated``: open rounds, and join them as a site."""

from pathlib import Path
from typing import Annotated

import typer
from driftloop.cli.context import connect
from driftloop.cli.federated import work
from driftloop.cli.options import HOME, Home, Json, console, print_json
from driftloop.contracts.events import FederatedUpdateSubmitted

federated_app = typer.Typer(
    help="One model from rows of several sites that stay where they are.",
    no_args_is_help=True,
)
Pipeline = Annotated[str, typer.Argument(help="Pipeline's name.")]


@federated_app.command("open")
def open_rounds(
    pipeline: Pipeline,
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")],
    sites: Annotated[
        int, typer.Option(min=2, help="A round closes when so many have sent.")
    ],
    by: Annotated[str, typer.Option(help="Who asks.", envvar="USER")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why.")],
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help=f"One more rule, KEY=VALUE: {', '.join(work.SETTABLE)}."
        ),
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Ask sites to train together; each takes part by: driftloop federated join."""
    rules, target_range = work.rules_of(rounds, sites, more or [])
    wish = work.Wish(by, reason, *target_range)
    opened = work.open_rounds(connect(home), pipeline, rules, wish)
    if as_json:
        print_json(opened.model_dump(mode="json"))
    else:
        console().print(
            f"{pipeline}: round 1 of {rounds} is open until "
            f"{opened.deadline:%Y-%m-%d %H:%M} UTC for {sites} sites",
            soft_wrap=True,
        )


@federated_app.command()
def join(
    pipeline: Pipeline,
    file: Annotated[
        Path, typer.Argument(help="The site's rows: CSV, Parquet or NDJSON.")
    ],
    site: Annotated[str, typer.Option(help="The site's name.")],
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Leave after so many; default: when all are over."),
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Train here on a file's rows, round by round, and publish the updates only."""

    def show(said: work.Said) -> None:
        if isinstance(said, FederatedUpdateSubmitted):
            text = f"round {said.round}: update sent, from {said.row_count:,} rows"
        else:
            text = f"round {said.round} was the last: {said.outcome}; {said.detail}"
        console(as_json).print(text, soft_wrap=True)

    sent = work.join(connect(home), pipeline, site, file, rounds, show)
    if as_json:
        print_json([update.model_dump(mode="json") for update in sent])
