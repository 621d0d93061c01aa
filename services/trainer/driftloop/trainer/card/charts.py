"""Small charts as inline SVG, in the colours of the page that they stand in.

Text in a chart is escaped; the classes ``candidate`` and ``champion`` are the page's.
"""

from collections.abc import Mapping, Sequence
from html import escape

WIDTH = 640
LABEL = 190
"""Width for the names at the left of bars."""
VALUE = 90
ROW = 26
PAIR_ROW = 38
MAX_NAME = 26
PLOT_WIDTH, PLOT_HEIGHT, EDGE = 300, 180, 34
MAX_TICKS = 6


def bars(rows: Mapping[str, Mapping[str, float]], label: str) -> str:
    """Return horizontal bars from 0, one or two a name, by role.

    >>> bars({"a": {"candidate": 1.0}}, "sizes").count("<rect")
    1
    """
    top = max((abs(v) for one in rows.values() for v in one.values()), default=0) or 1
    room, parts, y = WIDTH - LABEL - VALUE, [], 0
    for name, values in rows.items():
        height = PAIR_ROW if len(values) > 1 else ROW
        parts.append(_text(LABEL - 8, y + height / 2 + 4, name, "end"))
        thick = (height - 10) / len(values)
        for place, (role, value) in enumerate(values.items()):
            width, top_y = room * abs(value) / top, y + 5 + place * thick
            parts.append(
                f'<rect class="{role}" x="{LABEL}" y="{top_y:.1f}" '
                f'width="{width:.1f}" height="{thick - 1:.1f}"/>'
            )
            parts.append(
                _text(LABEL + width + 6, top_y + thick / 2 + 4, figure(value), "start")
            )
        y += height
    return _svg(WIDTH, y, label, parts)


def signed_bars(rows: Mapping[str, float], label: str) -> str:
    """Return horizontal bars to the left and right of 0.

    >>> bars = signed_bars({"a": -1.0, "b": 2.0}, "changes")
    >>> bars.count('class="less"'), bars.count('class="more"')
    (1, 1)
    """
    top = max((abs(v) for v in rows.values()), default=0) or 1
    half = (WIDTH - LABEL - 2 * VALUE) / 2
    zero, parts = LABEL + VALUE + half, []
    for place, (name, value) in enumerate(rows.items()):
        y, width = place * ROW, half * abs(value) / top
        start = zero if value >= 0 else zero - width
        anchor = "start" if value >= 0 else "end"
        at = zero + width + 6 if value >= 0 else zero - width - 6
        parts += [
            _text(LABEL - 8, y + ROW / 2 + 4, name, "end"),
            f'<rect class="{"more" if value >= 0 else "less"}" x="{start:.1f}" '
            f'y="{y + 4}" width="{width:.1f}" height="{ROW - 8}"/>',
            _text(at, y + ROW / 2 + 4, f"{value:+.3g}", anchor),
        ]
    height = len(rows) * ROW
    parts.append(f'<line class="axis" x1="{zero}" x2="{zero}" y1="0" y2="{height}"/>')
    return _svg(WIDTH, height, label, parts)


def lines(
    values: Sequence[float] | Sequence[str],
    means: Mapping[str, Sequence[float]],
    label: str,
) -> str:
    """Return one line a role over a feature's values; text is spaced evenly."""
    numbers = [v for v in values if isinstance(v, int | float)]
    xs = numbers if len(numbers) == len(values) else list(range(len(values)))
    points = [m for one in means.values() for m in one]
    across = _Scale(xs, EDGE + 14, PLOT_WIDTH - 8)
    down = _Scale(points, PLOT_HEIGHT - EDGE, 8)
    parts = _axes(points, down)
    for place in _ticks(len(xs)):
        name = values[place]
        text = name if isinstance(name, str) else figure(name)
        parts.append(_text(across(xs[place]), PLOT_HEIGHT - EDGE + 18, text, "middle"))
    for role in sorted(means, reverse=True):  # the candidate's line lies on top
        path = " ".join(
            f"{across(x):.1f},{down(y):.1f}"
            for x, y in zip(xs, means[role], strict=True)
        )
        parts.append(f'<polyline class="{role}" points="{path}"/>')
    return _svg(PLOT_WIDTH, PLOT_HEIGHT, label, parts, "chart plot")


def reliability(bins: Mapping[str, Sequence[Mapping[str, float]]], label: str) -> str:
    """Return what was said (across) against what was true (up), with the diagonal."""
    points = [b[k] for one in bins.values() for b in one for k in ("said", "true")]
    across = _Scale(points, EDGE + 14, PLOT_WIDTH - 8)
    down = _Scale(points, PLOT_HEIGHT - EDGE, 8)
    low, high = min(points), max(points)
    parts = _axes(points, down)
    parts += [
        f'<line class="axis" stroke-dasharray="4 4" x1="{across(low):.1f}" '
        f'y1="{down(low):.1f}" x2="{across(high):.1f}" y2="{down(high):.1f}"/>',
        _text(across(low), PLOT_HEIGHT - EDGE + 18, figure(low), "start"),
        _text(across(high), PLOT_HEIGHT - EDGE + 18, figure(high), "end"),
        _text(PLOT_WIDTH / 2 + 20, PLOT_HEIGHT - 2, "said; upward: true", "middle"),
    ]
    for role in sorted(bins, reverse=True):
        parts += [
            f'<circle class="{role}" cx="{across(b["said"]):.1f}" '
            f'cy="{down(b["true"]):.1f}" r="4"/>'
            for b in bins[role]
        ]
    return _svg(PLOT_WIDTH, PLOT_HEIGHT, label, parts, "chart plot")


def figure(value: float) -> str:
    """Return a number for people.

    >>> figure(0.0412345), figure(1234.5)
    ('0.0412', '1.23e+03')
    """
    return f"{value:.3g}"


class _Scale:
    """From a number to a place in the picture."""

    def __init__(self, numbers: Sequence[float], start: float, end: float) -> None:
        low, high = min(numbers), max(numbers)
        self._low, self._start = low, start
        self._step = (end - start) / ((high - low) or 1)

    def __call__(self, number: float) -> float:
        return self._start + (number - self._low) * self._step


def _axes(points: Sequence[float], down: _Scale) -> list[str]:
    bottom = PLOT_HEIGHT - EDGE + 4
    return [
        f'<line class="axis" x1="{EDGE + 10}" x2="{EDGE + 10}" y1="4" y2="{bottom}"/>',
        f'<line class="axis" x1="{EDGE + 10}" x2="{PLOT_WIDTH}" '
        f'y1="{bottom}" y2="{bottom}"/>',
        _text(EDGE + 5, down(max(points)) + 8, figure(max(points)), "end"),
        _text(EDGE + 5, down(min(points)), figure(min(points)), "end"),
    ]


def _ticks(count: int) -> list[int]:
    if count <= MAX_TICKS:
        return list(range(count))
    return [0, count // 2, count - 1]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    short = text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(short)}</text>'
    )


def _svg(
    width: float, height: float, label: str, parts: Sequence[str], kind: str = "chart"
) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
