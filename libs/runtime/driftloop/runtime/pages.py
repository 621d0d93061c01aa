"""What the HTML pages that stand alone have in common: their style and its policy."""

from functools import cache
from importlib.resources import files

CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Of a page that only shows: the style stands in it, nothing else is loaded."""


@cache
def style() -> str:
    """Return the style sheet to put into a page, light and dark."""
    return files("driftloop.runtime").joinpath("page.css").read_text("utf-8")
