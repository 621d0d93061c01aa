"""A backtest's report as one HTML page that stands alone; all data is escaped."""

from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from driftloop.runtime.pages import CONTENT_POLICY, aligned, style, template
from markupsafe import Markup

WIDTH, HEIGHT, HEAD, FOOT = 1000, 310, 26, 26
LANE = 18
"""Height of a policy's line of marks below the chart."""
EDGES = (80, 190)
"""Least and most width left of the chart, for the policies' names."""
LETTER = 6.5
TICKS = 5
MARKS = {
    "training": "train",
    "deployed": "serve",
    "taken_back": "back",
    "drift": "seen",
}
TOLD = 120
"""Characters of what a mark tells; the page's list has all."""
COLOURS = 8
"""That the style sheet has; more policies take them in turn."""


def write_page(report: dict[str, Any], path: Path) -> None:
    """Write the page, or its chart alone where the file is a ``.svg``.

    The file's folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = to_svg(report) if path.suffix == ".svg" else to_html(report)
    path.write_text(text, encoding="utf-8")


def to_html(report: dict[str, Any]) -> str:
    """Return a report (see :func:`report.report_of`) as a page."""
    return _template().render(
        report=report,
        bills=_bills(report["policies"]) if report["cost"] else [],
        cpu=aligned([line.get("cpu_seconds") for line in report["policies"]], 2),
        style=style(),
        chart_style=chart_style(),
        policy=CONTENT_POLICY,
        chart=Markup(chart(report)),  # noqa: S704 - the chart escapes its text
    )


def _bills(policies: list[dict[str, Any]]) -> list[list[str]]:
    """Return what each policy cost, by parts, with as many decimals everywhere."""
    parts = ("losses", "trainings", "rollouts", "total")
    told = aligned([line["bill"][part] for line in policies for part in parts], 3)
    return [told[at : at + len(parts)] for at in range(0, len(told), len(parts))]


def to_svg(report: dict[str, Any]) -> str:
    """Return the chart as a picture that stands alone."""
    drawn = chart(report)
    head, _, body = drawn.partition(">")
    return (
        f'{head} xmlns="http://www.w3.org/2000/svg">'
        f"<style>{chart_style()}</style>{body}"
    )


@cache
def chart_style() -> str:
    """Return the chart's style sheet, light and dark."""
    return files("driftloop.backtest").joinpath("chart.css").read_text("utf-8")


def chart(report: dict[str, Any]) -> str:
    """Return the loss over time as SVG: a line a policy, and a lane of its marks.

    Lines lie over bins of as many rows each; dashed lines are the changes.
    """
    policies, bins = report["policies"], report["bins"]
    values = sorted(v for p in policies for v in p["curve"])
    top = values[min(len(values) - 1, int(len(values) * 0.995))] or 1.0
    longest = max(len(policy["name"]) for policy in policies)
    edge = min(max(EDGES[0], LETTER * longest + 14), EDGES[1])
    down, across = HEIGHT - FOOT, (WIDTH - edge - 8) / max(1, len(bins) - 1)

    def x(place: float) -> float:
        return edge + place * across

    def y(value: float) -> float:
        return down - min(value / top, 1.04) * (down - HEAD)

    levels = (0.0, top / 2, top)
    parts = [
        f'<line class="axis" x1="{edge:.1f}" x2="{WIDTH - 8}" y1="{y(v):.1f}" '
        f'y2="{y(v):.1f}"/>' + _text(edge - 6, y(v) + 4, said, "end")
        for v, said in zip(levels, aligned(levels, 3), strict=True)
    ]
    parts.append(_text(edge, 12, f"{report['metric']}, lower is better", "start"))
    parts += [
        _text(x(place), down + 18, bins[place][:10], anchor)
        for place, anchor in _ticks(len(bins))
    ]
    foot = HEIGHT + LANE * len(policies)
    parts += [
        f'<line class="change" x1="{x(_place(bins, at)):.1f}" '
        f'x2="{x(_place(bins, at)):.1f}" y1="4" y2="{foot}">'
        f"<title>change, {escape(at[:16])}</title></line>"
        for at in report["changes"]
    ]
    for number, policy in enumerate(policies):
        points = " ".join(
            f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(policy["curve"])
        )
        colour = f"c{number % COLOURS}"
        parts.append(
            f'<polyline class="{colour}" points="{points}">'
            f"<title>{escape(policy['name'])}</title></polyline>"
        )
        lane = HEIGHT + LANE * number + LANE / 2
        parts.append(_text(edge - 6, lane + 4, policy["name"], "end", colour))
        parts += _lane(policy, bins, lane, colour, x)
    return (
        f'<svg class="curves" viewBox="0 0 {WIDTH} {foot + 4}" role="img" '
        f'aria-label="loss of each policy over time">{"".join(parts)}</svg>'
    )


def _lane(
    policy: dict[str, Any], bins: list[str], lane: float, colour: str, x: Any
) -> list[str]:
    parts = []
    for entry in policy["timeline"]:
        mark = MARKS.get(entry["what"])
        if mark is None:
            continue
        at = x(_place(bins, entry["at"]))
        faint = " faint" if not entry.get("advised", True) else ""
        title = escape(f"{entry['what']}, {entry['at'][:16]}: {entry['detail'][:TOLD]}")
        parts.append(
            f'<path class="{mark} {colour}{faint}" d="{_shape(mark, at, lane)}">'
            f"<title>{title}</title></path>"
        )
    return parts


def _shape(mark: str, x: float, y: float) -> str:
    """Return a bar for a training, a triangle up or down for service, a dot."""
    if mark == "train":
        return f"M{x - 1:.1f} {y - 6:.1f}h2v12h-2z"
    if mark == "serve":
        return f"M{x - 4:.1f} {y + 4:.1f}h8l-4 -8z"
    if mark == "back":
        return f"M{x - 4:.1f} {y - 4:.1f}h8l-4 8z"
    return f"M{x - 3:.1f} {y:.1f}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z"


def _place(bins: list[str], at: str) -> float:
    """Return the number of the bin that a moment is in, at its end the last one."""
    later = next((n for n, start in enumerate(bins) if start > at), len(bins))
    return max(0, later - 1)


def _ticks(count: int) -> list[tuple[int, str]]:
    """Return the bins whose dates are shown, and on which side of them."""
    places = sorted({round(n * (count - 1) / (TICKS - 1)) for n in range(TICKS)})
    ends = {0: "start", count - 1: "end" if count > 1 else "start"}
    return [(place, ends.get(place, "middle")) for place in places]


def _text(x: float, y: float, text: str, anchor: str, colour: str = "") -> str:
    kind = f' class="{colour}"' if colour else ""
    return (
        f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


@cache
def _template() -> jinja2.Template:
    return template(
        "driftloop.backtest", "page.html.j2", figure=figure, aligned=aligned, days=days
    )


def figure(value: Any) -> str:
    """Return a value for people.

    >>> figure(0.123456), figure(12345), figure(None)
    ('0.1235', '12,345', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


def days(delays: list[float | None]) -> str:
    """Return delays in days for people.

    >>> days([1.25, None])
    '1.2, missed'
    """
    return ", ".join("missed" if d is None else f"{d:.1f}" for d in delays) or "-"
