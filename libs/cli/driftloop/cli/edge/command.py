"""``driftloop export`` and ``driftloop edges``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from driftloop.cli.context import connect
from driftloop.cli.edge import work
from driftloop.cli.options import HOME, Home, Json, console, plain_table, print_json
from rich.table import Table
from rich.text import Text


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="bike-demand/3, bike-demand (its champion) or bike-demand@previous."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="A new folder.")],
    container: Annotated[
        bool, typer.Option("--container", help="Also a Dockerfile.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also a version that is not approved.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option("--reason", "-m", help="Why, with --force.")
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Write a version as a folder that answers without any driftloop.

    It needs Python, ONNX Runtime and numpy; exported again, it is the same, bit by bit.
    """
    installation = connect(home)
    found = work.find_version(installation, model)
    forced = work.forced_of(found, force=force, reason=reason)
    origin = work.gather(installation, found, forced)
    written = work.write_export(origin, to, is_container=container)
    if as_json:
        print_json(asdict(written))
        return
    out = console()
    out.print(
        f"[bold]{written.pipeline}/{written.version}[/] in {written.folder}: "
        f"{written.file_count} files, {written.size_bytes / 1e6:.1f} MB",
        soft_wrap=True,
    )
    for note in written.notes:
        out.print(f"  {note}", soft_wrap=True, markup=False)
    out.print(
        f"its digest, for DRIFTLOOP_EDGE_DIGEST: {written.digest}\n"
        f"its signer, for --signer: {written.signer}\n"
        f"next: {written.folder}/README.md",
        soft_wrap=True,
    )


def edges(
    pipeline: Annotated[str | None, typer.Argument(help="Only this pipeline.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """List runners of exported versions, and what they told when home was in reach."""
    found = work.edges(connect(home), pipeline)
    if as_json:
        print_json(found)
        return
    out = console()
    if not found:
        out.print("no runner has reported yet; see docs/edge.md")
        return
    out.print(edge_table(found))
    for edge in found:
        if edge["problem"]:
            out.print(
                f"[bold red]{edge['edge']}[/]: {edge['pipeline']}/{edge['version']} "
                f"{edge['problem']}; export another version and start it there",
                soft_wrap=True,
            )


def edge_table(found: list[dict[str, Any]]) -> Table:
    """Return runners as a table."""
    table = plain_table("edges")
    for name in ("edge", "version", "last report"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "failed", "unfamiliar", "p99 ms", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    for edge in found:
        rows, last = edge["row_count"], edge["last"]
        p99 = last.get("latency_p99_seconds")
        table.add_row(
            edge["edge"],
            Text(
                f"{edge['pipeline']}/{edge['version']}",
                style="bold red" if edge["problem"] else "",
            ),
            edge["last_at"][:16].replace("T", " "),
            f"{rows:,}",
            f"{edge['error_count']:,}",
            f"{edge['unfamiliar_row_count'] / rows:.0%}" if rows else "",
            "" if p99 is None else f"{p99 * 1000:.2f}",
            f"{edge['lost_report_count']:,}",
        )
    return table
