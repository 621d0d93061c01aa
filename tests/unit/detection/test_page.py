"""The page's example does what it says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs/detection.md"


def test_the_example_finds_the_change() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - it is our own page
    (change,) = names["changes"]  # type: ignore[misc]
    assert abs(change.since - 5_000) <= 50
    assert change.since < change.at < 5_150
