"""Writes docs/metrics.md, the list of all metrics, from where they are defined."""

import importlib
from collections.abc import Iterator
from pathlib import Path

from driftloop.contracts.topics import SERVICES
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

FILE = Path(__file__).parents[2] / "docs/metrics.md"
HEAD = """\
# Metrics

Written by `make dashboards` from where the metrics are defined; do not edit.

Each process answers `GET /metrics`, as OpenMetrics where that is asked for; then
latency histograms carry the trace of an example. Names end with their unit: `_seconds`,
`_bytes`, `_ratio` (0 to 1 and beyond), `_timestamp_seconds` (since 1970); counters end
with `_total`, and histograms have `_bucket`, `_sum` and `_count`. How they are looked
at: [operations.md](operations.md#dashboards-and-objectives).
"""
OF_ALL = "All services"
OF_THE_LOG = """\
Told by the console from all that the log keeps, so they are the same after a restart;
where there are several consoles, read one.
"""


def defined(module: str) -> Iterator[tuple[str, str, list[str], str]]:
    """Return name, type, labels and meaning of each metric of a module."""
    for value in vars(importlib.import_module(module)).values():
        if isinstance(value, MetricWrapperBase):
            (told,) = value.describe()
            yield from _lines([told], list(value._labelnames))


def _lines(
    metrics: list[Metric], labels: list[str]
) -> Iterator[tuple[str, str, list[str], str]]:
    for one in metrics:
        end = "_total" if one.type == "counter" else ""
        yield one.name + end, one.type, labels, one.documentation


def of_the_log() -> Iterator[tuple[str, str, list[str], str]]:
    from driftloop.console.metrics import Families

    for family in Families():
        yield from _lines([family], list(family._labelnames))  # type: ignore[attr-defined]


def table(found: Iterator[tuple[str, str, list[str], str]]) -> str:
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for name, kind, labels, meaning in sorted(found):
        marked = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {kind} | {marked} | {meaning} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the page."""
    parts = [HEAD, f"## {OF_ALL}\n", table(defined("driftloop.runtime.metrics"))]
    for service in SERVICES:
        if service == "console":
            parts += ["## The log\n", OF_THE_LOG, table(of_the_log())]
            continue
        try:
            found = list(defined(f"driftloop.{service}.metrics"))
        except ModuleNotFoundError:
            continue  # has only those of all
        parts += [f"## {service}\n", table(iter(found))]
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    FILE.write_text(page(), "utf-8")
    print(FILE)


if __name__ == "__main__":
    main()
