"""README.ja.md says what README.md says: it cannot fall behind unseen."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text("utf-8")
JAPANESE = (ROOT / "README.ja.md").read_text("utf-8")
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LANGUAGES = {"README.md", "README.ja.md"}


def commands(page: str) -> list[str]:
    """Return the code blocks without their comments, which are translated."""
    return [
        "\n".join(re.sub(r"\s+# .*", "", line) for line in block.splitlines())
        for block in FENCE.findall(page)
    ]


def tables(page: str) -> list[list[str]]:
    """Return each table row's figures and names, by cell."""
    lines = [line for line in FENCE.sub("", page).splitlines() if line.startswith("|")]
    return [
        [",".join(re.findall(r"`[^`]+`|\d[\d.,]*\d|\d", cell)) for cell in row]
        for row in (line.strip("|").split("|") for line in lines)
    ]


def differences(english: str, japanese: str) -> list[str]:
    """Name what two pages do not have in common."""
    parts = {
        "headings": lambda page: re.findall(r"^#+ ", FENCE.sub("", page), re.MULTILINE),
        "commands": commands,
        "tables": tables,
        "links": lambda page: Counter(
            set(re.findall(r"\]\(([^)\s]+)\)", page)) - LANGUAGES
        ),
        "names": lambda page: set(re.findall(r"`[^`\n]+`", FENCE.sub("", page))),
    }
    return [name for name, of in parts.items() if of(english) != of(japanese)]


def test_both_say_the_same() -> None:
    assert differences(ENGLISH, JAPANESE) == []
    assert "](README.ja.md)" in ENGLISH[:200]
    assert "](README.md)" in JAPANESE[:200]


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("headings", "\n### ", "\n## "),
        ("commands", "driftloop why", "driftloop who"),
        ("tables", "| 2.2 |", "| 2.3 |"),
        ("links", "(docs/quality.md)", "(docs/serving.md)"),
        ("names", "`make bench`", "`make benches`"),
    ],
)
def test_what_falls_behind_is_found(part: str, old: str, new: str) -> None:
    """Negative control: one change of the English page alone."""
    assert old in ENGLISH
    assert part in differences(ENGLISH.replace(old, new), JAPANESE)
