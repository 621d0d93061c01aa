"""The commands below ``driftloop erasures``."""

from typing import Annotated

import typer
from driftloop.cli import personal
from driftloop.cli.context import CommandError, connect
from driftloop.cli.erasures import work
from driftloop.cli.options import HOME, By, Home, Json, Reason, console, print_json

erasures_app = typer.Typer(
    help="Erasures: proposed, confirmed, and the models that have seen the rows.",
    no_args_is_help=True,
)
ErasureId = Annotated[str, typer.Argument(help="As `erasures list` shows it.")]


@erasures_app.command()
def proposed(
    pipeline: Annotated[str, typer.Argument(help="Pipeline's name.")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """List erasures that were proposed, and whether they are confirmed."""
    found = personal.proposed(connect(home), pipeline)
    if as_json:
        print_json(found)
    else:
        console().print(personal.proposal_table(found))


@erasures_app.command()
def confirm(
    pipeline: Annotated[str, typer.Argument(help="Pipeline's name.")],
    proposal: Annotated[str, typer.Argument(help="As `erase` and `proposed` say it.")],
    reason: Reason,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Confirm an erasure that another person has proposed: it is done then."""
    answer = personal.confirm(connect(home), pipeline, proposal, by, reason)
    if as_json:
        print_json(answer)
    else:
        console().print(f"{pipeline}: erasure of {answer['subject']} requested")


@erasures_app.command("list")
def list_erasures(
    pipeline: Annotated[str | None, typer.Argument(help="Only this pipeline.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """List erasures and what they wait for."""
    found = work.erasures(connect(home), pipeline)
    if as_json:
        print_json(found)
    else:
        console().print(work.erasure_table(found))


@erasures_app.command()
def show(erasure_id: ErasureId, home: Home = HOME, as_json: Json = False) -> None:
    """Show what was destroyed, what it affects, and how that is settled."""
    found = work.erasure(connect(home), erasure_id)
    if as_json:
        print_json(found)
    else:
        console().print(work.erasure_view(found))


@erasures_app.command()
def settle(
    erasure_id: ErasureId,
    version: Annotated[
        list[int], typer.Option("--model", help="A model's version; may be repeated.")
    ],
    by: Annotated[str, typer.Option(help="Who decides.", envvar="USER")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why.")],
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train a model that takes its place.")
    ] = False,
    waive: Annotated[
        bool, typer.Option("--waive", help="It may stay as it is.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Say of models that they are trained anew, or may stay."""
    if retrain == waive:
        raise CommandError("say one of --retrain and --waive")
    decision = "retrain" if retrain else "waive"
    installation = connect(home)
    answer = work.settle(installation, erasure_id, version, decision, by, reason)
    if as_json:
        print_json(answer)
    elif "erasure_id" in answer:
        console().print(work.erasure_view(answer))
    else:
        console().print(f"{erasure_id}: {decision} is on its way")
