"""The guides show files as they are, and their pipeline files are valid."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs/guides"
PUBLISHERS = ROOT / "examples/publishers"
PROGRAMS = (
    "python/publish.py",
    "java/src/main/java/Publish.java",
    "go/main.go",
    "node/publish.js",
    "curl/publish.sh",
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def shows(page: str, program: str) -> bool:
    return any(block == program for block in blocks(page, r"\w+"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_page_shows_each_program_as_it_is(name: str) -> None:
    """Negative control: another byte is found."""
    page = (GUIDES / "publishers.md").read_text("utf-8")
    program = (PUBLISHERS / name).read_text("utf-8")
    assert shows(page, program)
    assert not shows(page, program.replace("ndjson", "json", 1))
