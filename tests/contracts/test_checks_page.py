"""The page of checks names every check with the severity that it has by default."""

import re
from pathlib import Path

from driftloop.contracts.checks import CHECKS, DEFAULT_CHECKS, kind_of

LINE = re.compile(r"^\| `(\w+)` \| .* \| ([\w-]+) \| `?(\w+)`? \|$", re.MULTILINE)
OF_COLUMNS = {
    "missing", "type", "null", "non_finite", "range", "values", "pattern", "duplicate",
    "payload",
}  # fmt: skip


def test_every_check_is_on_the_page(root: Path) -> None:
    lines = LINE.findall((root / "docs/checks.md").read_text("utf-8"))
    runs = {name: when for name, when, _ in lines}
    severities = {name: severity for name, _, severity in lines}
    kinds = {kind_of(check): check for check in CHECKS}
    assert set(runs) == OF_COLUMNS | set(kinds)
    by_default = {kind_of(type(check)) for check in DEFAULT_CHECKS}
    for name, check in kinds.items():
        assert severities[name] == check.model_fields["severity"].default, name
        assert runs[name] == ("always" if name in by_default else "listed"), name
    assert "skew" not in runs  # negative control
