"""``driftloop bom`` and ``driftloop reproduce``."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from driftloop.cli.context import CommandError, connect
from driftloop.cli.options import HOME, Home, Json, console, plain_table, print_json
from driftloop.cli.packages import work
from driftloop.cli.packages.comparison import Comparison
from driftloop.cli.why import UnknownModelError
from driftloop.contracts.events import PackageRef
from rich.console import Console
from rich.table import Table
from rich.text import Text

EXIT_DIFFERENT, EXIT_CANNOT = 1, 2
DIGITS = 12
STYLES = {"same": "green"}
Model = Annotated[
    str, typer.Argument(help="bike-demand (its champion) or bike-demand/3.")
]


def bom(
    model: Model,
    version: Annotated[
        int | None, typer.Option("--version", help="As bike-demand/3.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; default: stdout.")
    ] = None,
    home: Home = HOME,
) -> None:
    """Show what a version is made of: data, libraries, files (CycloneDX ML-BOM)."""
    content = work.bom(connect(home), model, version)
    if output is None:
        sys.stdout.write(content.decode() + "\n")
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error}") from error
    console().print(f"wrote {output}")


def reproduce(
    model: Model,
    at: Annotated[
        Path | None, typer.Option("--at", help="New folder that keeps the result.")
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Train a version again, as it was asked then, and compare the bytes.

    Nothing is registered. Exit code 0: the same; 1: different, with the reasons;
    2: it cannot be made again.
    """
    try:
        installation = connect(home)
        found = work.version_of(installation, model)
        ref = PackageRef.model_validate(found["package"])
        package = work.package_of(installation, ref)
        with console(True).status("loading the trainer") as shown:

            def progress(message: dict[str, Any]) -> None:
                shown.update(f"{message['step']} {message['detail']}")

            compared = work.reproduce(package, installation.home, progress, at)
    except (CommandError, UnknownModelError) as error:
        Console(stderr=True, highlight=False).print(
            f"[bold red]driftloop:[/] {error}", soft_wrap=True
        )
        raise typer.Exit(EXIT_CANNOT) from None
    if as_json:
        named = {"pipeline": found["pipeline"], "version": found["version"]}
        print_json(named | compared.as_json())
    else:
        _show(f"{found['pipeline']}/{found['version']}", compared, console())
    raise typer.Exit(0 if compared.is_same else EXIT_DIFFERENT)


def _show(model: str, compared: Comparison, to: Console) -> None:
    to.print(files_table(model, compared))
    if compared.is_same:
        to.print(f"{model} is reproduced: package {compared.found}", soft_wrap=True)
        return
    to.print(f"{model} is [bold red]not[/] reproduced:", soft_wrap=True)
    for reason in compared.reasons:
        to.print(f"  {reason}", soft_wrap=True, markup=False)


def files_table(model: str, compared: Comparison) -> Table:
    """Return the files of both packages as a table."""
    table = plain_table(f"{model}, file by file")
    for name in ("file", "state", "recorded", "found"):
        table.add_column(name, no_wrap=True)
    for file in compared.files:
        table.add_row(
            file.name,
            Text(file.state, style=STYLES.get(file.state, "bold red")),
            (file.recorded or "")[:DIGITS],
            (file.found or "")[:DIGITS],
        )
    return table
