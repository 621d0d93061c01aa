"""``driftloop tokens``, ``driftloop me`` and ``driftloop verify``."""

import sys
from typing import Annotated, Any

import typer
from driftloop.cli.access import work
from driftloop.cli.context import connect
from driftloop.cli.options import (
    HOME,
    Home,
    Json,
    console,
    plain_table,
    print_answer,
    print_json,
)
from driftloop.contracts.roles import GRANTS
from rich.table import Table

BROKEN = 1
tokens_app = typer.Typer(
    help="Tokens of people and programs: who may do what.", no_args_is_help=True
)


@tokens_app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[
        list[str],
        typer.Option(
            "--role", "-r", help=f"ROLE or ROLE@PROJECT; roles: {', '.join(GRANTS)}."
        ),
    ],
    subject: Annotated[
        str | None,
        typer.Option(
            help="Who acts with it; all tokens of a person have the same. "
            "Default: the name."
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long it holds.")] = 365,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Make a token; it is shown this once."""
    made = work.create(connect(home), name, role, subject, days)
    if as_json:
        print_json(made)
        return
    console(as_json=True).print(
        f"{made['name']} ({made['token_id']}), {', '.join(made['roles'])}, until "
        f"{made['expires_at']:.10}; shown this once:",
        soft_wrap=True,
    )
    sys.stdout.write(f"{made['token']}\n")


@tokens_app.command("list")
def list_tokens(home: Home = HOME, as_json: Json = False) -> None:
    """List tokens, newest first, without their secrets."""
    found = work.tokens(connect(home))
    if as_json:
        print_json(found)
    else:
        console().print(_table(found), soft_wrap=not found)


@tokens_app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(help="As driftloop tokens list shows it.")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Take a token back; it proves nothing from now on."""
    answer = work.revoke(connect(home), token_id)
    print_answer(answer, f"{token_id} revoked", as_json)


def me(home: Home = HOME, as_json: Json = False) -> None:
    """Show who the token in use proves, and its roles."""
    found = work.me(connect(home))
    if as_json:
        print_json(found)
        return
    roles = "all rights" if found["is_operator"] else ", ".join(found["roles"])
    until = f", until {found['until']:.16}" if found["until"] else ""
    console().print(f"{found['subject']}: {roles or 'no role'}{until}")


def verify(home: Home = HOME, as_json: Json = False) -> None:
    """Check the audit trail: hashes, anchors, and that the log says the same."""
    found = work.verify(connect(home))
    if as_json:
        print_json(found)
    else:
        _show(found)
    if not found["whole"]:
        raise typer.Exit(BROKEN)


def _show(found: dict[str, Any]) -> None:
    out = console()
    counts = f"{found['entry_count']} entries, {found['anchor_count']} anchors"
    if found["whole"]:
        out.print(f"the audit trail is whole: {counts}")
        return
    out.print(f"the audit trail is [bold red]broken[/]: {counts}")
    for each in found["breaks"]:
        out.print(f"  entry {each['position']}: {each['kind']}: {each['detail']}")


def _table(tokens: list[dict[str, Any]]) -> Table:
    table = plain_table("tokens, newest first")
    for name in ("id", "name", "subject", "state"):
        table.add_column(name, no_wrap=True)
    table.add_column("roles", ratio=1)
    for token in tokens:
        state = (
            "revoked" if token["revoked_at"] else f"until {token['expires_at']!s:.10}"
        )
        if not token["revoked_at"] and not token["expires_at"]:
            state = "no end"
        table.add_row(
            token["token_id"],
            token["name"],
            token["subject"],
            state,
            ", ".join(token["roles"]),
        )
    return table
