"""Reports of dataset versions and batches, as JSON values and as one HTML file.

The file stands alone: no script, no font and no picture from anywhere. What comes from
the data is escaped.
"""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import polars as pl
from driftloop.contracts.events import BatchRejected, BatchValidated
from driftloop.contracts.schema import ColumnProfile
from driftloop.runtime.data.comparison import compare
from driftloop.runtime.data.profile import profiles_of
from driftloop.runtime.pages import style

TEMPLATE = "report.html.j2"
SHOWN_VALUES = 8

Report = dict[str, Any]


def dataset_report(
    pipeline: str,
    version: str,
    rows: pl.DataFrame,
    target: str,
    older: tuple[str, pl.DataFrame] | None = None,
) -> Report:
    """Return a version's statistics, and what changed since an older one.

    Parameters
    ----------
    rows : observations joined with their labels.
    older : name and rows of the version to compare with.
    """
    labelled = rows[target].drop_nulls().len() if target in rows.columns else 0
    report = {
        "title": f"{pipeline}, dataset version {version}",
        "kind": "dataset",
        "pipeline": pipeline,
        "version": version,
        "target": target,
        "facts": {
            "rows": rows.height,
            f"with {target}": labelled,
            "sources": rows["source"].n_unique(),
            **_span(rows),
        },
        "columns": _columns(rows),
    }
    if older is not None:
        name, before = older
        report["change"] = {"since": name, **asdict(compare(before, rows, target))}
    return report


def batch_report(
    validated: BatchValidated | None, rejected: BatchRejected | None
) -> Report:
    """Return what came in a batch, what was wrong with it, and its statistics.

    Parameters
    ----------
    validated, rejected : the two halves of one batch; at least one of them.
    """
    halves = [half for half in (validated, rejected) if half is not None]
    first = halves[0]
    good = validated.row_count if validated else 0
    bad = rejected.row_count if rejected else 0
    shown = pl.from_arrow(first.rows)
    assert isinstance(shown, pl.DataFrame)  # noqa: S101 - from_arrow of a batch
    warnings = [w for half in halves for w in getattr(half, "warnings", [])]
    return {
        "title": f"{first.pipeline}, batch of {first.span.start:%Y-%m-%d %H:%M}",
        "kind": "batch",
        "pipeline": first.pipeline,
        "batch": first.meta.causation_id,
        "facts": {
            "kind": first.kind,
            "source": first.shard,
            "rows": good + bad,
            "went on": good,
            "quarantined": bad,
            "from": f"{first.span.start:%Y-%m-%d %H:%M}",
            "to": f"{first.span.end:%Y-%m-%d %H:%M}",
        },
        "reasons": [r.model_dump(mode="json") for r in _reasons(rejected)],
        "warnings": [w.model_dump(mode="json") for w in warnings],
        "columns_of": "rows that went on" if validated else "quarantined rows",
        "columns": _columns(shown.drop("reason", strict=False)),
    }


def _reasons(rejected: BatchRejected | None) -> Sequence[Any]:
    return rejected.reasons if rejected else []


def _span(rows: pl.DataFrame) -> dict[str, str]:
    first, last = rows["event_time"].min(), rows["event_time"].max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return {}
    return {"from": f"{first:%Y-%m-%d %H:%M}", "to": f"{last:%Y-%m-%d %H:%M}"}


def _columns(rows: pl.DataFrame) -> dict[str, Any]:
    return {n: p.model_dump(mode="json") for n, p in profiles_of(rows).items()}


def to_html(report: Report) -> str:
    """Return a report as one HTML page."""
    profiles = {
        name: ColumnProfile.model_validate(column)
        for name, column in report["columns"].items()
    }
    return _template().render(
        report=report, profiles=profiles, shown_values=SHOWN_VALUES, style=style()
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"heights": heights, "figure": figure, "share": share}
    text = files("driftloop.runtime.data").joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(text)


def heights(histogram: Sequence[int]) -> list[float]:
    """Return bar heights, 0 to 1; a bar that is not empty can be seen.

    >>> heights([0, 1, 100])
    [0.0, 0.03, 1.0]
    """
    top = max(histogram, default=0)
    return [0.0 if not n else max(0.03, n / top) for n in histogram]


def figure(value: float) -> str:
    """Return a number for people: integers whole, others with four digits.

    >>> figure(12345), figure(0.123456), figure(2.0)
    ('12,345', '0.1235', '2')
    """
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def share(count: int, total: int) -> str:
    """Return a part in percent.

    >>> share(1, 3), share(0, 0)
    ('33.3 %', '0.0 %')
    """
    return f"{100 * count / total if total else 0:.1f} %"
