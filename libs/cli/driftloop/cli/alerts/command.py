"""The commands below ``driftloop alerts``."""

from enum import StrEnum
from typing import Annotated

import typer
from driftloop.cli.alerts import work
from driftloop.cli.context import CommandError, connect
from driftloop.cli.options import (
    HOME,
    By,
    Home,
    Json,
    Reason,
    console,
    print_answer,
    print_json,
)

alerts_app = typer.Typer(
    help="Alerts: what goes on, who looks after it, whom it was told.",
    no_args_is_help=True,
)
AlertId = Annotated[str, typer.Argument(help="As `alerts list` shows it.")]
Pipeline = Annotated[str, typer.Argument(help="Pipeline's name.")]
OnlyPipeline = Annotated[
    str | None, typer.Argument(help="Only this pipeline.", show_default=False)
]


class State(StrEnum):
    """Where an alert is."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    OVER = "over"


class Severity(StrEnum):
    """How bad it is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@alerts_app.command("list")
def list_alerts(
    pipeline: OnlyPipeline = None,
    states: Annotated[
        list[State] | None,
        typer.Option("--state", help="Only these; may be repeated."),
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """List alerts of the last 90 days, newest first."""
    found = work.alerts(connect(home), pipeline, [each.value for each in states or ()])
    if as_json:
        print_json(found)
    else:
        console().print(work.alert_table(found))


@alerts_app.command()
def show(alert: AlertId, home: Home = HOME, as_json: Json = False) -> None:
    """Show an alert: what to do, who looks after it, whom it was told."""
    found = work.alert(connect(home), alert)
    if as_json:
        print_json(found)
    else:
        console().print(work.alert_view(found))


@alerts_app.command()
def ack(
    alert: AlertId,
    note: Annotated[str, typer.Option("--note", "-m", help="What you do.")] = "",
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Look after an alert: nobody else is called, and it is not repeated."""
    answer = work.acknowledge(connect(home), alert, by, note)
    who = answer.get("acknowledged_by")
    text = f"{alert}: {who} looks after it" if who else f"{alert}: it is on its way"
    print_answer(answer, text, as_json)


@alerts_app.command()
def silence(
    pipeline: Pipeline,
    reason: Reason,
    condition: Annotated[
        str, typer.Option(help="Of alerts; * stands for any text.")
    ] = "*",
    severities: Annotated[
        list[Severity] | None,
        typer.Option("--severity", help="Only these; may be repeated."),
    ] = None,
    hours: Annotated[float, typer.Option(min=0.01, max=720, help="How long.")] = 4,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Let notices of some alerts wait: what goes on then is told then."""
    wanted = [each.value for each in severities or ()]
    answer = work.silence(connect(home), pipeline, condition, wanted, hours, by, reason)
    text = (
        f"{pipeline}: {answer['condition']} is silenced until {answer['until'][:16]}, "
        f"silence {answer['silence_id']}"
        if "silence_id" in answer
        else f"{pipeline}: the silence is on its way"
    )
    print_answer(answer, text, as_json)


@alerts_app.command()
def silences(
    pipeline: OnlyPipeline = None, home: Home = HOME, as_json: Json = False
) -> None:
    """List silences, newest first."""
    found = work.silences(connect(home), pipeline)
    if as_json:
        print_json(found)
    else:
        console().print(work.silence_table(found))


@alerts_app.command()
def unsilence(
    pipeline: Pipeline,
    silence_id: Annotated[str, typer.Argument(help="As `alerts silences` shows it.")],
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """End a silence: what waits and is not over is told now."""
    answer = work.unsilence(connect(home), pipeline, silence_id, by)
    print_answer(answer, f"{pipeline}: silence {silence_id} is over", as_json)


@alerts_app.command("test")
def try_channel(
    pipeline: Pipeline,
    channel: Annotated[str, typer.Argument(help="As the pipeline file names it.")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Send an example by a channel; exit 1 when its receiver does not take it."""
    answer = work.try_channel(connect(home), pipeline, channel)
    if answer["outcome"] != "delivered":
        raise CommandError(f"{channel} did not take it: {answer['detail']}")
    text = f"{channel} ({answer['kind']}) has it; look whether it arrived"
    print_answer(answer, text, as_json)
