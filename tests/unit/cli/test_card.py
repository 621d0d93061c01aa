"""``driftloop card``: the words, and the file with the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from driftloop.cli import models
from driftloop.cli.context import CommandError
from driftloop.cli.why import UnknownModelError

CARD: dict[str, Any] = {
    "intended_use": {"primary": "Hourly demand."},
    "quantitative_analyses": {
        "comparison": "mae 1 against 2",
        "fit": {"detail": "good"},
    },
    "explanation": {"changes": ["More depends on temp."]},
    "ethical_considerations": ["No groups."],
    "caveats_and_recommendations": ["Mind the gap."],
}


class Registry:
    """Answers with the path that it was asked for."""

    def fetch(self, method: str, path: str) -> httpx.Response:
        return httpx.Response(200, text=f"{method} {path}")

    def request(self, method: str, path: str) -> dict[str, Any]:
        return {"path": path}


@pytest.mark.parametrize("form", [".html", ".json"])
def test_the_files_name_says_the_form(tmp_path: Path, form: str) -> None:
    file = tmp_path / f"card{form}"
    models.write_card(Registry(), "bikes/3", file)
    assert file.read_text() == f"GET /models/bikes/versions/3/card{form}"


def test_other_forms_and_places_are_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"ends in \.html or \.json"):
        models.write_card(Registry(), "bikes/3", tmp_path / "card.pdf")
    with pytest.raises(CommandError, match="cannot write"):
        models.write_card(Registry(), "bikes/3", tmp_path / "no" / "card.html")


def test_a_version_has_to_be_named() -> None:
    with pytest.raises(UnknownModelError, match="bikes/3"):
        models.card(Registry(), "bikes")


def test_the_terminal_gets_words() -> None:
    assert models.card_text(CARD).splitlines() == [
        "Hourly demand.",
        "How good it is",
        "  mae 1 against 2",
        "  good",
        "What changed",
        "  More depends on temp.",
        "To mind",
        "  No groups.",
        "  Mind the gap.",
    ]
