"""Options that every command has, and how answers are printed."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from driftloop.cli.context import default_home
from rich import box
from rich.console import Console
from rich.table import Table

Home = Annotated[
    Path,
    typer.Option("--home", help="State of the local stack.", envvar="DRIFTLOOP_HOME"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
HOME = default_home()
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why.")]
Environment = Annotated[
    str, typer.Option("--environment", help="In which it is meant.")
]
By = Annotated[
    str | None,
    typer.Option(
        help="Who; only with the installation's own token, which is nobody's. "
        "Default: you."
    ),
]


def console(as_json: bool = False) -> Console:
    """Return where people read; not stdout when a program reads that."""
    return Console(stderr=as_json, highlight=False)


def plain_table(title: str, **options: Any) -> Table:
    """Return a table without frames: what it shows has to fit into 80 columns."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
        **options,
    )


def print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_answer(answer: Any, text: str, as_json: bool) -> None:
    """Print what came of a command: for programs whole, for people in one line."""
    if as_json:
        print_json(answer)
    else:
        console().print(text)
