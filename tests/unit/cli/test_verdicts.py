"""``driftloop verdicts`` and ``driftloop overrule``, with a registry that answers."""

from __future__ import annotations

from typing import Any

import pytest
from driftloop.cli.context import CommandError
from driftloop.cli.verdicts import command, work

from tests.unit.cli import running

VERDICT = {
    "id": "8a4f0f0e-52a4", "since": "2012-03-01T05:00:00Z", "cause": "concept_drift",
    "confidence": 0.86, "features": {"temp": 1.0}, "sources": {"north": 0.7},
    "overrulings": [
        {"cause": "label_fault", "by": "ann", "reason": "the tool was updated"}
    ],
}  # fmt: skip
OTHER = VERDICT | {"id": "8a4f11", "overrulings": []}
REPORT = {
    "pipeline": "bikes", "verdicts": [VERDICT, OTHER], "prior": {"label_fault": 1.25},
    "causes": [
        {"cause": "concept_drift", "told": 2, "overruled": 1, "missed": 0,
         "precision": 0.5},
        {"cause": "label_fault", "told": 0, "overruled": 0, "missed": 1,
         "precision": 0.0},
    ],
}  # fmt: skip


class Registry:
    """Stands where the registry is."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, Any]]] = []

    def request(self, method: str, path: str, **options: Any) -> Any:
        if method == "GET":
            assert path == "/pipelines/bikes/verdicts"
            return REPORT
        self.posts.append((path, options["json"]))
        return VERDICT

    def speaker(self, by: str | None) -> str | None:
        return by


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry()
    monkeypatch.setattr(command, "connect", lambda _: found)
    return found


def test_a_verdict_shows_its_cause_how_sure_and_what_carries_it(
    registry: Registry,
) -> None:
    shown = running.run("verdicts", "bikes").output
    for words in ("concept drift", "86%", "temp 100%", "from north 70%", "ann",
                  "50%", "1.25"):  # fmt: skip
        assert words in shown


def test_an_overruling_names_one_verdict(registry: Registry) -> None:
    said = running.run(
        "overrule", "bikes/8a4f0", "--cause", "label-fault", "-m", "I saw it"
    )
    assert "it is label fault" in said.output
    assert registry.posts == [
        (
            "/pipelines/bikes/verdicts/8a4f0f0e-52a4/overrule",
            {"cause": "label_fault", "reason": "I saw it", "overruled_by": None},
        )
    ]


def test_a_fault_is_said_to_be_mended(registry: Registry) -> None:
    said = running.run(
        "overrule", "bikes/8a4f0", "--cause", "sensor-fault", "--mended", "-m", "again"
    )
    assert "it is sensor fault, and it is mended" in said.output
    [(_, body)] = registry.posts
    assert (body["cause"], body["mended"]) == ("sensor_fault", True)


@pytest.mark.parametrize(
    ("verdict", "cause", "words"),
    [
        ("bikes/8a4f", "label_fault", "2 verdicts begin with"),
        ("bikes/9", "label_fault", "no verdict"),
        ("bikes", "label_fault", "PIPELINE/ID"),
        ("bikes/8a4f0", "ghosts", "no cause"),
    ],
)
def test_what_names_nothing_is_refused(
    registry: Registry, verdict: str, cause: str, words: str
) -> None:
    with pytest.raises(CommandError, match=words):
        running.run("overrule", verdict, "--cause", cause, "-m", "x")
    assert registry.posts == []


def test_work_finds_a_verdict_by_its_beginning() -> None:
    assert work.named(REPORT, "8a4f1")["id"] == "8a4f11"
