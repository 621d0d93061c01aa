"""Dataset versions as tables for the terminal."""

from collections.abc import Sequence
from typing import Any

from driftloop.cli.options import plain_table
from driftloop.contracts.moments import moment_text
from driftloop.contracts.schema import ColumnProfile
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

BLOCKS = " ▁▂▃▄▅▆▇█"
NEWEST_VERSIONS = 12
FREQUENT_VALUES = 4
SIZE_STYLES = {
    "large": "bold red",
    "medium": "yellow",
    "small": "",
    "negligible": "dim",
}


def datasets_table(lines: Sequence[dict[str, Any]]) -> RenderableType:
    """Return the pipelines' datasets."""
    if not lines:
        return Text("no dataset yet; driftloop publish FILE --pipeline NAME")
    table = plain_table("datasets")
    for name in ("pipeline", "newest"):
        table.add_column(name, no_wrap=True)
    for name in ("rows", "labelled", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("event time", no_wrap=True)
    for line in lines:
        table.add_row(
            line["pipeline"],
            line["version"],
            f"{line['rows']:,}",
            f"{line['labelled']:,}",
            bytes_text(line["size_bytes"]),
            f"{line['start'][:10]} to {line['end'][:10]}",
        )
    return table


def bytes_text(count: int | None) -> str:
    """Return a size for people.

    >>> bytes_text(1536), bytes_text(None)
    ('1.5 KiB', '?')
    """
    if count is None:
        return "?"
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def version_view(found: dict[str, Any], every: bool) -> RenderableType:
    """Return a version's columns, then the versions that there are."""
    table = plain_table(
        f"{found['pipeline']} version {found['version']}: "
        f"{found['rows']:,} rows, {found['labelled']:,} with {found['target']}"
    )
    profiles = {
        name: ColumnProfile.model_validate(values)
        for name, values in found["columns"].items()
    }
    has_nulls = any(profile.null_count for profile in profiles.values())
    table.add_column("column", overflow="fold")
    table.add_column("type", no_wrap=True)
    if has_nulls:
        table.add_column("null", justify="right", no_wrap=True)
    table.add_column("distinct", justify="right", no_wrap=True)
    table.add_column("values")
    for name, profile in profiles.items():
        table.add_row(
            Text(name, style="bold" if name == found["target"] else ""),
            profile.type,
            *([f"{profile.null_ratio:.1%}"] if has_nulls else []),
            f"{profile.distinct_count:,}",
            values_text(profile),
        )
    if not has_nulls:
        table.caption = "no value is null"
    parts: list[RenderableType] = [
        table,
        Text(),
        history_table(found["history"], every),
    ]
    if found["maintained"]:
        parts += [Text(), maintenance_view(found["maintained"][-1], "last upkeep")]
    return Group(*parts)


def values_text(profile: ColumnProfile) -> Text:
    """Return where a column's values lie, in one line."""
    spread = profile.spread
    if profile.first is not None and profile.last is not None:
        return Text(f"{moment_text(profile.first)} to {moment_text(profile.last)}")
    if spread is not None and profile.type != "payload":
        line = Text(bars(spread.histogram), style="cyan")
        return line.append(
            f" {spread.min:.3g} to {spread.max:.3g}, mean {spread.mean:.3g} "
            f"± {spread.deviation:.2g}",
            style="default",
        )
    known = profile.row_count - profile.null_count
    parts = [f"{f.value} {f.count / known:.0%}" for f in profile.frequent]
    more = " …" if len(parts) > FREQUENT_VALUES else ""
    line = Text(", ".join(parts[:FREQUENT_VALUES]) + more)
    if spread is not None:
        smallest, largest = bytes_text(int(spread.min)), bytes_text(int(spread.max))
        line.append(f"; {smallest} to {largest}")
    return line


def bars(histogram: Sequence[int]) -> str:
    """Return a histogram in one line of blocks.

    >>> bars([0, 1, 8])
    ' ▁█'
    """
    top = max(histogram, default=0) or 1
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // top)] for count in histogram)


def history_table(versions: Sequence[dict[str, Any]], every: bool) -> Table:
    """Return the versions, newest first."""
    newest = list(reversed(versions))
    shown = newest if every else newest[:NEWEST_VERSIONS]
    hidden = len(newest) - len(shown)
    table = plain_table(
        "versions, newest first",
        caption=f"{hidden:,} older ones: --all" if hidden else None,
    )
    for name in ("version", "made"):
        table.add_column(name, no_wrap=True)
    for name in ("added", "rows", "labelled"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("until", no_wrap=True)
    table.add_column("models")
    for one in shown:
        kind = "rows" if one["kind"] == "observations" else one["kind"]
        table.add_row(
            one["version"],
            one["at"][:16].replace("T", " "),
            f"{one['added']:,} {kind}",
            f"{one['observations']:,}",
            f"{one['labels']:,}",
            one["end"][:10],
            ", ".join(f"v{model}" for model in one["models"])
            or ("" if one["is_kept"] else "not kept"),
            style="" if one["is_kept"] else "dim",
        )
    return table


VACUUMS = {
    "not_due": "files: not looked at, that is done once a day",
    "not_wanted": "files: all are kept (data.retention.keep_versions_days)",
    "references_unknown": "files: none went, trainings are still being read",
    "failed": "files: none went, the validator's log says why",
}


def maintenance_view(found: dict[str, Any], title: str) -> RenderableType:
    """Return what upkeep did, or would do, in a few lines."""
    lines: list[RenderableType] = [Text(f"{title} of {found['pipeline']}", "bold")]
    if found["cutoff"]:
        lines.append(Text(f"rows before {found['cutoff'][:10]} (UTC) go"))
    for kind in ("observations", "labels"):
        table = found[kind]
        if table is None:
            continue
        parts = [f"{kind}: {table['dropped_count']:,} rows"]
        if found["vacuum"] == "done":
            parts.append(
                f"{table['vacuumed_count']:,} files "
                f"({bytes_text(table['freed_bytes'])}) go"
            )
            kept = [*map(str, table["kept"]), f"all from {table['kept_from']} on"]
            parts.append(f"kept versions: {', '.join(kept)}")
        parts.append(f"{table['file_count']:,} files in version {table['version']}")
        lines.append(Text("; ".join(parts)))
    if found["vacuum"] in VACUUMS:
        lines.append(Text(VACUUMS[found["vacuum"]], style="dim"))
    return Group(*lines)


def difference_view(found: dict[str, Any]) -> RenderableType:
    """Return what changed between two versions, in words."""
    head = Text(f"{found['pipeline']}: ", style="bold")
    head.append(f"{found['old']} → {found['new']}")
    lines: list[RenderableType] = [head, Text(rows_text(found)), *columns_text(found)]
    if not found["shifts"]:
        return Group(*lines, Text("distributions: too few rows to compare"))
    table = plain_table(f"distributions, {found['compared']}")
    table.add_column("column", no_wrap=True)
    table.add_column("effect", justify="right", no_wrap=True)
    table.add_column("change")
    for shift in found["shifts"]:
        table.add_row(
            shift["column"],
            f"{shift['effect']:.2f}",
            Text(shift["text"], style=SIZE_STYLES[shift["size"]]),
        )
    table.caption = "Cohen's d of numbers, w of categories"
    return Group(*lines, table)


def rows_text(found: dict[str, Any]) -> str:
    """Return what became of the rows."""
    words = {
        "added": "added",
        "removed": "removed",
        "changed": "changed",
        "labelled": f"got their {found['target']}",
        "relabelled": f"with another {found['target']}",
    }
    parts = [f"{found[key]:,} {word}" for key, word in words.items() if found[key]]
    return f"rows: {', '.join(parts) or 'the same'}"


def columns_text(found: dict[str, Any]) -> list[RenderableType]:
    """Return what became of the columns."""
    parts = []
    if found["columns_added"]:
        parts.append(f"new {', '.join(found['columns_added'])}")
    if found["columns_removed"]:
        parts.append(f"gone {', '.join(found['columns_removed'])}")
    for name, (old, new) in found["columns_retyped"].items():
        parts.append(f"{name} was {old} and is {new}")
    return [Text(f"columns: {'; '.join(parts) or 'the same'}")]
