"""``driftloop verdicts``, ``driftloop overrule``: why, how sure, what people say."""

from typing import Annotated, Any

import typer
from driftloop.cli.context import CommandError, connect
from driftloop.cli.options import (
    HOME,
    By,
    Home,
    Json,
    Reason,
    console,
    plain_table,
    print_answer,
    print_json,
)
from driftloop.cli.verdicts import work
from driftloop.contracts.events import CAUSES
from rich.console import Group, RenderableType
from rich.text import Text

SHORT_ID = 8


def verdicts(
    pipeline: Annotated[str, typer.Argument(help="Pipeline's name.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Newest verdicts.")] = 20,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """List verdicts with cause, confidence and carriers, and how often they held."""
    report = work.read_verdicts(connect(home), pipeline, limit)
    if as_json:
        print_json(report)
    else:
        console().print(shown(report))


def overrule(
    verdict: Annotated[
        str, typer.Argument(help="PIPELINE/ID, or the id's beginning: bikes/8a4f0f.")
    ],
    cause: Annotated[str, typer.Option(help=f"One of {', '.join(CAUSES)}.")],
    reason: Reason,
    mended: Annotated[
        bool,
        typer.Option(
            "--mended",
            help="It is this fault, and its rows or labels are right again.",
        ),
    ] = False,
    by: By = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Say that a verdict's cause is another one; what follows from it changes."""
    wanted = cause.replace("-", "_").replace(" ", "_")
    if wanted not in CAUSES:
        raise CommandError(f"no cause {cause!r}; there are {', '.join(CAUSES)}")
    said = {"cause": wanted, "reason": reason} | ({"mended": True} if mended else {})
    answer = work.overrule(connect(home), verdict, said, by)
    words = wanted.replace("_", " ") + (", and it is mended" if mended else "")
    print_answer(answer, f"{verdict}: it is {words}", as_json)


def shown(report: dict[str, Any]) -> RenderableType:
    """Return the report for people."""
    table = plain_table(f"{report['pipeline']}: verdicts")
    for name in ("id", "since", "cause", "sure"):
        table.add_column(name, no_wrap=True)
    for name in ("carried by", "people said"):
        table.add_column(name, ratio=1)
    for one in report["verdicts"]:
        said = [
            f"{o['cause'].replace('_', ' ')} ({o['by']}: {o['reason']})"
            for o in one["overrulings"]
        ]
        sure = "" if one["confidence"] is None else f"{one['confidence']:.0%}"
        table.add_row(
            one["id"][:SHORT_ID],
            one["since"][:16].replace("T", " "),
            one["cause"].replace("_", " "),
            sure,
            carried(one),
            "; ".join(said),
        )
    causes = plain_table("how often they held, as far as people said")
    for name in ("cause", "told", "overruled", "missed", "right", "prior"):
        causes.add_column(name, no_wrap=True)
    for each in report["causes"]:
        factor = report["prior"].get(each["cause"], 1.0)
        causes.add_row(
            each["cause"].replace("_", " "),
            str(each["told"]),
            str(each["overruled"]),
            str(each["missed"]),
            f"{each['precision']:.0%}" if each["told"] else "",
            f"{factor:.2f}",
        )
    return Group(table, Text(), causes)


def carried(verdict: dict[str, Any]) -> str:
    """Return what carries a verdict, with its shares.

    >>> carried({"features": {"temp": 0.8, "hum": None}, "sources": {"north": 1.0}})
    'temp 80%, hum, from north 100%'
    """
    columns = [
        name if share is None else f"{name} {share:.0%}"
        for name, share in verdict["features"].items()
    ]
    sources = [f"from {name} {share:.0%}" for name, share in verdict["sources"].items()]
    return ", ".join([*columns, *sources])
