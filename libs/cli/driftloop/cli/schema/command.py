"""``driftloop schema``: what right data look like, proposed by the data."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from driftloop.cli.context import connect
from driftloop.cli.datasets.views import values_text
from driftloop.cli.options import HOME, Home, Json, console, plain_table, print_json
from driftloop.cli.schema import life, work
from driftloop.cli.schema.life import IN_FORCE, LATEST, Columns
from driftloop.contracts.pipeline import Feature, limit_text
from driftloop.contracts.schema import differences, features_of
from rich.table import Table
from rich.text import Text

schema_app = typer.Typer(
    help="What right data look like, proposed by the data.", no_args_is_help=True
)
Pipeline = Annotated[str, typer.Argument(help="Pipeline's name.")]
VERSION_HELP = f"A proposal's number, {IN_FORCE} or {LATEST}."


@schema_app.command()
def infer(
    file: Annotated[Path, typer.Argument(help="CSV, Parquet or NDJSON.")],
    target: Annotated[
        str | None, typer.Option(help="The column to predict; no feature.")
    ] = None,
    id_column: Annotated[str, typer.Option("--id", help="The id; no feature.")] = "id",
    time: Annotated[str, typer.Option(help="The time; no feature.")] = "event_time",
    as_json: Json = False,
) -> None:
    """Infer a schema from a file: lines for data.features of a pipeline file."""
    found = work.infer(file, {id_column, time, *([target] if target else [])})
    if as_json:
        print_json(work.columns_json(found))
        return
    console(as_json=True).print(columns_table(found, file.name))
    sys.stdout.write(life.features_yaml(features_of(found)))


@schema_app.command()
def show(
    pipeline: Pipeline,
    version: Annotated[str, typer.Option(help=VERSION_HELP)] = IN_FORCE,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="Print lines for a file, to be edited.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Show the schema in force, and what is proposed."""
    found = work.read_life(connect(home), pipeline)
    columns = found.columns(version)
    if as_json:
        print_json(work.life_json(found))
    elif as_yaml:
        sys.stdout.write(life.features_yaml(features_of(columns)))
    else:
        title = f"version {version}" if version != IN_FORCE else found.source
        console().print(columns_table(columns, f"{pipeline}: {title}"))
        console().print(pending_text(found), soft_wrap=True)


@schema_app.command()
def diff(
    pipeline: Pipeline,
    old: Annotated[str, typer.Argument(help=VERSION_HELP)] = IN_FORCE,
    new: Annotated[str, typer.Argument(help=VERSION_HELP)] = LATEST,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Say what is different between two versions, a line each."""
    found = work.read_life(connect(home), pipeline)
    before, after = found.columns(old), found.columns(new)
    lines = differences(features_of(before), features_of(after))
    if as_json:
        print_json({"pipeline": pipeline, "old": old, "new": new, "changes": lines})
    else:
        console().print("\n".join(lines) or "no difference", markup=False)


@schema_app.command()
def accept(
    pipeline: Pipeline,
    by: Annotated[str, typer.Option(help="Who decides.", envvar="USER")],
    version: Annotated[
        int | None, typer.Option(help="Which proposal; default: the newest.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="The proposal as you edited it: schema show --yaml."),
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Put a proposed schema into force."""
    before, number, columns = work.accept(connect(home), pipeline, version, file, by)
    features = features_of(columns)
    changes = differences(features_of(before.in_force), features)
    if as_json:
        print_json({"pipeline": pipeline, "version": number, "changes": changes})
        return
    console().print(f"{pipeline}: schema {number} is in force", *changes, sep="\n  ")
    if before.is_declared:
        console().print("the pipeline was applied with these; write them to its file:")
        sys.stdout.write(life.features_yaml(_touched(before.in_force, features)))


def _touched(before: Columns, after: dict[str, Feature]) -> dict[str, Feature]:
    was = features_of(before)
    return {name: f for name, f in after.items() if was.get(name) != f}


def columns_table(columns: Columns, title: str) -> Table:
    """Return a schema's columns with what they were inferred from."""
    table = plain_table(title)
    has_profiles = any(column.profile for column in columns.values())
    table.add_column("column", overflow="fold")
    table.add_column("type", no_wrap=True)
    for name in ("right values", *(["values that came"] if has_profiles else [])):
        table.add_column(name)
    for name, column in columns.items():
        profile = column.profile
        came = values_text(profile) if profile else Text()
        table.add_row(
            Text(name),
            column.feature.type,
            Text(rules_text(column.feature)),
            *([came] if has_profiles else []),
        )
    return table


def rules_text(feature: Feature) -> str:
    """Return a column's rules in words.

    >>> rules_text(Feature(min=0, max=1, nullable=True))
    '0 to 1, or none'
    """
    parts = []
    if feature.values is not None:
        parts.append(", ".join(map(str, feature.values)))
    elif feature.min is not None and feature.max is not None:
        parts.append(f"{limit_text(feature.min)} to {limit_text(feature.max)}")
    elif feature.min is not None:
        parts.append(f"at least {limit_text(feature.min)}")
    elif feature.max is not None:
        parts.append(f"at most {limit_text(feature.max)}")
    else:
        parts.append("any")
    return ", or ".join([*parts, *(["none"] if feature.nullable else [])])


def pending_text(found: life.Life) -> Text:
    """Return what waits for a person."""
    pending = found.pending
    if pending is None:
        return Text("nothing is proposed", style="dim")
    text = Text(f"schema {pending.version} is proposed", style="bold yellow")
    for change in pending.changes:
        text.append(f"\n  {change.column} {change.detail}", style="default")
    if not pending.changes:
        text.append(f", from the first {pending.row_count:,} rows", style="default")
    name = found.spec.name
    text.append(f"\ndriftloop schema diff {name}; driftloop schema accept {name}")
    return text
