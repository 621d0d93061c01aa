"""Links between the documents lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"```.*?```", re.DOTALL)


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page), re.MULTILINE)
    plain = (re.sub(r"[`*]", "", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def dead_links(path: Path) -> Iterator[str]:
    """Name relative links of a page whose file or heading does not exist."""
    for link in LINK.findall(FENCE.sub("", path.read_text("utf-8"))):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (
            anchor
            and target.suffix == ".md"
            and anchor not in anchors(target.read_text("utf-8"))
        ):
            yield link


def test_links_lead_somewhere(root: Path, tracked: list[Path]) -> None:
    """Every relative link of every page, headings included."""
    found = {
        path.relative_to(root).as_posix(): list(dead_links(path))
        for path in tracked
        if path.suffix == ".md"
    }
    assert {page: links for page, links in found.items() if links} == {}


def test_dead_links_are_found(tmp_path: Path) -> None:
    """Negative control: a file and a heading that are not there."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A `name`\n[here](#a-name) [no](#other) [nor](missing.md)\n"
        "```\n[code](nowhere.md)\n```\n",
        encoding="utf-8",
    )
    assert list(dead_links(page)) == ["#other", "missing.md"]


def test_alerts_have_a_runbook_entry(root: Path) -> None:
    """Whoever is woken up finds what to do."""
    rules = yaml.safe_load((root / "infra/prometheus/rules.yml").read_text("utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            name, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert anchor in anchors((root / name).read_text("utf-8")), rule["alert"]
