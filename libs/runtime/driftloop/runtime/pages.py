"""What the HTML pages that stand alone have in common: their style and its policy."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Of a page that only shows: the style stands in it, nothing else is loaded."""


@cache
def style() -> str:
    """Return the style sheet to put into a page, light and dark."""
    return files("driftloop.runtime").joinpath("page.css").read_text("utf-8")


def template(
    package: str, name: str, **filters: Callable[..., Any]
) -> "jinja2.Template":
    """Return a page's template, which escapes what is put into it."""
    import jinja2  # not every service makes pages

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= filters
    return environment.from_string(files(package).joinpath(name).read_text("utf-8"))


def aligned(values: Sequence[float | None], figures: int = 4) -> list[str]:
    """Return the figures of one column with as many decimals each.

    Parameters
    ----------
    figures : that the largest of them has at least.

    >>> aligned([1.53, 0.9562, None]), aligned([12345.6, 7.0])
    (['1.530', '0.956', '-'], ['12,346', '7'])
    """
    known = [abs(value) for value in values if value is not None]
    top = max((value for value in known if math.isfinite(value)), default=0.0)
    before = math.floor(math.log10(top)) + 1 if top > 0 else 1
    decimals = max(0, figures - before)
    return ["-" if value is None else f"{value:,.{decimals}f}" for value in values]
