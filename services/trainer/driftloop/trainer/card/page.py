"""The model card as one HTML page that stands alone."""

from functools import cache
from typing import Any

import jinja2
from driftloop.runtime.pages import style, template
from driftloop.trainer.card import charts
from markupsafe import Markup

SHOWN_FEATURES = 15
SHOWN_SLICES = 20
KINDS = {
    "noise": "noise of a tenth of each number's spread",
    "missing": "the worst feature is missing",
    "outliers": "the worst number is ten spreads off",
}


def to_html(card: dict[str, Any]) -> str:
    """Return a card (see :func:`content.card_of`) as a page; all data is escaped."""
    return _template().render(
        card=card, style=style(), pictures=_pictures(card), kinds=KINDS
    )


def _pictures(card: dict[str, Any]) -> dict[str, Any]:
    """Return the charts by name."""
    metrics, explained = card["metrics"], card["explanation"]
    analyses = card["quantitative_analyses"]
    losses = {"this model": {"candidate": metrics["candidate"]}}
    if metrics["champion"] is not None:
        name = f"champion v{metrics['champion_version']}"
        losses[name] = {"champion": metrics["champion"]}
    losses["no skill"] = {"none": metrics["no_skill"]}
    roles = explained["importance"]
    names = sorted(
        {n for one in roles.values() for n in one},
        key=lambda n: (-max(one.get(n, 0.0) for one in roles.values()), n),
    )[:SHOWN_FEATURES]
    importance = {n: {r: one[n] for r, one in roles.items() if n in one} for n in names}
    other = "champion" if metrics["champion"] is not None else "none"
    slices = {
        f"{s['column']} {s['value']}": {"candidate": s["candidate"], other: s["other"]}
        for s in analyses["slices"][:SHOWN_SLICES]
    }
    return {
        "losses": _chart(charts.bars(losses, "losses")),
        "importance": _chart(charts.bars(importance, "contributions of features")),
        "slices": _chart(charts.bars(slices, "losses by slice")),
        "reliability": _chart(
            charts.reliability(analyses["reliability"], "said against true")
        ),
        "curves": [
            (c["feature"], c["answer"], _chart(
                charts.lines(c["values"], c["means"], f"answer by {c['feature']}")))
            for c in explained["curves"]
        ],
        "rows": [
            (row, _chart(charts.signed_bars(_greatest(row["contributions"]), "row")))
            for row in explained["rows"]
        ],
    }  # fmt: skip


def _greatest(contributions: dict[str, float]) -> dict[str, float]:
    ranked = sorted(contributions.items(), key=lambda item: -abs(item[1]))
    return dict(ranked[:SHOWN_FEATURES])


def _chart(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704 - charts escape their text


@cache
def _template() -> jinja2.Template:
    return template(
        "driftloop.trainer.card", "card.html.j2", figure=figure, chance=chance
    )


def figure(value: Any) -> str:
    """Return a value for people.

    >>> figure(0.123456), figure(12345), figure(None), figure("text")
    ('0.1235', '12,345', '-', 'text')
    """
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def chance(p_value: float) -> str:
    """Return a p-value for people.

    >>> chance(0.0004), chance(0.0312)
    ('< 0.001', '0.031')
    """
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
