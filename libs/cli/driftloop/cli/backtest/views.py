"""A backtest's report for a terminal: what to do, a table, curves with marks."""

from itertools import pairwise
from typing import Any

from driftloop.cli.options import plain_table
from driftloop.runtime.pages import aligned
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 60
MARKS = (("taken_back", "▼"), ("deployed", "▲"), ("training", "│"), ("drift", "·"))
"""What a place shows, the first of these that happened there."""


def report_view(report: dict[str, Any]) -> RenderableType:
    """Return the whole report."""
    best = report["recommendation"]
    head = Text(best["text"], style="bold" if best["is_clear"] else "bold yellow")
    parts: list[RenderableType] = [head, Text(), policies_table(report)]
    if report["cost"]:
        parts += [Text(), bill_table(report)]
    if report["changes"]:
        parts += [Text(), changes_table(report)]
    return Group(*parts, Text(), curves(report), _notes(report))


def policies_table(report: dict[str, Any]) -> Table:
    """Return a line a policy; the recommended one stands out."""
    start, end = report["start"][:10], report["end"][:10]
    table = plain_table(
        f"{report['pipeline']}, {start} to {end}: {report['compared_rows']:,} rows "
        "that all policies answered"
    )
    table.add_column("policy", overflow="fold")
    for name in (report["metric"], "trainings", "served", "refused", "back", "CPU s"):
        table.add_column(name, justify="right", no_wrap=True)
    losses = aligned([line["loss"] for line in report["policies"]])
    for line, loss in zip(report["policies"], losses, strict=True):
        style = "bold" if line["name"] == report["recommendation"]["policy"] else ""
        table.add_row(
            line["name"],
            loss,
            f"{line['trainings']:,}",
            *(
                "" if line.get(name) is None else f"{line[name]:,}"
                for name in ("deployed", "refused", "taken_back")
            ),
            f"{line['cpu_seconds']:.1f}" if "cpu_seconds" in line else "",
            style=style,
        )
    return table


def bill_table(report: dict[str, Any]) -> Table:
    """Return what each policy costs in the pipeline's unit."""
    unit = report["cost"]["unit"]
    table = plain_table(f"cost{f' in {unit}' if unit else ''}")
    table.add_column("policy", overflow="fold")
    parts = ("losses", "trainings", "rollouts", "total")
    for name in parts:
        table.add_column(name, justify="right", no_wrap=True)
    policies = report["policies"]
    told = iter(aligned([line["bill"][n] for line in policies for n in parts], 3))
    for line in policies:
        table.add_row(line["name"], *(next(told) for _ in parts))
    return table


def changes_table(report: dict[str, Any]) -> Table:
    """Return how soon each policy's monitor noticed the changes."""
    dates = ", ".join(at[:10] for at in report["changes"])
    table = plain_table(f"changes noticed: {dates}")
    table.add_column("policy", overflow="fold")
    table.add_column("days until the first verdict", overflow="fold")
    for name in ("missed", "repeats", "false alarms"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in report["policies"]:
        if line["kind"] == "oracle":
            continue
        delays = ", ".join(
            "missed" if d is None else f"{d:.1f}" for d in line["delays_days"]
        )
        counts = (line["missed"], line["repeats"], line["false_alarms"])
        table.add_row(line["name"], delays, *map(str, counts))
    return table


def curves(report: dict[str, Any]) -> Text:
    """Return each policy's loss over time as blocks, with its marks below."""
    text = Text(f"{report['metric']} over time; ", style="dim")
    text.append("│ training  ▲ in service  ▼ taken back  · verdict\n", style="dim")
    top = max(v for line in report["policies"] for v in line["curve"]) or 1.0
    width = max(len(line["name"]) for line in report["policies"])
    for line in report["policies"]:
        values = _resampled(line["curve"], CURVE_WIDTH)
        blocks = "".join(_block(value, top) for value in values)
        text.append(f"{line['name']:<{width}} ")
        text.append(blocks + "\n", style="cyan")
        text.append(" " * (width + 1) + _marks(line, report["bins"], len(values)))
        text.append("\n")
    return text


def _block(value: float, top: float) -> str:
    return BLOCKS[min(len(BLOCKS) - 1, int(value / top * len(BLOCKS)))]


def _resampled(values: list[float], count: int) -> list[float]:
    """Return at most ``count`` values, each the mean of its neighbours.

    >>> _resampled([1.0, 3.0, 5.0, 7.0], 2)
    [2.0, 6.0]
    """
    if len(values) <= count:
        return values
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _marks(line: dict[str, Any], bins: list[str], width: int) -> str:
    found: list[set[str]] = [set() for _ in range(width)]
    for entry in line["timeline"]:
        later = next((n for n, at in enumerate(bins) if at > entry["at"]), len(bins))
        place = max(0, later - 1) * width // len(bins)
        found[place].add(entry["what"])
    return "".join(
        next((mark for what, mark in MARKS if what in happened), " ")
        for happened in found
    )


def _notes(report: dict[str, Any]) -> Text:
    notes = []
    if report["candidates"]:
        names = ", ".join(report["candidates"])
        notes.append(f"trained instead of the pipeline's candidates: {names}")
    if report["refused_rows"]:
        notes.append(
            f"{report['refused_rows']:,} rows break the pipeline's contract and were "
            "left out"
        )
    oracle = next((p for p in report["policies"] if p["kind"] == "oracle"), None)
    if oracle and oracle["of"]:
        notes.append(f"the oracle found nothing better than {oracle['of']}'s course")
    notes.append(f"batches and labels: {report['came']}")
    notes.append(f"{report['rows']:,} rows in {report['elapsed_seconds']:g} s")
    return Text("\n".join(notes), style="dim")
